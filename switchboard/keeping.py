"""Giving a message back to its queue with what its runner changed of it.

Mailman's runners change a message's metadata and ask to keep it queued; Mailman then stores it anew, at the end of
the queue, and forgets how often it failed.  Here changed metadata are a record in the entry's history.  Only a message
whose body was changed is stored anew, in its old place, with its history, as one step with the end of the old one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from switchboard.handoff import Transaction
from switchboard.switchboard import Switchboard, Taken


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """:return: the fields ``set`` and ``drop`` of a record that turns the metadata `before` into `after`; empty if equal."""
    changed = {
        key: value
        for key, value in after.items()
        if not key.startswith('_') and key != 'version' and (key not in before or before[key] != value)
    }
    dropped = [key for key in before if key not in after and not key.startswith('_') and key != 'version']
    return ({'set': changed} if changed else {}) | ({'drop': dropped} if dropped else {})


def keep(board: Switchboard, taken: Taken, before: Mapping[str, Any], transaction: Transaction) -> str:
    """Give a claimed message back, in its place, with what was changed of it.

    :param before: the metadata as they were read.
    :param transaction: is used, and ended.
    :return: its filebase: another one if its body was changed.
    :raises QueueError: it could not be stored; it stays claimed.
    """
    entry = board.held(taken.filebase).read()
    serializer = board.serializers.for_message(taken.msg)
    if entry.kind != 'mailman' and serializer.dumps(taken.msg) != entry.body:
        filebase = transaction.replace_input(taken.msg, taken.msgdata)
        transaction.commit()
        return filebase
    changed = changes(before, taken.msgdata)
    return board.release(taken.filebase, record={'event': 'kept', **changed} if changed else None)
