"""The messages that arrive in a queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from switchboard.interfaces import Taken
from switchboard.queue.switchboard import Switchboard
from tests.helpers.waiting import take_next


def subjects(taken: Sequence[Taken]) -> list[str]:
    """:return: the subjects of mails, sorted."""
    return sorted(str(one.msg['subject']) for one in taken)


def arrive(queue: Switchboard, number: int, told: Callable[[], str] = str) -> list[Taken]:
    """Take messages as they come, and finish them, until there were `number`.

    :param told: what to show if one does not come.
    """
    found: list[Taken] = []
    while len(found) < number:
        found.append(take_next(queue, lambda: f'only {subjects(found)}, {len(found)} of {number}\n{told()}'))
        queue.finish(found[-1].filebase)
    while (taken := queue.take()) is not None:  # more than there should be
        found.append(taken)
        queue.finish(taken.filebase)
    return found
