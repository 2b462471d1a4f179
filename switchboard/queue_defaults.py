"""The defaults of the queue options that `drop` goes by as well, in a module that loads nothing."""

from __future__ import annotations

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    Durability = Literal['full', 'lazy']
    DirectorySync = Literal['auto', 'always']
    Overflow = Literal['reject', 'dead-letter', 'drop-oldest']

# Kinds that can be read without running anything; a kind that is not listed here must be asked for by name.
SAFE_KINDS = ('mail', 'bytes', 'text', 'json')

# The values of `directory_sync` by their old words.
OLD_SYNC_WORDS = {'one': 'auto', 'two': 'always'}


class QueueDefaults:
    """Some fields of `QueueOptions`; see there."""

    accept: Sequence[str] = SAFE_KINDS
    dead_letter: str = 'bad'
    dedupe_window_s: float = 86400.0
    durability: Durability = 'full'
    directory_sync: DirectorySync = 'auto'
    max_body_bytes: int | None = None
    max_bytes: int | None = None
    max_messages: int | None = None
    min_free_space_bytes: int = 0
    order_key: str | None = None
    overflow: Overflow = 'reject'
    priority: int = 0
    ttl_s: float | None = None


def has_limits(options: Any) -> bool:
    """Is there anything to ask before a message is let in?

    :param options: `QueueOptions`, or the part of them that `drop` knows.
    """
    return bool(
        options.max_messages is not None or options.max_bytes is not None or options.min_free_space_bytes
    )
