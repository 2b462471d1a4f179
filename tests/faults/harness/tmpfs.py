"""A small file system, so that a disk can really be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, size: str) -> Iterator[str]:
    """Mount a file system in memory at the directory `place`, if that is allowed.

    :return: why it is not; the empty string if it is there.
    """
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size},mode=0700', 'switchboard-test', str(place)]
    try:
        mount = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        reason = (mount.stderr.strip() or 'refused') if mount.returncode else ''
    except FileNotFoundError:
        reason = 'there is no mount program'
    try:
        yield reason
    finally:
        if not reason:
            subprocess.run(['umount', '--lazy', str(place)], check=True, timeout=60)


@contextmanager
def small_disk(place: Path, size: str = '1m') -> Iterator[Path]:
    """The same for a test that cannot do without, and is skipped."""
    place.mkdir(exist_ok=True)
    with mounted(place, size) as reason:
        if reason:
            pytest.skip(f'no small disk: {reason}')
        yield place


def fill(place: Path, leave: int = 0) -> Path:
    """Take what is free on a disk, but for `leave` bytes.

    :return: the file to delete when there is to be room again.
    """
    ballast = place / 'ballast'
    status = os.statvfs(place)
    with ballast.open('wb', buffering=0) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(4096, status.f_bavail * status.f_frsize - leave))
            while not leave:
                file.seek(0, os.SEEK_END)
                file.write(b'\0' * 4096)
        except OSError:
            pass  # it is full
    return ballast
