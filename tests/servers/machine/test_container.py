"""The files for containers, by the same steps in namespaces of the kernel: no engine is needed for that.

What the image starts is process 1 of a namespace here, and gets what an engine sends: the signal of ``STOPSIGNAL``, and the health check.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.config.config import Config
from switchboard.config.units import duration_s
from tests.acceptance.installation import Lines
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.servers.place import ROOT, missing

CONTAINER = ROOT / 'etc' / 'container'
DOCKERFILE = (CONTAINER / 'Dockerfile').read_text()
NAMESPACES = ['unshare', '--user', '--map-root-user', '--pid', '--fork', '--mount-proc', '--kill-child']


def instruction(name: str) -> str:
    """:return: the rest of the one line of the Dockerfile that begins so."""
    [rest] = re.findall(rf'^{name} (.*)$', DOCKERFILE, re.MULTILINE)
    return str(rest)


def command(text: str) -> list[str]:
    """:return: a command of the image, by the programs of this environment."""
    words: list[str] = json.loads(text)
    assert words[0] == 'switchboard'
    return [sys.executable, '-m', *words]


class Container:
    """The image's process 1 in a namespace of its own."""

    def __init__(self, home: Path) -> None:
        text = (CONTAINER / 'switchboard.cfg').read_text()
        self.spool = home / 'spool'
        self.config = home / 'switchboard.cfg'
        # A program whose child loses its parent, lives a little longer than it, and is nobody's then but process 1's.
        (home / 'work').write_text('#!/bin/sh\n(setsid sleep 0.1 &)\ncat >/dev/null\n')
        (home / 'work').chmod(0o755)
        text = text.replace('/var/spool/switchboard', str(self.spool)).replace(
            'sha256sum', str(home / 'work')
        )
        self.config.write_text(text)
        self.environment = {**os.environ, 'SWITCHBOARD_CONFIG': str(self.config), 'PYTHONPATH': str(ROOT)}
        self.process = subprocess.Popen(
            [*NAMESPACES, *command(instruction('CMD'))], env=self.environment, stderr=subprocess.PIPE
        )
        assert self.process.stderr is not None
        self.log = Lines(self.process.stderr.fileno())

    @property
    def first(self) -> int:
        """Process 1, by its number outside."""
        path = f'/proc/{self.process.pid}/task/{self.process.pid}/children'
        return int(Path(path).read_text())

    def is_healthy(self) -> bool:
        """:return: what the health check says, inside."""
        check = command(instruction('HEALTHCHECK').partition(' CMD ')[2])
        enter = [
            'nsenter',
            '--user',
            '--preserve-credentials',
            '--pid',
            '--mount',
            '--target',
            str(self.first),
        ]
        ran = subprocess.run(
            [*enter, *check], env=self.environment, capture_output=True, timeout=PATIENCE_S, check=False
        )
        return ran.returncode == 0

    def close(self) -> None:
        """End all of it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    if shutil.which('unshare') is None or subprocess.run([*NAMESPACES, 'true'], check=False).returncode:
        missing('namespaces for users (unshare --user --pid)')
    made = Container(tmp_path)
    yield made
    made.close()


def test_as_process_1_the_master_works_is_healthy_and_stops_when_it_is_told(container: Container) -> None:
    container.log.wait_for('"event": "ready"')
    assert '"pid": 1,' in container.log.seen[-1]
    Spool.from_config(container.config)['in'].enqueue('a message')
    assert container.is_healthy()
    os.kill(container.first, signal.Signals[instruction('STOPSIGNAL')])
    assert container.process.wait(PATIENCE_S) == 0
    assert json.loads(container.log.wait_for('"event": "stopped"').string)['pid'] == 1


def test_as_process_1_the_master_waits_for_whatever_loses_its_parent(container: Container) -> None:
    container.log.wait_for('"event": "ready"')
    queue = Spool.from_config(container.config)['in']
    for _ in range(3):
        queue.enqueue('a message')
    eventually(lambda: not queue.files and not queue.get_files('.bak'), 'worked off')
    # The runner of programs adopts them first, and ends: then they are the master's.
    first = container.first

    def inside() -> list[str]:
        return [
            status.read_text()
            for status in Path('/proc').glob('[0-9]*/status')
            if re.search(rf'^PPid:\s+{first}$', status.read_text(), re.MULTILINE)
        ]

    eventually(lambda: not any('State:\tZ' in each for each in inside()), 'without zombies')
    assert inside()


def test_a_runner_that_gave_up_is_no_health(container: Container) -> None:
    container.log.wait_for('"event": "ready"')
    text = container.config.read_text()
    container.config.write_text(text.replace('command = ', 'command = /no/such/'))
    os.kill(container.first, signal.SIGHUP)
    container.log.wait_for('"event": "gave up"')
    assert not container.is_healthy()


def test_the_time_to_stop_is_longer_than_a_message_may_take() -> None:
    config = Config.load(CONTAINER / 'switchboard.cfg')
    longest_s = max(each.stop_timeout_s for each in config.runners.values())
    graces = re.findall(r'stop_grace_period: (\S+)', (CONTAINER / 'compose.yaml').read_text())
    assert graces
    assert all(duration_s(each) > longest_s for each in graces)
    assert str(config.spool) in instruction('VOLUME')


def test_the_image_runs_as_a_number_that_owns_the_spool_and_is_not_root() -> None:
    user = instruction('USER').split(':')
    assert user == ['998', '998']
    assert '-o 998 -g 998 /var/spool/switchboard' in DOCKERFILE
    assert '--uid 998 --gid 998' in DOCKERFILE


def test_the_services_are_one_image_on_one_volume() -> None:
    yaml = pytest.importorskip('yaml')
    compose = yaml.safe_load((CONTAINER / 'compose.yaml').read_text())
    services = compose['services']
    assert set(services) == {'worker', 'producer', 'celery'}
    assert {each['image'] for each in services.values()} == {'switchboard'}
    assert {tuple(each['volumes']) for each in services.values()} == {('spool:/var/spool/switchboard',)}
    assert list(compose['volumes']) == ['spool']
    # What is no master has a process 1 that passes signals on.
    assert all('init' in each for name, each in services.items() if name != 'worker')


def test_what_celery_runs_is_a_module_with_the_spool_as_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)  # nothing may lie beside the samples
    monkeypatch.syspath_prepend(str(CONTAINER))
    import tasks

    try:
        assert tasks.app.conf.broker_url == 'switchboard:///var/spool/switchboard'
        assert tasks.add(1, 2) == 3
    finally:
        del sys.modules['tasks']


def test_without_proc_the_master_and_who_asks_it_say_what_they_need(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[runner.out]\nclass = null\nqueue = out\n')
    script = 'mount -t tmpfs none /proc && exec "$@"'
    inside = ['unshare', '--user', '--map-root-user', '--mount', 'sh', '-c', script, 'sh']
    if shutil.which('unshare') is None or subprocess.run([*inside, 'true'], check=False).returncode:
        missing('namespaces for users (unshare --user --mount)')

    def run(*words: str, where: Sequence[str] = inside) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*where, sys.executable, '-m', 'switchboard', '-C', str(config), *words],
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def refused(*words: str) -> None:
        ran = run(*words)
        assert ran.returncode
        assert 'needs /proc' in ran.stderr.splitlines()[-1], ran
        assert 'switchboard start' not in ran.stderr

    for words in ('start', 'master'):
        refused(words)
    assert run('start', where=()).returncode == 0
    try:
        assert run('status').returncode == 0  # it asks nobody
        for words in ('reload', 'restart', 'scale out=2', 'reopen', 'stop --timeout 3s', 'stop --no-wait'):
            refused(*words.split())
        assert 'RUNNING' in run('status').stdout
    finally:
        assert run('stop', where=()).returncode == 0
    # Nobody is there to be asked, with or without it.
    assert '`switchboard -C' in (ran := run('reload')).stderr, ran
