"""The way back: what waits, written as Mailman's own queue files.

To be called while Mailman is stopped, when its queues are to be its own again.  An entry's new file has a name that depends on the entry alone, and
appears whole before the entry goes: a crash between the two leaves both, and the next call writes the same file again and ends the entry, so nothing is
there twice in the end.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from email import message_from_bytes
from typing import Any

from mailman.email.message import Message

from switchboard.errors import EntryTakenError
from switchboard.mailman.metadata import restore_attributes
from switchboard.mailman.queue import MESSAGE_CLASS
from switchboard.mailman.takeover import is_mailmans_name
from switchboard.message.mail import mail_bytes
from switchboard.message.naming import NS_PER_S, parse_filebase
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from switchboard.store.layout import BAD

# What Mailman 3 calls the form of its metadata.
SCHEMA = 3


def export(directory: str | os.PathLike[str]) -> dict[str, int]:
    """Write what waits in Mailman's queues as Mailman's own files.

    :param directory: Mailman's ``QUEUE_DIR``.
    :return: how many entries of each queue were written; the bad queue is left as it is.
    :raises EntryTakenError: a process still works on an entry: Mailman is to be stopped first.
    :raises QueueError: an entry could not be read or written; the files written before stay so.
    """
    spool = Spool(directory)
    spool.recover()
    return {
        name: _export(spool.queue(name, message_class=MESSAGE_CLASS))
        for name in spool.queue_names()
        if name != BAD
    }


def _export(queue: Switchboard) -> int:
    queue.recover_backup_files()
    if queue.get_files('.bak'):
        raise EntryTakenError('a process still works on it: stop Mailman first', queue=queue.name)
    count = 0
    for filebase in queue.get_files():
        if not is_mailmans_name(filebase):
            msg, metadata = queue.dequeue(filebase)
            queue.folder.replace(_name(filebase), _content(msg, metadata), sync=True)
            queue.finish(filebase)
            count += 1
    return count


def _name(filebase: str) -> str:
    """The name that Mailman would give: the time as a float, and a SHA-1 of its own."""
    name = parse_filebase(filebase)
    assert name is not None
    return f'{name.when_ns / NS_PER_S!r}+{hashlib.sha1(name.digest.encode(), usedforsecurity=False).hexdigest()}.pck'


def _content(msg: Any, metadata: dict[str, Any]) -> bytes:
    own = message_from_bytes(mail_bytes(msg), Message)
    restore_attributes(own, metadata)
    data = {**metadata, 'version': SCHEMA, '_parsemsg': False}
    return pickle.dumps(own, pickle.HIGHEST_PROTOCOL) + pickle.dumps(data, pickle.HIGHEST_PROTOCOL)
