"""The files for containers, run without an engine: the same programs, without root, the master as process 1 of a namespace of its own.

What is not tried here is what an engine does: building the image, mounting the volume.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from switchboard import Spool
from tests.servers.place import ROOT, missing
from tests.waiting import eventually

CONTAINER = ROOT / 'etc' / 'container'
pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """What the image's lines make, with the volume in a directory of the test's."""
    for name in ('switchboard.cfg', 'app.py', 'tasks.py'):
        text = (CONTAINER / name).read_text().replace('/var/spool/switchboard', str(tmp_path / 'spool'))
        (tmp_path / name).write_text(text)
    (tmp_path / 'spool').mkdir(mode=0o2770)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    path = f'{Path(sys.executable).parent}:/usr/bin:/bin'
    return {
        'PATH': path,
        'HOME': str(place),
        'PYTHONPATH': f'{place}:{ROOT}',
        'SWITCHBOARD_CONFIG': str(place / 'switchboard.cfg'),
    }


def namespaced(place: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a program as process 1 of a PID namespace, with no right outside of it."""
    unshare = shutil.which('unshare')
    if unshare is None:
        missing('unshare (apt-get install util-linux)')
    isolation = ('--user', '--map-current-user', '--pid', '--fork', '--kill-child', '--mount-proc')
    tried = subprocess.run([unshare, *isolation, 'true'], capture_output=True, check=False, timeout=60)
    if tried.returncode != 0:
        missing(f'namespaces without rights: {tried.stderr.decode().strip()}')
    return subprocess.Popen([unshare, *isolation, *command], cwd=place, env=environment(place))


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def test_the_master_is_process_1_works_and_ends_by_the_stop_signal(place: Path) -> None:
    [entry] = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', (CONTAINER / 'Dockerfile').read_text(), re.M)
    [words] = re.findall(r'^CMD \["(\w+)"\]$', (CONTAINER / 'Dockerfile').read_text(), re.M)
    running = namespaced(place, entry, words)
    try:
        health = ['switchboard', 'status']
        eventually(
            lambda: (
                subprocess.run(health, env=environment(place), capture_output=True, check=False).returncode
                == 0
            ),
            'healthy',
        )
        subprocess.run([sys.executable, 'app.py', '3'], cwd=place, env=environment(place), check=True)
        packed = Spool(place / 'spool')['packed']
        eventually(lambda: len(packed.files) == 3, 'worked off')
        [master] = children(running.pid)
        assert 'NSpid:\t' in Path(f'/proc/{master}/status').read_text()
        assert (
            Path(f'/proc/{master}/status').read_text().partition('NSpid:')[2].split('\n')[0].split()[-1]
            == '1'
        )
        os.kill(master, signal.SIGTERM)
        assert running.wait(60) == 0
    finally:
        running.kill()
        running.wait(60)


def test_celery_finds_its_broker_in_the_same_volume(place: Path) -> None:
    send = 'import tasks; tasks.add.delay(1, 2)'
    subprocess.run([sys.executable, '-c', send], cwd=place, env=environment(place), check=True, timeout=120)
    assert len(Spool(place / 'spool')['celery'].files) == 1


def test_what_the_files_say_agrees() -> None:
    build, compose = (CONTAINER / 'Dockerfile').read_text(), (CONTAINER / 'compose.yaml').read_text()
    assert 'USER switchboard\n' in build
    assert build.index('USER switchboard') < build.index('CMD ["master"]')
    assert 'STOPSIGNAL SIGTERM' in build
    assert compose.count('spool:/var/spool/switchboard') == 3
    assert 'spool = /var/spool/switchboard' in (CONTAINER / 'switchboard.cfg').read_text()
