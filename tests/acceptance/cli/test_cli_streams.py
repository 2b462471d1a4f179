"""Standard streams that are full, closed, gone or of another alphabet: what was done is done, and says so."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.app import VERBS
from switchboard.cli.exits import READ_ONLY_VERBS, Exit
from tests.acceptance.cli.terminal import PROGRAM, environment, program
from tests.acceptance.forked import CLOSED
from tests.helpers.commands import fail
from tests.helpers.waiting import PATIENCE_S


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / 'spool', durability='lazy')
    for n in range(3):
        fail(spool, 'in', n)
    return spool


# What changes something, and how to see that it did.
CHANGES: dict[tuple[str, ...], Callable[[Spool], bool]] = {
    ('enqueue', 'in'): lambda spool: len(spool['in'].files) == 1,
    ('retry', '--all', '--yes'): lambda spool: len(spool['in'].files) == 3,
    ('retry', '--all', '--yes', '--json'): lambda spool: len(spool['in'].files) == 3,
    ('mv', '--all', '--yes', 'out'): lambda spool: len(spool['out'].files) == 3,
    ('rm', '--all', '--yes'): lambda spool: spool['bad'].get_files('.psv') == [],
    ('pause', 'in'): lambda spool: spool.flags.is_set('paused', 'in', refresh=True),
    ('drain', 'in'): lambda spool: spool.flags.is_set('draining', 'in', refresh=True),
    ('declare', 'fresh'): lambda spool: 'fresh' in spool.queue_names(),
    ('delete', 'in'): lambda spool: 'in' not in spool.queue_names(),
    ('spares', 'empty'): lambda spool: spool.pool.count() == 0,
    ('tidy',): lambda _spool: True,
}


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='there is no /dev/full')
@pytest.mark.parametrize('words', CHANGES, ids=' '.join)
def test_what_was_done_is_done_on_a_full_disk(spool: Spool, words: tuple[str, ...]) -> None:
    with Path('/dev/full').open('wb') as full:
        ran = program('-s', spool.directory, *words, input=b'x', stdout=full.fileno())
    assert (ran.returncode, CHANGES[words](Spool(spool.directory))) == (0, True), ran.stderr
    assert 'it is done' in ran.stderr
    assert words[0] not in READ_ONLY_VERBS


@pytest.mark.parametrize('words', CHANGES, ids=' '.join)
def test_what_was_done_is_done_without_a_standard_output(spool: Spool, words: tuple[str, ...]) -> None:
    ran = program('-s', spool.directory, *words, input=b'x', stdout=CLOSED)
    assert (ran.returncode, CHANGES[words](Spool(spool.directory))) == (0, True), ran.stderr


@pytest.mark.parametrize('words', CHANGES, ids=' '.join)
def test_what_was_done_is_done_when_the_reader_has_gone(spool: Spool, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, 'wb') as gone:
        ran = program('-s', spool.directory, *words, input=b'x', stdout=gone.fileno())
    assert (ran.returncode, CHANGES[words](Spool(spool.directory))) == (0, True), ran.stderr


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='there is no /dev/full')
def test_a_list_that_cannot_be_written_is_an_error(spool: Spool) -> None:
    for words in (['ls'], ['ls', '--json'], ['queues'], ['version'], ['sample'], ['show', 'bad']):
        with Path('/dev/full').open('wb') as full:
            ran = program('-s', spool.directory, *words, stdout=full.fileno())
        assert ran.returncode == Exit.TEMPORARY, (words, ran.stderr)
        assert 'standard output' in ran.stderr
        ran = program('-s', spool.directory, *words, stdout=CLOSED)
        assert ran.returncode == Exit.IO, (words, ran.stderr)


# What of these is Python's own is seen in programs that start from nothing.
@pytest.mark.parametrize('closed', [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_may_be_closed_from_the_start(spool: Spool, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    ran = subprocess.run(
        [*PROGRAM, '-s', spool.directory, 'retry', '--all', '--yes'],
        input=b'x',
        capture_output=True,
        timeout=PATIENCE_S,
        preexec_fn=close,
        env=environment(),
        check=False,
    )
    assert (ran.returncode, len(spool['in'].files)) == (0, 3), ran.stderr


@pytest.mark.parametrize(
    'words', [['ls'], ['queues', '--json'], ['enqueue', 'in'], ['version'], ['status']], ids=' '.join
)
def test_nothing_is_left_undone_at_the_end_that_the_interpreter_would_tell_of(
    spool: Spool, words: list[str]
) -> None:
    command = [sys.executable, '-X', 'dev', '-W', 'error', '-m', 'switchboard', '-s', spool.directory, *words]
    ran = subprocess.run(
        command, input='x', capture_output=True, text=True, check=False, env=environment(), timeout=PATIENCE_S
    )
    assert ran.stdout
    assert ran.stderr == ''


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='there is no /dev/full')
@pytest.mark.parametrize('stream', ['stdout', 'stderr'])
def test_streams_may_be_full_from_the_start(spool: Spool, stream: str) -> None:
    with Path('/dev/full').open('wb') as full:
        streams = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, stream: full}
        ran = subprocess.run(
            [*PROGRAM, '-s', spool.directory, 'retry', '--all', '--yes'],
            timeout=PATIENCE_S,
            env=environment(),
            check=False,
            **streams,
        )
    assert (ran.returncode, len(spool['in'].files)) == (0, 3)
    assert (ran.stderr or b'').count(b'it is done') == (stream == 'stdout')


def test_what_an_alphabet_does_not_have_is_written_out(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'schöne Post', durability='lazy')
    spool['in'].enqueue('x', sender='Jürgen', place='東京')
    for encoding in ('ascii', 'latin-1'):
        more = {'PYTHONIOENCODING': encoding, 'PYTHONUTF8': '0'}
        for words in (
            ['ls', 'in', '--columns', 'sender,place'],
            ['show', 'in'],
            ['status'],
            ['ls', 'nosuch'],
        ):
            ran = subprocess.run(
                [*PROGRAM, '-s', spool.directory, *words],
                capture_output=True,
                timeout=PATIENCE_S,
                env=environment(**more),
                check=False,
            )
            assert b'mistake in this program' not in ran.stderr, ran.stderr
            assert b'Traceback' not in ran.stderr


def test_a_path_that_is_no_text_is_shown(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b'/\xe4'
    for verb in (b'init', b'metrics'):
        ran = subprocess.run(
            [*map(os.fsencode, PROGRAM), b'-s', directory, verb],
            capture_output=True,
            timeout=PATIENCE_S,
            env=environment(),
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert b'udce4' in ran.stdout


@pytest.mark.parametrize('name', [b'\xe4', b'two\nlines', b"it's; $HOME `id` %s"])
def test_an_installation_works_in_a_directory_of_any_name(tmp_path: Path, name: bytes) -> None:
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b'/' + name))
    home.mkdir()
    config = home / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[runner.out]\nclass = null\nqueue = out\n')

    def act(*words: str) -> None:
        ran = program('-C', config, *words, input=b'x')
        assert (ran.returncode, 'Traceback' in ran.stderr) == (0, False), (words, ran.stdout, ran.stderr)

    act('start')
    try:
        for words in (
            ['status'],
            ['status', '--json'],
            ['enqueue', 'out'],
            ['scale', 'out=2'],
            ['reload'],
            ['restart'],
            ['metrics'],
            ['graph', '--dot'],
            ['check', '--imports'],
        ):
            act(*words)
    finally:
        act('stop')


@pytest.mark.parametrize('name', ['two\nlines', "it's; $HOME `id` %s"])
def test_a_command_that_a_message_names_reaches_a_directory_of_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    config = home / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[runner.out]\nclass = null\nqueue = out\n')
    assert program('-C', config, 'start').returncode == 0
    try:
        config.write_text(config.read_text().replace('spool = spool', 'spool = other'))
        told = program('-C', config, 'status').stderr
        found = re.search('is at work on .*`switchboard (.*)` ends it', told, re.DOTALL)
        assert found, told
        command = f'{sys.executable} -m switchboard {found[1]}'
        done = subprocess.run(command, shell=True, check=False, timeout=PATIENCE_S, env=environment())
        assert done.returncode == 0, command
    finally:
        program('-s', home / 'spool', 'stop')


def test_every_verb_either_looks_or_changes() -> None:
    assert set(VERBS) >= READ_ONLY_VERBS


# One command of each verb, in an installation whose master does not run; of those that stay until they are stopped, their help.
EACH: dict[str, tuple[str, ...]] = {
    'init': ('init',),
    'sample': ('sample', 'switchboard'),
    'start': ('start', '--help'),
    'stop': ('stop',),
    'restart': ('restart',),
    'reload': ('reload',),
    'reopen': ('reopen',),
    'scale': ('scale', 'work=2'),
    'run': ('run', 'work', '--until-empty'),
    'drop': ('drop', 'in'),
    'master': ('master', '--help'),
    'runner': ('runner', 'work', '--until-empty'),
    'status': ('status',),
    'top': ('top', '--once'),
    'metrics': ('metrics',),
    'web': ('web', '--help'),
    'queues': ('queues',),
    'ls': ('ls',),
    'show': ('show', 'bad'),
    'trash': ('trash',),
    'tail': ('tail', '--help'),
    'shape': ('shape',),
    'enqueue': ('enqueue', 'in'),
    'retry': ('retry', '--all', '--yes'),
    'mv': ('mv', '--all', '--yes', 'out'),
    'rm': ('rm', '--all', '--yes'),
    'restore': ('restore', '--all', '--yes'),
    'hold': ('hold', '--all', '-q', 'in', '--yes'),
    'release': ('release', '--all', '-q', 'in', '--yes'),
    'edit': ('edit', 'nosuch', '--set', 'a=b'),
    'pause': ('pause', 'in'),
    'drain': ('drain', 'in'),
    'resume': ('resume', 'in'),
    'declare': ('declare', 'fresh'),
    'delete': ('delete', 'out'),
    'purge': ('purge', 'in', '--yes'),
    'tidy': ('tidy',),
    'spares': ('spares',),
    'export-mailman': ('export-mailman', '--help'),
    'check': ('check',),
    'route': ('route', '', 'in'),
    'graph': ('graph',),
    'version': ('version',),
}


# How a stream takes nothing, and what a list ends with that cannot be written so.
HOW = {'closed': Exit.IO, 'full': Exit.TEMPORARY}


MAIL = b'Subject: x\n\nx\n'


class Streams:
    """One command, in an installation of its own each time, with one of its standard streams as it should not be."""

    def __init__(self, directory: Path, words: tuple[str, ...]) -> None:
        self._directory = directory
        self._words = words
        self._count = 0

    def _installed(self) -> Path:
        self._count += 1
        here = self._directory / str(self._count)
        here.mkdir()
        config = here / 'switchboard.cfg'
        config.write_text(
            '[switchboard]\nspool = spool\ndurability = lazy\n[queue.in]\n[queue.out]\n[runner.work]\nclass = null\nqueue = in\n'
        )
        spool = Spool.from_config(config)
        spool['in'].enqueue('x')
        fail(spool, 'out', 'y')
        return config

    def _run(self, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE) -> tuple[int, str, str]:
        ran = program('-C', self._installed(), *self._words, input=MAIL, stdout=stdout, stderr=stderr)
        return ran.returncode, ran.stdout, ran.stderr

    def good(self) -> tuple[int, str, str]:
        """What the others are compared with: in pipes."""
        return self._run()

    def without_output(self, how: str) -> tuple[int, str, str]:
        with self._taking_nothing(how) as stream:
            return self._run(stdout=stream)

    def without_errors(self, how: str) -> tuple[int, str, str]:
        with self._taking_nothing(how) as stream:
            return self._run(stderr=stream)

    @contextmanager
    def _taking_nothing(self, how: str) -> Iterator[int]:
        if how == 'closed':
            yield CLOSED
        else:
            with Path('/dev/full').open('wb') as full:
                yield full.fileno()


def test_the_table_has_every_verb() -> None:
    assert EACH.keys() == VERBS.keys()


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='there is no /dev/full')
@pytest.mark.parametrize('how', HOW)
@pytest.mark.in_turns('how', tuple(HOW))
@pytest.mark.parametrize('verb', EACH)
def test_a_stream_that_takes_nothing_is_told_of_once_and_does_not_change_what_was_done(
    tmp_path: Path, verb: str, how: str
) -> None:
    words = EACH[verb]
    streams = Streams(tmp_path, words)
    status, out, err = streams.good()
    only_looks = verb in READ_ONLY_VERBS or '--help' in words
    told = len(err.splitlines())
    ended, _, said = streams.without_output(how)
    assert ended == (HOW[how] if out and only_looks else status), said
    assert said.count('standard output') <= 1, said
    assert len(said.splitlines()) <= told + bool(out), said
    assert ('standard output' in said) == bool(out), said
    assert 'Traceback' not in said, said
    assert 'Exception ignored' not in said, said
    assert 'a mistake in this program' not in said, said
    assert streams.without_errors(how)[0] == status


# Ctrl-C in the worst instant: when a line was written, before anybody who waits for that has heard of it.
INTERRUPTED = """
import sys
from switchboard.cli.output import make_streams_safe

def interrupt(frame, what, _result):
    if what == 'return' and frame.f_code.co_name in ('write', 'flush'):
        raise KeyboardInterrupt
    return interrupt

make_streams_safe()
sys.settrace(interrupt)
try:
    print('one line', flush=True)
except KeyboardInterrupt:
    pass
sys.settrace(None)
"""


def test_a_line_is_written_once_though_its_writer_is_interrupted() -> None:
    ran = subprocess.run([sys.executable, '-c', INTERRUPTED], capture_output=True, text=True, check=True)
    assert ran.stdout == 'one line\n'


@pytest.mark.parametrize('as_json', [(), ('--json',)])
def test_a_verb_for_which_there_is_no_memory_says_so_in_one_line(
    tmp_path: Path, as_json: tuple[str, ...]
) -> None:
    Spool(tmp_path / 'spool')
    most = 150 << 20
    with (tmp_path / 'large').open('wb') as large:
        large.truncate(2 * most)
    with (tmp_path / 'large').open('rb') as large:
        ran = subprocess.run(
            [*PROGRAM, '-s', tmp_path / 'spool', 'enqueue', 'in', *as_json],
            stdin=large,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=environment(),
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
            check=False,
        )
    assert (ran.returncode, ran.stderr.count('\n')) == (75, 1)
    assert 'out of memory' in ran.stderr
    assert 'mistake' not in ran.stderr
