"""A pytest plugin: kombu's unit tests that use its in-memory transport get ours instead.

The mailbox's tests expect what that one gives them: state that they share, and connections that nobody closes and that are still
there.  The others want a spool of their own.  Loaded by `test_conformance` into a process of its own.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any, ClassVar

import pytest
from kombu.transport import TRANSPORT_ALIASES

from switchboard.extra.kombu import Transport

ROOT = os.environ['STANDIN_ROOT']


class StandIn(Transport):
    """Our transport, under the name of another one."""

    spool = ''
    kept: ClassVar[list[Any]] = []

    def establish_connection(self) -> Transport:
        """Open the spool of the test."""
        self.kept.append(self.client)
        self.client.hostname = f'switchboard://{self.spool}?durability=lazy&create=yes'
        return super().establish_connection()


TRANSPORT_ALIASES['memory'] = 'tests.kombu.standin:StandIn'


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.stem == 'test_pidbox':
        StandIn.spool = f'{ROOT}/pidbox'
    else:
        StandIn.spool = tempfile.mkdtemp(dir=ROOT)
