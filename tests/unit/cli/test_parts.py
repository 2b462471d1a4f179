"""Small parts of the command line: who holds what, what has arrived, examples in docstrings."""

from __future__ import annotations

import doctest
import fcntl
import os
import re
import time
from pathlib import Path

import click
import pytest

from switchboard import Spool
from switchboard.cli.app import TAKES_YES, VERBS
from switchboard.cli.app import switchboard as program
from switchboard.cli.commands import tail
from switchboard.cli.commands.lifecycle import describe_remaining
from switchboard.cli.commands.status import status_of
from switchboard.cli.commands.tail import ArrivalWatch
from switchboard.cli.exits import READ_ONLY_VERBS, Exit
from switchboard.operating import text as wording
from switchboard.operating.entry_fields import LOCKS, LockHolders
from switchboard.operating.health import master_alarm, runner_alarms
from switchboard.queue import watch
from switchboard.status.scoreboard import MasterRecord, ProcessState, Scoreboard, Slot, SupervisorRecord
from switchboard.status.snapshot import read_status as take
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from tests.helpers.commands import fail, succeed, switchboard


def test_the_examples_in_the_wording_hold() -> None:
    results = doctest.testmod(wording)
    assert results.attempted
    assert not results.failed


def test_the_holder_of_a_lock_is_read_from_the_kernels_list(tmp_path: Path) -> None:
    if not LOCKS.exists():
        pytest.skip('the kernel has no list of locks')
    with (tmp_path / 'file').open('w') as stream:
        status = os.fstat(stream.fileno())
        assert (status.st_dev, status.st_ino) not in LockHolders()
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert LockHolders()[status.st_dev, status.st_ino] == os.getpid()


def test_other_lines_and_a_missing_list_name_nobody(tmp_path: Path) -> None:
    assert LockHolders(tmp_path / 'none') == {}
    (tmp_path / 'locks').write_text(
        '1: POSIX  ADVISORY  WRITE 7 fe:00:1 0 EOF\n'
        '2: FLOCK  ADVISORY  READ 8 fe:00:2 0 EOF\n'
        '2: -> FLOCK  ADVISORY  WRITE 9 fe:00:2 0 EOF\n'
        '3: FLOCK  ADVISORY  WRITE -1 fe:00:3 0 EOF\n'
        '4: FLOCK  ADVISORY  WRITE 10 fe:01:4 0 EOF\n'
    )
    assert LockHolders(tmp_path / 'locks') == {(os.makedev(0xFE, 0), 3): 0, (os.makedev(0xFE, 1), 4): 10}


def test_without_events_arrivals_are_found_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, 'load_inotify', lambda: None)
    monkeypatch.setattr(tail, 'POLL_S', 0.0)
    spool = Spool(tmp_path / 'spool', durability='lazy')
    spool['in'].enqueue('before')
    arrivals = ArrivalWatch(
        Path(spool.directory),
        [('in', Folder(spool.path('in'), Disk())), ('bad', Folder(spool.path('bad'), Disk()))],
    )
    assert arrivals.wait() == []
    filebases = spool['in'].enqueue_many(['x', 'y'])
    assert [(each.queue, each.filebase) for each in arrivals.wait()] == [('in', name) for name in filebases]
    spool['in'].finish(filebases[0], preserve=True)
    assert [(each.queue, each.suffix) for each in arrivals.wait()] == [('bad', '.psv')]


@pytest.fixture
def scoreboard(tmp_path: Path) -> Scoreboard:
    (tmp_path / '.run' / 'master').mkdir(parents=True)
    return Scoreboard.create(tmp_path / '.run' / 'master' / 'scoreboard', 4)


def test_a_slice_in_trouble_is_told_of_with_its_reason(scoreboard: Scoreboard, tmp_path: Path) -> None:
    scoreboard.write_supervisor_record(
        0, SupervisorRecord('in', state=ProcessState.FATAL, reason='no such class')
    )
    scoreboard.write_supervisor_record(
        1,
        SupervisorRecord(
            'out', state=ProcessState.BACKOFF, reason='exited with status 1', next_restart_ns=105_000_000_000
        ),
    )
    scoreboard.write_supervisor_record(
        2, SupervisorRecord('well', state=ProcessState.RUNNING, pid=os.getpid())
    )
    Slot(scoreboard, 2).error('ValueError: \x1b[2J')
    told = {one.subject: one.text for one in runner_alarms(take(tmp_path), {}, 100.0)}
    assert told['in 1/1'] == 'FATAL: no such class'
    assert told['out 1/1'] == 'starts again in 5.0s: exited with status 1'
    assert told['well 1/1'].startswith('last error ')
    assert told['well 1/1'].endswith(" ahead of this machine's clock: ValueError: \\x1b[2J")
    later = {one.subject: one.text for one in runner_alarms(take(tmp_path), {}, time.time() + 60)}
    assert later['well 1/1'].startswith('last error 1m')
    assert later['well 1/1'].endswith(' ago: ValueError: \\x1b[2J')


def test_a_scoreboard_without_a_master_is_what_a_dead_one_left(
    scoreboard: Scoreboard, tmp_path: Path
) -> None:
    snapshot = take(tmp_path)
    assert not snapshot.alive
    assert master_alarm(snapshot, 0.0).text.startswith('NOT RUNNING; the last start failed')
    assert status_of(snapshot) == 69
    scoreboard.write_master_record(MasterRecord(pid=12, state=ProcessState.RUNNING))
    snapshot = take(tmp_path)
    assert master_alarm(snapshot, 0.0).text.startswith('NOT RUNNING; it died (pid 12)')
    assert status_of(snapshot) == 69


def test_who_is_left_is_told_with_what_keeps_the_busy_ones(scoreboard: Scoreboard, tmp_path: Path) -> None:
    for index, name in enumerate(('in', 'out')):
        scoreboard.write_supervisor_record(
            index, SupervisorRecord(name, pid=os.getpid(), state=ProcessState.STOPPING)
        )
    Slot(scoreboard, 0).begin('1795317402.674871037+' + 'a' * 40)
    assert (
        describe_remaining(take(tmp_path).records)
        == '2 runners left: in 1/1 at 1795317402.674871037 for 0.0s'
    )
    assert describe_remaining([]) == '0 runners left'


PAGE = Path(__file__).parents[3] / 'docs' / 'reference' / 'cli.md'
ROW = re.compile(r'^\| (`.*`) \| (?:always|if the .*) \|$', re.MULTILINE)
ASKING = sorted(verb for row in ROW.findall(PAGE.read_text()) for verb in re.findall(r'`([\w-]+)`', row))


def option(verb: str) -> click.Option | None:
    command = program.get_command(click.Context(program), verb)
    assert command is not None
    found = [each for each in command.params if '--yes' in each.opts]
    assert len(found) < 2
    return found[0] if found and isinstance(found[0], click.Option) else None


def test_every_verb_that_changes_something_takes_the_answer_and_those_that_ask_show_it() -> None:
    options = {verb: found for verb in VERBS if (found := option(verb)) is not None}
    assert options.keys() == TAKES_YES
    assert sorted(verb for verb, found in options.items() if not found.hidden) == ASKING
    assert {'pause', 'drain', 'resume', 'declare', 'tidy', 'spares', 'edit', 'reload'} <= options.keys()
    assert not READ_ONLY_VERBS & options.keys()


@pytest.mark.parametrize('verb', ASKING)
def test_a_verb_of_the_table_asks(spool: Spool, verb: str) -> None:
    spool['in'].enqueue('waiting')
    held = spool['in'].enqueue('held')
    failed = fail(spool, 'in', 'failed')
    place = ('-s', spool.directory)
    succeed(*place, 'hold', held)
    if verb == 'restore':
        succeed(*place, 'rm', '--yes', failed)
    words = {'rm': [failed], 'purge': ['in'], 'delete': ['in'], 'mv': ['--all', 'out']}.get(verb, ['--all'])
    ran = switchboard(*place, verb, *words)
    assert (ran.status, 'say --yes' in ran.err) == (Exit.USAGE, True), ran.err
    succeed(*place, verb, '--yes', *words)


@pytest.mark.parametrize('words', [('pause', 'in'), ('declare', 'fresh'), ('tidy',), ('spares', 'empty')])
def test_what_does_not_ask_takes_the_answer(spool: Spool, words: tuple[str, ...]) -> None:
    spool['in']
    succeed('-s', spool.directory, *words, '--yes')
