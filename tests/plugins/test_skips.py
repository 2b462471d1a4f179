"""What is skipped where nothing may be missing has failed, unless no preparation would help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins.skips import FORGIVEN, REQUIRED

TESTS = """
import pytest

@pytest.mark.skipif(True, reason='by a mark')
def test_marked(): pass

def test_that_asks(): pytest.skip('by a call')

@pytest.mark.xfail(reason='known', strict=True)
def test_known(): assert False

def test_forgiven(): pytest.skip('not a git checkout')
"""
MODULE = "import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass\n"


@pytest.mark.parametrize('required', ['', '1'])
def test_a_skip_fails_where_nothing_may_be_missing(required: str, tmp_path: Path) -> None:
    (tmp_path / 'test_it.py').write_text(TESTS)
    (tmp_path / 'test_module.py').write_text(MODULE)
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--rootdir', str(tmp_path)]
    plugin = 'from tests.plugins.skips import Skips\ndef pytest_configure(config): config.pluginmanager.register(Skips())\n'
    (tmp_path / 'conftest.py').write_text(plugin)
    done = subprocess.run(
        [*command, '-c', os.devnull, '--continue-on-collection-errors', '-rA', str(tmp_path)],
        env={**os.environ, REQUIRED: required, 'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stdout.splitlines()[-1]
    assert ('1 failed, 1 skipped, 1 xfailed, 2 errors' if required else '4 skipped, 1 xfailed') in last, done
    for reason in ('by a mark', 'by a call', "could not import 'no_such_module'"):
        assert (f'skipped: {reason}' in done.stdout) == bool(required), done.stdout


def test_what_is_forgiven_is_said_by_a_test(request: pytest.FixtureRequest) -> None:
    sources = ''.join(path.read_text() for path in request.config.rootpath.glob('tests/**/*.py'))
    assert [reason for reason in FORGIVEN if sources.count(reason) < 2] == []
