"""Recovery: what the dead left is ready again, what the living hold is not touched, and what kills goes to bad."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import DurabilityError
from switchboard.message.naming import with_when
from switchboard.options import QueueOptions
from switchboard.queue.recovery import record_time
from switchboard.queue.switchboard import SpoolServices
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.disk import Disk
from switchboard.testing import FakeClock
from switchboard.testing.faults import FaultyDisk
from tests.helpers.processes import held_elsewhere, in_child
from tests.helpers.runs import make_runner

LAZY = QueueOptions(durability='lazy')


@pytest.fixture
def bad(tmp_path: Path) -> Switchboard:
    return Switchboard('bad', tmp_path / 'bad', options=LAZY)


def die_with(queue: Switchboard, *filebases: str) -> None:
    """Claim entries in a process that dies with them in its hands."""

    def claim() -> None:
        for filebase in filebases:
            queue.dequeue(filebase)

    in_child(claim)


def events(queue: Switchboard, filebase: str) -> list[str]:
    return [record['event'] for record in queue.history(filebase)]


class TestTheDead:
    def test_their_claims_are_ready_again_in_their_old_places(self, queue: Switchboard) -> None:
        filebases = queue.enqueue_many(range(5))
        die_with(queue, *filebases[1:4])
        assert queue.files == [filebases[0], filebases[4]]
        assert queue.recover() == filebases[1:4]
        assert queue.files == filebases

    def test_a_new_object_can_do_it_when_it_is_made(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = queue.enqueue('x')
        die_with(queue, filebase)
        assert Switchboard('in', tmp_path / 'in').files == []
        assert Switchboard('in', tmp_path / 'in', recover=True).files == [filebase]

    def test_each_slice_recovers_its_own(self, queue: Switchboard, tmp_path: Path) -> None:
        filebases = queue.enqueue_many(range(20))
        die_with(queue, *filebases)
        slices = [Switchboard('in', tmp_path / 'in', index, 3, options=LAZY) for index in range(3)]
        recovered = [part.recover() for part in slices]
        assert all(recovered)
        assert sorted(filebase for part in recovered for filebase in part) == filebases

    def test_the_third_death_sends_the_entry_to_bad_with_its_story(
        self, queue: Switchboard, bad: Switchboard
    ) -> None:
        filebase = queue.enqueue('it kills')
        for death in range(1, 4):
            die_with(queue, filebase)
            assert queue.recover() == ([filebase] if death < 3 else [])
        assert bad.get_files('.psv') == [filebase]
        history = bad.history(filebase)
        assert [record.get('count') for record in history] == [1, 2, 3, None]
        assert 'recovered 3 times' in history[-1]['reason']
        assert (history[-1]['cause'], history[-1]['queue']) == ('recoveries', 'in')

    def test_a_failure_in_between_does_not_forgive(self, queue: Switchboard, bad: Switchboard) -> None:
        filebase = queue.enqueue('x')
        for _ in range(3):
            die_with(queue, filebase)
            queue.recover_backup_files()
            if queue.files:
                queue.dequeue(filebase)
                queue.release(filebase, record={'event': 'failed'})
        assert bad.get_files('.psv') == [filebase]

    def test_a_recovery_that_does_not_keep_its_lock_leaves_the_entry_free(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        die_with(queue, filebase)
        queue.recover_backup_files()
        assert in_child(lambda: queue.dequeue(filebase)[0]) == 'x'
        assert not any(name.startswith(filebase) for _, name in OWN_CLAIMS)


class TestTheLiving:
    def test_what_they_hold_is_never_touched_however_often_it_is_tried(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        with held_elsewhere(queue, filebase):
            for _ in range(10):
                assert queue.recover() == []
                assert Switchboard(queue.name, queue.queue_directory, recover=True).files == []
            assert events(queue, filebase) == []
        assert os.listdir(queue.queue_directory) == []


class TestWhatCannotBeRecovered:
    def test_a_torn_entry_is_recovered_and_found_at_dequeue(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = queue.enqueue('x' * 100)
        die_with(queue, filebase)
        path = tmp_path / 'in' / f'{filebase}.bak'
        path.write_bytes(path.read_bytes()[:50])
        assert queue.recover() == [filebase]
        assert queue.take() is None
        assert os.listdir(tmp_path / 'bad') == [f'{filebase}.psv']

    def test_foreign_things_with_the_suffix_stop_nothing(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = queue.enqueue('x')
        die_with(queue, filebase)
        (tmp_path / 'in' / 'foo.bak').touch()
        os.mkfifo(tmp_path / 'in' / f'{with_when(filebase, 1)}.bak')
        assert queue.recover() == [filebase]
        assert len(os.listdir(tmp_path / 'in')) == 3

    @pytest.mark.parametrize('call', ['flock', 'fstat', 'pread', 'renameat2', 'open'])
    def test_a_call_that_fails_leaves_it_to_the_next_time(self, tmp_path: Path, call: str) -> None:
        disk = FaultyDisk(0, errno.EIO, calls=(call,))
        queue = Switchboard('in', tmp_path / 'in', options=LAZY, disk=disk)
        filebase = queue.enqueue('x')
        die_with(queue, filebase)
        disk.arm(1)
        first = queue.recover()
        assert disk.failed_call == call
        assert (first or queue.recover()) == [filebase]
        assert queue.dequeue(filebase)[0] == 'x'

    def test_a_history_that_cannot_be_written_does_not_keep_the_message(self, tmp_path: Path) -> None:
        disk = FaultyDisk(0, errno.ENOSPC, calls=('pwrite',))
        queue = Switchboard('in', tmp_path / 'in', options=LAZY, disk=disk)
        filebase = queue.enqueue('x')
        die_with(queue, filebase)
        disk.arm(1)
        assert queue.recover() == [filebase]
        assert disk.failed_call
        assert events(queue, filebase) == []


class TestPreserving:
    def test_where_bad_has_one_of_that_name_it_goes_there_under_another_time(
        self, queue: Switchboard, bad: Switchboard, tmp_path: Path
    ) -> None:
        filebase = queue.enqueue('x')
        (tmp_path / 'bad' / f'{filebase}.psv').write_text('a copy made by hand')
        queue.dequeue(filebase)
        queue.finish(filebase, preserve=True, reason='again')
        names = bad.get_files('.psv')
        assert names[0] == filebase
        assert names[1].partition('+')[2] == filebase.partition('+')[2]
        assert bad.history(names[1])[-1]['reason'] == 'again'
        assert (tmp_path / 'bad' / f'{filebase}.psv').read_text() == 'a copy made by hand'

    def test_the_bad_queue_is_made_when_it_is_needed(self, queue: Switchboard, tmp_path: Path) -> None:
        queue.finish(queue.enqueue('x'))
        assert not (tmp_path / 'bad').exists()
        queue.finish(queue.enqueue('x'), preserve=True)
        assert len(os.listdir(tmp_path / 'bad')) == 1

    def test_if_the_disk_refuses_it_stays_claimed_and_can_be_finished_again(self, tmp_path: Path) -> None:
        disk = FaultyDisk(0, errno.EIO, calls=('renameat2',))
        queue = Switchboard('in', tmp_path / 'in', options=LAZY, disk=disk)
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        disk.arm(1)
        with pytest.raises(DurabilityError, match='preserve'):
            queue.finish(filebase, preserve=True)
        assert queue.get_files('.bak') == [filebase]
        queue.finish(filebase, preserve=True)
        assert os.listdir(tmp_path / 'bad') == [f'{filebase}.psv']

    def test_a_queue_of_a_spool_uses_the_spools_bad_queue(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        spool['in'].finish(filebase, preserve=True)
        assert spool['bad'].get_files('.psv') == [filebase]


class TestDeadLetters:
    def make(self, path: Path, answer: bool) -> tuple[Switchboard, list[Any]]:
        seen: list[Any] = []

        def dead_letter(claim: Any, cause: str, _reason: str) -> bool:
            # Whoever moves it on finds it held, as if a runner had claimed it.
            seen.append((queue.claim_of(claim.filebase) is claim, cause))
            if answer:
                queue.release(claim)
            return answer

        services = SpoolServices(dead_letter=lambda _queue: dead_letter)
        options = QueueOptions(max_recoveries=1)
        queue = Switchboard('in', path / 'in', options=options, services=services)
        return queue, seen

    @pytest.mark.parametrize('answer', [True, False])
    def test_who_takes_dead_letters_is_asked_before_they_go_to_bad(
        self, tmp_path: Path, answer: bool
    ) -> None:
        queue, seen = self.make(tmp_path, answer)
        filebase = queue.enqueue('x')
        die_with(queue, filebase)
        assert queue.recover() == []
        assert seen == [(True, 'recoveries')]
        assert os.listdir(tmp_path / ('in' if answer else 'bad')) == [
            f'{filebase}{".pck" if answer else ".psv"}'
        ]
        assert not any(name.startswith(filebase) for _, name in OWN_CLAIMS)


def test_records_have_the_time_of_the_queues_clock(tmp_path: Path) -> None:
    clock = FakeClock(1_732_242_000.123456789)
    assert record_time(clock) == 1_732_242_000.123456
    queue = Switchboard('in', tmp_path / 'in', options=LAZY, clock=clock)
    filebase = queue.enqueue('x')
    queue.dequeue(filebase)
    queue.annotate(filebase, {'event': 'noted'})
    assert queue.history(filebase)[-1]['time'] == 1_732_242_000.123456


class Refused(Disk):
    """Does something when the lock of a file was refused."""

    def __init__(self, name: str, then: Callable[[], object]) -> None:
        self._name = name
        self._then = then

    def open_locked(self, name: str, dir_fd: int, **keys: Any) -> Any:
        opened = super().open_locked(name, dir_fd, **keys)
        if opened is None and name == self._name:
            self._then()
        return opened


def test_a_new_runner_waits_for_another_process_that_recovers_what_its_predecessor_held(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    first, _ = (spool['in'].enqueue(msg, order_key='k') for msg in 'ab')
    die_with(spool['in'], first)
    with open(spool.path('in', f'{first}.bak'), 'rb') as held:  # by the janitor, which is about to recover it
        fcntl.flock(held, fcntl.LOCK_EX)
        later = Spool(tmp_path / 'spool', 'lazy', disk=Refused(f'{first}.bak', held.close))
        seen: list[str] = []
        make_runner(later, lambda _runner, msg, _msgdata: seen.append(msg)).run(until_empty=True)
    assert seen == ['a', 'b']


def test_one_that_another_process_works_on_is_not_waited_for_any_longer(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    first, _ = (spool['in'].enqueue(msg, order_key='k') for msg in 'ab')
    seen: list[str] = []
    with held_elsewhere(spool['in'], first):
        make_runner(spool, lambda _runner, msg, _msgdata: seen.append(msg)).run(until_empty=True)
    assert seen == ['b']
