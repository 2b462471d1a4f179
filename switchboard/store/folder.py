"""A directory of the spool, by descriptor: names in it are resolved in one step, and it can be synced, listed, renewed and replaced."""

from __future__ import annotations

import errno
import os
import posix
import stat as stat_module
from _weakref import ref  # which is there already; `weakref` would be loaded for nothing else
from itertools import islice

from switchboard.store.disk import OPEN_FLAGS, Disk, draft_name
from switchboard.store.kernel import WITH_ALL_NAMES, WITH_NAME
from switchboard.store.layout import DEDUPE_PREFIX, DELIVERIES_PREFIX, DRAFT_PREFIX, RUN, SPARE, STAGE

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

DIRECTORY_MODE = 0o770
# Of a directory whose name may not be on the disk yet.  Nobody has a use for the sticky bit here.
UNFINISHED_MODE = 0o1700
# Of a directory whose queue is being deleted.  The set-user-id bit has no meaning on a directory.
DELETED_BIT = 0o4000
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# How often the directories above are made for one: others may remove them meanwhile, and /proc is there and lets nothing be made in it.
MAX_MAKINGS = 10
# Links that lead to links: more than anybody means.
MAX_LINKS = 8
# A directory with more is walked over: to find out that there are more is then a small part of the reading.
MOST_AT_ONCE = 4096
# An entry's name takes more of a directory's size than that, on most file systems.
NAME_BYTES = 64
# What a directory's reading has of a name beside its characters, at the most.
RECORD_BYTES = 27


def add_path_to_error(error: BaseException | None, path: str) -> None:
    """Have an error of the system name the whole path of a file: below a descriptor it knows the name alone, or nothing.

    A second name, of a rename below a descriptor, is left out.
    """
    if isinstance(error, OSError) and error.errno and not str(error.filename).startswith('/'):
        error.filename = path
        del error.filename2


class PathInErrors:
    """A block in which an error of the system names the whole path of a file.

    Where each message passes, a clause ``except`` does the same, which costs nothing unless there is an error.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        add_path_to_error(error, self._path)


class Folder:
    """A directory, by descriptor: names in it are resolved in one step, and it can be synced.

    The descriptor is opened when first needed and closed with the object.  Listings open the directory anew, by that descriptor,
    because a position in it is shared by all who inherited a descriptor.

    A directory that has grown large and is empty may be renewed (see `renewal`): another one takes its place, and nothing can be put into
    the old one.  A process that has the old one open misses a name there, and goes on in the new one: see :meth:`follow_renewal`.
    """

    def __init__(self, path: str | os.PathLike[str], disk: Disk) -> None:
        self.path = os.fspath(path)
        # The queue that it is, if it is one, for histories and the log.
        self.queue = os.path.basename(self.path)
        self.disk = disk
        self._fd = -1
        self._replaced: list[int] = []
        self._fsync_scope: int | None = None
        self._read_bytes: int | None = None

    @property
    def fsync_scope(self) -> int:
        """The effect of an ``fsync`` of a file in it besides the content: `CONTENT_ONLY`, `WITH_NAME` or `WITH_ALL_NAMES`."""
        if self._fsync_scope is None:
            self._fsync_scope = self.disk.fsync_scope(self.fd)
        return self._fsync_scope

    @property
    def reads_every_name(self) -> bool:
        """Does one system call find all names that were there, also of a file that gets another name in this moment?

        Btrfs remembers at the opening of a directory which name is the last, and shows none that came later: a file that is renamed between the
        opening and the reading is missed under both names, and so is one that another takes the place of.  A reading that concludes something from
        an absence looks again there, as where many calls are needed for one reading; neither is certain while somebody goes on
        renaming, so order does not depend on it alone (see `order_lock`).  Where names reach the disk in order (ext4, XFS), none is missed;
        of other file systems nobody knows.
        """
        return self.fsync_scope == WITH_ALL_NAMES

    def is_read_in_one_call(self, names: int, joined: str) -> bool:
        """Are so many names read with one call, during which nobody changes the directory?

        :param joined: the names, in one text, with a character between two.
        """
        if self._read_bytes is None:
            self._read_bytes = self.disk.directory_read_bytes(self.fd)
        # Two more: the directory itself, and the one above it.
        return len(joined) + (names + 2) * RECORD_BYTES <= self._read_bytes and joined.isascii()

    def make(self, *, sync: bool = True) -> None:
        """Make the directory, and those above it, if they are not there; 0770 whatever the umask says.

        A new one is on the disk when this returns: a message on the disk in a directory that is not would be lost with it.
        Its mode says until then that it is not, so that its finder after its maker's death does the rest.

        :param sync: False for what means nothing after a power cut.
        :raises OSError: it cannot be made.
        """
        with self.path_in_errors(''):
            self._make(sync=sync, left=MAX_MAKINGS)

    def _make(self, *, sync: bool, left: int) -> None:
        try:
            self.disk.mkdir(self.path, UNFINISHED_MODE)
            self._go_on()
        except FileExistsError:
            self._go_on()
            if stat_module.S_IMODE(self.status().st_mode) & 0o1777 != UNFINISHED_MODE:
                return
        except FileNotFoundError:
            if not left:
                raise
            self._above().make(sync=sync)
            self._make(sync=sync, left=left - 1)
            return
        if sync:
            try:
                self._above().sync()
            except PermissionError:
                pass  # we may write there and not read, so it cannot be opened to be synced
        made = self.status()
        if made.st_uid == 0:
            above = self._above()  # kept for as long as its descriptor is of use
            self.disk.chown_like_directory(self.fd, above.fd, made)
        # The set-group-id bit, inherited from the directory above, stays.
        self.disk.fchmod(self.fd, made.st_mode & 0o6000 | DIRECTORY_MODE)

    def _go_on(self) -> None:
        """Use the directory at the path, if the one that this object has open was removed, or renamed away."""
        if self._fd >= 0 and self.is_replaced() and not self.follow_renewal():
            self.reopen()

    def open(self) -> None:
        """Open the directory now, where an error is to be raised here and not in the middle of a step.

        :raises OSError: it cannot be opened, or is no directory.
        """
        _ = self.fd

    def open_lock_file(self, name: str, *, flags: int = os.O_RDWR) -> int:
        """Open a file as `Disk.open_lock_file` does; the directory is made with it."""
        with self.path_in_errors(name):
            try:
                return self.disk.open_lock_file(name, self.fd, flags=flags)
            except FileNotFoundError:
                self.make(sync=False)
            return self.disk.open_lock_file(name, self.fd, flags=flags)

    def path_of(self, name: str) -> str:
        """:return: the path of a file in it; of no name, its own."""
        return os.path.join(self.path, name) if name else self.path

    def path_in_errors(self, name: str) -> PathInErrors:
        """Have what the system refuses meanwhile of a file in it name the whole path; without a name, its own."""
        return PathInErrors(self.path_of(name))

    def share_with_group(self) -> None:
        """Have all that is made in it from now on belong to its group: the set-group-id bit, which directories made in it inherit."""
        with self.path_in_errors(''):
            self.disk.fchmod(self.fd, stat_module.S_IMODE(self.status().st_mode) | stat_module.S_ISGID)

    def trusts(self, uid: int) -> bool:
        """May a file's history be believed, if that is its owner: this user, root, or the owner of the directory?"""
        return uid in (0, self.disk.geteuid(), self.status().st_uid)

    def recreate_if_removed(self) -> bool:
        """Make a directory anew that somebody has removed.

        :return: whether it was: what failed because something is not there is to be tried again.
        """
        status = self.status()
        if status.st_nlink or status.st_mode & DELETED_BIT:
            return False
        self.make()
        return True

    def status(self) -> os.stat_result:
        """:return: the status of the directory that this object has open."""
        try:
            return self.disk.fstat(self.fd)
        except OSError as error:
            add_path_to_error(error, self.path)
            raise

    def is_deleted(self) -> bool:
        """Has the directory that this object has open been taken away, or is it about to be?  One that was renewed is followed."""
        if self._fd < 0:
            return False
        status = self.status()
        return bool(status.st_mode & DELETED_BIT) or (status.st_nlink == 0 and not self.follow_renewal())

    def mark_deleted(self, deleted: bool = True) -> None:
        """Mark the directory, so that processes that have it open close it."""
        with self.path_in_errors(''):
            mode = stat_module.S_IMODE(self.status().st_mode)
            self.disk.fchmod(self.fd, mode & ~DELETED_BIT | DELETED_BIT * deleted)

    def _above(self) -> Folder:
        return Folder(os.path.dirname(os.path.abspath(self.path)), self.disk)

    # The directory's descriptor, opened when first asked for; and what tells it from all others, however its path is spelled.
    fd: int
    key: tuple[int, int]

    def __getattr__(self, name: str) -> Any:
        if name not in ('fd', 'key'):
            raise AttributeError(f'{type(self).__name__!r} object has no attribute {name!r}')
        with self.path_in_errors(''):
            fd, key = self._open_with_key()
        # Another thread may have opened it meanwhile, and go by its descriptor.
        if self.__dict__.setdefault('fd', fd) != fd:
            self.disk.close_quietly(fd)
            return self.fd if name == 'fd' else key
        self.key, self._fd = key, fd
        opened = _opened_by(self.disk)
        opened.add(ref(self, opened.discard))
        return getattr(self, name)

    def close(self) -> None:
        """Give the descriptor back now.  When it is needed again, it is opened anew."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            del self.fd, self.key
            self.disk.close_quietly(fd)

    def _open_with_key(self) -> tuple[int, tuple[int, int]]:
        fd = self._open()
        try:
            status = self.disk.fstat(fd)
        except BaseException:
            self.disk.close_quietly(fd)
            raise
        return fd, (status.st_dev, status.st_ino)

    def _open(self) -> int:
        flags = DIRECTORY_FLAGS | os.O_NOFOLLOW
        try:
            return self.disk.open_file(self.path, flags)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or self._is_internal():
                raise
            path = self._behind_links(error)
        return self.disk.open_file(path, flags)

    def _behind_links(self, error: OSError) -> str:
        """Follow links that an administrator has put in the place of the directory.

        A member of the spool's group can put one there, too, and have this process, which may have more rights, write files where it leads.
        So a link counts only if it belongs to root or to this user, or, unless this user is root, to the owner of the directory that it stands in.

        :param error: raised if there is no link.
        :raises OSError: a link is another user's.
        """
        path, disk = self.path, self.disk
        for _ in range(MAX_LINKS):
            above = os.path.dirname(os.path.abspath(path))
            link = disk.stat(path, follow_symlinks=False)
            if not stat_module.S_ISLNK(link.st_mode):
                if path == self.path:
                    raise error
                return path
            trusted = {0, disk.geteuid()}
            if disk.geteuid() > 0:
                trusted.add(disk.stat(above).st_uid)
            if link.st_uid not in trusted:
                reason = (
                    f'a link of the user {link.st_uid}, who is neither root nor the owner, is not followed'
                )
                raise OSError(errno.ELOOP, reason, path)
            target = disk.readlink(path)
            again = disk.stat(path, follow_symlinks=False)
            if (again.st_ino, again.st_ctime_ns) != (link.st_ino, link.st_ctime_ns):
                raise OSError(errno.ELOOP, 'the link is being changed', path)
            path = os.path.join(above, target)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path)

    def _is_internal(self) -> bool:
        """Is the directory one of a spool's own, like ``.spare`` and ``.run/room``?

        They never are links.  A member of the spool's group could put one there, and have files of any directory of this user's written again as spares.
        """
        name = os.path.basename(self.path)
        return (
            name in (SPARE, STAGE, RUN)
            or name.startswith((DEDUPE_PREFIX, DELIVERIES_PREFIX))
            or f'/{RUN}/' in self.path
        )

    def scan(self) -> Scan:
        """Walk over its entries, in no order, without holding all of them in memory.

        :raises FileNotFoundError: it was removed.
        """
        disk = self.disk
        with self.path_in_errors(''):
            while True:
                fd = disk.open_file('.', DIRECTORY_FLAGS, self.fd)
                try:
                    status = disk.fstat(fd)
                    if status.st_nlink:
                        entries: Any = disk.scandir(fd)  # type: ignore[arg-type]  # a descriptor will do
                        return Scan(disk, fd, entries, status.st_size)
                except BaseException as error:
                    disk.close_quietly(fd)
                    if isinstance(error, OSError) and disk.can_open_more(error):
                        continue
                    raise
                disk.close_quietly(fd)
                if not self.follow_renewal():  # a reading would find nothing, and no error
                    raise FileNotFoundError(errno.ENOENT, 'the directory was removed', self.path)

    def follow_renewal(self) -> bool:
        """Go on in the directory that has taken the place of this one, if this one was renewed.

        The descriptor keeps its number, for another thread may be using it: in a directory that is gone there is nothing that it could be
        in the middle of.

        :return: whether it was: what failed because something is not there is to be tried again.
        """
        status = self.status()
        if status.st_nlink or status.st_mode & DELETED_BIT:
            return False
        disk = self.disk
        with self.path_in_errors(''):
            try:
                fd = self._open()
            except FileNotFoundError:
                return False
            try:
                if self.fsync_scope != WITH_ALL_NAMES:
                    self._above().sync()  # its own name is on the disk before anything in it is promised to be
                status = disk.fstat(fd)
                disk.dup2(fd, self.fd, False)
                self.key = status.st_dev, status.st_ino
            finally:
                disk.close_quietly(fd)
        return True

    def rename_from(self, source: Folder, name: str, target: str) -> None:
        """Rename a file of another directory into this one, or into the one that has taken its place.

        :raises OSError: it could not be; nothing has changed.
        """
        accelerator = self.disk.accelerator
        if accelerator is not None and accelerator.move(source.fd, name, self.fd, target, -1):
            return
        self._rename_from(self.disk.rename, source, name, target)

    def rename_from_exclusive(self, source: Folder, name: str, target: str) -> None:
        """As :meth:`rename_from`, and without replacing.

        :raises FileExistsError: see `Disk.rename_exclusive`.
        """
        self._rename_from(self.disk.rename_exclusive, source, name, target)

    def _rename_from(self, rename: Callable[..., None], source: Folder, name: str, target: str) -> None:
        while True:
            try:
                rename(name, target, src_dir_fd=source.fd, dst_dir_fd=self.fd)
                return
            except OSError as error:
                if not isinstance(error, FileNotFoundError) or not self.follow_renewal():
                    add_path_to_error(error, source.path_of(name))
                    error.filename2 = self.path_of(target)
                    raise

    def has(self, name: str) -> bool:
        """Is there anything of this name in it, or in the one that has taken its place?"""
        try:
            return self.disk.exists(name, self.fd) or (
                self.follow_renewal() and self.disk.exists(name, self.fd)
            )
        except OSError as error:
            add_path_to_error(error, self.path_of(name))
            raise

    def is_replaced(self) -> bool:
        """Does another directory stand at this path by now, because somebody renamed this one away or over?

        A queue that is being deleted is not replaced: what comes after it is another queue.
        """
        opened = self.status()
        if opened.st_mode & DELETED_BIT:
            return False
        try:
            named = self.disk.stat(self.path)
        except FileNotFoundError:
            return False
        return (named.st_dev, named.st_ino) != (opened.st_dev, opened.st_ino)

    def reopen(self) -> None:
        """Go on with the directory that stands at this path by now.

        The descriptor from before stays open: another thread may be using it, and its number must not come to mean something else.
        """
        with self.path_in_errors(''):
            fd, key = self._open_with_key()
        self._replaced.append(self._fd)
        self.fd, self.key, self._fd = fd, key, fd

    def names_and_size(self, most: int = MOST_AT_ONCE) -> tuple[list[str], int] | None:
        """:return: all names in it, and its size in bytes; None if they are to be walked over: they may be more than `most`, or in another directory by now."""
        disk = self.disk
        try:
            if disk.accelerator is not None:
                return disk.accelerator.names(self.fd, most) or None
            return self._read_at_once(most)
        except OSError as error:
            add_path_to_error(error, self.path)
            raise

    def _read_at_once(self, most: int) -> tuple[list[str], int] | None:
        # Without the objects of a walk: each message pays for them.
        disk = self.disk
        fd = disk.open_file('.', DIRECTORY_FLAGS, self.fd)
        try:
            status = disk.fstat(fd)
            if not status.st_nlink or status.st_size > most * NAME_BYTES:
                return None
            with disk.scandir(fd) as entries:  # type: ignore[arg-type]  # a descriptor will do
                names = [entry.name for entry in islice(entries, most)]
        except OSError as error:
            if not disk.can_open_more(error):
                raise
            return None
        finally:
            disk.close_quietly(fd)
        return (names, status.st_size) if len(names) < most else None

    def names(self, limit: int | None = None) -> list[str]:
        """All names in it, or `limit` of them, in no order."""
        if limit is None and (read := self.names_and_size()) is not None:
            return read[0]
        with self.scan() as entries:
            return [entry.name for entry in islice(entries, limit)]

    def exists(self) -> bool:
        """Is there such a directory, or anything else of its path?"""
        try:
            self.disk.stat(self.path)
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str, limit: int) -> bytes | None:
        """:return: a small file's content, as much of it as `limit` says; None if there is none.

        :raises OSError: it cannot be read.
        """
        with self.path_in_errors(name):
            try:
                fd = self.disk.open_file(name, os.O_RDONLY | OPEN_FLAGS, self.fd)
            except FileNotFoundError:
                return None
            try:
                return self.disk.read_all(fd, limit)
            finally:
                self.disk.close_quietly(fd)

    def replace(self, name: str, content: bytes, *, sync: bool, modified_ns: int | None = None) -> None:
        """Put a small file in place by write and rename: readers find the old one or the new one, whole.

        :param sync: return when it is on the disk.
        :param modified_ns: its modification time.
        :raises OSError: it could not be written; the old one stays.
        """
        self.disk.unlock_and_close(self.replace_locked(name, content, sync=sync, modified_ns=modified_ns))

    def replace_locked(self, name: str, content: bytes, *, sync: bool, modified_ns: int | None = None) -> int:
        """As `replace`.

        :return: the file's descriptor, which holds the lock on it.
        """
        disk = self.disk
        with self.path_in_errors(name):
            fd, draft = self._create_draft()
            try:
                disk.write_all(fd, content)
                if modified_ns is not None:
                    disk.utime(fd, ns=(modified_ns, modified_ns))
                if sync:
                    disk.fdatasync(fd)
                disk.rename(draft, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
                draft = ''
                if sync:
                    self.sync()
            except BaseException:
                if draft:
                    disk.unlink_quietly(draft, self.fd)
                disk.unlock_and_close(fd)
                raise
        return fd

    def _create_draft(self) -> tuple[int, str]:
        while True:
            draft = draft_name()
            try:
                return self.disk.create_locked(draft, self.fd), draft
            except FileExistsError:
                continue  # somebody looked in between, and took it for a dead one's
            except BaseException:
                self.disk.unlink_quietly(draft, self.fd)
                raise

    def clear_drafts(self) -> None:
        """Remove what processes left that died while they wrote a file of it, or renewed a directory in it.

        A directory that a living process is about to use goes as well: it then renews nothing this time.
        """
        for name in self.names():
            if name.startswith(DRAFT_PREFIX):
                try:
                    with self.path_in_errors(name):
                        opened = self.disk.open_locked(name, self.fd)
                except IsADirectoryError:
                    self.disk.rmdir_quietly(self.path_of(name))
                    continue
                if opened is not None:
                    self.disk.unlink_quietly(name, self.fd)
                    self.disk.unlock_and_close(opened[0])

    def sync(self) -> None:
        """Return when all names that were added, changed and removed so far are on the disk.

        On Btrfs a file that came from another directory may keep its name there, too, until the file itself is flushed: see :meth:`sync_renames`.
        """
        with self.path_in_errors(''):
            self.disk.fsync(self.fd)

    def sync_renames(self) -> None:
        """As :meth:`sync`, and no file that came from another directory has its name there any more, whichever process renamed it."""
        with self.path_in_errors(''):
            if self.fsync_scope != WITH_NAME or not self.disk.syncfs(self.fd):
                self.sync()

    def __del__(self) -> None:
        for fd in (self._fd, *self._replaced):
            if fd >= 0:
                posix.close(fd)

    def __repr__(self) -> str:
        return f'Folder({self.path!r})'


class Scan:
    """A walk over a directory, and the descriptor that it goes by.

    :param size_bytes: of the directory, as large as it has ever been on some file systems.
    """

    __slots__ = ('_disk', '_entries', '_fd', 'size_bytes')

    def __init__(
        self,
        disk: Disk,
        fd: int,
        entries: AbstractContextManager[Iterator[os.DirEntry[str]]],
        size_bytes: int,
    ) -> None:
        self._disk = disk
        self._fd = fd
        self._entries = entries
        self.size_bytes = size_bytes

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return self._entries.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._entries.__exit__(*error)
        self._disk.close_quietly(self._fd)
        self._fd = -1

    def __del__(self) -> None:
        if self._fd >= 0:
            posix.close(self._fd)


def _opened_by(disk: Disk) -> set[ref[Folder]]:
    """:return: the directories that a disk has opened, as far as they live.

    Objects that refer to each other may keep them for long after their last use.
    """
    opened: set[ref[Folder]] = disk.__dict__.setdefault('_open_folders', set())
    return opened


def close_folders(disk: Disk) -> None:
    """Close all directories that were opened by a disk, so that nothing stays behind for the garbage collector."""
    for reference in list(_opened_by(disk)):
        if (folder := reference()) is not None:
            folder.close()
