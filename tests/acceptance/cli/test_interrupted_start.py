"""A Ctrl-C while a program still loads itself ends it without a word, whichever program it is and whatever it is loading."""

from __future__ import annotations

import configparser
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.cli.terminal import environment
from tests.helpers.waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]
# What stands before a program: it gets the signal when it first asks for one of these modules.
INTERRUPTED = """\
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name in {modules!r}.split():
            print('loads', name, flush=True)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""
AS_MODULE = (
    "import runpy; sys.argv[0] = {name!r}; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
)
AS_FILE = (
    "import runpy; sys.path.insert(0, {place!r}); runpy.run_path({place!r} + '/{name}', run_name='__main__')"
)


def programs() -> dict[str, str]:
    """:return: the code that each program of Python begins with: those that are installed, and those of bin/."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    found = {
        'python -m switchboard': AS_MODULE.format(name='switchboard'),
        'python -m switchboard.drop': AS_MODULE.format(name='switchboard.drop'),
        'bin/demo': AS_FILE.format(place=str(ROOT / 'bin'), name='_demo.py'),
    }
    scripts = setup['options.entry_points']['console_scripts']
    for name, module, function in re.findall(r'(\S+) = (\S+):(\S+)', scripts):
        found[name] = f'from {module} import {function}; {function}()'
    for file in sorted((ROOT / 'bin').iterdir()):
        if file.is_file() and (
            code := re.search(r'^exec "\$python" -c \'([^\']+)\'', file.read_text(), re.M)
        ):
            found[f'bin/{file.name}'] = code[1]
    return found


@pytest.mark.parametrize('name', programs())
def test_ctrl_c_while_a_program_loads_itself_says_nothing(tmp_path: Path, name: str) -> None:
    code = (
        INTERRUPTED.format(modules='click switchboard.drop_errors switchboard.errors rich.console')
        + programs()[name]
    )
    ended = subprocess.run(
        [sys.executable, '-c', code, 'in', '-C', tmp_path / 'none.cfg'],
        input='',
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(),
        check=False,
    )
    assert (ended.stdout.partition(' ')[0], ended.stdout.count('\n'), ended.stderr) == ('loads', 1, '')
    # What supervises the master knows that it does as it is told.
    assert ended.returncode == (0 if name.endswith('master') else -signal.SIGINT)


@pytest.mark.parametrize('module', ['switchboard.cli.commands.queues', 'switchboard.cli.completion'])
def test_ctrl_c_while_a_verb_is_loaded_says_nothing(tmp_path: Path, module: str) -> None:
    code = INTERRUPTED.format(modules=module) + 'from switchboard.cli import main; main()'
    ended = subprocess.run(
        [sys.executable, '-c', code, 'queues', '-s', tmp_path],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(),
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (f'loads {module}\n', '')
    assert ended.returncode == -signal.SIGINT


def test_a_program_that_is_started_so_that_it_hears_no_ctrl_c_hears_none(tmp_path: Path) -> None:
    code = INTERRUPTED.format(modules='click') + 'from switchboard.cli import main; main()'
    before = 'trap \'\' INT; exec "$@"'
    ended = subprocess.run(
        ['sh', '-c', before, 'sh', sys.executable, '-c', code, '--version'],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment(),
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, '')
    assert 'switchboard' in ended.stdout
