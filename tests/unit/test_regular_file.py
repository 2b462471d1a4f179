"""Files that somebody has named, which may be none: each reader refuses them, and waits for nobody."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from switchboard.brokers.url import Tls
from switchboard.config.config import Config
from switchboard.config.inifile import read_config_file
from switchboard.errors import SwitchboardError
from switchboard.operating.audit import recent_acts
from switchboard.operating.spool_view import read_flags
from switchboard.regular_file import open_regular_file
from switchboard.runner.settings import read_secret
from switchboard.store.layout import ACTS, RUN
from switchboard.web.settings import read_users
from tests.helpers.descriptors import Opened


def configured(line: str) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        config = path.with_name('switchboard.cfg')
        config.write_text(f'[switchboard]\nspool = s\n{line.format(path)}\n')
        return Config.load(config)

    return read


READERS = {
    'configuration': Config.load,
    'file of an exchange': configured('exchange_file = {}'),
    'part of a configuration': read_config_file,
    'password': lambda path: read_secret(str(path), 'runner.x'),
    'users': read_users,
    'authorities': lambda path: Tls(ca_certs=str(path)).check_files(),
    'certificate': lambda path: Tls(certfile=str(path)).check_files(),
}


@pytest.fixture(params=['fifo', 'socket', 'directory', 'device', 'link to a fifo'])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / 'named'
    if request.param == 'fifo':
        os.mkfifo(path, 0o600)
    elif request.param == 'link to a fifo':
        os.mkfifo(tmp_path / 'fifo', 0o600)
        path.symlink_to(tmp_path / 'fifo')
    elif request.param == 'socket':
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif request.param == 'directory':
        path.mkdir()
    else:
        path.symlink_to('/dev/zero')
    return path


@pytest.mark.parametrize('read', READERS.values(), ids=READERS.keys())
def test_what_is_no_file_is_a_clear_error_at_once(no_file: Path, read: Callable[[Path], object]) -> None:
    reason = 'No such device or address' if no_file.is_socket() else 'is not a regular file'
    with pytest.raises(SwitchboardError, match=reason):
        read(no_file)


@pytest.mark.parametrize('name', ['configuration', 'part of a configuration', 'password', 'users'])
def test_a_file_of_the_kernel_that_is_to_be_waited_for_is_an_error_too(name: str) -> None:
    # Its type is that of a regular file.  To read it takes root, and there is nothing new in it the second time.
    for _ in range(2):
        with pytest.raises(SwitchboardError):
            READERS[name](Path('/proc/kmsg'))


def test_a_key_of_a_certificate_is_looked_at_too(no_file: Path, tmp_path: Path) -> None:
    certificate = tmp_path / 'certificate'
    certificate.touch()
    with pytest.raises(SwitchboardError, match=r'ssl_keyfile = .*: (No such device|is not a regular)'):
        Tls(certfile=str(certificate), keyfile=str(no_file)).check_files()


def test_a_link_is_followed_and_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('x')
    (tmp_path / 'link').symlink_to('file')
    opened = Opened()
    with open_regular_file(tmp_path / 'link') as stream:
        assert stream.read() == b'x'
    with pytest.raises(OSError, match='is not a regular file'):
        open_regular_file(tmp_path)
    with pytest.raises(ValueError, match='null'):
        open_regular_file('a\0b')
    assert opened() == []


def test_flags_and_acts_that_are_no_files_keep_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / RUN / 'paused').mkdir(parents=True)
    os.mkfifo(tmp_path / RUN / 'paused' / 'in')
    os.mkfifo(tmp_path / RUN / ACTS)
    (tmp_path / RUN / f'{ACTS}.old').write_text(json.dumps({'act': 'rm'}) + '\n')
    assert read_flags(tmp_path, 'in') == {'paused': {}}
    assert recent_acts(tmp_path) == [{'act': 'rm'}]
