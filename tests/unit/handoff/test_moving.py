"""Moving an entry: one rename, its history with it, and where it came from known."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    DurabilityError,
    EntryTakenError,
    ForeignFileError,
    QueueError,
)
from switchboard.handoff.moving import claim_ready_or_preserved, move, require_origin_queue, send_back
from switchboard.message.naming import digest_of, one_ns_later
from switchboard.operating.acts import ChosenEntry, Move, OperatorSession, Retry
from switchboard.operating.audit import Operator
from switchboard.operating.editing import Editing
from switchboard.operating.spool_view import SpoolView
from switchboard.options import QueueOptions
from switchboard.store.claims import OWN_CLAIMS
from switchboard.testing.faults import FaultyDisk
from tests.helpers.configurations import load
from tests.helpers.processes import held_elsewhere


def fail(spool: Spool, msg: object = 'x') -> str:
    """Have an entry fail, and go to bad."""
    filebase = spool['in'].enqueue(msg)
    spool['in'].dequeue(filebase)
    spool['in'].annotate(filebase, {'event': 'failed'})
    spool['in'].finish(filebase, preserve=True, reason='no')
    return filebase


class TestClaiming:
    def test_ready_preserved_and_own_entries_can_be_had(self, spool: Spool) -> None:
        ready, preserved, own = spool['in'].enqueue('a'), fail(spool), spool['in'].enqueue('c')
        spool['in'].dequeue(own)
        for queue, filebase, suffix in (
            (spool['in'], ready, '.pck'),
            (spool['bad'], preserved, '.psv'),
            (spool['in'], own, '.bak'),
        ):
            claim = claim_ready_or_preserved(queue, filebase)
            assert (claim.filebase, claim.suffix) == (filebase, suffix)
            if suffix != '.bak':
                claim.close()

    def test_what_a_process_works_on_cannot(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        with (
            held_elsewhere(spool['in'], filebase),
            pytest.raises(EntryTakenError, match='is working on it'),
        ):
            claim_ready_or_preserved(spool['in'], filebase)

    def test_nor_can_what_is_no_file_and_its_queue_is_named(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        path = Path(spool['in'].queue_directory, f'{filebase}.pck')
        path.unlink()
        path.mkdir()
        for claim in (claim_ready_or_preserved, lambda queue, name: Editing(spool, queue.name, name)):
            with pytest.raises(ForeignFileError, match=f'^in/{re.escape(filebase)}: '):
                claim(spool['in'], filebase)

    def test_nor_can_what_is_not_there(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        with pytest.raises(EntryTakenError, match='no such entry'):
            claim_ready_or_preserved(spool['out'], filebase)


class TestMoving:
    def test_it_keeps_its_name_and_says_where_it_was(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x', n=1)
        assert move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['out']) == filebase
        assert (spool['in'].get_files(), spool['out'].files) == ([], [filebase])
        (record,) = spool['out'].history(filebase)
        assert (record['event'], record['queue'], record['to']) == ('moved', 'in', 'out')
        assert spool['out'].dequeue(filebase)[1]['n'] == 1
        assert require_origin_queue(spool['out'], filebase) == 'in'

    def test_now_puts_it_behind_what_waits(self, spool: Spool) -> None:
        old, waiting = spool['in'].enqueue('old'), spool['out'].enqueue('waiting')
        moved = move(claim_ready_or_preserved(spool['in'], old), spool['in'], spool['out'], now=True)
        assert digest_of(moved) == digest_of(old)
        assert spool['out'].files == [waiting, moved]

    def test_into_bad_it_is_preserved(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['bad'])
        assert spool['bad'].get_files('.psv') == [filebase]

    def test_where_there_is_one_of_that_name_it_gets_the_next_time(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        Path(spool['out'].queue_directory, f'{filebase}.pck').write_text('a copy')
        moved = move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['out'])
        assert moved == one_ns_later(filebase)
        assert spool['out'].dequeue(moved)[0] == 'x'

    def test_a_move_that_fails_ends_a_claim_of_its_own_but_not_that_of_a_runner(self, tmp_path: Path) -> None:
        disk = FaultyDisk(0, errno.EIO, calls=('renameat2',))
        spool = Spool(tmp_path, 'lazy', disk=disk)
        ready, at_work = spool['in'].enqueue('ready'), spool['in'].enqueue('at work')
        spool['in'].dequeue(at_work)
        for filebase in (ready, at_work):
            claim = claim_ready_or_preserved(spool['in'], filebase)
            disk.arm(1)
            with pytest.raises(DurabilityError):
                move(claim, spool['in'], spool['out'])
        assert spool['in'].dequeue(ready)[0] == 'ready'
        spool['in'].finish(at_work)
        assert disk.bad_descriptor_calls == []


@pytest.mark.parametrize('act', ['mv', 'retry'])
def test_the_room_of_one_that_could_not_be_moved_is_free_though_its_error_is_kept(
    tmp_path: Path, act: str
) -> None:
    disk = FaultyDisk(0, errno.EIO, calls=('renameat2',))
    config = load(tmp_path, '[queue.in]\n[queue.small]\nmax_messages = 1\n')
    spool = Spool.from_config(config, disk=disk)
    source = spool['bad'] if act == 'retry' else spool['in']
    filebases = [fail(spool) if act == 'retry' else spool['in'].enqueue('x') for _ in range(2)]
    session = OperatorSession(SpoolView(Path(spool.directory), config), spool, Operator('ann', 'desk'))
    action = Retry(to='small') if act == 'retry' else Move('small')
    spool['small'].finish(
        spool['small'].enqueue('first')
    )  # so that nothing has to be made when the disk refuses
    disk.arm(1)
    kept = []
    for filebase in filebases:
        try:
            action(session, ChosenEntry(source.name, filebase, '.psv' if act == 'retry' else '.pck'))
        except QueueError as error:
            kept.append(error)
    assert [type(error) for error in kept] == [DurabilityError]
    assert len(spool['small'].files) == 1


class TestSendingBack:
    def test_its_failures_are_forgiven_and_it_is_ready_at_once(self, spool: Spool) -> None:
        filebase = fail(spool)
        other = spool['in'].enqueue('waiting')
        back = send_back(spool['bad'], filebase, spool[require_origin_queue(spool['bad'], filebase)])
        assert spool['in'].files == [other, back]
        record = spool['in'].history(back)[-1]
        assert (record['event'], record['before'], record['to']) == ('retried', 0, 'in')

    def test_how_often_it_was_sent_back_is_known(self, spool: Spool) -> None:
        filebase = fail(spool)
        for times in range(3):
            filebase = send_back(spool['bad'], filebase, spool['in'])
            assert spool['in'].history(filebase)[-1]['before'] == times
            spool['in'].finish(filebase, preserve=True)

    def test_what_cannot_be_read_would_only_come_back(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        Path(spool['in'].queue_directory, f'{filebase}.pck').write_text('torn')
        assert spool['in'].take() is None
        with pytest.raises(CorruptEntryError, match='come back'):
            send_back(spool['bad'], filebase, spool['in'])
        assert spool['bad'].get_files('.psv') == [filebase]
        assert not any(name.startswith(filebase) for _, name in OWN_CLAIMS)

    def test_nor_goes_what_the_queue_does_not_accept(self, spool: Spool) -> None:
        filebase = fail(spool, {'a': 1})
        picky = Switchboard('in', spool.path('in'), options=QueueOptions(accept=('mail',)))
        with pytest.raises(ContentDisallowedError):
            send_back(spool['bad'], filebase, picky)
        assert spool['bad'].get_files('.psv') == [filebase]

    def test_where_it_came_from_may_not_be_known(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        with pytest.raises(QueueError, match='name a queue'):
            require_origin_queue(spool['in'], filebase)
