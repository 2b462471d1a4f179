"""From a message's bytes to an entry that others can see, in steps that a crash may stop anywhere.

1. take a draft (locked, meaningless) and write the whole file into it; where its queue is full and is to make room, that is done now;
2. ``full``, two flushes: wait until the bytes are on the disk;
3. rename it into the queue: from here on it is an entry;
4. ``full``, two flushes: wait until the directory is on the disk; one flush: wait until file and name are, by an ``fsync`` of the file;
5. drop the lock.

One flush does where the file system writes a file's new name with the file (see `Folder.fsync_scope`), and two do everywhere.

The lock is held to the end.  So if step 4 fails, the entry can be taken back before anybody has claimed it, and
"not stored" is true.  A sync that failed is never tried again: the kernel may have thrown the pages away.
"""

from __future__ import annotations

import errno
import os

from switchboard.drop_errors import DurabilityError, QueueError, QueueFullError, UnknownQueueError
from switchboard.message.entry_header import BYTES_TYPES
from switchboard.message.naming import READY
from switchboard.store.folder import Folder, add_path_to_error
from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES
from switchboard.store.pool import FilePool, PoolFile

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, Protocol

    from switchboard.message.entry_header import Chunks
    from switchboard.queue_defaults import DirectorySync
    from switchboard.store.kernel import Accelerator
    from switchboard.store.limits import Reservation

    class DraftOwner(Protocol):
        """The owner of written files that are not published yet."""

        def forget_in_child(self) -> None: ...


# Drafts that wait for one flush: each keeps a descriptor open.
BATCH_LIMIT = 256

# Who has drafts to publish.  A child after a fork lets go of them: it would keep their locks when its parent dies, and give files
# away that its parent is about to publish.
DRAFT_OWNERS: set[DraftOwner] = set()

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# True of a producer's message and of an entry that is there: most steps are taken for both.
_UNHARMED = 'nothing was stored or lost'


class PreparedEntry:
    """A written draft, and the queue and name it is meant for.

    :param reservation: of room in its queue, which may have to make it before it is published; None: that has no limits.
    """

    __slots__ = ('__weakref__', 'draft', 'filebase', 'folder', 'queue', 'reservation')

    def __init__(
        self,
        draft: PoolFile,
        folder: Folder,
        queue: str,
        filebase: str,
        reservation: Reservation | None = None,
    ) -> None:
        self.draft = draft
        self.folder = folder
        self.queue = queue
        self.filebase = filebase
        self.reservation = reservation

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.draft.size

    def discard(self, pool: FilePool, *, reusable: bool = True) -> None:
        """Throw it away."""
        pool.discard(self.draft, reusable=reusable)
        if self.reservation is not None:
            self.reservation.end(is_used=False)

    def unlock(self) -> None:
        """Drop its lock, and end its reservation as used: it is an entry now, or recovery makes it one."""
        self.draft.folder.disk.unlock_and_close(self.draft.fd)
        if self.reservation is not None:
            self.reservation.end(is_used=True)


def as_queue_error(error: OSError | QueueError, step: str, queue: str, path: str) -> QueueError:
    """:return: the error that `raise_queue_error` raises; a `SwitchboardError` stays as it is, and names the queue."""
    if isinstance(error, QueueError):
        error.queue = error.queue or queue
        return error
    add_path_to_error(error, path)
    refused: QueueError
    if error.errno in _NO_ROOM:
        reason = f'{step}: {error.strerror}: {error.filename!r}; {_UNHARMED}'
        refused = QueueFullError(reason, queue=queue, is_disk_full=True)
    else:
        refused = DurabilityError(str(error), step=step, queue=queue)
    refused.__cause__ = error
    return refused


def raise_queue_error(error: OSError, step: str, queue: str, path: str) -> NoReturn:
    """Raise the `SwitchboardError` that says what happened.

    :param path: of the file or the directory, for an error that does not name it itself (see `add_path_to_error`).
    :raises QueueFullError: the disk is full, or the user's quota of it.
    :raises DurabilityError: anything else.
    """
    raise as_queue_error(error, step, queue, path)


def is_too_many_open_files(error: QueueError) -> bool:
    """Has this process, or the machine, as many files open as it may?  Then no file is at fault."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.EMFILE, errno.ENFILE)


def write_draft(
    pool: FilePool,
    parts: Sequence[bytes | memoryview | Chunks],
    queue: str,
    *,
    modified_ns: int | None = None,
) -> PoolFile:
    """Write a whole file into a draft.

    :param parts: its content; a large one in several, where putting them together would take the memory twice, and some of them may
        come a part at a time themselves.
    :param modified_ns: the modification time to give it, if the machine's clock must not be believed.
    :raises QueueFullError: the disk is full.
    :raises DurabilityError: it could not be written.
    """
    try:
        return _write(pool, parts, modified_ns)
    except OSError as error:
        # What finished messages still hold of a full disk is the first thing to go.
        if error.errno not in _NO_ROOM or not pool.free_space():
            raise_queue_error(error, 'write', queue, pool.folder.path)
    try:
        return _write(pool, parts, modified_ns)
    except OSError as error:
        raise_queue_error(error, 'write', queue, pool.folder.path)


def _write(pool: FilePool, parts: Sequence[bytes | memoryview | Chunks], modified_ns: int | None) -> PoolFile:
    disk = pool.disk
    accelerator = disk.accelerator
    if accelerator is not None and modified_ns is None and len(parts) == 1 and type(parts[0]) is bytes:
        draft = pool.rewrite(accelerator, parts[0])
        if draft is not None:
            return draft
    draft = pool.acquire()
    size = 0
    try:
        for whole in parts:
            for part in (whole,) if isinstance(whole, BYTES_TYPES) else whole:
                start, size = size, size + len(part)
                disk.write_all(draft.fd, part, start)
        if draft.size > size:
            disk.ftruncate(draft.fd, size)
        draft.size = size
        if modified_ns is not None:
            disk.utime(draft.fd, ns=(modified_ns, modified_ns))
    except BaseException as error:
        draft.size = max(draft.size, size)  # perhaps: so that its blocks are given back
        pool.discard(draft, reusable=not isinstance(error, OSError))
        raise
    return draft


def publish(
    items: Sequence[PreparedEntry],
    pool: FilePool,
    *,
    sync: bool,
    directory_sync: DirectorySync = 'auto',
) -> None:
    """Make written drafts visible: all of them, or, if an error is raised, none.

    A crash in the middle of many leaves some visible and the others spares.  Room that a full queue has to make for them is made first.

    :param sync: return when they are on the disk.
    :param directory_sync: ``always``: do not rely on the file system's writing a name with its file.
    :raises QueueFullError: the disk is full, or a queue, which cannot make so much room.
    :raises UnknownQueueError: a queue was deleted meanwhile.
    :raises DurabilityError: a sync or a rename failed.
    """
    accelerator = pool.disk.accelerator
    if accelerator is None or sync or len(items) > 1 or not _move(items[0], accelerator):
        _publish(items, pool, sync=sync, directory_sync=directory_sync)


def _publish(
    items: Sequence[PreparedEntry], pool: FilePool, *, sync: bool, directory_sync: DirectorySync
) -> None:
    published = 0
    step = 'room'
    once = sync and is_one_flush(directory_sync, items[0].folder)
    fsync_scope = relied_fsync_scope(directory_sync, items[0].folder) if sync else CONTENT_ONLY
    try:
        _make_room(items)
        step = 'fdatasync'
        if sync and not once:
            pool.disk.sync_files([item.draft.fd for item in items])
        step = 'rename'
        for item in items:
            draft = item.draft
            item.folder.rename_from(draft.folder, draft.name, item.filebase + READY)
            published += 1
        if fsync_scope != CONTENT_ONLY:
            step = 'fsync'
            pool.disk.sync_files([item.draft.fd for item in items], names=True)
        elif sync:
            step = 'fsync of the directory'
            for folder in {id(item.folder): item.folder for item in items}.values():
                folder.sync()
    except BaseException as error:
        for number, item in enumerate(items):
            # Pages that a failed sync left behind are not to be trusted with the next message.
            reusable = step in ('room', 'rename')
            if number < published:
                reusable &= unpublish(item)
            item.discard(pool, reusable=reusable)
        if isinstance(error, FileNotFoundError) and published < len(items):
            _look_for_folder(items[published], error)
        if isinstance(error, OSError):
            # A rename, and a flush of a directory, name what they are about.
            folder = items[0].draft.folder if step == 'fdatasync' else items[0].folder
            raise_queue_error(error, step, items[0].queue, folder.path)
        raise
    for item in items:
        item.unlock()


def _make_room(items: Sequence[PreparedEntry]) -> None:
    for item in items:
        if item.reservation is not None:
            from switchboard.store.limits import make_room  # here: few queues have limits

            make_room([each.reservation for each in items if each.reservation is not None])
            return


def _move(item: PreparedEntry, accelerator: Accelerator) -> bool:
    """Publish one draft, and drop the lock, in one call.

    :return: False if nothing was done.
    """
    draft = item.draft
    return item.reservation is None and accelerator.move(
        draft.folder.fd, draft.name, item.folder.fd, item.filebase + READY, draft.fd
    )


def is_one_flush(directory_sync: str, folder: Folder) -> bool:
    """Is a file that was renamed into this directory on the disk, name and all, when it was flushed itself?"""
    return directory_sync != 'always' and folder.fsync_scope != CONTENT_ONLY


def relied_fsync_scope(directory_sync: str, folder: Folder) -> int:
    """:return: the effect of a flush of a file on names, as far as that is relied on; `CONTENT_ONLY`: directories are flushed.

    With two flushes, too, names have their flush by file where there is one for that file's names alone: there (Btrfs) a flush of the directory
    brings the new name, and may leave the old one in the directory that it came from, or bring it back.
    """
    return (
        CONTENT_ONLY
        if directory_sync == 'always' and folder.fsync_scope == WITH_ALL_NAMES
        else folder.fsync_scope
    )


def _look_for_folder(item: PreparedEntry, error: FileNotFoundError) -> None:
    # Nothing can be renamed into a directory that was removed: that is how a producer learns of it (see `removal`).
    if item.folder.is_deleted():
        raise UnknownQueueError('it was deleted; nothing was stored', queue=item.queue) from error


def unpublish(item: PreparedEntry) -> bool:
    """Rename an entry that was published and is still locked back to a draft.

    :return: False if that failed as well: then it is to be deleted where it is.  If even that is refused, it stays, though its
        producer gets an error, and the message may arrive twice.
    """
    draft = item.draft
    try:
        draft.folder.rename_from(item.folder, item.filebase + READY, draft.name)
    except OSError:
        item.draft = PoolFile(draft.fd, item.folder, item.filebase + READY, draft.size)
        return False
    return True


def _forget_all() -> None:
    for owner in DRAFT_OWNERS:
        owner.forget_in_child()
    DRAFT_OWNERS.clear()


os.register_at_fork(after_in_child=_forget_all)
