"""A socket at a path: what it takes the place of, and what it leaves."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from switchboard.runner.unix_socket import listen_at_unix_socket


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_programs_connect_to_it_by_its_permissions(tmp_path: Path) -> None:
    with listen_at_unix_socket(str(tmp_path / 'door'), 0o640):
        assert stat.S_IMODE((tmp_path / 'door').stat().st_mode) == 0o640
        assert answers(tmp_path / 'door')
    assert os.listdir(tmp_path) == ['door']


@pytest.mark.parametrize('takes_over', [False, True])
def test_one_that_was_left_is_replaced(tmp_path: Path, takes_over: bool) -> None:
    listen_at_unix_socket(str(tmp_path / 'door'), 0o600).close()
    (tmp_path / f'.{os.getpid()}').write_text('left by another process of this number')
    with listen_at_unix_socket(str(tmp_path / 'door'), 0o600, takes_over=takes_over):
        assert answers(tmp_path / 'door')
    assert os.listdir(tmp_path) == ['door']


def test_one_that_somebody_listens_at_is_replaced_by_a_successor_alone(tmp_path: Path) -> None:
    with listen_at_unix_socket(str(tmp_path / 'door'), 0o600) as first:
        first.settimeout(60)
        with pytest.raises(OSError, match='somebody listens there'):
            listen_at_unix_socket(str(tmp_path / 'door'), 0o600)
        first.accept()[0].close()  # the question whether somebody does
        with listen_at_unix_socket(str(tmp_path / 'door'), 0o600, takes_over=True) as second:
            second.settimeout(60)
            assert answers(tmp_path / 'door')
            second.accept()[0].close()
    assert os.listdir(tmp_path) == ['door']


@pytest.mark.parametrize('takes_over', [False, True])
def test_nothing_else_is_replaced(tmp_path: Path, takes_over: bool) -> None:
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'directory').mkdir()
    (tmp_path / 'link').symlink_to('elsewhere')
    for name in ('file', 'directory', 'link'):
        with pytest.raises(FileExistsError, match='is no socket'):
            listen_at_unix_socket(str(tmp_path / name), 0o600, takes_over=takes_over)
    assert (tmp_path / 'file').read_text() == 'mine'
    assert sorted(os.listdir(tmp_path)) == ['directory', 'file', 'link']


def test_one_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listen_at_unix_socket(str(tmp_path / 'nowhere' / 'door'), 0o600)
    assert os.listdir(tmp_path) == []
