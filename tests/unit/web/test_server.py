"""The socket that a service manager hands over, and what is refused as one.  That it works is seen with systemd's own program in tests/servers."""

from __future__ import annotations

import os

import pytest

from switchboard.errors import ConfigError
from switchboard.web.server import activated


def test_a_socket_that_is_handed_to_another_process_is_not_ours_and_the_variables_go() -> None:
    for pid in ('', str(os.getpid() + 1), 'x'):
        environ = {'LISTEN_PID': pid, 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': 'desk', 'HOME': '/'}
        assert activated(environ) is None
        assert environ == {'HOME': '/'}


def test_several_sockets_are_refused() -> None:
    environ = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2'}
    with pytest.raises(ConfigError, match='hands over 2 sockets'):
        activated(environ)
    assert environ == {}
