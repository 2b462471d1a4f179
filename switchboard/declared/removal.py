"""The removal of a declared queue while others use it.

The kernel decides who was first.  A directory that holds anything cannot be removed, and nothing can be renamed into one that
was.  So a producer's message is in the queue before the directory goes, and then it is dealt with here; or its
rename fails, and the producer gets the error that there is no such queue, or puts the message into a new one of that name.  There is
no instant in between, and no producer takes a lock.

1. under the lock of the declarations: look whether it may go, list what it holds, mark its record *deleted*, take its bindings
   away.  From here on nobody opens it any more; a bit in the directory's mode is seen by the processes that have it open, which look at each
   message, or producers could fill it faster than it is emptied;
2. drop the listed entries: each under its own lock, so that entries at work stay;
3. under the lock again: drop what came meanwhile, remove the directory, then the record.

An entry at work keeps the directory, and the record, which is marked.  Its holder finishes as always.  An entry that it gives back
instead, and what a crash in 2 leaves, goes to the bad queue with the reason ``its queue was deleted``: it was not in the queue when
somebody decided to drop the old ones.  ``docs/explanation/states.md`` has the states.

Rejected: renaming the directory away first (producers that have it open would go on putting messages into it, and learn that
they are stored), a lock that producers share (each message would pay for what happens once in a queue's life).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from switchboard.declared.declarations import Declaration, Declarations
from switchboard.declared.exchangestore import ExchangeStore
from switchboard.declared.presence import Presence
from switchboard.errors import QueueError, QueueInUseError, UnknownQueueError
from switchboard.events import log_event
from switchboard.message.naming import CLAIMED, READY, is_filebase
from switchboard.queue.recovery import move_to_bad
from switchboard.store.claims import open_claim
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, CONSUMERS, DEDUPE_PREFIX, GONE_PREFIX, OWNERS, PER_QUEUE, RUN
from switchboard.store.pool import FilePool
from switchboard.store.renewal import renew

log = logging.getLogger('switchboard.queue')

DELETED = 'its queue was deleted'
# Producers that do not know yet may put messages into a queue that is being deleted, faster than we take them out.
MAX_ROUNDS = 8


def _logged(name: str, error: Exception) -> None:
    log_event(log, logging.WARNING, None, 'not dropped', name=name, error=error)


class QueueRemoval:
    """Deletes queues.

    :param root: the spool's directory.
    """

    def __init__(
        self,
        root: str,
        declarations: Declarations,
        presence: Presence,
        exchanges: ExchangeStore,
        pool: FilePool,
    ) -> None:
        self._root = root
        self._declarations = declarations
        self._presence = presence
        self._exchanges = exchanges
        self._pool = pool
        self._disk = declarations.disk

    def folder(self, name: str) -> Folder:
        """:return: the directory of a queue."""
        return Folder(f'{self._root}/{name}', self._disk)

    def consumer_count(self, name: str) -> int:
        """:return: how many living consumers a queue has."""
        count = self._presence.count(f'{CONSUMERS}/{name}')
        return count.present if count else 0

    def delete(
        self, name: str, *, if_unused: bool = False, if_empty: bool = False, only_if_due: bool = False
    ) -> int:
        """Delete a queue, declared or not, and the messages that it holds.

        :param only_if_due: one that is not due, or not declared, stays.
        :return: how many messages were dropped.
        :raises UnknownQueueError: there is no such queue.
        :raises QueueInUseError: it has consumers, and `if_unused`; or messages, and `if_empty`.
        """
        with ExitStack() as held:
            with self._declarations.lock():
                declaration = self._declarations.get(name)
                folder = self.folder(name)
                if declaration is None and not folder.exists():
                    raise UnknownQueueError('no such queue', queue=name)
                if only_if_due and (declaration is None or not self.reason_to_delete(declaration)):
                    return 0
                if if_unused and (consumers := self.consumer_count(name)):
                    noun = 'consumer' if consumers == 1 else 'consumers'
                    raise QueueInUseError(f'it has {consumers} {noun}', queue=name)
                if if_empty:
                    if folder.exists() and not self._remove(folder):
                        raise QueueInUseError('it holds messages', queue=name)
                    self._exchanges.forget_queue(name)
                    self._forget(name)
                    return 0
                self._exchanges.forget_queue(name)
                mark = (declaration or Declaration(name))._replace(deleted=True)
                held.callback(self._disk.unlock_and_close, self._declarations.write(mark))
                self._close(folder)
                listed = self._entries(folder)
            dropped = self._drop_all(folder, listed)
            return dropped + self._finish(name, folder)

    def _finish(self, name: str, folder: Folder) -> int:
        dropped = 0
        with self._declarations.lock():
            for _ in range(MAX_ROUNDS):
                declaration = self._declarations.read(name)
                if declaration is None or not declaration.deleted:
                    break  # declared anew meanwhile: its entries are not ours
                if not folder.exists() or self._remove(folder):
                    self._forget(name)
                    break
                late = self._drop_all(folder, self._entries(folder))
                if not late:
                    log_event(log, logging.INFO, None, 'deletion pending', queue=name)
                    break
                dropped += late
        return dropped

    def _forget(self, name: str) -> None:
        self._presence.remove(f'{CONSUMERS}/{name}')
        for kind in PER_QUEUE:  # or they would be found by the next queue of this name
            self._remove_file(f'{self._root}/{RUN}/{kind}/{name}')
        try:
            self._disk.rename(
                f'{self._root}/{DEDUPE_PREFIX}{name}',
                f'{self._root}/{GONE_PREFIX}{self._declarations.new_name()}',
            )
        except FileNotFoundError:
            pass
        except OSError as error:
            log_event(log, logging.WARNING, None, 'dedupe keys not removed', queue=name, error=error)
        self._declarations.remove(name)

    def _remove_file(self, path: str) -> None:
        try:
            self._disk.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            log_event(log, logging.WARNING, None, 'not removed', path=path, error=error)

    def remove_deleted_keys(self) -> None:
        """Remove the keys that deleted queues had seen."""
        for name in Folder(self._root, self._disk).names():
            if name.startswith(GONE_PREFIX):
                folder = Folder(f'{self._root}/{name}', self._disk)
                for each in folder.names():
                    self._remove_file(f'{folder.path}/{each}')
                self._remove(folder)

    def _close(self, folder: Folder) -> None:
        try:
            folder.mark_deleted()
        except OSError as error:  # another user's, or gone: producers will notice later
            log_event(log, logging.DEBUG, None, 'not closed', path=folder.path, error=error)

    def _remove(self, folder: Folder) -> bool:
        try:
            folder.open()
            self._disk.rmdir(folder.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        self._close(folder)  # what stands here next is another queue, and not this one renewed
        return True

    def renew(self, folder: Folder) -> bool:
        """Put a fresh directory in the place of a queue's that is empty and large.

        Not while somebody changes declarations: the queue may be about to go, and must not come back.

        :return: whether that was done.
        """
        try:
            with self._declarations.lock(wait=False) as is_locked:
                return is_locked and renew(folder)
        except OSError:
            return False

    # Its entries.

    def _entries(self, folder: Folder) -> list[str]:
        """:return: the names of the entries that are ready or claimed: whether somebody works on one its lock tells."""
        try:
            names = folder.names()
        except FileNotFoundError:
            return []
        return sorted(
            name for name in names if name.endswith((READY, CLAIMED)) and is_filebase(name[: -len(READY)])
        )

    def _drop_all(
        self, folder: Folder, names: Iterable[str], on_failure: Callable[[str, Exception], object] = _logged
    ) -> int:
        return sum(self._drop(folder, name, on_failure) for name in names)

    def _drop(self, folder: Folder, name: str, on_failure: Callable[[str, Exception], object]) -> bool:
        claim = None
        try:
            claim = open_claim(folder, name[: -len(READY)], name[-len(READY) :])
            if claim is None:
                return False
            claim.finish(self._pool)
        except (QueueError, OSError) as error:
            on_failure(name, error)
            if claim is not None:
                claim.close()
            return False
        return True

    def purge(self, name: str, on_failure: Callable[[str, Exception], object] | None = None) -> int:
        """Drop the messages of a queue: not those that are being worked on, and also those whose process died at work.

        :param on_failure: see `Spool.purge`.
        :return: how many.
        """
        folder = self.folder(name)
        return self._drop_all(folder, self._entries(folder), on_failure or _logged)

    # When.

    def reason_to_delete(self, declaration: Declaration) -> str:
        """Say why a queue is to go now; nothing, if it is not.

        On the way the tickets of exited processes are cleared away, and the time of last use is noted.
        """
        name = declaration.name
        consumers = self._presence.count(f'{CONSUMERS}/{name}')
        if declaration.owner is not None and not self._presence.is_active(OWNERS, declaration.owner):
            return 'its owner is gone'
        if consumers is not None and (consumers.present or consumers.gone):
            self._declarations.note_use(name)
        if consumers is not None and consumers.present:
            return ''
        # kombu, for one, asks for both with every exclusive queue; then it is the owner who counts.
        if declaration.auto_delete and declaration.owner is None and consumers is not None:
            return 'its last consumer left'
        unused_s = self._declarations.unused_s(name)
        if declaration.expires_s is not None and unused_s >= declaration.expires_s:
            return f'nobody used it for {unused_s:.0f} s'
        return ''

    def delete_if_due(self, name: str) -> bool:
        """Delete a queue if it is due.

        :return: whether it was.
        """
        declaration = self._declarations.read(name)
        if declaration is None:
            return False
        if declaration.deleted:
            return self._clear(name)
        reason = self.reason_to_delete(declaration)
        if not reason:
            return False
        try:
            dropped = self.delete(name, only_if_due=True)
        except UnknownQueueError:
            return False  # somebody else was faster
        log_event(
            log,
            logging.WARNING if dropped else logging.INFO,
            None,
            'queue deleted',
            queue=name,
            reason=reason,
            dropped=dropped,
        )
        return True

    def delete_unused_queues(self, on_failure: Callable[[str, Exception], object] | None = None) -> list[str]:
        """Delete all queues that are due, and finish what dead processes began.

        :param on_failure: see `Spool.delete_unused_queues`.
        :return: the queues that went.
        """
        names = self._declarations.names()
        gone: list[str] = []
        failed: dict[str, Exception] = {}
        for name in names:
            try:
                if self.delete_if_due(name):
                    gone.append(name)
            except (QueueError, OSError) as error:
                failed[name] = error
        for name, failure in failed.items():
            if on_failure is None:
                raise failure
            on_failure(name, failure)
        self._presence.clear(CONSUMERS)
        self.remove_deleted_keys()
        if not names:
            return []
        self._presence.count(OWNERS)
        self._declarations.clear_drafts()
        return gone

    def _clear(self, name: str) -> bool:
        """Go on with a deletion whose process died, or which waited for entries at work."""
        with self._declarations.lock():
            declaration = self._declarations.read(name)
            if declaration is None or not declaration.deleted or self._declarations.is_locked(name):
                return False
            folder = self.folder(name)
            self._exchanges.forget_queue(name)
            for entry in self._entries(folder):
                self._preserve(name, folder, entry)
            if folder.exists() and not self._remove(folder):
                return False
            self._forget(name)
            return True

    def _preserve(self, name: str, folder: Folder, entry: str) -> None:
        bad = Folder(f'{self._root}/{BAD}', self._disk)
        clock = self._declarations.clock
        try:
            claim = open_claim(folder, entry[: -len(READY)], entry[-len(READY) :])
            if claim is not None:
                move_to_bad(claim, bad, DELETED, queue=name, clock=clock, sync=False, cause='rejected')
        except (QueueError, OSError) as error:
            log_event(log, logging.WARNING, None, 'not preserved', name=entry, error=error)
