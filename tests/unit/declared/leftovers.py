"""The files that are left of a queue, for the tests of queues that programs declare."""

from __future__ import annotations

import os
from pathlib import Path

from switchboard import Spool


def left(spool: Spool, name: str) -> list[str]:
    """What lies in a queue's directory."""
    path = Path(spool.path(name))
    return sorted(os.listdir(path)) if path.exists() else []
