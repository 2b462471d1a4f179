"""The operator's program on a terminal, and as a process among others: colours, questions, signals, pipes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.exits import Exit
from tests.acceptance.cli.terminal import PROGRAM, Terminal, environment, program
from tests.acceptance.installation import Installation, Lines
from tests.helpers.commands import fail
from tests.helpers.waiting import PATIENCE_S

Open = Callable[..., Terminal]


@pytest.fixture
def terminal() -> Iterator[Open]:
    """Opens terminals, and closes them in the end."""
    opened: list[Terminal] = []

    def open_one(*words: str | Path, columns: int = 100) -> Terminal:
        opened.append(Terminal(*words, columns=columns))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.mark.slow
@pytest.mark.parametrize('columns', [50, 80, 200])
def test_no_list_is_wider_than_the_terminal(spool: Spool, terminal: Open, columns: int) -> None:
    filebase = fail(spool, 'in', 'x', 'TimeoutError', 'a text that is longer than the terminal is wide ' * 5)
    spool['in'].enqueue('later', delay=60)
    for verb in (['ls'], ['ls', '--all'], ['queues']):
        shown = terminal('-s', spool.directory, *verb, columns=columns)
        assert shown.wait() == 0
        assert max(len(line) for line in shown.shown.splitlines()) <= columns, verb
        assert 'in' in shown.shown
    listed = terminal('-s', spool.directory, 'ls', columns=columns)
    listed.wait()
    assert (filebase in listed.shown) == (columns == 200)
    assert filebase.partition('+')[0] in listed.shown


def test_a_question_is_answered_at_the_terminal(spool: Spool, terminal: Open) -> None:
    fail(spool, 'in', 'x')
    fail(spool, 'in', 'y')
    no = terminal('-s', spool.directory, 'retry', '--all')
    no.read_until('send back 2 entries (bad 2)? [y/N]:')
    no.type('n\n')
    assert no.wait() == 130
    assert len(spool['bad'].get_files('.psv')) == 2
    yes = terminal('-s', spool.directory, 'retry', '--all')
    yes.read_until('[y/N]:')
    yes.type('y\n')
    assert yes.wait() == 0
    assert len(spool['in'].files) == 2


def test_the_end_of_input_at_a_question_means_no(spool: Spool, terminal: Open) -> None:
    filebase = fail(spool, 'in', 'x')
    asked = terminal('-s', spool.directory, 'rm', filebase)
    asked.read_until('remove 1 entry (bad 1)? [y/N]:')
    asked.type('\x04')
    assert asked.wait() == 130
    assert spool['bad'].get_files('.psv') == [filebase]


def test_a_message_from_the_terminal_ends_with_ctrl_d(spool: Spool, terminal: Open) -> None:
    typed = terminal('-s', spool.directory, 'enqueue', 'in', '--kind', 'text')
    typed.read_until('Ctrl-D ends it')
    typed.type('hello\n\x04')
    assert typed.wait() == 0
    (filebase,) = spool['in'].files
    assert spool['in'].dequeue(filebase)[0] == 'hello\n'


def test_tail_shows_what_arrives_once_and_ends_with_ctrl_c(spool: Spool, terminal: Open) -> None:
    old = fail(spool, 'in', 'before', 'KeyError')
    shown = terminal('-s', spool.directory, 'tail', columns=200)
    shown.read_until(old)
    new = fail(spool, 'in', 'after', 'TimeoutError')
    shown.read_until('TimeoutError: no way')
    shown.type('\x03')
    assert shown.wait() == 130
    assert shown.shown.count(old) == 1
    assert shown.shown.count(new) == 1


def test_tail_in_a_pipe_is_json_line_by_line(spool: Spool) -> None:
    words = ['-s', spool.directory, 'tail', 'in', 'out', '-n', '1', '--count', '2', '--json']
    first = spool['in'].enqueue('first')
    spool['out'].enqueue('make the directory')
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        lines = Lines(process.stdout.fileno())
        lines.wait_for('"queue": "out"')
        second, third = spool['in'].enqueue('second'), spool['out'].enqueue('third')
        lines.wait_for(second.replace('+', '[+]'))
        lines.wait_for(third.replace('+', '[+]'))
        assert process.wait(PATIENCE_S) == 0
        assert not lines.said(first.replace('+', '[+]'))


def test_a_reader_who_goes_ends_a_list_in_silence(spool: Spool) -> None:
    spool['in'].enqueue_many('x' * 100 for _ in range(2000))
    words = ['-s', spool.directory, 'ls', 'in', '--limit', '0', '--json']
    with subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 141
        assert process.stderr.read() == b''


def test_ctrl_c_has_a_status_of_its_own(spool: Spool) -> None:
    spool['bad'].enqueue('make the directory')
    fail(spool, 'in', 'x')
    with subprocess.Popen(
        [*PROGRAM, '-s', spool.directory, 'tail'],
        stdout=subprocess.PIPE,
        env=environment(),
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130


@pytest.mark.slow
def test_a_start_and_a_stop_show_how_far_they_are(site: Installation, terminal: Open) -> None:
    site.configure({'in': {}, 'slow': {'class': 'jobs:SlowStart'}})
    starting = terminal('-C', site.config, 'start')
    starting.read_until('1 of 2 runners ready, not yet slow 1/1')
    site.open_gate()
    assert starting.wait() == 0
    assert '2 runners ready' in starting.shown
    site.put('in', 'wait')
    site.told.wait_for('begin in')
    watching = terminal('-C', site.config, 'top', '--count', '2', '--interval', '100ms', columns=160)
    assert watching.wait() == 0
    assert 'master: RUNNING' in watching.shown
    stopping = terminal('-C', site.config, 'stop')
    stopping.read_until('1 runner left: in 1/1 at')
    site.open_gate()
    assert stopping.wait() == 0
    assert 'stopped in' in stopping.shown


def test_top_in_a_pipe_is_one_look(spool: Spool) -> None:
    spool['in'].enqueue('x')
    ran = program('-s', spool.directory, 'top')
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[0] == 'master: not running; none was ever started here'
    assert ran.stdout.splitlines()[-1].split()[:2] == ['in', '1']


# No verb that looks needs these: each costs as much as the rest of it.
HEAVY = 'rich psutil asyncio ctypes kombu difflib switchboard.master.master switchboard.runner'.split()
# Nor these: what reads a list of entries does not read their bodies.
BODIES = [*HEAVY, 'zope', 'email.message', 'switchboard.message.serializers', 'switchboard.spool.spool']
SMALL = [*BODIES, 'switchboard.config', 'switchboard.master', 'switchboard.operating.queue_counts']


@pytest.mark.parametrize(
    ('words', 'unwanted'),
    [
        ('--version', SMALL),
        ('--help', SMALL),
        ('version', SMALL),
        ('status --help', BODIES),
        ('status', BODIES),
        ('queues', BODIES),
        ('ls', BODIES),
        ('ls in', BODIES),
        ('ls in --json', BODIES),
        ('show in', BODIES),
        ('show ENTRY', HEAVY),
        ('enqueue in', HEAVY),
    ],
)
def test_a_start_imports_only_what_it_needs(words: str, unwanted: list[str], tmp_path: Path) -> None:
    (tmp_path / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = spool\n[queue.in]\n[runner.archive]\nclass = archive:Archive\nqueue = in\n'
    )
    filebase = Spool.from_config(tmp_path / 'switchboard.cfg')['in'].enqueue('a message')
    code = (
        'import sys; from switchboard.cli.app import call; status = call(sys.argv[1:]); '
        'print(*sys.modules, file=sys.stderr); sys.exit(status)'
    )
    ran = subprocess.run(
        [sys.executable, '-c', code, *words.replace('ENTRY', filebase).split()],
        input='a message from standard input',
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    # `status`: the installation has runners, and no master.
    assert ran.returncode == (Exit.UNAVAILABLE if words == 'status' else Exit.OK), ran.stderr[:500]
    assert set(ran.stderr.splitlines()[-1].split()) & set(unwanted) == set()


def test_the_program_in_bin_finds_its_checkout_through_a_link(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    (tmp_path / 'switchboard').symlink_to(root / 'bin' / 'switchboard')
    ran = subprocess.run(
        [tmp_path / 'switchboard', 'version'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ran.stdout.startswith('switchboard ')
