"""Strict order between processes, by whatever each has read: no two of a key are at work, and what was put first comes first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.handoff.moving import claim_ready_or_preserved, move
from switchboard.handoff.stage import COMMIT
from switchboard.handoff.transaction import Transaction
from switchboard.operating.holding import hold, release
from switchboard.store.layout import ORDER, RUN
from tests.helpers.descriptors import open_files
from tests.helpers.processes import Child
from tests.helpers.waiting import eventually

CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy
[queue.in]
strict_order = yes
[queue.further]
strict_order = yes
[queue.aside]
[queue.plain]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'switchboard.cfg'
    path.write_text(CONFIGURATION)
    return path


def fill(path: Path) -> list[str]:
    queue = Spool.from_config(path)['in']
    return [queue.enqueue(msg, order_key='k') for msg in 'ab']


class Process:
    """A second process, which reads the queue and then takes from it when it is told to."""

    def __init__(self, path: Path) -> None:
        self._told, self._tell = os.pipe()
        self._hear, self._said = os.pipe()

        def live() -> None:
            queue = Spool.from_config(path)['in']
            queue.has_ready()
            while True:
                os.write(self._said, b'.')
                if os.read(self._told, 1) != b't':
                    return
                taken = queue.take()
                os.write(self._said, b'-' if taken is None else taken.msg.encode())
                if os.read(self._told, 1) == b'f' and taken is not None:
                    queue.finish(taken.filebase)

        self._child = Child(live)
        assert os.read(self._hear, 1) == b'.'  # it has read the directory

    def take(self) -> str:
        """:return: the message; '-' if there is none to be had."""
        os.write(self._tell, b't')
        return os.read(self._hear, 1).decode()

    def go_on(self, *, finish: bool) -> None:
        """Finish what it has, or keep it."""
        os.write(self._tell, b'f' if finish else b'k')
        assert os.read(self._hear, 1) == b'.'

    def end(self) -> None:
        """It ends, and gives up what it has."""
        os.write(self._tell, b'e')
        self._child.join()
        for fd in (self._told, self._tell, self._hear, self._said):
            os.close(fd)


def hold_and_release(path: Path, filebase: str) -> Callable[[], object]:
    queue = Spool.from_config(path)['in']
    held = hold(queue, filebase)
    return lambda: release(queue, held)


def move_away_and_back(path: Path, filebase: str) -> Callable[[], object]:
    spool = Spool.from_config(path)
    move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['aside'])
    return lambda: move(claim_ready_or_preserved(spool['aside'], filebase), spool['aside'], spool['in'])


def forward_away_and_back(path: Path, filebase: str) -> Callable[[], object]:
    spool = Spool.from_config(path)
    move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['aside'])

    def back() -> None:
        taken = spool['aside'].take()
        assert taken is not None
        transaction = spool.transaction(spool['aside'], taken.filebase)
        transaction.forward(spool['in'], spool['plain'])
        transaction.commit()

    return back


AWAY = [hold_and_release, move_away_and_back, forward_away_and_back]


@pytest.mark.parametrize('away', AWAY)
def test_the_first_comes_back_while_the_second_is_at_work_and_waits(
    path: Path, away: Callable[[Path, str], Callable[[], object]]
) -> None:
    first, _ = fill(path)
    other = Process(path)  # it has read: a, b
    back = away(path, first)
    spool = Spool.from_config(path)
    taken = spool['in'].take()
    assert taken is not None
    assert taken.msg == 'b'
    back()
    assert other.take() == '-'
    other.go_on(finish=False)
    spool['in'].finish(taken.filebase)
    assert turn(other) == 'a'
    assert other.take() == '-'
    other.go_on(finish=False)
    other.end()


def turn(process: Process) -> str:
    """:return: the next message that there is for a process, which finishes it: it waits for moments that double."""

    def take() -> str:
        found = process.take()
        process.go_on(finish=True)
        return found.strip('-')

    return eventually(take, 'a message for it')


@pytest.mark.parametrize('away', AWAY)
def test_the_first_that_is_back_is_seen_by_who_has_read_before(
    path: Path, away: Callable[[Path, str], Callable[[], object]]
) -> None:
    first, _ = fill(path)
    back = away(path, first)
    other = Process(path)  # it has read: b
    back()
    assert other.take() == 'a'
    other.go_on(finish=True)
    assert turn(other) == 'b'
    other.end()


def test_a_death_frees_the_key(path: Path) -> None:
    fill(path)

    def take_and_die() -> None:
        taken = Spool.from_config(path)['in'].take()
        assert taken is not None
        os.kill(os.getpid(), 9)

    with pytest.raises(AssertionError):
        Child(take_and_die).join()
    spool = Spool.from_config(path)
    spool['in'].recover_backup_files()
    taken = spool['in'].take()
    assert taken is not None
    assert taken.msg == 'a'


def test_a_child_does_not_keep_its_parents_key(path: Path) -> None:
    fill(path)
    spool = Spool.from_config(path)
    taken = spool['in'].take()
    assert taken is not None
    reading, writing = os.pipe()
    hear, say = os.pipe()

    def live() -> None:
        os.close(writing)
        os.write(say, b'.')  # by now it has closed what it has inherited
        os.read(reading, 1)

    child = Child(live)
    os.close(reading)
    assert os.read(hear, 1) == b'.'
    spool['in'].finish(taken.filebase)
    late = Spool.from_config(path)['in'].take()
    assert late is not None
    assert late.msg == 'b'
    for fd in (writing, hear, say):
        os.close(fd)
    child.join()


def keys_locked(path: Path) -> list[str]:
    """:return: what this process has open of the files that keys are locked in."""
    return [each for each in open_files().values() if each.startswith(f'{path.parent}/spool/{RUN}/{ORDER}/')]


@pytest.mark.parametrize(
    'way', ['finish', 'release', 'release later', 'preserve', 'give up', 'commit', 'move']
)
def test_each_way_to_end_a_claim_frees_the_key(path: Path, way: str) -> None:
    spool = Spool.from_config(path)
    queue = spool['in']
    queue.enqueue('x', order_key='k')
    taken = queue.take()
    assert taken is not None
    assert len(keys_locked(path)) == 1
    ends = {
        'finish': queue.finish,
        'release': queue.release,
        'release later': lambda filebase: queue.release(filebase, delay_s=60),
        'preserve': lambda filebase: queue.finish(filebase, preserve=True),
        'give up': lambda _filebase: queue.recover_backup_files(),
        'commit': lambda filebase: commit(path, filebase),
        'move': lambda filebase: move(claim_ready_or_preserved(queue, filebase), queue, spool['plain']),
    }
    ends[way](taken.filebase)
    assert keys_locked(path) == []


def commit(path: Path, filebase: str) -> None:
    spool = Spool.from_config(path)
    transaction = spool.transaction(spool['in'], filebase)
    transaction.emit(spool['plain'], 'y', {})
    transaction.commit()


def test_other_queues_pay_nothing(path: Path) -> None:
    queue = Spool.from_config(path)['plain']
    queue.finish(queue.enqueue('x', order_key='k'))
    assert not (path.parent / 'spool' / RUN / ORDER).exists()


def commit_and_die(path: Path, commit: Callable[[Spool], Transaction]) -> None:
    """Have a process die when its input is the commit record, and no output is there yet."""

    def die() -> None:
        transaction = commit(Spool.from_config(path))
        transaction.stage_outputs()
        transaction.rename_input()
        os._exit(0)

    with Child(die) as child:
        child.wait()


def edit(spool: Spool) -> Transaction:
    """Put another message into the place of the first."""
    queue = spool['in']
    filebase = queue.files[0]
    queue.dequeue(filebase)
    transaction = Transaction(spool.stage, queue, queue.claim_of(filebase))
    transaction.replace_input('A', {})
    return transaction


def hand_on(spool: Spool) -> Transaction:
    """Make a message for another queue of the first."""
    taken = spool['in'].take()
    assert taken is not None
    transaction = Transaction(spool.stage, spool['in'], spool['in'].claim_of(taken.filebase))
    transaction.emit(spool['aside'], 'A', {})
    return transaction


def test_what_a_recovery_publishes_in_an_old_place_is_seen_by_who_has_read_before(path: Path) -> None:
    reader = Spool.from_config(path)['in']
    reader.enqueue('x', order_key='another')
    taken = reader.take()  # from here on it knows where the list of keys ended
    assert taken is not None
    fill(path)
    commit_and_die(path, edit)
    assert reader.has_ready()  # it has read: b
    assert Spool.from_config(path).recover() == 1
    found = reader.take()
    assert found is not None
    assert found.msg == 'A'


@pytest.mark.parametrize('commit', [edit, hand_on])
def test_nobody_passes_what_a_dead_process_has_committed(
    path: Path, commit: Callable[[Spool], Transaction]
) -> None:
    fill(path)
    other = Process(path)  # it has read: a, b
    commit_and_die(path, commit)
    assert turn(other) == ('A' if commit is edit else 'b')
    spool = Spool.from_config(path)
    assert [spool['aside'].peek(each).body for each in spool['aside'].files] == [b'A'] * (commit is hand_on)
    other.end()


@pytest.mark.parametrize('commit', [edit, hand_on])
def test_nor_while_another_process_is_publishing_it(
    path: Path, commit: Callable[[Spool], Transaction]
) -> None:
    fill(path)
    spool = Spool.from_config(path)
    third = spool['in'].enqueue('c', order_key='another')
    commit_and_die(path, commit)
    (record,) = (name for name in os.listdir(spool.path('.stage')) if name.endswith(COMMIT))
    with open(spool.path('.stage', record), 'rb') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        queue = spool['in']
        queue.has_ready()
        taken = queue.take()
        assert taken is not None
        assert taken.filebase == third  # of another key
        assert queue.take() is None
    other = Process(path)
    assert turn(other) == ('A' if commit is edit else 'b')
    other.end()


def test_a_key_of_another_queue_holds_nothing_back(path: Path) -> None:
    spool = Spool.from_config(path)
    for name in ('in', 'further'):
        spool[name].enqueue('x', order_key='k')
    taken = spool['in'].take()
    assert taken is not None
    transaction = Transaction(spool.stage, spool['in'], spool['in'].claim_of(taken.filebase))
    transaction.emit(spool['aside'], 'y', {})
    transaction.stage_outputs()
    transaction.rename_input()
    assert Spool.from_config(path)['further'].take() is not None
    transaction.publish_outputs()
    transaction.remove_record()
    transaction.unlock()
