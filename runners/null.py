"""Takes messages and forgets them: for trying things out, and for queues whose messages nobody wants.

::

    [runner.nothing]
    class = null
    queue = unwanted
"""

from __future__ import annotations

from typing import Any

from switchboard import Runner


class Null(Runner):
    """A message that was disposed of without an error is finished."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`."""
