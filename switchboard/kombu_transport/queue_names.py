"""Queue names: kombu's may hold anything, a directory's may not.

A character that a queue's directory cannot have is written as ``%`` and two hex digits for each of its bytes, and so is a ``%``.  So
the usual names are their own directory names, two names never share a directory, and `ls` shows which is which.  A name that becomes too
long ends in a checksum of the whole.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from urllib.parse import quote

from switchboard.message.naming import LOST_AND_FOUND, MAX_QUEUE_NAME
from switchboard.store.layout import BAD, TRASH

_SAFE = '@+,~'  # beside letters, digits and _ . - ~, which `quote` leaves alone
_CHECKSUM_DIGITS = 32
# A queue of one of these names is another one than the spool's own, and than the file system's directory.
_TAKEN = (BAD, TRASH, LOST_AND_FOUND)


@lru_cache(4096)
def directory_name(queue: str) -> str:
    """:return: the name under which a spool has the queue."""
    name = quote(queue, safe=_SAFE, errors='surrogatepass')
    if name[:1] in ('.', '-') or name in _TAKEN:
        name = f'%{ord(name[0]):02X}{name[1:]}'
    if len(name) > MAX_QUEUE_NAME:
        checksum = hashlib.sha256(queue.encode('utf-8', 'surrogatepass')).hexdigest()[:_CHECKSUM_DIGITS]
        name = f'{name[: MAX_QUEUE_NAME - _CHECKSUM_DIGITS - 1]}~{checksum}'
    return name
