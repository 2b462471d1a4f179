"""What the verbs that only look do not load: a start is mostly imports, and these are started most often."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.operating.entry_fields import LOCKS

# Needed by other verbs, each at the price of milliseconds.
NEVER = {
    'asyncio',
    'email',
    'graphlib',
    'http',
    'importlib.metadata',
    'multiprocessing',
    'psutil',
    'random',
    'rich',
    'shlex',
    'socket',
    'ssl',
    'subprocess',
    'switchboard.handoff',
    'switchboard.master',
    'switchboard.operating.actions',
    'switchboard.operating.audit',
    'switchboard.operating.grouping',
    'switchboard.queue.ready_queue',
    'switchboard.routing.topology',
    'switchboard.runner',
    'switchboard.spool',
    'sysconfig',
    'tempfile',
    'zope.interface',
}
SELECTING = {'switchboard.operating.selection'}
# What needs no installation needs little more than click.
NOTHING = (
    NEVER | SELECTING | {'json', 'logging', 'switchboard.config', 'switchboard.message', 'switchboard.store'}
)
CASES: dict[str, set[str]] = {
    'ls': NEVER,
    'ls in --json': NEVER,
    'status': NEVER | SELECTING,
    'queues': NEVER | SELECTING,
    'show ENTRY': NEVER,
    'show in': NEVER,
    'ls --help': NEVER,
    '--version': NOTHING,
    '--help': NOTHING,
}

# With `-s` there is no configuration, and all that its classes cost is saved.
BARE = {'switchboard.config.inifile', 'switchboard.options'}


@pytest.mark.parametrize('line', CASES)
def test_a_verb_that_looks_loads_nothing_of_those_that_act(tmp_path: Path, line: str) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(
        '[switchboard]\nspool = spool\n[queue.in]\n[runner.archive]\nclass = null\nqueue = in\n'
    )
    entry = Spool.from_config(config)['in'].enqueue('x')
    loaded = loaded_by('-C', str(config), *line.replace('ENTRY', entry).split())
    assert 'switchboard.cli' in loaded
    assert loaded & CASES[line] == set()


def test_a_list_of_a_spool_loads_no_configuration(tmp_path: Path) -> None:
    Spool(tmp_path / 'spool')['in'].enqueue('x')
    assert loaded_by('-s', str(tmp_path / 'spool'), 'ls', 'in') & (NEVER | BARE) == set()


@pytest.mark.skipif(not LOCKS.exists(), reason='the kernel has no list of locks')
@pytest.mark.parametrize('line', ['ls in', 'ls in --json', 'show ENTRY --json'])
def test_the_list_of_locks_which_stops_all_who_lock_is_read_for_claimed_entries_alone(
    tmp_path: Path, line: str
) -> None:
    queue = Spool(tmp_path / 'spool')['in']
    entry = queue.enqueue('x')
    words = ('-s', str(tmp_path / 'spool'), *line.replace('ENTRY', entry).split())
    assert str(LOCKS) not in opened_by(*words)
    queue.dequeue(entry)
    assert str(LOCKS) in opened_by(*words)


def opened_by(*words: str) -> set[str]:
    code = (
        'import sys; from switchboard.cli import call; opened = []; '
        'sys.addaudithook(lambda event, about: event == "open" and opened.append(str(about[0]))); '
        'call(sys.argv[1:]); print(*opened)'
    )
    return set(printed(code, *words))


def loaded_by(*words: str) -> set[str]:
    code = 'import sys; from switchboard.cli import call; call(sys.argv[1:]); print(*sys.modules)'
    return set(printed(code, *words))


def printed(code: str, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, '-c', code, *words], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()[-1].split()
