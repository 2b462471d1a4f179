"""What a start writes where the log is JSON: JSON, also of a start that fails, of what a preloaded module prints, and of a QUIT."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from switchboard.master.directory import MasterDirectory, MasterLock
from tests.acceptance.installation import Installation
from tests.helpers.descriptors import open_files
from tests.helpers.waiting import PATIENCE_S

MASTERS: dict[str, list[str]] = {
    'switchboard master': ['-m', 'switchboard', 'master'],
    'switchboard start --foreground': ['-m', 'switchboard', 'start', '--foreground'],
    'switchboard-master': ['-c', 'from switchboard.master.programs import master; master()'],
}
RUNNERS: dict[str, list[str]] = {
    'switchboard runner': ['-m', 'switchboard', 'runner', 'in'],
    'switchboard-runner': ['-c', 'from switchboard.master.programs import runner; runner()', 'in'],
}
LOUD = """
import os
import sys
import warnings

os.write(1, b'written to a descriptor')
os.system('echo said by a program >&2')

print('printed by preload')
sys.stderr.write('half a line')
warnings.warn('warned by preload')
"""


def lines_of(stderr: str) -> list[dict[str, Any]]:
    """:return: the lines, each of which is JSON as every reader understands it."""
    return [json.loads(line, parse_constant=pytest.fail) for line in stderr.splitlines()]


def run(words: list[str], site: Installation, status: int) -> list[dict[str, Any]]:
    """:return: what a command wrote that ended with that status."""
    done = subprocess.run(
        [sys.executable, *words, '-C', str(site.config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, ''), done.stderr
    return lines_of(done.stderr)


@pytest.mark.parametrize('name', MASTERS)
def test_a_second_master_is_refused_in_json(site: Installation, name: str) -> None:
    site.configure({'in': {}}, log_format='json')
    first = site.start(ready=False)
    site.log.wait_for('"event": "ready"')
    [line] = run(MASTERS[name], site, os.EX_TEMPFAIL)
    assert (line['event'], line['level'], line['process']) == ('cannot start', 'error', 'master')
    assert line['reason'] == f'a master is already running (pid {first.pid})'
    assert isinstance(line['pid'], int)
    assert site.stop() == 0


@pytest.mark.parametrize('name', [*MASTERS, *RUNNERS])
def test_each_mistake_of_a_configuration_is_told_in_json(site: Installation, name: str) -> None:
    site.configure({'in': {'instances': 'many'}}, log_format='json')
    with site.config.open('a') as config:
        config.write('[queue.in]\nttl = never ever\n')
    lines = run((MASTERS | RUNNERS)[name], site, os.EX_CONFIG)
    assert {line['event'] for line in lines} == {'cannot start'}
    assert [(line['section'], line['key']) for line in lines] == [
        ('runner.in', 'instances'),
        ('queue.in', 'ttl'),
    ]
    assert {line['file'] for line in lines} == {str(site.config)}
    assert all(isinstance(line['line'], int) for line in lines)


@pytest.mark.parametrize('verb', ['master', 'start --foreground', 'runner in', 'run in'])
@pytest.mark.parametrize('form', ['json', 'text'])
def test_that_the_installed_configuration_is_hidden_is_told_in_the_form_of_the_log(
    site: Installation, verb: str, form: str
) -> None:
    site.configure({'in': {'instances': 'many'}}, log_format=form)
    installed = site.home / 'installed.cfg'
    installed.write_text('')
    searched = (site.config.name, str(installed))
    code = f'import switchboard.cli.context as c; c.SEARCHED = {searched}; from switchboard.cli import main; main()'
    done = subprocess.run(
        [sys.executable, '-c', code, *verb.split()],
        cwd=site.home,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == os.EX_CONFIG, done.stderr
    told, *_ = done.stderr.splitlines()
    if form == 'json':
        line = json.loads(told)
        assert (line['event'], line['level']) == ('hidden configuration', 'warning')
        told = line['reason']
    assert f'using ./{site.config.name}, not {installed}' in told


@pytest.mark.parametrize('name', [*MASTERS, *RUNNERS])
def test_that_a_spool_is_not_alone_in_its_directory_is_logged(site: Installation, name: str) -> None:
    site.configure({'in': {}}, log_format='json')
    site.config.write_text(
        re.sub('(?m)^spool = .*$', f'spool = {site.home / "var"}', site.config.read_text())
    )
    (site.home / 'var' / 'cron').mkdir(parents=True, mode=0o700)
    words, status = [*(MASTERS | RUNNERS)[name], *(['--until-empty'] if name in RUNNERS else [])], os.EX_OK
    with contextlib.ExitStack() as stack:
        if name in MASTERS:  # it ends at once where there is another one
            own = stack.enter_context(MasterDirectory(site.home / 'var'))
            stack.enter_context(MasterLock(own))
            status = os.EX_TEMPFAIL
        lines = run(words, site, status)
    [line] = [line for line in lines if line['event'] == 'spool not alone']
    assert line['level'] == 'warning'
    assert line['reason'].startswith(
        f'{site.home / "var"} is no spool yet, and holds other directories (cron)'
    )


@pytest.mark.parametrize('verb', ['start', 'restart --master', 'run in --until-empty'])
def test_a_verb_that_makes_a_spool_in_a_directory_of_others_tells_of_them_once(
    site: Installation, verb: str
) -> None:
    site.configure({'in': {}})
    site.config.write_text(
        re.sub('(?m)^spool = .*$', f'spool = {site.home / "var"}', site.config.read_text())
    )
    (site.home / 'var' / 'cron').mkdir(parents=True, mode=0o700)
    told = []
    for words in ([*verb.split()], ['stop'], [*verb.split()], ['stop']):
        command = [sys.executable, '-m', 'switchboard', '-C', str(site.config), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        told += [line for line in done.stderr.splitlines() if 'holds other directories (cron)' in line]
    assert told == [
        (
            f'switchboard: warning: {site.home / "var"} is no spool yet, and holds other directories (cron), which would be taken for queues: '
            'name a directory for the spool alone'
        )
    ]
    log = site.home / 'var' / '.run' / 'master' / 'master.log'
    assert not log.exists() or 'spool not alone' not in log.read_text()


def test_where_the_log_is_text_a_mistake_is_a_line_for_people(site: Installation) -> None:
    site.configure({'in': {'instances': 'many'}})
    command = [sys.executable, *MASTERS['switchboard master'], '-C', str(site.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.startswith(f'{site.config}:')


def test_a_mistake_of_ours_at_the_start_is_told_in_json(site: Installation) -> None:
    site.configure({'in': {}}, log_format='json')
    code = 'import switchboard.master.master as m; m.prepare_before_fork = None; from switchboard.master.programs import master; master()'
    [line] = run(['-c', code], site, os.EX_SOFTWARE)
    assert line['event'] == 'master failed'
    assert 'TypeError' in line['traceback'][-1]


def test_what_a_preloaded_module_prints_and_warns_of_is_json(site: Installation) -> None:
    (site.home / 'loud.py').write_text(LOUD)
    site.configure({'in': {}}, log_format='json', preload='loud')
    site.start(ready=False)
    site.log.wait_for('"event": "ready"')
    assert site.stop() == 0
    site.log.said('x')
    printed = [line for line in lines_of('\n'.join(site.log.seen)) if line['event'] == 'printed']
    raw = [(line['level'], line['text']) for line in printed[-2:]]
    assert raw == [('info', 'written to a descriptor'), ('warning', 'said by a program')]
    assert {(line['process'], line['logger']) for line in printed} == {('master', 'switchboard.master')}
    assert [(line['level'], line['text']) for line in printed[:1]] == [('info', 'printed by preload')]
    assert printed[1]['text'].startswith('half a line')
    assert 'UserWarning: warned by preload' in printed[1]['text']


def test_a_preloaded_module_that_fails_is_told_in_json(site: Installation) -> None:
    (site.home / 'broken.py').write_text(LOUD + 'raise ValueError("broken")\n')
    site.configure({'in': {}}, log_format='json', preload='broken')
    lines = run(MASTERS['switchboard master'], site, os.EX_CONFIG)
    assert 'said by a program' in [line.get('text') for line in lines]
    assert lines[-1]['event'] == 'cannot start'
    assert 'ValueError: broken' in lines[-1]['reason']


def stack_file(pid: int) -> Path:
    [found] = [number for number, path in open_files(pid).items() if 'memfd:stacks' in path]
    return Path(f'/proc/{pid}/fd/{found}')


def test_where_the_master_is_comes_as_json(site: Installation) -> None:
    site.configure({'in': {}}, log_format='json')
    master = site.start(ready=False)
    site.log.wait_for('"event": "ready"')
    for _ in range(2):
        master.send_signal(signal.SIGQUIT)
        line = json.loads(site.log.wait_for('master.py.*in _turn').string)
        assert (line['event'], line['stream'], line['process']) == ('printed', 'stderr', 'master')
    assert stack_file(master.pid).read_bytes() == b''
    assert site.stop() == 0
    site.log.said('x')
    lines_of('\n'.join(site.log.seen))


def test_where_the_log_is_text_it_is_told_at_once(site: Installation) -> None:
    site.configure({'in': {}})
    site.start().send_signal(signal.SIGQUIT)
    site.log.wait_for('master.py", line [0-9]+ in _turn')
    assert site.stop() == 0
