"""What is fetched for tests once for all checkouts: other people's programs, and never a part of this project.

It is kept in ``$SWITCHBOARD_TEST_CACHE``, by default ``~/.cache/switchboard-tests``.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """:return: where it is kept; who wants to write there makes it."""
    return Path(os.environ.get('SWITCHBOARD_TEST_CACHE', Path.home() / '.cache' / 'switchboard-tests'))
