"""A runner's process, from its fork to its exit.

It is forked and not executed anew: the modules are loaded already, so sixteen runners share their memory and are ready in
milliseconds.  The price is that everything the master holds must be let go here, first of all its lock and its end of
the other runners' lifelines.

The process leads a session of its own: a Ctrl-C on the master's terminal reaches the master alone, which then stops its
runners in order, and the programs that a runner starts are in its group and can be ended with it.

It talks with the master in single bytes over a socket: *prepared* (class imported, object made), then it waits for *go*, then
*ready* (the loop turns).  Because of the middle step a new process is known to work before the old one is asked to
leave, and still only one of them takes messages from a slice, which keeps the order of messages with one key.

Its exit status: 0 it was stopped or made room for a fresh process; 70 an error; 78 its configuration cannot work, do not start it again.
It leaves by ``os._exit``, because the exit handlers it inherited are the master's; a runner cleans up in its ``cleanup`` hook.

**It dies with its master**, however the master dies.  Two independent means, because each has a gap.  ``PR_SET_PDEATHSIG`` (Linux) kills the runner when its parent is gone, but not
the programs that the runner has started.  The lifeline is a pipe whose one writing end the master holds: when the kernel
closes it, it sends SIGKILL to the runner's whole process group, without a thread, a timer or any help from Python, so a
runner that hangs in C code goes as well.  Where the kernel cannot send a signal of choice (no ``F_SETSIG``), a handler of SIGIO does it.

KILL and not TERM: the death of a master is an accident, and after it nobody is left who would end a runner that
does not go by itself.  Nothing is lost by it; recovery puts back the claimed messages.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import setproctitle

from switchboard.errors import ConfigError
from switchboard.events import log_event
from switchboard.master.signals import ignore_signal, signals_blocked
from switchboard.options import RunnerOptions
from switchboard.runner.settling import exit_status
from switchboard.status import captured_output, log
from switchboard.status.scoreboard import Slot

if TYPE_CHECKING:
    import signal as _signal

    from switchboard.config.config import Config
    from switchboard.runner.runner import Runner
    from switchboard.spool.spool import Spool
else:
    import _signal  # `signal` makes an enum's member of each number, which takes pages of each child's own

logger = log.logger('runner')

PREPARED, READY, GO = b'P', b'R', b'G'
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
# In the environment of all that a runner starts: its process, and the spool.
MARK_VARIABLE = 'SWITCHBOARD_STARTED_BY'
# Loaded once in the master, so that no child pays for it.
LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == 'linux' else None
F_SETSIG: int | None = getattr(fcntl, 'F_SETSIG', None)
# `kill -QUIT` makes a runner write where each of its threads is, and changes nothing else.
DUMP_SIGNAL = signal.SIGQUIT


class PreforkObjects(NamedTuple):
    """The objects that a master has made for the children that it forks soon: a later one is to see the disk as it is by then.

    :param spool: None if a runner's queue is at a broker: processes do not share what may be connected.
    :param classes: of the runners whose classes come with this package, by the runner's name; found, and checked.
    :param finders: of the modules of the others, which are found and read: see `loading.CachedModuleFinder`.
    """

    config: Config
    spool: Spool | None
    classes: Mapping[str, type[Runner]]
    finders: Sequence[Any]


class ChildArguments(NamedTuple):
    """All that a runner's process is given.

    :param title: ``in 1/2``
    :param slot: its place on the scoreboard, which it holds from its first step on; the master has read what the process before left there.
    :param spool: the directory, as text.
    :param channel: its end of the socket to the master.
    :param lifeline: its end of the pipe that ends it with the master.
    :param streams: its standard output and standard error, which the master reads.
    :param text_streams: the streams in the place of ``sys.stdout`` and ``sys.stderr``.
    :param inherited: the descriptors of the master and of other children, each once, closed at once; its own may be among them.
    :param prefork: the objects that the master has made for its first children; a later one makes its own.
    """

    title: str
    config: Config
    options: RunnerOptions
    slice: int
    numslices: int
    slot: Slot
    spool: str
    master: int
    channel: socket.socket
    lifeline: int
    streams: tuple[int, ...]
    text_streams: captured_output.LoggedStreams
    inherited: Collection[int] = ()
    prefork: PreforkObjects | None = None

    def wait_for_turn(self) -> None:
        """Say that all is prepared, and wait until the slice is free."""
        self.channel.send(PREPARED)
        if self.channel.recv(1) != GO:
            raise StoppedBeforeLoop


class StoppedBeforeLoop(SystemExit):
    """The end of a process that was asked to go before its runner began its loop, and no ``sys.exit`` of a user's."""


class StopHandler:
    """The handler of TERM and INT: a runner that loops stops after its message, one that does not loop yet just exits.

    :ivar runner: the runner that is asked to stop; None as long as there is none.
    """

    def __init__(self) -> None:
        self.runner: Runner | None = None

    def __call__(self, _signum: int, _frame: FrameType | None) -> None:
        if self.runner is None:
            raise StoppedBeforeLoop
        self.runner.stop()


# What the process is to do; it returns the exit status.
ChildWork = Callable[[ChildArguments, Slot, StopHandler], int]


def fork(child: ChildArguments, work: ChildWork, mask: set[Any]) -> int | OSError:
    """Start a process that does `work`.

    Assumes that all signals are blocked (`signals_blocked`).

    :param mask: the signals that the process is to hold back.
    :return: its process id, or why the machine has no room for another process; the child itself never returns.
    """
    try:
        pid = os.fork()
    except OSError as error:
        return error
    if pid == 0:
        _live(child, work, mask)
    return pid


def _live(child: ChildArguments, work: ChildWork, mask: set[Any]) -> NoReturn:
    code = os.EX_SOFTWARE
    try:
        stop = StopHandler()
        detach(child, stop)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        code = exit_status(_exit_code(child, work, stop))
    except StoppedBeforeLoop:
        code = os.EX_OK
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> NoReturn:
    """End this process, with its log written: an error on the way must not go on, in the code of the master, as a second one."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # nobody reads them any more, and the status counts
                stream.close()
        log.flush_and_wait()
    finally:
        os._exit(code)


def fork_helper(work: Callable[[], object], kept: Iterable[int] = ()) -> int:
    """Start a process that does one thing for the master, holds nothing of it but the log, and ends with it.

    :param kept: further descriptors that it is not to close.
    :return: its process id.
    :raises OSError: the machine has no room for another process.
    """
    master = os.getpid()
    with signals_blocked() as mask:
        pid = os.fork()
        if pid > 0:
            return pid
        code = os.EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _close_all_but((*kept, *log.descriptors()))
            die_with_parent(master)
            work()
            code = os.EX_OK
        except BaseException:
            log_event(log.logger('master'), logging.ERROR, None, 'internal error', exc_info=True)
        finally:
            _end(code)


def _close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor but the standard ones and these."""
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = max(first, descriptor + 1)
    os.closerange(first, os.sysconf('SC_OPEN_MAX'))


def detach(child: ChildArguments, stop: StopHandler) -> None:
    """Close the master's descriptors, and become a process of its own."""
    _signal.set_wakeup_fd(-1)
    own = (child.channel.fileno(), child.lifeline, *child.streams)
    for descriptor in child.inherited:
        if descriptor not in own:
            os.close(descriptor)
    captured_output.become_standard_streams(child.streams)
    os.setsid()
    die_with(child.master, child.lifeline)
    for signum in (_signal.SIGHUP, _signal.SIGUSR1, _signal.SIGTTIN, _signal.SIGTTOU):
        _signal.signal(signum, ignore_signal)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    _signal.signal(_signal.SIGTERM, stop)
    _signal.signal(_signal.SIGINT, stop)
    _signal.signal(_signal.SIGUSR2, _reopen_log)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True)
    os.environ[MARK_VARIABLE] = f'{os.getpid()} {child.spool}'
    setproctitle.setproctitle(f'switchboard: {child.title}')
    log.set_process_name(child.title)
    child.text_streams.use()


def _reopen_log(_signum: int, _frame: FrameType | None) -> None:
    # Runs between two instructions of the interpreter, so it may open files, but it must not log.
    log.reopen()


def _exit_code(child: ChildArguments, work: ChildWork, stop: StopHandler) -> object:
    """:return: the exit status, as for ``sys.exit``; whatever went wrong is on the scoreboard and in the log by then."""
    slot = child.slot
    slot.set_pid()
    try:
        return work(child, slot, stop)
    except ConfigError as error:
        slot.fatal(str(error))
        log_event(logger, logging.ERROR, None, 'cannot run', runner=child.title, error=error)
        return os.EX_CONFIG
    except StoppedBeforeLoop:
        raise
    except BaseException as error:
        leaving = exit_status(error.code) if isinstance(error, SystemExit) else 0
        if stop.runner is not None and isinstance(error, SystemExit):
            return leaving  # no hook of a runner lets it through unless the runner stops
        slot.error(f'{type(error).__name__}: {error}')
        log_event(logger, logging.ERROR, None, 'runner failed', runner=child.title, exc_info=True)
        return leaving or os.EX_SOFTWARE


def die_with(parent: int, lifeline: int) -> None:
    """Tie this process and its group to the life of `parent`.

    Assumes that this process leads its own group, and that nobody but `parent` holds the other end of `lifeline`.

    :param parent: the process id, taken before the fork: afterwards it may be somebody else's already.
    :param lifeline: the reading end of a pipe into which nobody ever writes.
    """
    killed_by_kernel = _ask_kernel()
    try:
        tie_group_to_lifeline(lifeline)
    except OSError:
        # Some sandboxes know neither.  One of the two must hold.
        if not killed_by_kernel:
            raise
    _go_if_orphaned(parent)


def die_with_parent(parent: int) -> None:
    """Tie this process, which starts no others, to the life of `parent`; where the kernel cannot, it lives on.

    :param parent: the process id, taken before the fork.
    """
    _ask_kernel()
    _go_if_orphaned(parent)


def set_subreaper() -> bool:
    """Become the parent of each descendant that loses its own.

    :return: False where the kernel knows nothing of it.
    """
    return LIBC is not None and LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def _ask_kernel() -> bool:
    return LIBC is not None and LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0


def _go_if_orphaned(parent: int) -> None:
    if os.getppid() != parent:
        # It died between the fork and here, when none of the above was in force yet.
        os._exit(os.EX_TEMPFAIL)


def tie_group_to_lifeline(lifeline: int) -> None:
    """Have the kernel end the group of this process when the other end of `lifeline` is closed.

    :raises OSError: it cannot.
    """
    if F_SETSIG is None:
        signal.signal(signal.SIGIO, _end_group)
    else:
        fcntl.fcntl(lifeline, F_SETSIG, signal.SIGKILL)
    # A negative owner is a process group.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)


def _end_group(_signum: int, _frame: FrameType | None) -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)
