"""What the disk needs of the kernel and Python has no name for: a rename that replaces nothing, and more open files."""

from __future__ import annotations

import resource  # here and not where it is used: a process that may open no more files cannot import either

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable

_RENAME_NOREPLACE = 1


def renameat2() -> Callable[[int, bytes, int, bytes], int] | None:
    """:return: a function that gives 0 or an error number; None where the C library has no such call."""
    if not _RENAMEAT2:
        _RENAMEAT2.append(_find_renameat2())
    return _RENAMEAT2[0]


# What was found, once it was looked for.
_RENAMEAT2: list[Callable[[int, bytes, int, bytes], int] | None] = []


def _find_renameat2() -> Callable[[int, bytes, int, bytes], int] | None:
    import ctypes  # here, because the mail servers' door never needs it and starts faster without

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None

    def rename(src_dir_fd: int, source: bytes, dst_dir_fd: int, target: bytes) -> int:
        failed = call(src_dir_fd, source, dst_dir_fd, target, _RENAME_NOREPLACE)
        return ctypes.get_errno() if failed else 0

    return rename


def allow_more_files() -> bool:
    """Raise this process's soft limit of open files.

    :return: False if it stands at the hard limit already.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft >= hard:
        return False
    raised = soft * 2 if hard == resource.RLIM_INFINITY else min(soft * 2, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError):  # the kernel has a limit of its own
        return False
    return True
