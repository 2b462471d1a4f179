"""The logs of this process: where they go belongs to all of its tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from switchboard.status import log


@contextmanager
def own_log() -> Iterator[None]:
    """Let a test have the logs go wherever it likes, and give them back in the end as they were."""
    ours, root = logging.getLogger(log.ROOT), logging.getLogger()
    before = list(ours.handlers), ours.level, ours.propagate, list(root.handlers), root.level
    try:
        yield
    finally:
        log.configure(None)  # which closes the file
        ours.handlers[:], level, ours.propagate, root.handlers[:], root_level = before
        ours.setLevel(level)
        root.setLevel(root_level)
