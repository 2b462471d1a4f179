"""The accelerator is built on request and only then, and the tests of what it touches pass with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.accelerator import NAME, ROOT, build_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# What a message goes through, with disks that nobody looks into.
PARTS = (
    'tests/unit/queue',
    'tests/unit/handoff tests/unit/store/test_pool.py tests/regressions tests/acceptance/storms/test_storm.py',
)
IS_USED = 'from switchboard.store.disk import Disk; print(Disk.of_system().accelerator is not None)'


def used(place: Path, **environment: str) -> str:
    """:return: what an interpreter says that has a directory on its path."""
    done = subprocess.run(
        [sys.executable, '-c', IS_USED],
        env={**os.environ, 'PYTHONPATH': f'{place}:{ROOT}', **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize('part', PARTS, ids=('queue', 'others'))
@pytest.mark.in_turns('part', PARTS)
def test_the_same_tests_pass_with_it(part: str, tmp_path: Path) -> None:
    build_or_skip(tmp_path)
    assert used(tmp_path) == 'True'
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *part.split()],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(tmp_path), 'SWITCHBOARD_ACCELERATOR': '1'},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.parametrize(('asked', 'is_built'), [('1', True), ('', False)])
def test_a_wheel_has_it_if_that_was_asked_for(asked: str, is_built: bool, tmp_path: Path) -> None:
    build_or_skip(tmp_path)
    copy = tmp_path / 'checkout'
    shutil.copytree(
        ROOT,
        copy,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            '.git', '.venv*', '__pycache__', '.*_cache', '.hypothesis', '*.egg-info'
        ),
    )
    command = 'import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))'
    done = subprocess.run(
        [sys.executable, '-c', command, str(tmp_path)],
        cwd=copy,
        env={**os.environ, 'SWITCHBOARD_ACCELERATOR': asked},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    wheel = tmp_path / done.stdout.split()[-1]
    # One build serves all versions of Python; without it the wheel is for every machine.
    assert ('-cp311-abi3-linux_' in wheel.name, wheel.name.endswith('-py3-none-any.whl')) == (
        is_built,
        not is_built,
    )
    place = tmp_path / 'installed'
    shutil.unpack_archive(wheel, place, 'zip')
    assert bool(list(place.glob(f'{NAME}*.so'))) is is_built
    if is_built:
        assert used(place) == 'True'
        assert used(place, SWITCHBOARD_ACCELERATOR='0') == 'False'


def test_where_it_is_asked_for_and_cannot_be_built_that_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'switchboard' / 'store').mkdir(parents=True)
    (tmp_path / 'switchboard' / 'store' / 'accelerator.c').write_text('#error no compiler')
    shutil.copy(ROOT / 'setup.py', tmp_path)
    (tmp_path / 'setup.cfg').write_text('[metadata]\nname = x\nversion = 1\n')
    done = subprocess.run(
        [sys.executable, 'setup.py', 'build_ext'],
        cwd=tmp_path,
        env={**os.environ, 'SWITCHBOARD_ACCELERATOR': '1'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
