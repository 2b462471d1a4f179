"""Matrices in turns, of faults first: one flush order a day for each operation, all of them in three days; one of two errors, and every second call.

A flush of a file makes nothing but its content durable, or its name too, or all names before it: that decides what a power cut leaves, and most
mistakes show in any of the three.  ``--every-order`` runs all.

``in_turns`` marks a test of flush orders; ``in_turns('error', ('EIO', 'ENOSPC'))`` one whose parameter takes turns among these values.  With
``days=3`` more than one of them has its turn on a day, and all have had it in so many; ``shared=True`` gives all tests of a file the same turns,
for what is made for a value is used by all of them.  A test may have several marks, if no two of their numbers of days have a common divisor.
``every_second_day(0)`` marks a test that has no such parameter, and takes turns with those marked by a 1.

Where a file of tests has its files takes turns as well, each for `DAYS_IN_ONE_PLACE`: in so many days two, three and four values have had their turn in one place,
and then in the other.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME

FSYNC_SCOPES = (CONTENT_ONLY, WITH_NAME, WITH_ALL_NAMES)
# Which calls of an operation fail: the first of them, and how many further on the next is.
CALLS = {'odd calls': (1, 2), 'even calls': (2, 2)}
FOURTHS = {f'calls {first}, {first + 4} and so on': (first, 4) for first in range(1, 5)}
# The day, as a number: set it to repeat the choice of another day.
DAY = 'SWITCHBOARD_FAULTS_DAY'
# With turns of one day, a value that has its turn on each second day would always meet the same place.
DAYS_IN_ONE_PLACE = 4


def failing_calls(calls: str = '') -> Iterator[int]:
    """:return: the numbers of calls, one of `CALLS` or `FOURTHS`; by default all, from 1."""
    return itertools.count(*(CALLS | FOURTHS)[calls]) if calls else itertools.count(1)


def has_its_day(item: pytest.Item) -> bool:
    """:return: whether a test has the value that its operation has on this day; true for all that are marked otherwise."""
    if any(mark.args[0] != int(os.environ[DAY]) % 2 for mark in item.iter_markers('every_second_day')):
        return False
    callspec = getattr(item, 'callspec', None)
    return callspec is None or all(
        _has_its_day(item.nodeid, callspec.params, mark) for mark in item.iter_markers('in_turns')
    )


def is_in_memory(file: str) -> bool:
    """:return: whether the tests of a file have their files in memory on this day; half of all do."""
    return (zlib.crc32(file.encode()) + int(os.environ[DAY]) // DAYS_IN_ONE_PLACE) % 2 == 0


def _has_its_day(nodeid: str, params: dict[str, Any], mark: pytest.Mark) -> bool:
    taking_turns, values = mark.args or ('fsync_scope', FSYNC_SCOPES)
    others = [f'{name}={value}' for name, value in sorted(params.items()) if name != taking_turns]
    name = nodeid.partition('::' if mark.kwargs.get('shared') else '[')[0]
    turn = zlib.crc32(' '.join([name, *others]).encode()) + int(os.environ[DAY])
    days = mark.kwargs.get('days', len(values))
    return bool(values.index(params[taking_turns]) % days == turn % days)
