"""A disk that is really full, and queues that are as full as they may be: what was accepted is kept, the rest is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard.config.config import Config
from switchboard.errors import QueueFullError
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.queue.switchboard import Switchboard
from switchboard.runner.runner import Runner
from switchboard.spool.spool import Spool
from switchboard.testing.clock import FakeClock
from tests.faults.harness.tmpfs import fill, small_disk
from tests.helpers.waiting import PATIENCE_S


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / 'disk') as place:
        yield place


def enqueue_until_full(queue: Switchboard, size: int) -> list[str]:
    accepted = []
    for number in range(100_000):
        text = f'{number:06d}' + 'x' * size
        try:
            queue.enqueue(text)
        except QueueFullError:
            return accepted
        accepted.append(text)
    raise AssertionError('the disk never was full')


def drain(queue: Switchboard) -> list[str]:
    bodies = []
    while (taken := queue.take()) is not None:
        bodies.append(taken.msg)
        queue.finish(taken.filebase)
    return bodies


@pytest.mark.parametrize('size', [10, 3000, 30_000])
def test_what_was_accepted_before_the_disk_was_full_is_all_there(disk: Path, size: int) -> None:
    queue = Spool(disk / 'spool')['in']
    accepted = enqueue_until_full(queue, size)
    assert accepted
    assert drain(queue) == accepted
    assert [queue.dequeue(queue.enqueue('again'))[0]] == ['again']


def test_claims_can_be_finished_released_and_preserved_on_a_full_disk(disk: Path) -> None:
    spool = Spool(disk / 'spool')
    queue = spool['in']
    accepted = enqueue_until_full(queue, 3000)
    fill(disk)
    first, second, third = (queue.take() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    queue.finish(first.filebase)
    queue.release(second.filebase, record={'event': 'failed', 'message': 'x' * 5000})
    queue.finish(third.filebase, preserve=True, reason='told to')
    assert spool['bad'].get_files('.psv') == [third.filebase]
    assert sorted(drain(queue)) == sorted({*accepted} - {first.msg, third.msg})


def test_spares_hold_no_room_that_a_message_needs(disk: Path) -> None:
    queue = Spool(disk / 'spool')['in']
    enqueue_until_full(queue, 3000)
    drain(queue)
    large = 'x' * 700_000
    assert queue.dequeue(queue.enqueue(large))[0] == large


def test_spares_do_not_count_as_taken_where_some_room_is_to_stay_free(disk: Path) -> None:
    queue = Spool(disk / 'spool')['in']
    enqueue_until_full(queue, 3000)
    drain(queue)
    options = QueueOptions(min_free_space_bytes=500_000)
    careful = Switchboard('in', disk / 'spool' / 'in', options=options, pool=queue.pool)
    careful.enqueue('a')
    fill(disk, leave=400_000)
    with pytest.raises(QueueFullError, match='min_free'):
        careful.enqueue('b')


class Copier(Runner):
    """Emits what it gets, and counts how often it tried."""

    tries = 0

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        self.tries += 1
        self.emit('out', msg)
        return False

    def snooze(self, filecnt: int) -> None:
        if self._settler.trouble.wait_s:
            self.waited.release()


@pytest.mark.slow
def test_a_runner_that_cannot_emit_leaves_its_input_and_waits_without_spinning(disk: Path) -> None:
    spool = Spool(disk / 'spool')
    spool['out']
    filebases = spool['in'].enqueue_many(['x' * 20_000, 'y' * 20_000])
    ballast = fill(disk)
    runner = Copier(spool, RunnerOptions('copy', '', 'in'))
    runner.waited = threading.Semaphore(0)
    thread = threading.Thread(target=runner.run, name='runner')
    thread.start()
    try:
        for _ in range(2):
            assert runner.waited.acquire(timeout=60)
        # It has waited once, and waits again: longer.
        assert runner.tries <= 3
        assert spool['in'].get_files() == filebases
        assert spool['out'].get_files() == []
        assert spool['in'].history(filebases[0]) == []
        ballast.unlink()
        wakeup = spool['out'].make_wakeup()
        wakeup.arm()
        while len(spool['out'].get_files()) < 2:
            assert wakeup.wait(60)
    finally:
        runner.stop()
        thread.join(60)
    assert drain(spool['out']) == ['x' * 20_000, 'y' * 20_000]
    assert spool['in'].get_files() == []


# Limits of a queue.


@pytest.mark.parametrize('options', [{'max_messages': 10}, {'max_bytes': 10_000}], ids=['messages', 'bytes'])
def test_a_batch_does_not_go_over_a_limit_either(tmp_path: Path, options: dict[str, int]) -> None:
    clock = FakeClock()
    queue = Switchboard(
        'in', tmp_path / 'in', options=QueueOptions(durability='lazy', **options), clock=clock
    )
    with pytest.raises(QueueFullError):
        queue.enqueue_many(['x' * 900] * 100)
    assert queue.files == []
    accepted = enqueue_until_full(queue, 800)
    assert len(accepted) in (10, 11)
    assert drain(queue) == accepted
    clock.advance(2)  # it is not counted again for each message
    assert len(enqueue_until_full(queue, 800)) == len(accepted)


CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy
[queue.in]
[runner.in]
class = null
queue = in
"""


def switchboard(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, '-m', 'switchboard', '-C', str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_master_needs_a_few_pages_and_says_what_it_lacks(tmp_path: Path) -> None:
    with small_disk(tmp_path / 'disk', '200k') as disk:
        config = disk / 'switchboard.cfg'
        config.write_text(CONFIGURATION)
        assert switchboard(config, 'start').returncode == 0
        ballast = fill(disk)
        Spool.from_config(config)  # whoever looks needs no room
        assert 'RUNNING' in switchboard(config, 'status').stdout
        for words in (['restart'], ['scale', 'in=2']):
            refused = switchboard(config, *words)
            assert refused.returncode
            assert 'No space left on device' in refused.stderr
        assert 'RUNNING' in switchboard(config, 'status').stdout
        assert switchboard(config, 'stop').returncode == 0
        refused = switchboard(config, 'start')
        assert refused.returncode
        assert 'no room for' in refused.stderr
        assert 'No space left on device' in refused.stderr
        ballast.unlink()
        assert switchboard(config, 'start').returncode == 0
        assert switchboard(config, 'stop').returncode == 0


@pytest.mark.parametrize('verb', ['pause', 'drain'])
def test_an_operator_can_stop_a_queue_though_the_disk_has_no_room_for_the_reason(
    disk: Path, verb: str
) -> None:
    config = disk / 'switchboard.cfg'
    config.write_text(CONFIGURATION)
    spool = Spool.from_config(config)
    fill(disk)
    done = switchboard(config, verb, 'in', '--reason', 'the disk is full')
    assert (done.returncode, done.stderr) == (0, '')
    assert spool.flags.is_set('paused' if verb == 'pause' else 'draining', 'in')


def test_a_master_whose_directory_cannot_be_made_names_it_whole(tmp_path: Path) -> None:
    with small_disk(tmp_path / 'disk', '1m,nr_inodes=3') as disk:  # one is the disk's own
        (disk / 'spool' / '.run').mkdir(parents=True)
        config = tmp_path / 'switchboard.cfg'
        config.write_text(f'[switchboard]\nspool = {disk / "spool"}\n[queue.in]\n')
        done = switchboard(config, 'master')
    assert done.returncode == os.EX_TEMPFAIL
    assert (
        f'{disk / "spool/.run/master"}: No space left on device; make room: `df -h` and `df -i`'
        in done.stderr
    )


STARTS = {
    'start -f': 'from switchboard.cli import main; main(["-C", {config!r}, "start", "-f"])',
    'start': 'from switchboard.cli import main; main(["-C", {config!r}, "start"])',
    'master': 'from switchboard.master.programs import master; master(["-C", {config!r}])',
}


@pytest.mark.parametrize('log_format', ['text', 'json'])
@pytest.mark.parametrize('start', STARTS)
@pytest.mark.parametrize('leave_bytes', [0, 4096])
def test_a_master_that_finds_no_room_says_so_with_a_place_and_what_to_do(
    disk: Path, tmp_path: Path, start: str, log_format: str, leave_bytes: int
) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(
        f'[switchboard]\nspool = {disk / "spool"}\n[master]\nlog_format = {log_format}\n[runner.in]\nclass = null\nqueue = in\n'
    )
    Spool.from_config(Config.load(config))['in']
    fill(disk, leave_bytes)
    ran = subprocess.run(
        [sys.executable, '-c', STARTS[start].format(config=str(config))],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ran.returncode == os.EX_TEMPFAIL, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert f'{disk / "spool"}' in line
    assert 'No space left on device; make room: `df -h`' in line
    assert 'Errno' not in line
