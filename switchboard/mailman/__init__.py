"""GNU Mailman on this switchboard: its queues, its own runners and master, without a line of Mailman changed.

In reading order: metadata (kept beside a mail), queue (a switchboard with the manners of Mailman's), takeover (queue files that Mailman wrote, read once), export (and back),
installation (puts the queues in their place), plugin (the one that Mailman loads).

It imports spool and below, and Mailman.  Only cli imports it.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.mailman.installation import install
    from switchboard.mailman.plugin import Plugin

__all__ = ['Plugin', 'install']

__getattr__ = lazy(
    __name__, {'switchboard.mailman.plugin': 'Plugin', 'switchboard.mailman.installation': 'install'}
)
