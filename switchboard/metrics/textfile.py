"""Metrics in a file, for the textfile collector of the node exporter: no port at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_textfile(path: Path, content: bytes) -> None:
    """Put a file into the place of the one before it, by one rename: a reader finds the old one or the new one, whole.

    :raises OSError: it could not be written; the old one is there still.
    """
    # Beside it, and not called `*.prom`: the collector reads every file of that name.
    descriptor, fresh = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
        with open(descriptor, 'wb') as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(descriptor, 0o644)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the error before it counts
            os.unlink(fresh)
        raise
