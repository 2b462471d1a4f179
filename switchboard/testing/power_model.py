"""The model of a disk that loses power, without a disk: durable changes, pending ones, and the states after a cut.

No file system would be as unkind as this model in all ways at once.  It assumes what POSIX and the journaling file systems
(ext4, XFS, Btrfs, F2FS) give, and nothing more:

* A *sync of a file* (``fsync``, ``fdatasync``) makes its data and its size durable: not its name.  With the scope ``WITH_NAME``, ``fsync``
  makes the changes of its name durable too, as Btrfs does; with ``WITH_ALL_NAMES``, all changes of names that were made before them, as the
  one journal of ext4 and XFS does.
* A *sync of a directory* makes durable every change of a name in it so far: not the files' data, and not the
  directory's own name in the one above.
* A *rename is atomic*, across directories too: after the cut it has happened or it has not; there are never two names or
  none.  So it is durable as soon as one of the two directories was synced.  With ``WITH_NAME`` it is not: a sync of the directory that
  a file came into makes that name durable and leaves the one that it had elsewhere, as Btrfs does; a sync of the file ends that.
* Changes of names that concern *the same file or the same name* keep their order.  All others may be reordered: any
  of those that were not synced may be there, and any may be missing.  Half of the cuts keep the order of all changes, as a
  journal does: a hole that shows there is one that people meet.  With ``WITH_ALL_NAMES`` all cuts do.
* *Data* that was not synced may be on the disk or not, block by block, in any order; the *size* is a thing of its own. Where
  the size is there and the data is not, there is what the file held before, or zeros, or somebody's old blocks.
* Times, owners and modes are not modelled, nor is a disk that says "synced" and lies.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME

# A name in a directory: the directory, and the name.
DirectoryEntry = tuple[str, str]
# What a name leads to: a file, by number, or a directory, by the path at which it was made.
Inode = int | str
Names = dict[DirectoryEntry, Inode]

# The sizes in which data may be torn: a sector, a page, and something smaller than any disk does it.
BLOCKS_BYTES = (16, 512, 4096)
# What an unwritten place may hold: zeros mostly, or what a deleted file left there.
FILLERS = (b'\0', b'\0', b'\0', b'#')


@dataclass(slots=True)
class File:
    """The durable content of one file, and the changes that may be there."""

    durable: bytes = b''
    # Writes, as offset and content, and truncations, as a size and None.
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        """Ensures that nothing is pending."""
        content = bytearray(self.durable)
        for where, what in self.pending:
            content += bytes(max(0, where - len(content)))
            if what is None:
                del content[where:]
            else:
                content[where : where + len(what)] = what
        self.durable = bytes(content)
        self.pending.clear()

    def after_cut(self, rng: random.Random) -> bytes:
        """:return: a content that a power cut might leave of it."""
        if not self.pending:
            return self.durable
        sizes = [len(self.durable)]
        for where, what in self.pending:
            sizes.append(where if what is None else max(sizes[-1], where + len(what)))
        share = rng.choice((0.0, 0.5, 1.0))
        block = rng.choice(BLOCKS_BYTES)
        content = bytearray(rng.choice(FILLERS) * max(sizes))
        content[: len(self.durable)] = self.durable
        for where, what in self.pending:
            for start in range(0, len(what or b''), block):
                if what is not None and rng.random() < share:
                    part = what[start : start + block]
                    content[where + start : where + start + len(part)] = part
        return bytes(content[: rng.choice(sizes)])


@dataclass(slots=True)
class Change:
    """A change of names that is not yet durable: what each of the slots holds after it."""

    inode: Inode
    effects: tuple[tuple[DirectoryEntry, Inode | None], ...]

    def touches(self, directory: str) -> bool:
        """Is a name of that directory changed?"""
        return any(entry[0] == directory for entry, _ in self.effects)

    def parts(self, directory: str) -> tuple[Change, ...]:
        """Take a rename of a file into a directory apart: what happens there comes first."""
        here = tuple(effect for effect in self.effects if effect[0][0] == directory and effect[1] is not None)
        if isinstance(self.inode, str) or not here or len(here) == len(self.effects):
            return (self,)
        there = tuple(effect for effect in self.effects if effect not in here)
        if any(entry[0] == directory for entry, _ in there):
            return (self,)
        return Change(self.inode, here), Change(self.inode, there)

    def things(self) -> set[Inode | DirectoryEntry]:
        """The things whose changes keep their order: the file, and the names."""
        return {self.inode, *(entry for entry, _ in self.effects)}

    def apply(self, names: Names) -> None:
        """Carry it out on `names`."""
        for entry, inode in self.effects:
            if inode is None:
                names.pop(entry, None)
            else:
                names[entry] = inode


class DiskModel:
    """The names and files of a disk: durable and pending ones.

    :param fsync_scope: see the module.
    """

    def __init__(self, fsync_scope: int = CONTENT_ONLY) -> None:
        self.fsync_scope = fsync_scope
        self.files: dict[int, File] = {}
        self.durable: Names = {}
        self.pending: list[Change] = []

    # The calls on a disk; a recorded run is a list of these calls.

    def exists(self, number: int, entry: DirectoryEntry, content: bytes) -> None:
        """A file was there before the run began."""
        self.files[number] = File(content)
        self.durable[entry] = number

    def exists_directory(self, path: str, entry: DirectoryEntry) -> None:
        """A directory was there before the run began."""
        self.durable[entry] = path

    def create(self, number: int, entry: DirectoryEntry) -> None:
        """A new file, empty."""
        self.files[number] = File()
        self.change(number, (entry, number))

    def change(self, inode: Inode, *effects: tuple[DirectoryEntry, Inode | None]) -> None:
        """Names are changed: all of `effects` in one step."""
        self.pending.append(Change(inode, effects))

    def write(self, number: int, where: int, what: bytes | None) -> None:
        """Data are written at an offset; None: the file is cut, or stretched, to that size."""
        self.files[number].pending.append((where, what))

    def sync_data(self, number: int) -> None:
        """Make a file's content durable."""
        self.files[number].sync()

    def sync_file(self, number: int) -> None:
        """See the module."""
        self.sync_data(number)
        if self.fsync_scope != CONTENT_ONLY:
            self._sync_names(lambda change: change.inode == number)

    def sync_directory(self, directory: str) -> None:
        """Make the changes of names in a directory durable, and those that they build upon.  See the module."""
        if self.fsync_scope == WITH_NAME:
            self.pending = [part for change in self.pending for part in change.parts(directory)]
        self._sync_names(lambda change: change.touches(directory))

    def _sync_names(self, is_meant: Callable[[Change], bool]) -> None:
        wanted: set[Inode | DirectoryEntry] = set()
        durable: list[Change] = []
        for change in reversed(self.pending):
            things = change.things()
            if (
                is_meant(change)
                or not wanted.isdisjoint(things)
                or (durable and self.fsync_scope == WITH_ALL_NAMES)
            ):
                wanted |= things
                durable.append(change)
        for change in reversed(durable):
            change.apply(self.durable)
        chosen = {id(change) for change in durable}
        self.pending = [change for change in self.pending if id(change) not in chosen]

    def sync_all(self) -> None:
        """Everything so far is on the disk, as after a long time."""
        for file in self.files.values():
            file.sync()
        for change in self.pending:
            change.apply(self.durable)
        self.pending.clear()

    # The state after a cut.

    def now(self) -> Names:
        """:return: the names that a running program sees."""
        names = dict(self.durable)
        for change in self.pending:
            change.apply(names)
        return names

    def names_after_cut(self, rng: random.Random) -> Names:
        """:return: the names that a power cut might leave."""
        names = dict(self.durable)
        if (
            self.fsync_scope == WITH_ALL_NAMES or rng.random() < 0.5
        ):  # a journal: what happened first is there first
            for change in self.pending[: rng.randint(0, len(self.pending))]:
                change.apply(names)
            return names
        share = rng.choice((0.2, 0.5, 0.8))
        lost: set[Inode | DirectoryEntry] = set()
        for change in self.pending:
            things = change.things()
            if rng.random() < share and lost.isdisjoint(things):
                change.apply(names)
            else:
                lost |= things
        return names

    def after_cut(self, rng: random.Random) -> dict[DirectoryEntry, bytes | str]:
        """:return: a state that a power cut might leave: files by their content, directories by the key of the names in them."""
        names = self.names_after_cut(rng)
        # Once for each file, and in the order of their numbers: the same seed, the same outcome.
        numbers = sorted({inode for inode in names.values() if isinstance(inode, int)})
        contents = {number: self.files[number].after_cut(rng) for number in numbers}
        return {entry: contents[inode] if isinstance(inode, int) else inode for entry, inode in names.items()}
