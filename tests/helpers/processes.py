"""Processes for tests: forked, so that they start with what the test has made; ended one by one, by their own numbers."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from switchboard.testing import Signal

# An account without rights of its own, as on every Linux.
NOBODY = 65534
# Who has been told to go has gone by then.
GOING_S = 60.0


def remaining(variable: str, value: str, *, kill: bool = False, within_s: float = GOING_S) -> list[str]:
    """Find the processes that were started with a value in their environment, and have not gone in a moment.

    :param kill: end them.
    :param within_s: how long a moment is.
    :return: their command lines.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value:
                found[process.pid] = ' '.join(process.cmdline())
        except psutil.Error:
            continue  # it has gone, or is somebody else's
    give_up_s = time.monotonic() + within_s
    left = [pid for pid in found if not ends(pid, max(0.0, give_up_s - time.monotonic()))]
    for pid in left if kill else ():
        os.kill(pid, signal.SIGKILL)
        ends(pid, GOING_S)
    return [found[pid] for pid in left]


def is_asleep(thread: int) -> bool:
    """:return: whether a thread of this process, by its native number, waits in the kernel."""
    about = Path(f'/proc/self/task/{thread}/stat').read_text()
    return about.rpartition(')')[2].split()[0] == 'S'  # the name before it may hold anything


def watches(pid: int, directory: str | Path) -> bool:
    """:return: whether a process has the kernel tell of what comes into a directory, as one does before it goes to sleep."""
    number = f' ino:{os.stat(directory).st_ino:x} '
    for about in Path(f'/proc/{pid}/fdinfo').iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if any(line.startswith('inotify') and number in line for line in about.read_text().splitlines()):
                return True
    return False


def ends(pid: int, timeout_s: float) -> bool:
    """:return: whether the process ends within the time; it need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)


@contextmanager
def few_descriptors(allowed: int) -> Iterator[None]:
    """Leave this process so many descriptors, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir('/proc/self/fd'))) + 8, hard))
    try:
        with suppress(OSError):  # none is left
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for descriptor in taken[:allowed]:
            os.close(descriptor)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken[allowed:]:
            os.close(descriptor)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the system refuse to write behind so many bytes of a file, as a disk may that is full or broken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Child:
    """A process that runs a function and ends.

    :param function: what it does; its value comes back from :meth:`join`, and an exception as an AssertionError.
    :param uid: as which user, if the test itself runs as root.
    """

    def __init__(self, function: Callable[[], Any], uid: int | None = None) -> None:
        self._read_end, write_end = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if self.pid == 0:
            self._live(function, uid, write_end)
        os.close(write_end)
        self.status: int | None = None

    def _live(self, function: Callable[[], Any], uid: int | None, write_end: int) -> None:
        answer: tuple[str, Any] = ('', None)
        try:
            if uid is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            answer = ('', function())
        except BaseException:
            answer = (traceback.format_exc(), None)
        finally:
            with open(write_end, 'wb') as pipe:
                pickle.dump(answer, pipe)
            os._exit(0)

    def join(self) -> Any:
        """Wait for its end.

        :return: the value of its function.
        :raises AssertionError: it raised an exception, or was killed.
        """
        with open(self._read_end, 'rb') as pipe:
            self._read_end = -1
            content = pipe.read()
        self.wait()
        assert content, f'the child ended with status {self.status} and said nothing'
        trouble, value = pickle.loads(content)
        assert not trouble, f'in the child:\n{trouble}'
        return value

    def kill(self) -> None:
        """End it as the kernel would: at whichever instruction it is."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> None:
        """Wait for its end, however it comes."""
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()
        if self._read_end >= 0:
            os.close(self._read_end)


@contextmanager
def held_elsewhere(queue: Any, filebase: str) -> Iterator[Child]:
    """Have another process work on an entry; it finishes it in the end, unless it is killed before."""
    claimed, enough = Signal(), Signal()

    def hold() -> None:
        queue.dequeue(filebase)
        claimed.set()
        enough.wait_or_timeout()
        queue.finish(filebase)

    with Child(hold) as child:
        claimed.wait_or_timeout()
        yield child
        if child.status is None:
            enough.set()
            child.join()


def in_new_program(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of a module in a program that has just been started: with no memory, files or threads of other tests.

    :return: its value.
    :raises subprocess.CalledProcessError: it raised an exception, or was killed.
    """
    ran = subprocess.run(
        [sys.executable, '-c', _CALL],
        input=pickle.dumps((function, args)),
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    return pickle.loads(ran.stdout)


_CALL = """
import pickle, sys
function, args = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(function(*args)))
"""


def in_child(function: Callable[[], Any], uid: int | None = None) -> Any:
    """Run a function in a process of its own.

    :return: its value.
    """
    with Child(function, uid) as child:
        return child.join()
