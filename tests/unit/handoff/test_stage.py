"""The stage: what the dead left in it is published or thrown away, and nothing in it stops the others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.handoff.stage import COMMIT, TOO_SLOW
from switchboard.handoff.transaction import Transaction
from switchboard.store.disk import Disk
from tests.helpers.processes import Child, in_child
from tests.helpers.runs import make_runner


def staged(spool: Spool) -> list[str]:
    return sorted(os.listdir(spool.path('.stage')))


def leave(spool: Spool, *messages: str, committed: bool) -> None:
    """Stage outputs in a process that dies then."""

    def die() -> None:
        filebase = spool['in'].enqueue('input')
        spool['in'].dequeue(filebase)
        transaction = Transaction(spool.stage, spool['in'], spool['in'].claim_of(filebase))
        for msg in messages:
            transaction.emit(spool['out'], msg, {})
        transaction.stage_outputs()
        if committed:
            transaction.rename_input()

    in_child(die)


def test_outputs_without_a_record_become_spares(spool: Spool) -> None:
    leave(spool, 'a', 'b', committed=False)
    assert len(staged(spool)) == 2
    assert spool.recover() == 2
    assert (staged(spool), spool['out'].get_files()) == ([], [])
    assert spool.pool.count() == 2


def test_outputs_with_a_record_are_published(spool: Spool) -> None:
    leave(spool, 'a', 'b', committed=True)
    spool.recover()
    assert [spool['out'].dequeue(filebase)[0] for filebase in spool['out'].files] == ['a', 'b']
    assert staged(spool) == []


def test_a_record_whose_outputs_are_all_published_goes(spool: Spool) -> None:
    leave(spool, 'a', committed=True)
    (output,) = (name for name in staged(spool) if not name.endswith(COMMIT))
    spool['out']
    os.rename(spool.path('.stage', output), spool.path('out', output.rpartition(':')[2] + '.pck'))
    assert spool.recover() == 1
    assert staged(spool) == []
    assert [spool['out'].dequeue(filebase)[0] for filebase in spool['out'].files] == ['a']


def test_many_may_recover_at_the_same_time(spool: Spool) -> None:
    for number in range(20):
        leave(spool, str(number), committed=number % 2 == 0)
    recoverers = [Child(spool.recover) for _ in range(4)]
    assert sum(child.join() for child in recoverers) == 20
    assert staged(spool) == []
    messages = sorted(int(spool['out'].dequeue(filebase)[0]) for filebase in spool['out'].files)
    assert messages == list(range(0, 20, 2))


class LookedAt(Disk):
    """Somebody else, who waits for it, too, holds a record each time when it is to be recovered."""

    def __init__(self, times: int) -> None:
        self.left = times

    def open_locked(self, name: str, dir_fd: int, **options: Any) -> Any:
        if name.endswith(COMMIT) and not options.get('waits_for') and self.left:
            self.left -= 1
            return None
        return super().open_locked(name, dir_fd, **options)


def test_a_hand_off_is_settled_though_others_look_at_its_record(spool: Spool) -> None:
    leave(spool, 'a', committed=True)
    (output,) = (name for name in staged(spool) if not name.endswith(COMMIT))
    disk = LookedAt(3)
    mine = Spool(spool.path(), durability='lazy', disk=disk)
    mine.stage.wait_until_published([('out', output.rpartition(':')[2])])
    assert disk.left == 0
    assert staged(spool) == []
    assert len(spool['out'].get_files()) == 1


class Waited(Disk):
    """Does something when a hand-off is about to be waited for."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.lock_timeout_s = 0.05
        self._then = then

    def lock_when_free(self, fd: int, what: str, **options: Any) -> bool:
        if what == 'a hand-off':
            self._then()
        return super().lock_when_free(fd, what, **options)


@pytest.fixture
def record(spool: Spool) -> Iterator[Any]:
    """A commit record of a dead process, locked by one that is about to publish the output."""
    leave(spool, 'a', committed=True)
    (name,) = (name for name in staged(spool) if name.endswith(COMMIT))
    with open(spool.path('.stage', name), 'rb') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield held


def seen_by_a_new_runner(directory: str, disk: Disk) -> list[int]:
    """:return: how many messages are in the next queue when a runner begins one."""
    later = Spool(directory, 'lazy', disk=disk)
    later['in'].enqueue('b')
    seen: list[int] = []
    make_runner(later, lambda _runner, _msg, _msgdata: seen.append(len(later['out'].files))).run(
        until_empty=True
    )
    return seen


def test_a_new_runner_begins_nothing_before_another_process_has_published_what_its_predecessor_committed(
    spool: Spool, record: Any
) -> None:
    assert seen_by_a_new_runner(spool.directory, Waited(record.close)) == [1]


def test_of_one_that_does_not_get_on_it_is_said_and_not_waited_for_any_longer(
    spool: Spool, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert seen_by_a_new_runner(spool.directory, Waited(list)) == [0]
    assert [one.getMessage() for one in caplog.records if TOO_SLOW in one.getMessage()]
    assert not record.closed


def test_a_queue_that_is_not_there_yet_is_made(spool: Spool) -> None:
    leave(spool, 'a', committed=True)
    spool['out']
    os.rmdir(spool.path('out'))
    assert spool.recover() == 1
    assert len(os.listdir(spool.path('out'))) == 1


@pytest.mark.parametrize('name', ['x', f'x:{COMMIT}', ':', 'a:b:c:d:e', f'{"0" * 40}:0:..:name'])
def test_what_is_no_regular_file_is_left_and_stops_nothing(spool: Spool, name: str) -> None:
    os.mkfifo(spool.path('.stage', name))
    leave(spool, 'a', committed=True)
    assert spool.recover() == 1
    assert staged(spool) == [name]
    assert len(spool['out'].files) == 1


def test_an_output_that_names_a_place_outside_is_not_put_there(spool: Spool) -> None:
    transaction = '0' * 40
    for name in (f'{transaction}:{COMMIT}', f'{transaction}:0:..:escaped'):
        Path(spool.path('.stage', name)).touch()
    spool.recover()
    assert not (Path(spool.directory).parent / 'escaped.pck').exists()


def test_many_records_cost_one_listing_and_one_flush_of_each_directory(tmp_path: Path) -> None:
    class Counting(Disk):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def fsync(self, fd: int) -> None:
            self.calls.append('fsync')
            os.fsync(fd)

        def scandir(self, path: str) -> Any:
            self.calls.append('scandir')
            return os.scandir(path)

    spool = Spool(tmp_path, 'lazy')
    counts = []
    for number in (1, 20):
        for _ in range(number):
            leave(spool, 'a', 'b', committed=True)
        disk = Counting()
        later = Spool(tmp_path, 'lazy', disk=disk)
        disk.calls.clear()
        assert later.recover() == number
        counts.append(sorted(disk.calls))
        assert staged(spool) == []
    assert counts[0] == counts[1]
    assert len(spool['out'].files) == 42
