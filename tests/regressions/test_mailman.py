"""What GNU Mailman's queue is weak at, one by one: none of it comes back here."""

from __future__ import annotations

import errno
import os
import pickle
import smtplib
import time
from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner, Spool, Switchboard
from switchboard.errors import (
    DurabilityError,
    EntryTakenError,
    PermanentFailure,
    QueueFullError,
    TemporaryFailure,
)
from switchboard.handoff.moving import require_origin_queue, send_back
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.store.disk import Disk
from switchboard.testing import FakeClock, run_until_empty
from switchboard.testing.faults import FaultyDisk
from tests.helpers.processes import Child, held_elsewhere, in_child

LAZY = QueueOptions(durability='lazy')


def bad(path: Path) -> list[str]:
    return Switchboard('bad', path / 'bad').get_files('.psv')


def runner(spool: Spool, dispose: Any, queue: str = 'in', **options: Any) -> Any:
    class Told(Runner):
        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
            return dispose(msg, msgdata)

    return Told(spool, RunnerOptions(name='r', class_path='', queue=queue, **options))


class TestTwoRunnersOnOneSlice:
    def test_the_slower_one_is_told_not_now_and_the_message_is_no_ones_bad_mail(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        filebase = queue.enqueue('x')
        listed = queue.files
        with held_elsewhere(queue, filebase):
            for name in listed:  # it listed before the other one was faster
                with pytest.raises(EntryTakenError):
                    queue.dequeue(name)
                with pytest.raises(EntryTakenError):
                    queue.finish(name, preserve=True)
        assert (os.listdir(tmp_path / 'in'), bad(tmp_path)) == ([], [])

    def test_two_loops_share_a_queue_and_handle_each_message_once(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        spool['in'].enqueue_many(range(200))

        def work() -> list[int]:
            seen: list[int] = []
            runner(Spool(tmp_path, 'lazy'), lambda msg, msgdata: seen.append(msg)).run(until_empty=True)
            return seen

        children = [Child(work), Child(work)]
        handled = [number for child in children for number in child.join()]
        assert sorted(handled) == list(range(200))
        assert spool['bad'].get_files('.psv') == []


class TestRecoveryBesideLiveWork:
    def test_a_second_switchboard_does_not_turn_a_live_claim_back(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        filebase = queue.enqueue('x')
        with held_elsewhere(queue, filebase):
            assert Switchboard('in', tmp_path / 'in', recover=True).files == []
            assert queue.get_files('.bak') == [filebase]
            assert queue.history(filebase) == []
        assert os.listdir(tmp_path / 'in') == []


class TestForeignFiles:
    def test_a_name_that_is_none_does_not_make_the_listing_raise(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        for name in ('foo.pck', 'foo.bak', '1.2+3.pck', '+.pck', '.pck', 'x+y+z.pck'):
            (tmp_path / 'in' / name).write_bytes(b'x')
        filebase = queue.enqueue('x')
        assert queue.files == queue.get_files() == [filebase]
        assert queue.recover() == []
        taken = queue.take()
        assert taken is not None
        assert taken.msg == 'x'
        assert queue.take() is None


class TestNothingIsExecuted:
    def test_a_pickle_is_not_run_by_dequeue_recovery_or_inspection(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        class Bomb:
            def __reduce__(self) -> Any:
                return os.mkdir, (str(tmp_path / 'executed'),)

        digest = '0' * 40
        content = pickle.dumps(Bomb()) + pickle.dumps({'version': 3})
        (tmp_path / 'in' / f'1732242000.5+{digest}.pck').write_bytes(content)
        (tmp_path / 'in' / f'1732242001.5+{digest}.bak').write_bytes(content)
        assert len(queue.recover()) == 1
        for filebase in queue.files:
            queue.peek(filebase)
            queue.history(filebase)
        assert queue.take() is None
        assert len(bad(tmp_path)) == 2
        assert not (tmp_path / 'executed').exists()


class TestRecoveryOnDisk:
    def test_nothing_is_rewritten_in_place_the_history_is_appended(
        self, queue: Switchboard, tmp_path: Path
    ) -> None:
        filebase = queue.enqueue('x' * 1000, recipients=['a'])
        path = tmp_path / 'in' / f'{filebase}.pck'
        before = path.read_bytes()
        in_child(lambda: queue.dequeue(filebase) and None)
        queue.recover()
        assert path.read_bytes().startswith(before)
        assert len(path.read_bytes()) > len(before)

    def test_names_are_synced(self, tmp_path: Path) -> None:
        synced: list[str] = []

        class WatchingDisk(Disk):
            def fsync(self, fd: int) -> None:
                synced.append(os.path.basename(os.readlink(f'/proc/self/fd/{fd}')))

        queue = Switchboard('in', tmp_path / 'in', disk=WatchingDisk())
        assert synced == [tmp_path.name]  # the new directory's own name
        filebase = queue.enqueue('x')
        # The directory, or, where that brings its name along, the file under the name that it has got.
        assert synced[1:] in (['in'], [f'{filebase}.pck'])

    def test_temporary_files_of_the_dead_are_cleaned(self, queue: Switchboard, tmp_path: Path) -> None:
        def die() -> None:
            queue.pool.acquire()

        in_child(die)
        assert len(os.listdir(tmp_path / 'in')) == 1
        queue.recover()
        assert os.listdir(tmp_path / 'in') == []


class TestKeepingQueued:
    def test_the_place_in_the_queue_is_kept(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        filebases = spool['in'].enqueue_many(['first', 'second'])
        runner(spool, lambda msg, msgdata: True).run(once=True)
        assert spool['in'].files == filebases

    def test_the_poison_count_is_kept(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        filebase = spool['in'].enqueue('x')
        for _ in range(3):
            in_child(lambda: spool['in'].dequeue(filebase) and None)
            spool['in'].recover()
            runner(spool, lambda msg, msgdata: True).run(once=True)
        assert spool['bad'].get_files('.psv') == [filebase]

    @pytest.mark.parametrize('step', range(1, 9))
    def test_a_crash_in_it_neither_loses_nor_doubles_the_message(self, tmp_path: Path, step: int) -> None:
        def keep() -> None:
            spool = Spool(tmp_path, 'lazy', disk=disk)
            msg, msgdata = spool['in'].dequeue(filebase)
            msg.append('changed')
            disk.arm(step)
            spool.transaction(spool['in'], filebase).keep(msg, msgdata)

        disk = FaultyDisk(
            0, kill='real', calls=('rename', 'renameat2', 'pwrite', 'unlink', 'fsync', 'fdatasync')
        )
        filebase = Spool(tmp_path, 'lazy')['in'].enqueue(['x'])
        with Child(keep) as child:
            child.wait()
        spool = Spool(tmp_path, 'lazy')
        spool.recover()
        spool['in'].recover()
        taken = [one.msg for one in iter(spool['in'].take, None) if one]
        assert taken in ([['x']], [['x', 'changed']])


class TestAServerThatIsDown:
    def test_the_runner_does_not_spin(self, tmp_path: Path) -> None:
        clock = FakeClock()
        spool = Spool(tmp_path, 'lazy', clock=clock)
        spool['out'].enqueue_many(range(3))
        tries: list[float] = []

        def deliver(msg: Any, msgdata: Any) -> None:
            tries.append(clock.monotonic_ns() / 1e9)
            try:
                smtplib.SMTP('127.0.0.1', 1, timeout=1)
            except OSError as error:
                if len(tries) < 30:
                    raise TemporaryFailure(str(error)) from error

        run_until_empty(runner(spool, deliver, 'out'))
        waited_s = tries[-1] - tries[0]
        assert len(tries) == 32
        assert waited_s > 3600  # three messages, ten tries each, further and further apart
        assert spool['out'].get_files() == []

    def test_nothing_is_written_while_it_waits(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        spool['out'].enqueue('x')

        def deliver(msg: Any, msgdata: Any) -> None:
            raise TemporaryFailure('down', retry_after_s=60)

        loop = runner(spool, deliver, 'out')
        loop.run(until_empty=True)
        (path,) = Path(spool.path('out')).iterdir()
        before = path.stat()
        started_s = time.process_time()
        for _ in range(20):
            assert loop.run(until_empty=True) == 0
        assert time.process_time() - started_s < 1
        assert (path.stat().st_ctime_ns, path.stat().st_size) == (before.st_ctime_ns, before.st_size)


class TestTroubleOfOurOwn:
    @pytest.mark.parametrize(
        ('error', 'raised'),
        [(errno.ENOSPC, QueueFullError), (errno.EIO, DurabilityError), (errno.EROFS, DurabilityError)],
    )
    def test_a_full_or_failing_disk_is_no_verdict_on_the_mail(
        self, tmp_path: Path, error: int, raised: type[Exception]
    ) -> None:
        disk = FaultyDisk(0, error, calls=('pwrite',))
        queue = Switchboard('in', tmp_path / 'in', disk=disk)
        disk.arm(1)
        with pytest.raises(raised) as caught:
            queue.enqueue('x')
        assert not isinstance(caught.value, PermanentFailure)
        assert queue.get_files() == []
        queue.enqueue('x')  # the sender tries again
        assert len(queue.files) == 1


class TestSlices:
    @pytest.mark.parametrize('count', [3, 5, 6, 7])
    def test_any_number_will_do_and_a_list_is_pinned_to_one(
        self, queue: Switchboard, tmp_path: Path, count: int
    ) -> None:
        filebases = [queue.enqueue(number, order_key=f'list-{number % 9}') for number in range(90)]
        slices = [Switchboard('in', tmp_path / 'in', index, count).files for index in range(count)]
        assert sorted(name for share in slices for name in share) == filebases
        for key in range(9):
            mine = set(filebases[key::9])
            assert [share for share in slices if mine & set(share)] == [
                share for share in slices if mine <= set(share)
            ]

    def test_the_number_may_change_while_others_run(self, tmp_path: Path) -> None:
        queue = Switchboard('in', tmp_path / 'in', options=LAZY)
        queue.enqueue_many(range(60))
        handled: list[int] = []
        for index, count in ((0, 2), (1, 3), (0, 1), (2, 3)):
            part = Switchboard('in', tmp_path / 'in', index, count, options=LAZY)
            for _ in range(10):
                taken = part.take()
                if taken is not None:
                    handled.append(taken.msg)
                    part.finish(taken.filebase)
        while (taken := queue.take()) is not None:
            handled.append(taken.msg)
            queue.finish(taken.filebase)
        assert sorted(handled) == list(range(60))


class TestThePreserved:
    def test_each_says_why_and_one_alone_can_go_back_to_where_it_came_from(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy')
        filebases = spool['in'].enqueue_many(['a', 'b'])

        def dispose(msg: Any, msgdata: Any) -> None:
            raise ValueError(f'{msg} is broken')

        runner(spool, dispose).run(until_empty=True)
        assert spool['bad'].get_files('.psv') == filebases
        for filebase, name in zip(filebases, 'ab', strict=True):
            failed, kept = spool['bad'].history(filebase)
            assert f'ValueError: {name} is broken' in failed['traceback']
            assert kept['reason'] == f'ValueError: {name} is broken'
        back = send_back(spool['bad'], filebases[1], spool[require_origin_queue(spool['bad'], filebases[1])])
        assert digest_of(back) == digest_of(filebases[1])
        assert (spool['in'].files, spool['bad'].get_files('.psv')) == ([back], filebases[:1])
