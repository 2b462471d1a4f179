"""The way through a whole spool: for messages that may be dropped twice and must be stored once, and for queues whose options `drop` does not read.

A mail server that has got 75, or nothing because the machine went down, sends the message again, and it may have been
stored the first time.  With ``--dedupe``, or with ``-m dedupe_key=KEY``, the second one is not stored; `switchboard.handoff.deduplication` says how that is
exact.  It needs the whole of a spool, so this takes ten times as long as the plain way, and the installed environment.

Two ways to know the same message: ``content`` means the same bytes from the same sender to the same recipients, as a retry has them.
``message-id`` means the same Message-ID to the same recipients, which also finds a mail that came two ways.  It believes
the author, who may choose the Message-ID of somebody else's mail and so hide it; a mail that has none, or several, goes
by its content.
"""

from __future__ import annotations

import email
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from switchboard.queue_defaults import QueueDefaults
    from switchboard.spool.spool import Spool

# A header that is longer has no Message-ID worth looking for.
MAX_HEAD_BYTES = 1024 * 1024


def make_dedupe_key(kind: str, body: bytes | memoryview, metadata: Mapping[str, object]) -> str:
    """Say what tells this message from all others.

    :param kind: ``content`` or ``message-id``.
    :param metadata: ``sender`` and ``recipients`` are of interest.
    """
    recipients = metadata.get('recipients')
    parts = [str(one) for one in recipients] if isinstance(recipients, list) else []
    message_id = _message_id(bytes(body[:MAX_HEAD_BYTES])) if kind == 'message-id' else ''
    if message_id:
        name = f'message-id {message_id}'
    else:
        name = f'content {hashlib.sha256(body).hexdigest()}'
        parts.append(f'from {metadata.get("sender")}')
    return '\n'.join([name, *sorted(parts)])


def _message_id(head: bytes) -> str:
    found = email.message_from_bytes(head).get_all('Message-ID', [])
    text = ''.join(str(found[0]).split()) if len(found) == 1 else ''
    return text if text.startswith('<') and text.endswith('>') else ''


def _configured(directory: str, config: str) -> Spool | None:
    """:return: the spool as its configuration says, if that is the one in force: somebody may be editing the file."""
    from switchboard.config.config import Config
    from switchboard.errors import ConfigError
    from switchboard.spool.active_config import is_active
    from switchboard.spool.spool import Spool

    if not config:
        return None
    try:
        found = Config.load(config)
    except (ConfigError, OSError):
        return None
    return Spool.from_config(found) if is_active(found, directory) else None


def store_through_spool(
    spool: str,
    config: str,
    queue: str,
    options: QueueDefaults | None,
    body: bytes,
    metadata: dict[str, Any],
    at_commit: Callable[[], object],
) -> str:
    """Store a message, unless one with its ``dedupe_key`` was stored within the queue's window.

    :param options: the published options of a queue of the configuration, for where that is not to be used: they know no exchanges.  None: a program has
        declared the queue; sections for many queues may be for it too.
    :param at_commit: called when all is ready; if it raises, nothing is stored.
    :return: the filebase of the one that is stored.
    :raises SwitchboardError: it could not be stored.
    """
    _add_site_packages()
    from switchboard.message.mail import mail_from_bytes
    from switchboard.spool.spool import Spool

    known = _configured(spool, config)
    if options is None or (known is not None and queue in known):
        found = (known or Spool(spool))[queue]
    else:
        found = Spool(spool).queue(queue, **vars(options))
    at_commit()
    return found.enqueue(mail_from_bytes(body), metadata)


def _add_site_packages() -> None:
    """`drop` starts without them; what stands behind this way needs one of them."""
    try:
        import zope.interface  # noqa: F401  asked for, not used
    except ImportError:
        import site

        site.main()
