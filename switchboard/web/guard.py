"""The guard: requests refused before any page is looked for, and the headers of every answer.

In this order: a ``Host`` that is not ours (a page elsewhere whose name was pointed at this machine), for every method; a request that changes
something and comes from another origin; a body that is too large; somebody who is not known.  The order of the cross-origin check is that of
Go's ``CrossOriginProtection``; in addition forms carry a token, because browsers say where a request comes from on trustworthy origins only.

Starlette's TrustedHostMiddleware was rejected: it ignores the port, reads no IPv6 address, and redirects to ``www``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from switchboard.web.identity import Identity, UnknownUserError

SAFE_METHODS = ('GET', 'HEAD', 'OPTIONS')
MAX_BODY_BYTES = 1 << 20
MAX_QUERY_BYTES = 16_384
# As long as a host's name may be: of another one no more is repeated.
MAX_NAME = 255

HEADERS = {
    'content-security-policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'"
    ),
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    # `no-referrer` would have forms sent with `Origin: null`.
    'referrer-policy': 'same-origin',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'permissions-policy': 'camera=(), microphone=(), geolocation=(), clipboard-read=()',
    'cache-control': 'no-store',
}


class Refused(Exception):
    """The request is refused.

    :param status: the HTTP status of the answer.
    """

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


class Guard:
    """The outermost layer of the application.

    :param hosts: the values that ``Host`` may have.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], identity: Identity) -> None:
        self._app = app
        self._hosts = hosts
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope['type'] == 'lifespan':
            await self._app(scope, receive, send)
            return
        if scope['type'] != 'http':
            return  # there is no web socket here
        answer = _with_headers(send)
        try:
            receive = await self._check(scope, receive)
        except Refused as refused:
            body = json.dumps({'error': refused.reason}) + '\n'
            response = Response(body, refused.status, refused.headers, media_type='application/json')
            await response(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    async def _check(self, scope: Scope, receive: Receive) -> Receive:
        header = partial(_header, Headers(scope=scope))
        host = header('host')
        if host is None or host.lower() not in self._hosts:
            raise Refused(
                421, f'this desk does not go by the name {(host or "")[:MAX_NAME]!r}: see `--allowed-host`'
            )
        if len(scope.get('query_string', b'')) > MAX_QUERY_BYTES:
            raise Refused(414, 'the address is too long')
        try:
            user = self._identity.of(scope, header)
        except UnknownUserError as error:
            challenge = (
                {'www-authenticate': 'Basic realm="switchboard", charset="UTF-8"'} if error.asks else {}
            )
            raise Refused(401, 'say who you are', challenge) from error
        scope['user'] = user
        if scope['method'] in SAFE_METHODS:
            return receive
        if scope['method'] != 'POST':
            raise Refused(405, 'there is no such method here')
        scope['is_program'] = check_origin(header, host, is_authorized=user.is_authorized)
        return await _bounded(header, receive)


def check_origin(header: Callable[[str], str | None], host: str, *, is_authorized: bool) -> bool:
    """See that a request that changes something comes from a page of ours, or from a program that says who it is.

    :return: whether it is a program's.
    :raises Refused: it comes from elsewhere.
    """
    site, origin = header('sec-fetch-site'), header('origin')
    if site is not None:
        if site in ('same-origin', 'none'):
            return False
        raise Refused(403, 'this request comes from a page that is not of this desk')
    if origin is not None:
        scheme, mark, place = origin.partition('://')
        if mark and scheme in ('http', 'https') and place.lower() == host.lower():
            return False
        raise Refused(403, 'this request comes from a page that is not of this desk')
    if not is_authorized:
        raise Refused(403, 'a request without an origin needs an Authorization')
    return True


def _header(headers: Headers, name: str) -> str | None:
    """:return: the header's value; None if it is not there.

    :raises Refused: it is there twice.
    """
    found = headers.getlist(name)
    if len(found) > 1:
        raise Refused(400, f'{name} is there twice')
    return found[0] if found else None


async def _bounded(header: Callable[[str], str | None], receive: Receive) -> Receive:
    """:return: a `receive` with all of the body, which is not large."""
    length = header('content-length') or '0'
    if not length.isdecimal() or len(length) > 12 or int(length) > MAX_BODY_BYTES:
        raise Refused(413, 'the request is too large')
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message['type'] != 'http.request':
            raise Refused(400, 'the request ended early')
        parts.append(message.get('body', b''))
        size += len(parts[-1])
        more = message.get('more_body', False)
        if size > MAX_BODY_BYTES:
            raise Refused(413, 'the request is too large')
    body = b''.join(parts)
    is_read = False

    async def again() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {'type': 'http.request', 'body': body, 'more_body': False}

    return again


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message['type'] == 'http.response.start':
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return answer
