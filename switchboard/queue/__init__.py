"""One queue: the life of its entries from enqueue to finish.

In reading order: switchboard (the facade, and what a spool does for a queue), producer (encode, admit, write, publish),
admission (may a message come in?), consumer (choose, claim, read, settle), ready_queue (which entry is next, and when; smallest_names
and entries_by_key are parts of it),
listing (what a directory holds), recovery (steps on a claim, and what dead owners left), expiry_clock (what may be deleted by
the time of day), wakeup (what an idle runner sleeps on), watch (sleeping on directories and descriptors), throttle.

It imports store and below.  Any room above may import it.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.queue.switchboard import Switchboard

__all__ = ['Switchboard']

__getattr__ = lazy(__name__, {'switchboard.queue.switchboard': 'Switchboard'})
