"""A socket at a path: a file that programs of this machine connect to.

It is made under a name of its own and renamed when somebody listens at it.  So there is no moment without a socket, and none in which a socket
is there that refuses.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat


def listen_at_unix_socket(path: str, mode: int, *, takes_over: bool = False) -> socket.socket:
    """Listen at a path, in the place of a socket that nobody listens at; of nothing else.

    :param mode: the permissions of the socket.
    :param takes_over: also in the place of a socket that somebody listens at: of a predecessor that is about to go.
    :raises OSError: the place is taken, or cannot be used.
    """
    made = socket.socket(socket.AF_UNIX)
    beside = os.path.join(os.path.dirname(path), f'.{os.getpid()}')
    try:
        _check_place(path, takes_over)
        # In a container, a process that was killed here had the same number.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        made.bind(beside)
        os.chmod(beside, mode)
        made.listen(128)
        os.rename(beside, path)
    except OSError:
        made.close()
        with contextlib.suppress(OSError):  # the error before it counts
            os.unlink(beside)
        raise
    return made


def _check_place(path: str, takes_over: bool) -> None:
    """:raises OSError: there is something that is not to go away."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, 'is there, and is no socket')
        if not takes_over:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(path)
            raise OSError(errno.EADDRINUSE, 'somebody listens there')
    except (FileNotFoundError, ConnectionRefusedError):
        pass
