"""``bin/demo``: it shows what it promises, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import remaining

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / 'bin' / 'demo'
ENDING = (signal.SIGINT, signal.SIGTERM)
VENV = Path(sys.prefix)
# It takes five seconds by itself.
SECONDS_MAX = 240.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not any(VENV.glob('installed.*')), reason='needs an environment that bin/_setup has made'
    ),
]


def environment(directory: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ('PATH', 'HOME') if name in os.environ}
    return {**kept, 'TMPDIR': str(directory), 'SWITCHBOARD_VENV': str(VENV), 'LC_ALL': 'C.UTF-8'}


def left_behind(directory: Path) -> list[str]:
    """:return: what lies in the directory, and the processes that were started with it in their environment."""
    # Who was killed together with its master may have a moment to go.
    return [path.name for path in directory.iterdir()] + remaining('TMPDIR', str(directory))


def is_the_main_job(out: str) -> None:
    """Check what a run has shown."""
    shown = [line for line in out.splitlines() if line.startswith('$ ')]
    for verb in ('init', 'check', 'start', 'queues', 'ls bad', 'show', 'retry', 'status', 'stop'):
        assert any(line.startswith(f'$ switchboard {verb}') for line in shown), verb
    assert sum(line.startswith('$ drop in ') for line in shown) == 6
    for said in (
        'runners ready',
        'Traceback',
        'FileNotFoundError',
        'waiting, ',
        'stopped in',
        'That was all',
    ):
        assert said in out, said
    assert '\x1b' not in out


def test_it_shows_the_main_job_even_twice_at_once_and_keeps_what_it_made_if_asked(tmp_path: Path) -> None:
    demos = [
        subprocess.Popen(
            [DEMO, *words],
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in ((), ('--keep',))
    ]
    for demo in demos:
        out, _ = demo.communicate(timeout=SECONDS_MAX * 2)
        assert demo.returncode == 0, out
        is_the_main_job(out)
    [home] = tmp_path.iterdir()
    assert str(home) in out.splitlines()[-1]
    assert len(list((home / 'mailboxes' / 'carla').iterdir())) == 1
    assert list((home / 'var' / 'spool' / 'bad').iterdir()) == []
    assert left_behind(tmp_path) == [home.name]


@pytest.mark.parametrize('word', ['started in', '$ drop in', '$ switchboard ls bad'])
@pytest.mark.parametrize('signum', ENDING)
@pytest.mark.in_turns('signum', ENDING)
def test_broken_off_it_cleans_up(tmp_path: Path, word: str, signum: signal.Signals) -> None:
    with subprocess.Popen([DEMO], env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if line.startswith(word):
                break
        demo.send_signal(signum)
        rest = demo.stdout.read()
        assert demo.wait(SECONDS_MAX) == 130, rest
    assert 'cleaning up' in rest
    assert 'Traceback' not in rest.partition('cleaning up')[2]
    assert left_behind(tmp_path) == []


def test_on_a_terminal_it_is_drawn_live(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    words = {**environment(tmp_path), 'TERM': 'xterm-256color'}
    with subprocess.Popen([DEMO], env=words, stdin=terminal, stdout=terminal, stderr=terminal) as demo:
        os.close(terminal)
        shown = b''
        try:
            while piece := os.read(controller, 65536):
                shown += piece
        except OSError:
            pass  # nobody has the terminal open any more
        os.close(controller)
        assert demo.wait(SECONDS_MAX) == 0
    assert b'\x1b[' in shown
    assert b'All of them have gone' in shown
    assert left_behind(tmp_path) == []


def test_it_says_what_it_is_and_knows_no_other_word() -> None:
    told = subprocess.run([DEMO, '--help'], capture_output=True, text=True, check=True)
    assert '--keep' in told.stdout
    assert subprocess.run([DEMO, '--wrong'], capture_output=True, check=False).returncode == 64
