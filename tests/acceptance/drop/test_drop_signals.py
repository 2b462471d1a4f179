"""``bin/drop`` is asked to end, or killed, at any moment of its life."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time

import pytest

from switchboard import Spool
from tests.acceptance.drop.dropping import RAW, Door, refused, wait_until_read
from tests.helpers.waiting import PATIENCE_S

pytestmark = pytest.mark.slow


def test_a_signal_before_the_end_of_the_message_stores_nothing(door: Door) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with door.start(start_new_session=True) as process:
            assert process.stdin is not None
            process.stdin.write(RAW)
            process.stdin.flush()
            wait_until_read(process.stdin.fileno())
            process.send_signal(signum)
            assert process.wait(PATIENCE_S) == 75
            assert process.stderr is not None
            assert process.stderr.read().count(b'\n') == 1
        assert door.entries() == []


@pytest.mark.parametrize('to_all', [False, True])
def test_whenever_it_is_asked_to_end_the_answer_says_whether_it_is_stored(door: Door, to_all: bool) -> None:
    rng = random.Random(7)
    answers = set()
    for number in range(60):
        with door.start(start_new_session=True) as process:
            assert process.stdin is not None
            process.stdin.write(b'%d' % number)
            process.stdin.close()
            time.sleep(rng.uniform(0, 0.03))  # any moment of its life, so there is no event to wait for
            for _ in range(3):  # some are impatient
                if process.poll() is None:
                    (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
            status = process.wait(PATIENCE_S)
        # Before its first line the shell has no answer but the signal itself.
        assert status in (0, 75, -signal.SIGTERM)
        entries = door.entries()
        assert len(entries) == (status == 0), f'try {number}: status {status}'
        for entry in entries:
            entry.unlink()
        answers.add(status)
    assert 75 in answers or -signal.SIGTERM in answers


@pytest.mark.parametrize('to_all', [False, True])
def test_when_it_is_killed_a_whole_message_or_nothing_is_there(door: Door, to_all: bool) -> None:
    rng = random.Random(11)
    body = os.urandom(300_000)
    for _ in range(40):
        with door.start(start_new_session=True) as process:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(body)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            time.sleep(rng.uniform(0, 0.02))  # any moment of its life
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if to_all else os.kill)(process.pid, signal.SIGKILL)
            status = process.wait(PATIENCE_S)
            if process.stderr is not None:
                process.stderr.read()  # until the interpreter, too, has gone
        entries = door.entries()
        assert len(entries) <= 1
        assert len(entries) == 1 or status != 0
        for entry in entries:
            assert body in entry.read_bytes()
            entry.unlink()


def test_when_the_shell_is_killed_nobody_hears_and_nothing_is_stored(door: Door) -> None:
    with door.start() as process:
        assert process.stdin is not None
        process.stdin.write(RAW)
        process.stdin.flush()
        wait_until_read(process.stdin.fileno())
        process.kill()
        process.wait(PATIENCE_S)
        process.stdin.close()
        assert process.stderr is not None
        process.stderr.read()  # until the interpreter has gone, too
    assert door.entries() == []


@pytest.mark.parametrize('shell', ['dash', 'bash', 'bash --posix', 'busybox sh', 'ksh', 'mksh'])
def test_any_shell_will_do(door: Door, shell: str) -> None:
    name, *options = shell.split()
    path = shutil.which(name)
    if path is None:
        pytest.skip(f'{name} is not installed')
    door.shell = [path, *options]
    assert door.drop().returncode == 0
    assert door.drop(preexec_fn=lambda: os.closerange(1, 3)).returncode == 0
    assert len(door.entries()) == 2
    assert refused(door.drop(RAW, '-s', '/nonexistent'))
    with door.start() as process:
        assert process.stdin is not None
        process.stdin.write(RAW)
        process.stdin.flush()
        wait_until_read(process.stdin.fileno())
        process.terminate()
        assert process.wait(PATIENCE_S) == 75
    with door.start(stdin=None, preexec_fn=lambda: os.close(0)) as process:
        process.communicate()
        assert process.returncode == 75
    assert len(door.entries()) == 2


def test_a_message_that_is_sent_until_it_is_accepted_is_stored_once(door: Door) -> None:
    rng = random.Random(13)
    life_s = 0.13  # about as long as it lives, which depends on the machine: half of them are to come through
    for number in range(12):
        message = b'%d' % number
        while True:
            with door.start('-d', 'content', start_new_session=True) as process:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(message)
                    process.stdin.close()
                time.sleep(rng.uniform(0.3, 1) * life_s)  # any moment of its life, the commit above all
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if process.wait(PATIENCE_S) == 0:
                    life_s /= 1.2
                    break
                life_s *= 1.2
    queue = Spool(door.spool)['in']
    assert sorted(int(queue.peek(filebase).body) for filebase in queue.get_files()) == list(range(12))


def test_the_same_message_at_the_same_time_is_stored_once(door: Door) -> None:
    processes = [door.start('-d', 'content') for _ in range(8)]
    for process in processes:
        process.communicate(RAW)
        assert process.returncode == 0
    assert len(door.entries()) == 1
