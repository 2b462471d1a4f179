"""The same message only once: deduplication by a key that the producer gives, within a window of time.

A message that is enqueued with ``dedupe_key`` is not stored if one with the same key was accepted into the same queue less
than ``dedupe_window`` ago; its producer is given the filebase of the first.  This is exact, across processes and crashes:

1. take the lock of the key's bucket;
2. finish what a dead producer has committed and not published, or wait for the process that publishes it: the marker looked for may be among it;
3. look for the key's marker: it is there, and young enough, so this message is a duplicate;
4. otherwise publish message and marker by one hand-off: both appear, or neither;
5. drop the lock.

Markers stand beside the queues, in ``.dedupe@<queue>/<sha1 of the key>.pck``, and hold the filebase, the time and their own name.  The janitor
removes old ones.

With ``lazy``, a power cut may leave both names and not what the files said: a marker that tells of another key was not written, and one whose message is
damaged does not count, so that the producer's next try is stored.  A message goes to its queue before its marker, so where names are kept in order
(see `kernel`) no cut leaves the marker alone.  The price is some four renames and a listing of the stage for each message with a key.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from switchboard.errors import LockTimeoutError, QueueError
from switchboard.events import log_event
from switchboard.handoff.commit import H, commit_all
from switchboard.handoff.handoff import Handoff
from switchboard.handoff.stage import Stage
from switchboard.message.naming import (
    CLAIMED,
    CLOCK_SLACK_NS,
    NS_PER_S,
    PRESERVED,
    READY,
    UNFINISHED,
    is_filebase,
    key_digest,
)
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.queue.switchboard import Switchboard
from switchboard.store.folder import Folder
from switchboard.store.layout import DEDUPE_PREFIX, KEY_LOCK_PREFIX
from switchboard.store.publishing import PreparedEntry, as_queue_error, write_draft
from switchboard.store.reading import peek

log = logging.getLogger('switchboard.queue')

# Producers with keys of different buckets do not wait for each other.
BUCKETS = 64
MAX_MARKER_BYTES = 256


def _bucket(marker: str) -> str:
    return f'{KEY_LOCK_PREFIX}{int(marker[:8], 16) % BUCKETS:02}{UNFINISHED}'


class DedupeSpool(Protocol):
    """The part of a spool that is needed here."""

    stage: Stage

    def dedupe_keys(self, queue: Switchboard) -> Dedupe: ...


class Dedupe:
    """The keys that one queue has seen.

    :param expiry_clock: the time by which they are forgotten.
    """

    def __init__(self, stage: Stage, queue: Switchboard, expiry_clock: ExpiryClock) -> None:
        self._expiry_clock = expiry_clock
        self._stage = stage
        self._queue = queue
        self._name = f'{DEDUPE_PREFIX}{queue.name}'
        self._folder = Folder(os.path.join(stage.spool_path, self._name), stage.disk)

    @contextmanager
    def locked(self, markers: Iterable[str]) -> Iterator[None]:
        """Let no other producer work with these keys.

        Several locks are taken in the order of their names, and those of several queues in the order of the queues.

        :raises OSError: a lock cannot be had.
        :raises LockTimeoutError: another process keeps it.
        """
        self._folder.make()
        with ExitStack() as stack:
            for bucket in sorted({_bucket(marker) for marker in markers}):
                stack.callback(self._stage.disk.unlock_and_close, self._lock(bucket))
            yield

    def outputs(self, markers: Iterable[str]) -> set[tuple[str, str]]:
        """:return: keys' markers as outputs of a hand-off."""
        return {(self._name, marker) for marker in markers}

    def prepare_marker(self, marker: str, filebase: str) -> PreparedEntry:
        """:return: a key's marker, to be published in one step with the message.

        :raises QueueError: it cannot be written.
        """
        content = f'{filebase} {self._queue.clock.time_ns()} {marker}'.encode('ascii')
        draft = write_draft(self._stage.pool, (content,), self._queue.name)
        return PreparedEntry(draft, self._folder, self._name, marker)

    def _lock(self, bucket: str) -> int:
        disk = self._stage.disk
        with self._folder.path_in_errors(bucket):
            fd = disk.open_lock_file(bucket, self._folder.fd)
        try:
            disk.lock_when_free(fd, f'a key of {self._queue.name}')
        except BaseException:
            disk.close_quietly(fd)
            raise
        return fd

    def find(self, marker: str) -> str | None:
        """Look for a key.

        Assumes: it is locked, and its marker is not under way (`Stage.wait_until_published`).

        :return: the filebase under it, if it was seen within the window.
        """
        content = self._folder.read(marker + READY, MAX_MARKER_BYTES)
        if content is None:
            return None
        match content.decode('ascii', 'replace').split(' '):
            # It had no name of its own once.
            case [filebase, accepted_ns, *name] if is_filebase(filebase) and accepted_ns.isdecimal():
                if name not in ([], [marker]):
                    return None
            case _:
                return None  # damaged: better a message twice than not at all
        # One from the future was made while the clock was ahead: it says nothing of when.
        is_young = any(
            -CLOCK_SLACK_NS
            <= clock.time_ns() - int(accepted_ns)
            < self._queue.options.dedupe_window_s * NS_PER_S
            for clock in (self._queue.clock, self._expiry_clock)
        )
        return filebase if is_young and not self._is_lost(filebase) else None

    def _is_lost(self, filebase: str) -> bool:
        """Has a power cut left a message's name without its content?  One that is not there was finished."""
        queue = self._queue
        if queue.is_remote:
            return False
        for folder, suffix in (
            (queue.folder, READY),
            (queue.folder, CLAIMED),
            (queue.consumer.bad, PRESERVED),
        ):
            try:
                entry = peek(folder, filebase, suffix, 0)
                if entry is not None and entry.damage is not None:
                    return True
            except OSError:
                continue  # there is nothing, or it is not to be read: that says nothing against it
        return False

    def remove_expired(self) -> int:
        """Remove the markers of keys that are free again.

        :return: how many.
        """
        try:
            names = self._folder.names()
        except FileNotFoundError:
            return 0
        removed, locked = 0, set[str]()
        for name in names:
            marker = name.removesuffix(READY)
            if marker == name or _bucket(marker) in locked:
                continue
            try:
                removed += self._forget(marker)
            except LockTimeoutError as error:
                locked.add(_bucket(marker))  # to wait for it once is enough
                log_event(log, logging.ERROR, None, 'not tidied', queue=self._queue.name, error=error)
            except (QueueError, OSError) as error:
                log_event(log, logging.ERROR, None, 'not tidied', queue=self._queue.name, error=error)
        return removed

    def _forget(self, marker: str) -> bool:
        """:return: whether the marker of a key that is free was removed."""
        lock = self._lock(_bucket(marker))
        try:
            if self.find(marker) is None:
                self._stage.wait_until_published(self.outputs((marker,)))
                if self.find(marker) is None:
                    self._stage.disk.unlink(marker + READY, dir_fd=self._folder.fd)
                    return True
        except FileNotFoundError:
            pass  # another janitor was faster
        finally:
            self._stage.disk.unlock_and_close(lock)
        return False


def commit_deduplicated(spool: DedupeSpool, handoffs: Sequence[H]) -> dict[H, QueueError]:
    """Commit many hand-offs with the flushes of one, but for outputs whose keys are known.

    The locks of all keys are taken together, in one order, and only now, not when messages are emitted: two runners that emit
    the same keys in different orders would wait for each other for ever.  What one hand-off stores is known to another one
    when it is committed, so of those that bring the same new key one goes first, and the others look again.

    :return: the hand-offs that were not committed, and why: as `commit_all`.  Each `DedupedOutput` has its filebase, or that of the one that was
        stored before.
    """
    deduped = [handoff for handoff in handoffs if handoff.deduped]
    if not deduped:
        return commit_all(handoffs)
    return _Deduplication(spool, deduped).commit([each for each in handoffs if not each.deduped])


class _Deduplication:
    def __init__(self, spool: DedupeSpool, deduped: Sequence[Handoff]) -> None:
        self._spool = spool
        self._waiting = list(deduped)
        self._keys: dict[str, Dedupe] = {}
        self._failed: dict[Any, QueueError] = {}

    def commit(self, others: Sequence[Handoff]) -> dict[Any, QueueError]:
        with ExitStack() as locks:
            try:
                self._lock(locks)
            except (OSError, QueueError) as error:
                for handoff in self._waiting:
                    self._fail(handoff, error)
                self._waiting.clear()
            ready = [*others, *self._look()]
            while ready:
                self._failed |= commit_all(ready)
                ready = self._look()
        return self._failed

    def _lock(self, locks: ExitStack) -> None:
        markers: dict[str, set[str]] = {}
        for handoff in self._waiting:
            for output in handoff.deduped:
                name = output.queue.name
                if name not in self._keys:
                    self._keys[name] = self._spool.dedupe_keys(output.queue)
                markers.setdefault(name, set()).add(key_digest(output.key))
        outputs: set[tuple[str, str]] = set()
        for name in sorted(markers):
            locks.enter_context(self._keys[name].locked(markers[name]))
            outputs |= self._keys[name].outputs(markers[name])
        self._spool.stage.wait_until_published(outputs)

    def _look(self) -> list[Handoff]:
        """:return: the hand-offs that can be committed now: outputs with known keys are thrown away, and no two bring the same new key."""
        ready, waiting = [], []
        new: set[tuple[str, str]] = set()
        for handoff in self._waiting:
            try:
                names = {(output.queue.name, key_digest(output.key)) for output in handoff.deduped}
                if names & new:
                    waiting.append(handoff)
                else:
                    self._sort_out(handoff)
                    new |= names
                    ready.append(handoff)
            except (OSError, QueueError) as error:
                self._fail(handoff, error)
        self._waiting = waiting
        return ready

    def _sort_out(self, handoff: Handoff) -> None:
        """Throw away the outputs whose keys are known, and have the others' keys remembered by the same commit."""
        stored: dict[tuple[str, str], str] = {}
        thrown: set[PreparedEntry] = set()
        for output in handoff.deduped:
            keys, marker = self._keys[output.queue.name], key_digest(output.key)
            known = stored.get((output.queue.name, marker)) or keys.find(marker)
            if known is not None:
                output.filebase = known
                if output.item is not None:
                    thrown.add(output.item)
                continue
            if output.item is None:
                assert output.make is not None
                output.item = output.make()
                handoff.add(output.queue, output.item)
            output.filebase = stored[output.queue.name, marker] = output.item.filebase
            handoff.add(output.queue, keys.prepare_marker(marker, output.filebase))
        if thrown:
            handoff.drop(thrown)

    def _fail(self, handoff: Handoff, error: OSError | QueueError) -> None:
        queue = handoff.deduped[0].queue.name
        handoff.discard()
        self._failed[handoff] = as_queue_error(
            error, 'look for the key', queue, self._spool.stage.folder.path
        )
