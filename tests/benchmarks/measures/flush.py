"""Ways to bring a batch of messages to the disk: which one a batch should use is decided by this table.

Each writes 1 KB into each of the files of a batch, which exist already, brings them to the disk, renames them into the queue
and syncs the queue's directory once.  Only the middle differs:

- *fdatasync each*: one after the other, each waits for the disk;
- *fsync each*: the same with all of the inode;
- *write back, then fdatasync each*: ``sync_file_range`` starts the writing of all, so that the waits overlap;
- *syncfs once*: everything dirty on the whole file system, whoever wrote it.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.benchmarks.cases import TINY, Effort
from tests.benchmarks.messages import message
from tests.benchmarks.pairs import Figure, alternate, figure

SIZES = (10, 100)
SYNC_FILE_RANGE_WRITE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _fdatasync(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.fdatasync(descriptor)


def _fsync(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.fsync(descriptor)


def _write_back(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        _checked(
            _libc.sync_file_range(
                descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(SYNC_FILE_RANGE_WRITE)
            )
        )
    _fdatasync(descriptors)


def _syncfs(descriptors: Sequence[int]) -> None:
    _checked(_libc.syncfs(descriptors[0]))


PLAIN = 'fdatasync each'
STRATEGIES: dict[str, Callable[[Sequence[int]], None]] = {
    PLAIN: _fdatasync,
    'fsync each': _fsync,
    'write back, then fdatasync each': _write_back,
    'syncfs once': _syncfs,
}


class Batch:
    """Files that are written again and again, as spares are."""

    def __init__(self, directory: Path, size: int) -> None:
        self._spare, self._queue = directory / 'spare', directory / 'queue'
        for path in (self._spare, self._queue):
            path.mkdir(parents=True, exist_ok=True)
        self._body = message('bytes')
        self._names = [f'{number:040d}' for number in range(size)]
        self._descriptors = [
            os.open(self._spare / name, os.O_RDWR | os.O_CREAT, 0o660) for name in self._names
        ]
        self._queue_descriptor = os.open(self._queue, os.O_RDONLY | os.O_DIRECTORY)

    def turn(self, flush: Callable[[Sequence[int]], None], min_s: float) -> tuple[float, int]:
        """Store batches for `min_s` seconds.

        :return: seconds for one message, and messages.
        """
        done = 0
        took_s = 0.0
        while not done or took_s < min_s:
            begun_s = time.perf_counter()
            for descriptor in self._descriptors:
                os.pwrite(descriptor, self._body, 0)
            flush(self._descriptors)
            for name in self._names:
                os.rename(self._spare / name, self._queue / name)
            os.fsync(self._queue_descriptor)
            took_s += time.perf_counter() - begun_s
            done += len(self._names)
            for name in self._names:
                os.rename(self._queue / name, self._spare / name)
        return took_s / done, done

    def close(self) -> None:
        """Close the files."""
        for descriptor in (*self._descriptors, self._queue_descriptor):
            os.close(descriptor)


def run(place: Path, effort: Effort) -> Iterator[Figure]:
    """Let all strategies take turns, on batches of each size."""
    for size in SIZES[:1] if effort is TINY else SIZES:
        batch = Batch(place / f'flush-{size}', size)
        try:
            turns = [
                lambda flush=flush: batch.turn(flush, effort.min_s)  # noqa: B023 - called before the next turn of the loop
                for flush in STRATEGIES.values()
            ]
            rounds = alternate(place, turns, effort.pairs)
        finally:
            batch.close()
        for number, name in enumerate(STRATEGIES):
            if name != PLAIN:
                yield figure(f'batches of {size}', PLAIN, name, rounds, (0, number))
