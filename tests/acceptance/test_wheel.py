"""The shipped runners where the package is installed from a wheel, without a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import switchboard
assert switchboard.__file__.startswith(sys.argv[1]), switchboard.__file__
from importlib.metadata import entry_points
from switchboard.config.keys import SHIPPED_RUNNERS
from switchboard.master.loading import find_class
from switchboard.options import RunnerOptions
from importlib.util import find_spec
assert find_spec('runners') is None
for name, path in SHIPPED_RUNNERS.items():
    for spelling in (name, path, path.removeprefix('switchboard.')):
        find_class(RunnerOptions('r', spelling, '' if name in ('lmtp', 'from-broker') else 'in'))
names = {each.name for each in entry_points(group='switchboard.runners')}
assert names == set(SHIPPED_RUNNERS), names
"""


@pytest.mark.slow
def test_every_shipped_runner_is_found_in_an_installed_wheel(tmp_path: Path) -> None:
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('switchboard', 'runners', 'etc'):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    built = subprocess.run(
        [*pip, 'wheel', '--no-deps', '-w', tmp_path, source], cwd=tmp_path, capture_output=True, text=True
    )
    if built.returncode and 'setuptools' in built.stderr:
        pytest.skip('the tool that builds wheels cannot be had')
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob('*.whl')
    home = tmp_path / 'site'
    subprocess.run(
        [*pip, 'install', '--no-deps', '--no-index', '--target', home, wheel], check=True, cwd=tmp_path
    )
    subprocess.run(
        [sys.executable, '-I', '-S', '-c', PROGRAM, home, sysconfig.get_path('purelib')],
        check=True,
        cwd=tmp_path,
    )
