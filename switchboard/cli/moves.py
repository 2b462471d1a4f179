"""``retry``, ``mv`` and ``rm``: entries that are named one by one, or selected by what is known of them.

Each is claimed before anything happens to it, so what a process works on is never taken away from it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from switchboard.cli.deeds import Meant, entries_verb
from switchboard.cli.exits import Exit
from switchboard.handoff.moving import claim_any, move, origin, send_back
from switchboard.message.naming import PRESERVED, READY, format_when, is_held
from switchboard.operating.finding import Found
from switchboard.operating.removing import remove
from switchboard.queue.switchboard import Switchboard


def _came_to_be_sent_back(each: Found, now: str) -> bool:
    """Of a working queue, what waits for its next attempt, and dead letters of other queues; what is due keeps its place."""
    if is_held(each.filebase):
        return False  # an operator has said so
    if each.suffix == PRESERVED or (each.suffix == READY and each.filebase > now):
        return True
    seen = each.look() if each.suffix == READY else None
    return seen is not None and seen.dead_letter_of is not None


def _home(each: Found, source: Switchboard) -> str:
    if each.queue == 'bad':
        return origin(source, each.filebase)
    seen = each.look()
    return (seen.dead_letter_of if seen is not None else None) or each.queue


def _sent_back_before(found: Sequence[Found]) -> str:
    before = sum(1 for each in found if (seen := each.look()) is not None and seen.retried)
    return f', {before} of which {"was" if before == 1 else "were"} sent back before' if before else ''


@entries_verb(
    click.option('--to', metavar='QUEUE', help='Send them there, not to where they came from.'),
    searched='bad',
)
def retry(meant: Meant, to: str | None) -> Exit:
    """Send entries back to where they came from, which their history knows, ready at once.

    Their failures and recoveries are forgiven; the history keeps them, and counts how often an entry was sent back.
    A dead letter in any other queue goes back too, and an entry that waits for its next attempt is made ready where it is;
    of a working queue, only these are selected.

    \b
    switchboard retry 1795317402.6748                one entry
    switchboard retry --error TimeoutError --yes     of the bad queue, those that failed so
    switchboard retry --all --older 1d --to slow     somewhere else
    switchboard retry --all --queue out              do not wait any longer
    """
    found = meant.find(['bad'])
    spool = meant.installation.spool()
    if to is not None:
        spool[to]  # an unknown queue is told before anybody is asked
    elif not meant.entries and not meant.criteria.states:
        now = format_when(time.time_ns()) + '~'
        found = [each for each in found if _came_to_be_sent_back(each, now)]

    def deed(each: Found) -> tuple[str, str]:
        source = meant.installation.board(each.queue)
        target = to or _home(each, source)
        return target, send_back(source, each.filebase, spool[target])

    ask = 'send back {}' if meant.entries else f'send back {{}}{_sent_back_before(found)}'
    return meant.do_each(found, deed, ask=ask, done='sent back')


@entries_verb(searched='bad', words='[ENTRY]... QUEUE')
def mv(meant: Meant) -> Exit:
    """Move entries to another queue, as they are: same content, same time, same counts, history included.

    \b
    switchboard mv 1795317402.6748 quarantine
    switchboard mv --queue in --metadata list=dogs in-dogs
    """
    if not meant.entries:
        raise click.UsageError('name the queue to move to')
    *meant.entries, to = meant.entries
    found = meant.find(['bad'])
    target = meant.installation.spool()[to]
    found = [each for each in found if each.queue != to]

    def deed(each: Found) -> tuple[str, str]:
        source = meant.installation.board(each.queue)
        claim = claim_any(source, each.filebase)
        try:
            if to != 'bad':
                target.check_room(claim.read())
        except BaseException:
            claim.close()
            raise
        return to, move(claim, source, target)

    return meant.do_each(found, deed, ask=f'move {{}} to {to}', done='moved')


@entries_verb(searched='bad')
def rm(meant: Meant) -> Exit:
    """Remove entries.  There is no way back, so it asks, also for a single one.

    \b
    switchboard rm 1795317402.6748
    switchboard rm --error SpamError --older 30d --yes
    switchboard rm --all --queue test
    """

    def deed(each: Found) -> None:
        remove(meant.installation.board(each.queue), each.filebase)

    return meant.do_each(meant.find(['bad']), deed, ask='remove {}', done='removed', ask_always=True)
