"""The place of a spool: whether a directory may be one, and which of the directories in it are a spool's.

A spool is known by its ``.spare``, and each directory in it counts as a queue.  So a spool in a spool, or above one, holds messages that nobody
finds: that is refused.  A directory that holds others, as ``/var/spool`` does, may be meant, so a note about it suffices, when it is about to become
a spool; and advice about a spool leaves the directories of others alone.

Rejected: a file that marks a spool (those that are there have none, and a backup leaves it out as soon as ``.spare``).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from itertools import islice
from typing import NamedTuple

from switchboard.message.naming import CLAIMED, LOST_AND_FOUND, PRESERVED, READY, is_filebase
from switchboard.store.folder import DIRECTORY_MODE
from switchboard.store.layout import (
    BAD,
    DECLARED,
    DEDUPE_PREFIX,
    DELIVERIES_PREFIX,
    DRAFT_PREFIX,
    GONE_PREFIX,
    MAILDIR_DIRECTORIES,
    RUN,
    SPARE,
    STAGE,
    TRASH,
)

# A directory that is no spool may hold anything: so many names in it are looked at.
MAX_LOOKED_AT = 1000
# Directories that a sentence names.
MAX_NAMED = 3

_INTERNAL = (SPARE, STAGE, RUN)
_INTERNAL_PREFIXES = (DEDUPE_PREFIX, DELIVERIES_PREFIX, GONE_PREFIX, DRAFT_PREFIX)


class Directories(NamedTuple):
    """The directories in a spool, or in a directory that is to become one, by name and in order.

    :param ours: declared queues, those that look as a queue does, and the spool's own.
    :param others: all others, as far as anybody can tell, but for ``lost+found``: a spool may have a disk of its own.
    :param undeclared: would-be queues that neither the configuration nor a program declares.
    :param links: links, followed or not, that stand in the place of queues.
    """

    ours: list[str]
    others: list[str]
    undeclared: list[str]
    links: list[str]


def is_spool(directory: str | os.PathLike[str]) -> bool:
    """:return: whether a directory is a spool, as far as this user can see."""
    return os.path.isdir(os.path.join(directory, SPARE))


def why_not_a_spool(directory: str | os.PathLike[str]) -> str:
    """:return: that a directory is one too deep in a spool, or one too high, and which was meant; empty if it is or may become a spool."""
    real = os.path.realpath(directory)
    above = os.path.dirname(real)
    if above == real:
        return 'this is the root of the file system, and no spool: name a directory below it'
    if is_spool(above):
        # The way back, if that holds directories of others: it was not the place that was meant.
        mistake = f'; if that has become a spool by mistake, remove {SPARE} there, which holds no messages'
        hint = mistake if _mistakable(above, ()) else ''
        return f'this is a directory in a spool, and no spool: name {above}{hint}'
    if is_spool(directory):
        return ''
    try:
        with os.scandir(directory) as entries:
            below = sorted(each.path for each in islice(entries, MAX_LOOKED_AT) if is_spool(each))
    except OSError:  # there is nothing yet, or nothing to be seen
        return ''
    if not below:
        return ''
    more = f', or one of {len(below) - 1} others' if below[1:] else ''
    return f'this is a directory above a spool, and no spool: name {below[0]}{more}'


def why_not_alone(directory: str | os.PathLike[str], queues: Collection[str] = ()) -> str:
    """:return: that a directory which is to become a spool has others in it, as /var/spool has; empty if it has none, or is a spool.

    :param queues: the names that the configuration declares.
    """
    if is_spool(directory) or not (found := _mistakable(directory, queues)):
        return ''
    return f'{os.fspath(directory)} is no spool yet, and holds other directories ({some(found)}), which would be taken for queues: name a directory for the spool alone'


def _mistakable(directory: str | os.PathLike[str], queues: Collection[str]) -> list[str]:
    """:return: directories of others that are taken for queues; none if there is nothing yet, or nothing to be seen."""
    try:
        found = directories_in(directory, queues, MAX_LOOKED_AT)
    except OSError:
        return []
    return [name for name in found.undeclared if name in found.others]


def directories_in(
    directory: str | os.PathLike[str], queues: Collection[str] = (), most: int | None = None
) -> Directories:
    """Look whose the directories are that stand in a spool, or in a directory that is to become one.

    :param queues: the names that the configuration declares.
    :param most: look at no more names.
    :raises OSError: it is not there, or this user may not look into it.
    """
    try:
        by_programs = os.listdir(os.path.join(directory, RUN, DECLARED))
    except OSError:  # no program has declared any
        by_programs = []
    declared = {BAD, TRASH, *queues, *by_programs}
    found = Directories([], [], [], [])
    links = []
    with os.scandir(directory) as entries:
        for each in sorted(islice(entries, most), key=lambda each: each.name):
            if each.is_symlink() and each.name[0] != '.':
                links.append(each.name)
            elif each.is_dir(follow_symlinks=False) and each.name != LOST_AND_FOUND:
                is_hidden = each.name[0] == '.'
                if not is_hidden and each.name not in declared:
                    found.undeclared.append(each.name)
                is_internal = each.name in _INTERNAL or each.name.startswith(_INTERNAL_PREFIXES)
                is_ours = is_internal if is_hidden else each.name in declared or _looks_as_a_queue(each)
                (found.ours if is_ours else found.others).append(each.name)
    # Somebody else's links are nobody's business, either.
    found.links.extend(name for name in links if name in declared or not found.others)
    return found


def is_entry(name: str) -> bool:
    """:return: whether a file of this name, in a queue, is an entry, in whichever state."""
    return name[-4:] in (READY, CLAIMED, PRESERVED) and is_filebase(name[:-4])


def _looks_as_a_queue(directory: os.DirEntry[str]) -> bool:
    """:return: whether there is an entry in it, or it is as queues are made: empty, or with a maildir's directories alone."""
    try:
        with os.scandir(directory) as files:
            names = [each.name for each in islice(files, MAX_LOOKED_AT) if each.name[0] != '.']
        mode = directory.stat(follow_symlinks=False).st_mode
    except OSError:  # another user's
        return False
    return any(map(is_entry, names)) or (
        set(names) <= {*MAILDIR_DIRECTORIES} and stat.S_IMODE(mode) & 0o777 == DIRECTORY_MODE
    )


def some(names: Collection[str]) -> str:
    """:return: the first of some names of directories, which may hold any character, and how many more there are."""
    shown = [name if name.isprintable() else repr(name) for name in islice(names, MAX_NAMED)]
    more = f' and {len(names) - MAX_NAMED} more' if len(names) > MAX_NAMED else ''
    return ', '.join(shown) + more
