"""The user of a request, and the token that forms carry.

On a Unix socket the kernel says whose process it is; behind a proxy, a header that the configuration names; with a file of users, a name and
a password.  On loopback without any of these, everybody is ``desk``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import pwd
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Scope

from switchboard.web.settings import DeskSettings

TOKEN_LASTS_S = 12 * 3600
PEER = '@uid'

_NAME = re.compile(r'[\w.@+-]{1,64}')
_TOKEN = re.compile(r'([0-9]{1,12})\.([0-9a-f]{64})')


class UnknownUserError(Exception):
    """The request is of no user of the desk.

    :param asks: a browser is to ask for name and password.
    """

    def __init__(self, *, asks: bool) -> None:
        super().__init__()
        self.asks = asks


@dataclass(frozen=True)
class User:
    """The user of a request.

    :param is_authorized: he said so by an ``Authorization`` of this request.
    """

    name: str
    is_authorized: bool = False


class Identity:
    """Finds the user of a request, and makes and checks tokens: they hold for one user, some hours, and this process."""

    def __init__(self, settings: DeskSettings) -> None:
        self._settings = settings
        self._secret = os.urandom(32)

    def of(self, scope: Scope, header: Callable[[str], str | None]) -> User:
        """:return: the sender of a request.

        :raises UnknownUserError: it does not say so, or not rightly.
        """
        if self._settings.users:
            return self._by_password(header('authorization') or '')
        if self._settings.user_header:
            name = header(self._settings.user_header) or ''
            if not _NAME.fullmatch(name):
                raise UnknownUserError(asks=False)
            return User(name)
        client = scope.get('client')
        if client and client[0] == PEER:
            return User(user_of(client[1]))
        return User('desk')

    def _by_password(self, said: str) -> User:
        scheme, _, word = said.partition(' ')
        try:
            name, _, password = base64.b64decode(word, validate=True).decode().partition(':')
        except (binascii.Error, ValueError):
            raise UnknownUserError(asks=True) from None
        wanted = self._settings.users.get(name, '')
        # The same work for a name that is not there.
        is_right = hmac.compare_digest(_digest(password), _digest(wanted))
        if scheme.lower() != 'basic' or not wanted or not is_right:
            raise UnknownUserError(asks=True)
        return User(name, is_authorized=True)

    def token(self, user: User) -> str:
        """:return: a token for the forms of one user."""
        until = str(int(time.time()) + TOKEN_LASTS_S)
        return f'{until}.{self._seal(until, user)}'

    def is_token(self, text: str, user: User) -> bool:
        """:return: whether it is one that holds for this user, now."""
        match = _TOKEN.fullmatch(text)
        if match is None or int(match[1]) < time.time():
            return False
        return hmac.compare_digest(match[2], self._seal(match[1], user))

    def _seal(self, until: str, user: User) -> str:
        return hmac.new(self._secret, f'{until}\0{user.name}'.encode(), 'sha256').hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def user_of(uid: int) -> str:
    """:return: the name of a user of this machine, or his number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f'uid {uid}'
