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
    'switchboard.operating.acts',
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


# Of this package: modules, and classes whose methods `dataclasses` compiles at each start.  More of them is a slower start of each call.
MOST = {
    '-s {spool} ls in': (43, 5),
    '-C {config} ls in': (58, 9),
    '-C {config} queues': (64, 8),
    '-C {config} status': (70, 13),
    '--version': (14, 0),
}


@pytest.mark.parametrize('line', MOST)
def test_a_start_loads_no_more_than_it_did(tmp_path: Path, line: str) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[runner.archive]\nclass = null\nqueue = in\n')
    Spool.from_config(config)['in'].enqueue('x')
    code = (
        'import sys; from switchboard.cli.app import call; call(sys.argv[1:]); '
        'ours = [module for name, module in sys.modules.items() if name.startswith("switchboard")]; '
        'made = {one for module in ours for one in vars(module).values() if isinstance(one, type)}; '
        'print(len(ours), sum("__dataclass_fields__" in vars(one) for one in made))'
    )
    modules, dataclasses = map(
        int, printed(code, *line.format(spool=tmp_path / 'spool', config=config).split())
    )
    assert (modules <= MOST[line][0], dataclasses <= MOST[line][1]) == (True, True), (modules, dataclasses)


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
        'import sys; from switchboard.cli.app import call; opened = []; '
        'sys.addaudithook(lambda event, about: event == "open" and opened.append(str(about[0]))); '
        'call(sys.argv[1:]); print(*opened)'
    )
    return set(printed(code, *words))


def loaded_by(*words: str) -> set[str]:
    code = 'import sys; from switchboard.cli.app import call; call(sys.argv[1:]); print(*sys.modules)'
    return set(printed(code, *words))


def printed(code: str, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, '-c', code, *words], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()[-1].split()
