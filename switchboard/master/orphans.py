"""The end of a runner's process: the entry at work is noted if an operator wants it, and the programs it has started go with it.

**What it has started** and left behind is found, ended, and waited for before its slice works on.

A program that a runner started may outlive it: a wrapper's child, a daemon that leads a session of its own, a program of another
user.  Should its message be tried again beside it, the work is done twice at once.  So the master adopts what loses its parent
(``PR_SET_CHILD_SUBREAPER``), and any child that it did not make itself is such an orphan.  Whose it is, its session, its group, or the
mark in its environment tell; what nobody living claims belongs to the one that has just ended.

Only the master's own children are signalled: nobody else waits for them, so a number cannot become a stranger's.  Their children are
adopted in turn, and found at the next look.  A master that was killed adopts nothing any more; the next one finds the orphans by
the mark.  A process that has become another user's cannot be signalled: it is ended by its control group, if it was begun for a message that has one
(``control_group``), and waited for if not.

Elsewhere than on Linux there is nothing of all this: there a runner's process group ends with it, and no more.

**What it works on**: a kill on request is noted in its entries, so that it does not count as their fault.  Of what it holds on brokers its own note is
emptied, by which its death would be counted; Redis is asked to give it out again, for it counts by itself.

An operator's stop, restart or reload has its time, and then the process is killed.  Its entries are recovered as after any death, and three
deaths send an entry to the bad queue, for a message may be what its owners die of.  Of a death that was asked for it is not.

The process is stopped first, so that it neither writes nor ends anything meanwhile; what it holds, the kernel says.  Its claims are its
own while it lives, and only because it will never run again may somebody else write to them.  Should it have been just about to append a
record, that one is torn and this one, behind it, is not seen: then the death counts, as before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import time
from collections.abc import Callable, Collection, Iterator

from switchboard.clock import SYSTEM_CLOCK
from switchboard.events import log_event
from switchboard.master.child import MARK_VARIABLE
from switchboard.message.naming import CLAIMED, is_filebase
from switchboard.queue.recovery import INTERRUPTED, record_time
from switchboard.runner.control_group import kill_cgroup_of
from switchboard.status.processes import (
    PROC,
    process_children,
    process_environment,
    process_has_ended,
    process_stat,
)
from switchboard.store.claims import Claim
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import DELIVERIES_PREFIX, DELIVERIES_SUFFIX

# Some hundred thousand messages.
MAX_HELD_BYTES = 4 << 20


def children() -> set[int]:
    """:return: the processes whose parent this one is."""
    return set(process_children(os.getpid()))


def kill_orphans(owner: int, living: Collection[int], known: Collection[int]) -> list[int]:
    """Kill what the process `owner`, which has ended, has left behind.

    :param living: the other runners' processes.
    :param known: children that are no runner's orphans.
    :return: the processes found; repeat until there are none.
    """
    found = [
        pid
        for pid in children()
        if pid not in living and pid not in known and _belongs_to(pid, owner, living)
    ]
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        except PermissionError:
            kill_cgroup_of(pid)  # another user's by now
    return found


def _belongs_to(pid: int, owner: int, living: Collection[int]) -> bool:
    stat = process_stat(pid)
    if stat[:1] in ([], [b'Z'], [b'X']):
        return False  # it has ended, and is about to be waited for
    leaders = [int(number) for number in stat[2:4]]  # of its group and of its session
    if owner in leaders:
        return True
    marked = read_mark(process_environment(pid))
    return not any(each in living for each in (*leaders, marked[1] if marked else 0))


def read_mark(content: bytes) -> tuple[str, int] | None:
    """:return: the spool and the runner's process that an environment names, which its process may have made what it likes."""
    prefix = os.fsencode(MARK_VARIABLE) + b'='
    for variable in content.split(b'\0'):
        if variable.startswith(prefix):
            number, _, spool = variable.removeprefix(prefix).partition(b' ')
            with contextlib.suppress(ValueError):  # no mark of ours
                return os.fsdecode(spool), int(number)
    return None


def kill_orphans_of_spool(spool: str) -> list[int]:
    """Kill what runners of an earlier master of this spool have left behind.  Assumes that its lock is held, so that master is dead.

    :return: the processes.
    """
    found = []
    with contextlib.suppress(OSError):  # there is no /proc
        for name in os.listdir(PROC):
            if not name.isdecimal() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):  # it has ended meanwhile
                # First the descriptor, then the look: so it is this process that is looked at and ended.
                descriptor = os.pidfd_open(int(name))
                try:
                    marked = read_mark(process_environment(int(name)))
                    if marked is not None and marked[0] == spool:
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        found.append(int(name))
                finally:
                    os.close(descriptor)
    return found


log = logging.getLogger('switchboard.master')

# From the signal to the halt, on a machine that is very busy.
HALT_S, LOOK_EVERY_S = 2.0, 0.002


def kill_with_note(
    pid: int,
    spool: str,
    reason: str,
    requeue_claimed: Callable[[str, list[str]], None] = lambda _queue, _keys: None,
) -> list[str]:
    """Kill a process of this machine, and note in each entry that it holds why.

    :param pid: a process that cannot become a stranger's meanwhile: its parent has not waited for it.
    :param requeue_claimed: has a broker give out again what the process held of a queue, given by its name and the messages' keys.
    :return: the entries in which it was noted.
    """
    noted = []
    claimed: list[tuple[str, list[str]]] = []
    claims: list[Claim] = []
    try:
        os.kill(pid, signal.SIGSTOP)
        if _halts(pid):
            # The kernel names files as they lie, and the spool's path may lead there by a link.
            for path, descriptor in _opened(pid, os.path.join(os.path.realpath(spool), ''), CLAIMED):
                try:
                    claims.append(_claim(path, descriptor))
                    claims[-1].append(
                        {'event': INTERRUPTED, 'time': record_time(SYSTEM_CLOCK), 'reason': reason},
                        sync=False,
                    )
                    noted.append(claims[-1].filebase)
                except Exception as error:
                    # One entry that cannot be noted dies as any other: it is counted.
                    name = os.path.basename(path)
                    log_event(log, logging.WARNING, None, 'history not written', name=name, error=error)
            claimed = _forget_claimed(pid, os.path.join(spool, ''))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        # Not before: a file with a second name is another one now, and this process has its lock.
        for claim in claims:
            os.close(claim.fd)
    for queue, keys in claimed:
        try:
            requeue_claimed(queue, keys)
        except Exception as error:
            # A broker that is away: it gives them out again by and by, and counts the death.
            log_event(log, logging.WARNING, None, 'not released', queue=queue, error=error)
    return noted


def has_claims_open(pid: int) -> bool:
    """Has a process a claimed entry open?"""
    with contextlib.suppress(OSError):  # it has gone
        for name in os.listdir(f'{PROC}/{pid}/fd'):
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(f'{PROC}/{pid}/fd/{name}').endswith(CLAIMED):
                    return True
    return False


def _forget_claimed(pid: int, spool: str) -> list[tuple[str, list[str]]]:
    """Empty the files in which a process notes what it holds on brokers: then nobody counts its death.

    :return: by queue, the keys of the messages.
    """
    found = []
    for path, descriptor in _opened(pid, spool, DELIVERIES_SUFFIX):
        try:
            queue = os.path.basename(os.path.dirname(path)).removeprefix(DELIVERIES_PREFIX)
            keys = os.read(descriptor, MAX_HELD_BYTES).decode('ascii', 'replace').split()
            os.ftruncate(descriptor, 0)
            if keys:
                found.append((queue, keys))
        except OSError as error:
            log_event(log, logging.WARNING, None, 'history not written', name=path, error=error)
        finally:
            os.close(descriptor)
    return found


def _halts(pid: int) -> bool:
    give_up_s = time.monotonic() + HALT_S
    while time.monotonic() < give_up_s:
        if process_stat(pid)[:1] in ([b'T'], [b't']):
            return True
        if process_has_ended(pid):
            return False
        time.sleep(LOOK_EVERY_S)
    return False


def _opened(pid: int, spool: str, suffix: str) -> Iterator[tuple[str, int]]:
    """Yield the files below a spool that a process has open, each with a descriptor of ours."""
    for name in os.listdir(f'{PROC}/{pid}/fd'):
        link = f'{PROC}/{pid}/fd/{name}'
        try:
            path = os.readlink(link)
            if not (path.startswith(spool) and path.endswith(suffix)):
                continue
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # closed meanwhile, or its file has gone
        if os.path.samestat(os.fstat(descriptor), os.stat(link)):
            yield path, descriptor
        else:
            os.close(descriptor)


def _claim(path: str, descriptor: int) -> Claim:
    """:return: the entry as if this process had claimed it; the descriptor is the claim's."""
    status = os.fstat(descriptor)
    filebase = os.path.basename(path).removesuffix(CLAIMED)
    if not stat.S_ISREG(status.st_mode) or not is_filebase(filebase):
        os.close(descriptor)
        raise OSError('it is no plain entry')
    return Claim(
        descriptor,
        Folder(os.path.dirname(path), Disk()),
        filebase,
        CLAIMED,
        status.st_size,
        status.st_uid,
        writable=True,
        modified_ns=status.st_mtime_ns,
        links=status.st_nlink,
    )
