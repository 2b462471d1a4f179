"""A file system of a megabyte, so that a disk can really be full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str = '1m') -> Iterator[Path]:
    """Mount a small tmpfs at `place`.

    Elsewhere than on a machine of ours, and for others than root, it is a reason to skip.
    """
    place.mkdir(exist_ok=True)
    command = ['mount', '-t', 'tmpfs', '-o', f'size={size},mode=0700', 'switchboard-test', str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        reason = mounted.stderr.strip() if mounted.returncode else ''
    except FileNotFoundError:
        reason = 'there is no mount program'
    if reason:
        if os.geteuid() == 0 and os.environ.get('CI'):
            pytest.fail(f'no small disk: {reason}')
        pytest.skip(f'no small disk: {reason}')
    try:
        yield place
    finally:
        subprocess.run(['umount', '--lazy', str(place)], check=True, timeout=10)


def fill(place: Path, leave: int = 0) -> Path:
    """Take what is free on a disk, but for `leave` bytes.

    :return: the file to delete when there is to be room again.
    """
    ballast = place / 'ballast'
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    with ballast.open('wb', buffering=0) as file:
        try:
            file.write(b'\0' * max(0, free - leave))
            while not leave:
                file.write(b'\0' * 4096)
        except OSError:
            pass
    return ballast
