"""The command that adds a library is one for the copy that is at work."""

from __future__ import annotations

import shlex
import site
import sys
import sysconfig
from pathlib import Path

import pytest

from switchboard import installing
from switchboard.installing import install_advice, install_command


@pytest.fixture(autouse=True)
def _no_uv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of the tests may have been made by uv."""
    if 'file' not in request.fixturenames:
        monkeypatch.setattr(sys, 'prefix', str(tmp_path))


def test_a_checkout_is_installed_in_place() -> None:
    root = Path(installing.__file__).parent.parent
    assert shlex.split(install_command('kombu')) == [
        *(sys.executable, '-m', 'pip', 'install', '-e', f'{root}[kombu]')
    ]


def test_an_environment_has_a_pip_of_its_own() -> None:
    package = Path(sysconfig.get_path('purelib')) / 'switchboard'
    assert shlex.split(install_command('yaml', package=str(package))) == [
        *(sys.executable, '-m', 'pip', 'install', 'switchboard-queue[yaml]')
    ]


def test_a_target_directory_is_named(tmp_path: Path) -> None:
    command = shlex.split(install_command('lmtp', package=str(tmp_path / 'switchboard')))
    assert command[3:] == ['install', '--target', str(tmp_path), 'switchboard-queue[lmtp]']


@pytest.mark.parametrize(
    ('file', 'content', 'beginning'),
    [
        ('pipx_metadata.json', '{}', 'pipx install --force '),
        ('uv-receipt.toml', '', 'uv tool install '),
        ('pyvenv.cfg', 'home = /usr/bin\nuv = 0.13.9\n', f'uv pip install --python {sys.executable} '),
    ],
)
def test_what_another_installer_made_is_its_own(
    file: str, content: str, beginning: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_text(content)
    monkeypatch.setattr(sys, 'prefix', str(tmp_path))
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(tmp_path / 'lib'))
    command = install_command('kombu', package=str(tmp_path / 'lib' / 'switchboard'))
    assert command == f"{beginning}'switchboard-queue[kombu]'"


def test_what_a_user_has_for_himself_stays_his(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'prefix', sys.base_prefix)
    package = Path(site.getusersitepackages()) / 'switchboard'
    assert '--user' in shlex.split(install_command('kombu', package=str(package)))


def test_the_library_is_named_and_what_needs_it() -> None:
    assert install_advice('a bridge', 'amqp', 'kombu').startswith(
        'a bridge needs the library amqp, which is not installed: '
    )
