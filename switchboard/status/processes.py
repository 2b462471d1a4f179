"""Processes as Linux shows them in ``/proc``.  Of one that has gone, or that this user may not look at, nothing is known."""

from __future__ import annotations

import contextlib
import os
import signal

PROC = '/proc'
# Of an environment, which its process may have made what it likes.
MAX_ENVIRON_BYTES = 4 << 20


def process_children(pid: int) -> list[int]:
    """:return: the processes whose parent it is."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has gone
        for task in os.listdir(f'{PROC}/{pid}/task'):
            found += map(int, _read(pid, f'task/{task}/children').split())
    return found


def process_stat(pid: int) -> list[bytes]:
    """:return: the fields of its ``stat`` behind its name: the state, the parent, the group, the session ..."""
    return _read(pid, 'stat').rpartition(b')')[2].split()


def process_has_ended(pid: int) -> bool:
    """:return: whether it has gone, or waits only to be waited for."""
    return process_stat(pid)[:1] in ([], [b'Z'], [b'X'])


def process_environment(pid: int) -> bytes:
    """:return: its environment, with a zero byte between two variables."""
    return _read(pid, 'environ', MAX_ENVIRON_BYTES)


def process_name(pid: int) -> str:
    """:return: the name that it goes by."""
    return _read(pid, 'comm').decode('utf-8', 'replace').strip()


def signal_name(number: int) -> str:
    """:return: the name of a signal; of a real-time signal that Python has no name for, its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'


def _read(pid: int, name: str, most: int = -1) -> bytes:
    try:
        with open(f'{PROC}/{pid}/{name}', 'rb') as file:
            return file.read(most)
    except OSError:
        return b''
