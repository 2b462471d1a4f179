"""``retry``, ``mv`` and ``rm``: entries that are named one by one, or selected by what is known of them.

Named entries are dealt with at once.  Selected ones are counted first and shown, and somebody must say yes.  What was
counted is what is dealt with: an entry that comes meanwhile, such as one that was sent back and failed again, is not.

Each is claimed before anything happens to it, so what a process works on is never taken away from it.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import click

from switchboard.cli.exits import Exit, exit_of, lines_of
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.selecting import selection_options
from switchboard.cli.tables import say, write_json
from switchboard.cli.wording import number, visible
from switchboard.entry import PRESERVED, READY, format_when, is_held
from switchboard.errors import QueueError, SwitchboardError
from switchboard.finding import Criteria, Found, find, select
from switchboard.listing import order
from switchboard.moving import claim_any, move, origin, send_back
from switchboard.removing import remove
from switchboard.switchboard import Switchboard

# Does something with one entry; returns the queue and the name under which it stands now, if it stands anywhere.
Deed = Callable[[Found], tuple[str, str] | None]

ENTRIES = ('entry', 'entries')


def gather(
    installation: Installation,
    entries: Sequence[str],
    queues: Sequence[str],
    everything: bool,
    criteria: Criteria,
) -> tuple[list[Found], list[Exit]]:
    """Find the entries that are meant.

    :param queues: where selected ones are looked for; named ones are found in any queue.
    :return: the entries, and a status for each that was named and not found.
    """
    selected = everything or criteria != Criteria()
    if entries and selected:
        raise click.UsageError('name entries, or select them with --all, --error and so on; not both')
    if selected:
        picked = select(installation.places(queues), criteria, time.time_ns())
        # In the order in which they would be taken, so that what is sent back keeps its order.
        return sorted(picked, key=lambda each: order(each.filebase)), []
    if not entries:
        raise click.UsageError('name an entry, or select some with --all, --error, --origin, --older ...')
    found, missing = [], []
    places = installation.places()
    for text in entries:
        try:
            found.append(find(places, text))
        except QueueError as error:
            missing.append(exit_of(error))
            _complain(error)
    return found, missing


def _complain(error: Exception, subject: str = '') -> None:
    for line in lines_of(error):
        text = line if subject in line else f'{subject}: {line}'
        say(f'switchboard: {visible(text)}')


def agreed(found: Sequence[Found], doing: str, remark: str = '', *, yes: bool) -> bool:
    """Say what is about to happen, and ask.

    :raises click.UsageError: there is nobody to ask.
    """
    queues = Counter(each.queue for each in found)
    where = ', '.join(f'{queue} {many}' for queue, many in queues.most_common())
    question = f'{doing} {number(len(found), *ENTRIES)} ({where}){remark}'
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f'{question}: nobody is there to ask; say --yes')
    return click.confirm(f'{question}?', err=True)


def do_each(found: Sequence[Found], deed: Deed, done: str, missing: list[Exit], *, as_json: bool) -> Exit:
    """Do it to one after the other; a failure is one line, and does not stop the others.

    :return: the exit status.
    """
    failed = list(missing)
    succeeded = 0
    for each in found:
        try:
            now = deed(each)
        except (SwitchboardError, OSError) as error:
            failed.append(exit_of(error))
            _complain(error, f'{each.queue}/{each.filebase}')
            continue
        succeeded += 1
        if as_json:
            queue, filebase = now or (None, None)
            write_json({'entry': each.filebase, 'from': each.queue, 'queue': queue, 'filebase': filebase})
        elif now is not None:
            click.echo(f'{each.queue}/{each.filebase} -> {now[0]}/{now[1]}')
        else:
            click.echo(f'{each.queue}/{each.filebase}')
    if len(found) + len(missing) > 1:
        say(f'{done} {number(succeeded, *ENTRIES)}' + (f', {len(failed)} not' if failed else ''))
    if not failed:
        return Exit.OK
    return Exit.PARTIAL if succeeded or len(set(failed)) > 1 else failed[0]


all_option = click.option('--all', 'everything', is_flag=True, help='Select all entries of the queue.')
yes_option = click.option('-y', '--yes', is_flag=True, help='Do not ask; needed where there is no terminal.')
_queue_option = click.option(
    '-q', '--queue', 'queues', multiple=True, metavar='QUEUE', help='Select in this queue; default: bad.'
)


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


@verb()
@click.argument('entries', nargs=-1, metavar='[ENTRY]...')
@all_option
@_queue_option
@selection_options
@click.option('--to', metavar='QUEUE', help='Send them there, not to where they came from.')
@yes_option
@json_option
@click.pass_context
def retry(
    context: click.Context,
    installation: Installation,
    entries: tuple[str, ...],
    everything: bool,
    queues: tuple[str, ...],
    criteria: Criteria,
    to: str | None,
    yes: bool,
    as_json: bool,
) -> None:
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
    found, missing = gather(installation, entries, queues or ('bad',), everything, criteria)
    spool = installation.spool()
    if to is not None:
        spool[to]  # an unknown queue is told before anybody is asked
    elif not entries and not criteria.states:
        now = format_when(time.time_ns()) + '~'
        found = [each for each in found if _came_to_be_sent_back(each, now)]

    def deed(each: Found) -> tuple[str, str]:
        source = installation.board(each.queue)
        target = to or _home(each, source)
        return target, send_back(source, each.filebase, spool[target])

    if found and not entries and not agreed(found, 'send back', _sent_back_before(found), yes=yes):
        raise click.Abort
    say_if_none(found, missing)
    context.exit(do_each(found, deed, 'sent back', missing, as_json=as_json))


@verb()
@click.argument('words', nargs=-1, metavar='[ENTRY]... QUEUE')
@all_option
@_queue_option
@selection_options
@yes_option
@json_option
@click.pass_context
def mv(
    context: click.Context,
    installation: Installation,
    words: tuple[str, ...],
    everything: bool,
    queues: tuple[str, ...],
    criteria: Criteria,
    yes: bool,
    as_json: bool,
) -> None:
    """Move entries to another queue, as they are: same content, same time, same counts, history included.

    \b
    switchboard mv 1795317402.6748 quarantine
    switchboard mv --queue in --metadata list=dogs in-dogs
    """
    if not words:
        raise click.UsageError('name the queue to move to')
    *entries, to = words
    found, missing = gather(installation, entries, queues or ('bad',), everything, criteria)
    target = installation.spool()[to]
    found = [each for each in found if each.queue != to]

    def deed(each: Found) -> tuple[str, str]:
        source = installation.board(each.queue)
        claim = claim_any(source, each.filebase)
        try:
            if to != 'bad':
                target.check_room(claim.read())
        except BaseException:
            claim.close()
            raise
        return to, move(claim, source, target)

    if found and not entries and not agreed(found, f'move to {to}', yes=yes):
        raise click.Abort
    say_if_none(found, missing)
    context.exit(do_each(found, deed, 'moved', missing, as_json=as_json))


@verb()
@click.argument('entries', nargs=-1, metavar='[ENTRY]...')
@all_option
@_queue_option
@selection_options
@yes_option
@json_option
@click.pass_context
def rm(
    context: click.Context,
    installation: Installation,
    entries: tuple[str, ...],
    everything: bool,
    queues: tuple[str, ...],
    criteria: Criteria,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove entries.  There is no way back, so it asks, also for a single one.

    \b
    switchboard rm 1795317402.6748
    switchboard rm --error SpamError --older 30d --yes
    switchboard rm --all --queue test
    """
    found, missing = gather(installation, entries, queues or ('bad',), everything, criteria)

    def deed(each: Found) -> None:
        remove(installation.board(each.queue), each.filebase)

    if found and not agreed(found, 'remove', yes=yes):
        raise click.Abort
    say_if_none(found, missing)
    context.exit(do_each(found, deed, 'removed', missing, as_json=as_json))


def say_if_none(found: Sequence[Found], missing: Sequence[Exit]) -> None:
    if not found and not missing:
        say('no entry fits: nothing to do')
