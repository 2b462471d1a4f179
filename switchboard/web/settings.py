"""The desk's settings: where it listens and who may come, and which combinations are refused before it starts."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple, Self

from switchboard.config.units import is_loopback
from switchboard.errors import ConfigError
from switchboard.regular_file import open_regular_file

COLOURS = ('grey', 'green', 'amber', 'red', 'violet', 'blue')
# Keys of metadata whose values are not shown; `*` stands for any text, and case does not count.
REDACTED = tuple('*password* *passwd* *secret* *token* *api_key* authorization cookie *credential*'.split())
MAX_USERS_BYTES = 1 << 20
# Of the word in every title.
MAX_WORD = 40

_HOST = re.compile(r'[a-z0-9](?:[a-z0-9.-]{0,252})?(?::[0-9]{1,5})?|\[[0-9a-f:.]{2,45}\](?::[0-9]{1,5})?')
_HEADER = re.compile(r'[a-z0-9][a-z0-9-]{0,63}')


class DeskSettings(NamedTuple):
    """The settings of one desk.

    :param listen: ``host:port``, or the path of a Unix socket.
    :param allowed_hosts: the names by which browsers may call it, as in ``Host``; without any, the loopback names with its port.
    :param read_only: there is no route that writes.
    :param allow_edit: messages can be changed.
    :param users: password by user name; empty for none.
    :param user_header: the header in which a proxy names the user; empty for none.
    :param environment: a word in every title; ``environment_colour`` is one of `COLOURS`.
    """

    listen: str = '127.0.0.1:8025'
    allowed_hosts: tuple[str, ...] = ()
    read_only: bool = False
    allow_edit: bool = False
    users: Mapping[str, str] = {}
    user_header: str = ''
    environment: str = ''
    environment_colour: str = 'grey'
    redact: tuple[str, ...] = REDACTED
    socket_mode: int = 0o660

    @classmethod
    def of(
        cls,
        *,
        users_file: Path | str | None,
        user_header: str,
        environment: str,
        redact: tuple[str, ...],
        **others: Any,
    ) -> Self:
        """Make the settings that a command line or a section says, and check them.

        :raises ConfigError: the desk must not be started so.
        """
        made = cls(
            users=read_users(users_file),
            user_header=user_header.lower(),
            environment=environment[:MAX_WORD],
            redact=REDACTED + redact,
            **others,
        )
        made.check()
        return made

    @property
    def is_unix(self) -> bool:
        """Does the desk listen on a socket in the file system, which only its users and group can reach?"""
        return '/' in self.listen

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen at."""
        host, _, port = self.listen.rpartition(':')
        return host.strip('[]'), int(port)

    def answered_hosts(self) -> frozenset[str]:
        """:return: every ``Host`` that is answered."""
        if self.allowed_hosts:
            return frozenset(host.lower() for host in self.allowed_hosts)
        # By ssh -L the browser's side has any port, so a Unix socket takes each that is written out; the usual one without a word.
        names = ('localhost', '127.0.0.1', '[::1]')
        port = '8025' if self.is_unix else str(self.address[1])
        return frozenset(f'{name}:{port}' for name in names)

    def check(self) -> None:
        """See that nobody unknown can come in.

        :raises ConfigError: the desk must not be started so.
        """

        def wrong(key: str, text: str) -> ConfigError:
            return ConfigError(text, key=key)

        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host.lower()):
                raise wrong('allowed_hosts', f'{host!r} is no host:port; a star is not understood')
        if self.user_header and not _HEADER.fullmatch(self.user_header):
            raise wrong('user_header', f'{self.user_header!r} is no name of a header')
        if self.allow_edit and self.read_only:
            raise wrong('allow_edit', 'is not for a desk that is read-only')
        if self.environment_colour not in COLOURS:
            raise wrong('environment_colour', f'must be one of {", ".join(COLOURS)}')
        if self.is_unix:
            if self.socket_mode & 0o007:
                raise wrong('socket_mode', 'lets everybody on this machine in; 0660 is for a group')
            return
        try:
            host, port = self.address
        except ValueError:
            raise wrong('listen', f'{self.listen!r} is neither host:port nor a path') from None
        if not 0 < port < 65536:
            raise wrong('listen', f'{port} is no port')
        if not is_loopback(host):
            self._check_public(wrong)

    def _check_public(self, wrong: Callable[[str, str], ConfigError]) -> None:
        reach = f'{self.listen} can be reached from other machines'
        if not self.users:
            raise wrong(
                'users_file', f'{reach}: name a file of users, or listen at 127.0.0.1 or a Unix socket'
            )
        if not self.allowed_hosts:
            raise wrong('allowed_hosts', f'{reach}: name each host that browsers may call it')
        if self.user_header:
            raise wrong(
                'user_header',
                'can be sent by anybody who reaches this address; use it behind a proxy, on a Unix socket or 127.0.0.1',
            )


def read_users(path: Path | str | None) -> dict[str, str]:
    """Read ``name:password`` lines; empty ones and those with ``#`` in front are left out.

    :raises ConfigError: it cannot be read, others may read it, or a line is none.
    """
    if not path:
        return {}
    try:
        with TextIOWrapper(open_regular_file(path), encoding='utf-8') as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IROTH | stat.S_IWOTH):
                raise ConfigError(f'{path} can be read by everybody: chmod 640', key='users_file')
            # A password may hold what `splitlines` takes for an end besides.
            lines = file.read(MAX_USERS_BYTES).split('\n')
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise ConfigError(f'{path} cannot be read: {reason}', key='users_file') from error
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith('#'):
            continue
        name, _, password = line.partition(':')
        if not re.fullmatch(r'[\w.@+-]{1,64}', name) or len(password) < 8:
            raise ConfigError(
                f'{path}:{number}: write name:password, with a password of 8 characters or more',
                key='users_file',
            )
        users[name] = password
    if not users:
        raise ConfigError(f'{path} names no user', key='users_file')
    return users
