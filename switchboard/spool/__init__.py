"""All queues of one installation, in one directory on one file system.

In reading order: spool (the facade), deadletters (where an entry goes that cannot stay),
pickup (maildirs and plain files), replies (request and reply), active_config (which configuration is
in force).

It imports brokers and below: brokers where a queue has a ``url``.  Any room above may import it.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.spool.replies import Replies
    from switchboard.spool.spool import Spool

__all__ = ['Replies', 'Spool']

__getattr__ = lazy(__name__, {'switchboard.spool.spool': 'Spool', 'switchboard.spool.replies': 'Replies'})
