"""The question whether a master holds a spool, and the paths of its files, for readers.

To ask takes its lock shared, for an instant, and needs no answer from it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from switchboard.status.processes import process_stat
from switchboard.store.disk import OPEN_FLAGS
from switchboard.store.layout import MASTER, MASTER_LOCK, RUN

# Of the master's files: its user writes, the spool's group reads, whatever the umask.
MASTER_FILE_MODE = 0o640
# The title of each process of ours begins so.
TITLE = b'switchboard: '


def open_master_directory(spool: str | os.PathLike[str]) -> int:
    """Open the directory of the files of this spool's master, for readers, without following a link below the spool.

    :raises OSError: it is not there, or something else is in its place.
    """
    above = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        run = os.open(RUN, os.O_DIRECTORY | OPEN_FLAGS, dir_fd=above)
    finally:
        os.close(above)
    try:
        return os.open(MASTER, os.O_DIRECTORY | OPEN_FLAGS, dir_fd=run)
    finally:
        os.close(run)


def master_directory(spool: str | os.PathLike[str]) -> Path:
    """:return: the directory of the files of this spool's master, for readers."""
    return Path(spool) / RUN / MASTER


# The longest text that may be a number of a process.
MAX_PID_BYTES = 32


def read_pid(pid_file: Path) -> int | None:
    """:return: the process that the file names, if it can be read."""
    try:
        descriptor = os.open(pid_file, os.O_RDONLY | OPEN_FLAGS)
    except OSError:
        return None
    try:
        return int(os.read(descriptor, MAX_PID_BYTES)) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)


def has_our_title(pid: int) -> bool:
    """:return: whether a process calls itself one of ours; False also where that cannot be seen."""
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as command:
            return command.read(len(TITLE)).startswith(TITLE)
    except OSError:
        return False


def is_suspended(pid: int) -> bool:
    """:return: whether a process of ours is in the state T; False also where that cannot be seen."""
    try:
        return has_our_title(pid) and process_stat(pid)[0] in (b'T', b't')
    except (OSError, IndexError):
        return False


def process_age_s(pid: int, by_the_wall_clock_s: float) -> float:
    """:return: how long a process of ours has lived.  The kernel knows by a clock that nobody turns; where it is not seen, the wall clock has to do.

    Seen from another pid namespace its number is a stranger's, or nobody's: a process of ours has a title.

    :param by_the_wall_clock_s: how long it has lived if that clock was not turned meanwhile.
    """
    try:
        if not has_our_title(pid):
            return max(0.0, by_the_wall_clock_s)
        ticks = int(process_stat(pid)[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
    except (OSError, ValueError, IndexError, AttributeError):
        return max(0.0, by_the_wall_clock_s)


def master_alive(spool: str | os.PathLike[str]) -> bool:
    """:return: whether a master holds this spool at this moment."""
    return is_locked(master_directory(spool))


def master_title(spool: str, config: str) -> str:
    """:return: the title of a master's process, which names its spool and its configuration."""
    return f'{TITLE.decode()}master {spool} ({config})'


def masters_elsewhere(config: str, spool: Path) -> Iterator[tuple[int, Path]]:
    """Find the masters that go by a configuration and work on another spool than it names by now.

    :param config: the file, as a title has it.
    :param spool: the spool that it names.
    :return: the process and the spool of each that can be seen from here.
    """
    # No path has such a character in it.
    before, after = master_title('\0', config).encode().split(b'\0')
    for process in Path('/proc').glob('[0-9]*'):
        try:
            title = (process / 'cmdline').read_bytes().rstrip(b'\0')
            if not (title.startswith(before) and title.endswith(after)):
                continue
            found = Path(os.fsdecode(title[len(before) : -len(after)]))
            if found != spool and master_alive(found):
                yield int(process.name), found
        except OSError:
            continue  # it has ended, or works where this user may not look


def is_locked(own: Path) -> bool:
    """:return: whether a master is alive that keeps its files in this directory."""
    try:
        place = os.open(own, os.O_DIRECTORY | OPEN_FLAGS)
    except FileNotFoundError:
        return False
    try:
        descriptor = os.open(MASTER_LOCK, os.O_RDONLY | OPEN_FLAGS, dir_fd=place)
    except FileNotFoundError:
        return False
    finally:
        os.close(place)
    try:
        # Shared, so that any number may ask at once and no two of them take each other for a master.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
