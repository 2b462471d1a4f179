"""Actions on many entries, as a server process uses them: chosen once, counted, applied, and each told of."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import EntryTakenError, MessageTooLargeError, QueueError, UnknownQueueError
from switchboard.message.naming import CLAIMED, PRESERVED, READY
from switchboard.operating.acts import (
    Act,
    ChosenEntry,
    Hold,
    Move,
    OperatorSession,
    Release,
    Remove,
    Restore,
    Result,
    Retry,
    apply,
    choose,
)
from switchboard.operating.audit import MAX_ACTS_BYTES, Operator, note_act, recent_acts
from switchboard.operating.editing import Editing
from switchboard.operating.selection import Selection
from switchboard.operating.spool_view import SpoolView
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.disk import Disk
from switchboard.store.layout import TRASH
from tests.helpers.commands import at_work, fail
from tests.helpers.processes import in_child


@pytest.fixture
def session(tmp_path: Path) -> OperatorSession:
    directory = tmp_path / 'spool'
    return OperatorSession(SpoolView(directory), Spool(directory, 'lazy'), Operator('ann', 'desk', 'because'))


def act_on(session: OperatorSession, act: Act, where: str) -> list[Result]:
    chosen = choose(session.view.select(Selection.parse(where)), act)
    return [apply(act, target, session) for target in chosen]


def leave_at_work(directory: Path, name: str) -> str:
    """:return: an entry whose process died while it worked on it."""

    def work() -> str:
        queue = Spool(directory, 'lazy')[name]
        queue.enqueue('x')
        return queue.take().filebase

    filebase: str = in_child(work)
    return filebase


@pytest.mark.parametrize('act', [Remove(), Remove(skips_trash=True), Move('out'), Hold()])
def test_what_a_dead_process_has_left_is_acted_on_though_nobody_has_recovered_it(
    session: OperatorSession, act: Act
) -> None:
    filebase = leave_at_work(session.view.directory, 'in')
    result = apply(act, ChosenEntry('in', filebase, CLAIMED), session)
    assert result.error is None
    assert session.spool['in'].get_files(CLAIMED) == []


def test_what_a_dead_process_has_left_is_edited_though_nobody_has_recovered_it(
    session: OperatorSession,
) -> None:
    filebase = leave_at_work(session.view.directory, 'in')
    with Editing(session.spool, 'in', filebase) as editing:
        assert editing.entry.body == b'x'
    assert session.spool['in'].take().msg == 'x'


def test_every_action_says_where_each_entry_is_and_who_it_was(session: OperatorSession) -> None:
    spool = session.spool
    for n in range(2):
        fail(spool, 'in', n)
    for act, where, queue in (
        (Remove(), 'queue:bad', 'trash'),
        (Restore(), 'queue:trash', 'bad'),
        (Retry(), 'queue:bad', 'in'),
        (Hold(), 'queue:in', 'in'),
        (Release(), 'queue:in state:held', 'in'),
        (Move('out'), 'queue:in', 'out'),
    ):
        results = act_on(session, act, where)
        assert [result.error for result in results] == [None, None], act
        for result in results:
            assert result.now is not None
            assert result.now.queue == queue
            record = session.unconfigured_spool[queue].history(result.now.filebase)[-1]
            assert (record['by'], record['via'], record['reason']) == ('ann', 'desk', 'because')
    assert [fields['act'] for fields in recent_acts(session.view.directory)][::2] == [
        *('mv', 'release', 'hold', 'retry', 'restore', 'rm')
    ]
    assert all(result.now is None for result in act_on(session, Remove(skips_trash=True), 'queue:out'))
    assert spool['out'].files == []


def test_of_two_operators_one_is_told_that_the_entry_is_gone(session: OperatorSession) -> None:
    fail(session.spool, 'in', 'x')
    [target] = choose(session.view.select(Selection.parse('queue:bad')), Retry())
    first, second = apply(Retry(), target, session), apply(Retry(), target, session)
    assert first.error is None
    assert isinstance(second.error, EntryTakenError)


class RemovingDisk(Disk):
    """Removes an entry's file in the instant before its next rename, as somebody else may."""

    is_armed = False

    def _remove(self, name: str, dir_fd: int) -> None:
        if self.is_armed and name.endswith((READY, PRESERVED)):
            self.unlink(name, dir_fd=dir_fd)

    def rename(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._remove(source, src_dir_fd)
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def rename_exclusive(self, source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        self._remove(source, src_dir_fd)
        super().rename_exclusive(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


@dataclass(frozen=True)
class Edit:
    """An edit, which is no act on many entries."""

    def __call__(self, session: OperatorSession, target: ChosenEntry) -> None:
        Editing(session.spool, target.queue, target.filebase)


@pytest.mark.parametrize(
    'act',
    [Remove(), Remove(skips_trash=True), Move('out'), Retry('out'), Hold(), Release(), Restore(), Edit()],
    ids=repr,
)
def test_an_entry_whose_file_goes_while_it_is_acted_on_is_gone(tmp_path: Path, act: Act | Edit) -> None:
    disk = RemovingDisk()
    spool = Spool(tmp_path, 'lazy', disk=disk)
    session = OperatorSession(SpoolView(tmp_path), spool, Operator('ann'))
    target = ChosenEntry('in', spool['in'].enqueue('x'), READY)
    before = {Release: Hold(), Restore: Remove()}.get(type(act))
    if before is not None and (where := before(session, target)) is not None:
        suffix = PRESERVED if where.queue == TRASH else READY
        target = ChosenEntry(where.queue, where.filebase, suffix, return_queue='in')
    disk.is_armed = True
    with pytest.raises(EntryTakenError, match='gone'):
        act(session, target)
    assert not [claim for claim in OWN_CLAIMS.values() if claim.folder.disk is disk]


def test_what_is_at_work_is_left_alone_and_does_not_stop_the_others(session: OperatorSession) -> None:
    spool = session.spool
    with at_work(spool, 'in', 'x') as busy:
        other = spool['in'].enqueue('y')
        results = act_on(session, Remove(), 'queue:in')
        assert {result.target.filebase: result.error is None for result in results} == {
            busy: False,
            other: True,
        }
        assert spool['in'].get_files('.bak') == [busy]


def test_a_place_that_is_not_there_is_each_entrys_error(session: OperatorSession, tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[queue.in]\n')
    session.spool['old'].enqueue('x')
    strict = Spool.from_config(config)
    narrow = OperatorSession(SpoolView(session.view.directory, strict.config), strict, Operator('ann'))
    (result,) = act_on(narrow, Move('nowhere'), 'queue:old')
    assert isinstance(result.error, UnknownQueueError)
    (result,) = act_on(narrow, Move('in'), 'queue:old')
    assert result.error is None, 'a queue whose section was removed can be emptied'


@pytest.mark.parametrize('limit', ['max_body = 100', 'max_bytes = 500'])
@pytest.mark.parametrize('act', [Move('small'), Retry('small'), Restore('small')])
def test_what_a_queue_could_never_hold_stays_where_it_is(tmp_path: Path, act: Act, limit: str) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(f'[switchboard]\nspool = spool\n[queue.in]\n[queue.small]\n{limit}\n')
    spool = Spool.from_config(config)
    session = OperatorSession(SpoolView(Path(spool.directory), spool.config), spool, Operator('ann'))
    filebase = spool['in'].enqueue(b'x' * 1000)
    where, queue = 'queue:in', spool['in']
    if isinstance(act, Restore):
        act_on(session, Remove(), where)
        where, queue = 'queue:trash', session.unconfigured_spool['trash']
    (result,) = act_on(session, act, where)
    assert isinstance(result.error, MessageTooLargeError)
    assert 'small' in str(result.error)
    assert queue.history(filebase) is not None
    fitting = spool['in'].enqueue(b'x')
    act_on(session, Move('small'), 'queue:in')
    assert spool['small'].files == [fitting]


def test_a_retry_of_what_never_failed_and_came_from_nowhere_asks_for_a_queue(
    session: OperatorSession,
) -> None:
    queue = session.spool['bad']
    filebase = session.spool['in'].enqueue('x')
    path = Path(session.spool.path('in', f'{filebase}.pck'))
    queue.folder.make()
    path.rename(session.spool.path('bad', f'{filebase}.psv'))
    (result,) = act_on(session, Retry(), 'queue:bad')
    assert isinstance(result.error, QueueError)
    assert 'name a queue' in str(result.error)
    (result,) = act_on(session, Retry(to='in'), 'queue:bad')
    assert result.now is not None


@pytest.mark.parametrize('to', ['bad', 'trash'])
def test_nothing_is_sent_to_where_nothing_is_taken_from(session: OperatorSession, to: str) -> None:
    filebase = fail(session.spool, 'in', 'x')
    (result,) = act_on(session, Retry(to=to), 'queue:bad')
    assert isinstance(result.error, QueueError)
    assert f'nothing is taken from {to}' in str(result.error)
    with pytest.raises(QueueError, match='nothing is taken'):
        Editing(session.spool, 'bad', filebase, to=to)
    (result,) = act_on(session, Retry(), 'queue:bad')
    assert result.error is None


def test_each_entry_is_opened_once_to_be_chosen(session: OperatorSession) -> None:
    for n in range(5):
        fail(session.spool, 'in', n)
    opened: list[str] = []

    class Counting(Disk):
        def open(self, path: str, *args: int, **keys: int) -> int:
            opened.append(str(path))
            return Disk.open(path, *args, **keys)

    folder = session.view.folder('bad')
    folder.disk = Counting()
    from switchboard.operating.selection import select

    for where in ('error:ValueError', ''):
        opened.clear()
        chosen = choose(
            select([('bad', folder)], Selection.parse(where), session.spool.clock.time_ns()), Retry()
        )
        assert {each.return_queue for each in chosen} == {'in'}
        assert sorted(path for path in opened if path.endswith('.psv')) == sorted(
            f'{each.filebase}.psv' for each in chosen
        )


def test_the_list_of_acts_is_bounded_and_the_newest_come_first(tmp_path: Path) -> None:
    (tmp_path / '.run').mkdir()
    operator = Operator('ann', reason='r' * 5000)
    for n in range(2 * MAX_ACTS_BYTES // 1000):
        note_act(tmp_path, operator, 'rm', 'in', str(n))
    sizes = [path.stat().st_size for path in (tmp_path / '.run').iterdir()]
    assert len(sizes) <= 2
    assert max(sizes) < MAX_ACTS_BYTES + 10_000
    acts = recent_acts(tmp_path, 2000)
    numbers = [int(each['entry']) for each in acts]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) == 2000
    assert len(acts[0]['reason']) == 1000


def test_acts_that_cannot_be_written_or_read_keep_nobody_from_acting(tmp_path: Path) -> None:
    note_act(tmp_path, Operator('ann'), 'rm', 'in', 'x')
    assert recent_acts(tmp_path) == []
    (tmp_path / '.run').mkdir()
    (tmp_path / '.run' / 'acts').write_text('[1]\nnonsense\n' + '[' * 100_000 + '\n{"act": "rm"}\n')
    assert recent_acts(tmp_path) == [{'act': 'rm'}]
