"""The matrices of faults in turns: one flush order a day for each operation, all of them in three days; one of two errors, and of two durabilities.

A flush of a file makes nothing but its content durable, or its name too, or all names before it: that decides what a power cut leaves, and most
mistakes show in any of the three.  ``--every-order`` runs all.

``in_turns`` marks a test of flush orders; ``in_turns('error', ('EIO', 'ENOSPC'))`` one whose parameter takes turns among these values.
"""

from __future__ import annotations

import os
import zlib

import pytest

from switchboard.store.kernel import APART, IN_ORDER, WITH_FILE

ORDERS = (APART, WITH_FILE, IN_ORDER)
# The day, as a number: set it to repeat the choice of another day.
DAY = 'SWITCHBOARD_FAULTS_DAY'


def has_its_day(item: pytest.Item) -> bool:
    """:return: whether a test has the value that its operation has on this day; true for all that are marked otherwise."""
    callspec, mark = getattr(item, 'callspec', None), item.get_closest_marker('in_turns')
    if callspec is None or mark is None:
        return True
    taking_turns, values = mark.args or ('order', ORDERS)
    others = [f'{name}={value}' for name, value in sorted(callspec.params.items()) if name != taking_turns]
    turn = zlib.crc32(' '.join([item.nodeid.partition('[')[0], *others]).encode()) + int(os.environ[DAY])
    return bool(values[turn % len(values)] == callspec.params[taking_turns])
