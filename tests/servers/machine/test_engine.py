"""The image and the services of ``etc/container``, built and run by an engine where there is one: Podman.

The base image is made of this machine's packages, and the wheels of the tests' environment: nothing is fetched.  What is said of process 1, of
health and of signals is tested without an engine too, see ``test_container``.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.released.wheel import built_once, needed, pack, tool
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.servers.machine.engine import Engine, engine
from tests.servers.machine.test_container import CONTAINER, DOCKERFILE

pytestmark = pytest.mark.timeout(900)

[BASE] = [line.removeprefix('FROM ') for line in DOCKERFILE.splitlines() if line.startswith('FROM ')]
VOLUME = '/var/spool/switchboard'


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    of_debian = os.path.basename(os.path.realpath('/usr/bin/python3'))
    if of_debian != f'python{sys.version_info[0]}.{sys.version_info[1]}':
        pytest.skip(f"needs Debian's Python to be that of the tests, for their wheels: it is {of_debian}")
    home = tmp_path_factory.mktemp('engine')
    with engine(home, f'docker.io/library/{BASE}') as podman:
        beside = home / 'app'
        shutil.copytree(CONTAINER, beside, ignore=shutil.ignore_patterns('__pycache__'))
        wheels = home / 'wheels'
        wheels.mkdir()
        _, wheel = built_once(tmp_path_factory)
        for each in wheel.parent.glob('*.whl'):
            shutil.copy(each, wheels)
        for name in {'kombu', 'celery', *needed('kombu'), *needed('celery')}:
            pack(name, wheels)
        for wheel in wheels.glob('*.whl'):
            shutil.copy(wheel, beside)
        podman.do('build', *podman.build_options, '-t', 'switchboard', beside)
        yield podman


class Services:
    """The services of the compose file, on one volume."""

    def __init__(self, podman: Engine) -> None:
        yaml = pytest.importorskip('yaml')
        self._podman = podman
        self._services = yaml.safe_load((CONTAINER / 'compose.yaml').read_text())['services']

    def start(self, name: str) -> None:
        """Run a service as the compose file says."""
        service = self._services[name]
        words = ['run', '--detach', '--name', name, *self._podman.run_options]
        for volume in service['volumes']:
            words += ['--volume', volume]
        if service.get('init'):
            words.append('--init')
        if grace := service.get('stop_grace_period'):
            words += ['--stop-timeout', grace.removesuffix('s')]
        self._podman.do(*words, service['image'], *service.get('command', ()))

    def wait_for(self, name: str, text: str, times: int = 1) -> None:
        """Wait until a service has written a text so often."""
        eventually(
            lambda: self._podman.log(name).count(text) >= times,
            lambda: f'{text!r} from {name}: {self._podman.log(name)[-2000:]}',
        )

    def inside(self, name: str, *words: str) -> str:
        """:return: what a command in the container of a service wrote."""
        return self._podman.do('exec', name, *words)


@pytest.fixture
def services(built: Engine) -> Iterator[Services]:
    yield Services(built)
    built.do('rm', '--all', '--force', '--time', '0')
    built.do('volume', 'rm', '--all', '--force')


READY, STOPPED = '"event": "ready"', '"event": "stopped"'


def test_worker_producer_and_celery_work_on_one_volume(built: Engine, services: Services) -> None:
    services.start('worker')
    services.wait_for('worker', READY)
    built.do('healthcheck', 'run', 'worker')
    assert (services.inside('worker', 'id', '-u'), services.inside('worker', 'id', '-g')) == (
        '998\n',
        '998\n',
    )
    services.start('producer')

    def done() -> int:
        lines = services.inside('worker', 'switchboard', 'status', '--json').splitlines()
        return sum(json.loads(line).get('done', 0) for line in lines)

    eventually(lambda: done() >= 1, lambda: services.inside('worker', 'switchboard', 'status'))
    services.start('celery')
    services.inside('producer', 'python', '-c', 'import tasks; tasks.add.delay(1, 2)')
    services.wait_for('celery', 'succeeded in')
    assert 'root' not in services.inside('worker', 'ls', '-l', VOLUME)


@pytest.fixture
def compose(built: Engine, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """:return: a function that runs a command of the compose program on the file that is shipped."""
    program = tool('podman-compose')
    services = ('worker', 'producer', 'celery')
    # The image is there, and no container needs a network.
    alone = {name: {'network_mode': 'none'} for name in services}
    (tmp_path / 'alone.yaml').write_text(json.dumps({'services': alone}))
    options = shlex.join(each for each in built.run_options if not each.startswith('--network'))
    engine = built.write_program(tmp_path / 'podman')

    def run(*words: str) -> str:
        done = subprocess.run(
            [
                *(program, '--podman-path', str(engine), '--in-pod', 'false', f'--podman-run-args={options}'),
                *('--project-name', 'trial', '-f', str(CONTAINER / 'compose.yaml')),
                *('-f', str(tmp_path / 'alone.yaml'), *words),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 3,
            check=False,
        )
        assert done.returncode == 0, f'{words}: {done.returncode}\n{done.stdout}{done.stderr}'
        return done.stdout

    yield run
    built.do('rm', '--all', '--force', '--time', '0')
    built.do('volume', 'rm', '--all', '--force')


def test_a_compose_program_takes_the_file_as_it_is(
    built: Engine, services: Services, compose: Callable[..., str]
) -> None:
    compose('up', '--detach', '--no-build', 'worker')
    worker, producer, celery = (f'trial_{name}_1' for name in ('worker', 'producer', 'celery'))
    services.wait_for(worker, READY)
    # Without systemd, nobody but this asks for its health, for which the producer waits.
    built.do('healthcheck', 'run', worker)
    compose('up', '--detach', '--no-build', '--no-recreate')
    eventually(
        lambda: services.inside(worker, 'switchboard', 'status', '--json').count('"done": 0') == 0,
        lambda: services.inside(worker, 'switchboard', 'status') + built.log(producer),
    )
    compose('exec', '-T', 'producer', 'python', '-c', 'import tasks; tasks.add.delay(1, 2)')
    services.wait_for(celery, 'succeeded in')
    compose('down')
    assert built.do('ps', '--all', '--quiet') == ''
    assert built.do('volume', 'ls', '--quiet') != '', 'what waits outlives the containers'


def test_it_stops_in_order_and_starts_again_after_a_kill(built: Engine, services: Services) -> None:
    services.start('worker')
    services.wait_for('worker', READY)
    built.do('stop', 'worker')
    assert built.do('inspect', '--format', '{{.State.ExitCode}}', 'worker').strip() == '0'
    assert STOPPED in built.log('worker')
    built.do('start', 'worker')
    services.wait_for('worker', READY, 2)
    built.do('kill', 'worker')
    built.do('wait', 'worker')
    built.do('start', 'worker')
    services.wait_for('worker', READY, 3)
    built.do('healthcheck', 'run', 'worker')


def test_a_second_master_on_the_volume_ends_with_75(built: Engine, services: Services) -> None:
    services.start('worker')
    services.wait_for('worker', READY)
    second = built.ask('run', '--rm', *built.run_options, '--volume', f'spool:{VOLUME}', 'switchboard')
    assert second.returncode == os.EX_TEMPFAIL
    # The engine may have had something to say before.
    assert json.loads(second.stderr.splitlines()[-1])['event'] == 'cannot start'


def test_a_bind_mount_and_a_root_that_cannot_be_written_to_are_enough(
    built: Engine, services: Services, tmp_path: Path
) -> None:
    spool = tmp_path / 'spool'
    spool.mkdir()
    os.chown(spool, 998, 998)
    spool.chmod(0o2770)
    words = ('run', '--detach', '--name', 'worker', '--read-only', *built.run_options)
    built.do(*words, '--volume', f'{spool}:{VOLUME}', 'switchboard')
    services.wait_for('worker', READY)
    built.do('exec', '--interactive', 'worker', 'switchboard', 'enqueue', 'in', input='a mail')
    assert (spool / 'in').stat().st_uid == 998
    built.do('stop', 'worker')


def test_what_has_no_master_is_no_health(built: Engine, services: Services) -> None:
    built.do(
        *('run', '--detach', '--name', 'idle', *built.run_options, '--volume', f'spool:{VOLUME}'),
        *('switchboard', 'sleep', '600'),
    )
    assert built.ask('healthcheck', 'run', 'idle').returncode != 0
