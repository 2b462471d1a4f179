"""Putting an entry that comes from a broker into a queue, with its name and its history: durable when this returns.

The bad queue, and queues for dead letters, are mostly directories of this machine's spool; they may be queues on a broker as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from switchboard.brokers.inlet import BrokerInlet, post
from switchboard.message.entry import Entry
from switchboard.message.envelope import content_checksum, pack_header
from switchboard.message.journal import Record, pack_record
from switchboard.message.naming import READY, digest_of
from switchboard.queue.switchboard import Switchboard
from switchboard.store.publishing import refuse, write

Keeper = Switchboard | BrokerInlet


def deposit(target: Keeper, entry: Entry, more: Sequence[Record], *, suffix: str = READY) -> None:
    """Store an entry in another queue.

    :param more: what its history says more there.
    :param suffix: the state in which it is there, in a directory.
    :raises QueueError: it could not be stored.
    """
    if isinstance(target, BrokerInlet):
        post([target.posted(entry, more)])
        return
    disk = target.disk
    draft = write(target.pool, disk, file_of(entry, more), target.name)
    try:
        if target.options.durability == 'full':
            disk.sync_files([draft.fd])
        # It may be there: put there before a crash, and given out again by the broker.
        disk.rename(
            draft.name, entry.filebase + suffix, src_dir_fd=draft.folder.fd, dst_dir_fd=target.folder.fd
        )
        if target.options.durability == 'full':
            target.folder.sync()
    except OSError as error:
        target.pool.abandon(draft, reusable=False)
        refuse(error, 'preserve', target.name)
    disk.unlock_and_close(draft.fd)


def file_of(entry: Entry, more: Sequence[Record] = ()) -> bytes:
    """:return: the file that a directory would have of an entry.  What cannot be read is kept as it came."""
    digest = digest_of(entry.filebase)
    records: list[Any] = [*entry.records, *more]
    head = pack_header(
        entry.kind, len(entry.metadata), len(entry.body), digest, content_checksum(entry.metadata, entry.body)
    )
    return b''.join((head, entry.metadata, entry.body, *(pack_record(record, digest) for record in records)))
