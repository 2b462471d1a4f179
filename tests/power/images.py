"""File systems in image files, and power cuts of them: a copy of the image, taken in one step while the file system is in use.

The images lie in an XFS that shares blocks between copies, so that a copy of one (``FICLONE``) is one step, as a power cut is. The copy is
mounted beside the original, which replays its journal, as after a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from switchboard.store.kernel import WITH_ALL_NAMES, WITH_NAME
from tests.helpers.waiting import eventually

FICLONE = 0x40049409
IMAGE_SIZE, HOST_SIZE = '350M', '2G'
PROGRAMS = ('mkfs.xfs', 'mkfs.ext4', 'mount', 'umount', 'truncate')


@dataclass(frozen=True)
class FileSystem:
    """One way to make and to mount a file system.

    :param fsync_scope: what the product is to think of it.
    :param keeps_size: a directory stays as large as it was, so that the product renews it.
    """

    name: str
    make: tuple[str, ...]
    options: str = ''
    copy_options: str = ''
    fsync_scope: int = WITH_ALL_NAMES
    keeps_size: bool = False

    def __str__(self) -> str:
        return self.name


FILE_SYSTEMS = (
    FileSystem('ext4', ('mkfs.ext4', '-q'), keeps_size=True),
    FileSystem(
        'ext4, data=writeback', ('mkfs.ext4', '-q'), 'data=writeback', 'data=writeback', keeps_size=True
    ),
    FileSystem('xfs', ('mkfs.xfs', '-q'), copy_options='nouuid'),
    FileSystem('btrfs', ('mkfs.btrfs', '-q'), fsync_scope=WITH_NAME),
)


def run(*command: str) -> None:
    """Run a program.

    :raises subprocess.CalledProcessError: it failed; what it said is in the error's notes.
    """
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    except subprocess.CalledProcessError as error:
        error.add_note(f'{error.stdout}{error.stderr}')
        raise


def why_not() -> str:
    """:return: why no file system can be mounted here; an empty text if one can be."""
    if os.geteuid():
        return 'power cuts of real file systems: only root can mount them'
    if absent := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f'power cuts of real file systems: {", ".join(absent)} not installed'
    if not os.path.exists('/dev/loop-control'):
        return 'power cuts of real file systems: no loop devices'
    return ''


@contextlib.contextmanager
def mounted(image: Path, place: Path, options: str = '', *, lazily: bool = False) -> Iterator[Path]:
    """Mount an image.

    :param lazily: at the end it is gone from the tree at once, and from the disk when nothing uses it any more.
    """
    place.mkdir(exist_ok=True)
    run('mount', '-o', ','.join(['loop', *([options] if options else [])]), str(image), str(place))
    try:
        yield place
    finally:
        # A loop device lets go of its image a moment after what was mounted from it.
        command = ['umount', *(['--lazy'] if lazily else []), str(place)]
        eventually(
            lambda: (
                not os.path.ismount(place) or subprocess.run(command, capture_output=True).returncode == 0
            ),
            f'{place} is unmounted',
        )


@contextlib.contextmanager
def host(work: Path) -> Iterator[Path]:
    """:return: a directory whose files can be copied in one step."""
    image = work / 'host.img'
    run('truncate', '-s', HOST_SIZE, str(image))
    run('mkfs.xfs', '-q', '-f', '-m', 'reflink=1', str(image))
    with mounted(image, work / 'host', lazily=True) as place:
        yield place


def make(kind: FileSystem, place: Path) -> Path:
    """:return: the image of a new file system."""
    image = place / 'original.img'
    run('truncate', '-s', IMAGE_SIZE, str(image))
    run(*kind.make, str(image))
    return image


def cut(image: Path) -> Path:
    """Take the power away.

    :return: what the disk holds.
    """
    copy = image.with_name('cut.img')
    copy.unlink(missing_ok=True)
    source = os.open(image, os.O_RDONLY)
    target = os.open(copy, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.ioctl(target, FICLONE, source)
    finally:
        os.close(source)
        os.close(target)
    return copy
