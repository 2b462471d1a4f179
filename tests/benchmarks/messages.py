"""The messages that are sent: the same for everybody, and the same in each run."""

from __future__ import annotations

import email
import json
import random
from functools import cache
from typing import Any

TITLES = {
    'bytes': '1 KB bytes',
    'json': '1 KB JSON',
    'mail': 'mail',
    'mail-again': 'mail out of a queue',
    'mail-read': 'mail, one header read',
    'large': '100 KB bytes',
    'small': '100 bytes',
}

BODY_BYTES = {'bytes': 1024, 'large': 100 * 1024, 'small': 100}

_WORDS = 'the queue keeps what it is given and gives it back once to whoever asks for it first'.split()


def _text(rng: random.Random, length: int) -> str:
    words = []
    while sum(map(len, words)) + len(words) < length:
        words.append(rng.choice(_WORDS))
    return ' '.join(words)


@cache
def _mail_bytes() -> bytes:
    """A mail as a list server gets it: 12 headers through three hosts, a text and an HTML part; about 4 KB."""
    rng = random.Random(1)
    received = ''.join(
        f'Received: from host{n}.example.org (host{n}.example.org [192.0.2.{n}])\r\n'
        f'\tby host{n + 1}.example.org with ESMTPS id {rng.randrange(1 << 40):010x}\r\n'
        f'\tfor <list@example.org>; Sun, 15 Nov 2026 10:0{n}:00 +0000\r\n'
        for n in range(3)
    )
    body = '\r\n'.join(_text(rng, 70) for _ in range(18))
    html = '\r\n'.join(f'<p>{_text(rng, 60)}</p>' for _ in range(18))
    return (
        f'{received}'
        'From: Ada Example <ada@example.org>\r\n'
        'To: list@example.org\r\n'
        'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= and a question about queues\r\n'
        'Date: Sun, 15 Nov 2026 10:00:00 +0000\r\n'
        'Message-ID: <20261115100000.1@example.org>\r\n'
        'References: <20261114100000.1@example.org> <20261114110000.1@example.org>\r\n'
        f'DKIM-Signature: v=1; a=rsa-sha256; d=example.org; s=one; b={rng.randrange(1 << 1024):x}\r\n'
        'MIME-Version: 1.0\r\n'
        'Content-Type: multipart/alternative; boundary="border"\r\n'
        f'\r\n--border\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{body}\r\n'
        f'--border\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n--border--\r\n'
    ).encode()


def message(kind: str) -> Any:
    """:return: a message of that kind."""
    rng = random.Random(kind)
    if kind == 'json':
        value = {'user': 'ada', 'id': 4711, 'tags': ['a', 'b', 'c'], 'ratio': 0.25, 'ok': True}
        return {**value, 'text': _text(rng, 1024 - len(json.dumps(value)))}
    if kind.startswith('mail'):
        return email.message_from_bytes(_mail_bytes())
    return rng.randbytes(BODY_BYTES[kind])


def stored_bytes(kind: str) -> int:
    """:return: about how many bytes a file of ours with such a message has: for the floor, which packs nothing."""
    body = 1024 if kind == 'json' else BODY_BYTES.get(kind) or len(_mail_bytes())
    return body + 79
