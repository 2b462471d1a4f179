"""``hold`` and ``release``: single entries that nobody is to take for now."""

from __future__ import annotations

from collections.abc import Sequence

import click

from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.moves import agreed, all_option, do_each, gather, say_if_none, yes_option
from switchboard.cli.selecting import selection_options
from switchboard.entry import READY, is_held
from switchboard.finding import Criteria, Found
from switchboard.holding import hold as hold_entry
from switchboard.holding import let_go

_queue_option = click.option(
    '-q',
    '--queue',
    'queues',
    multiple=True,
    metavar='QUEUE',
    help='Select in this queue; default: all of them.',
)


def _working(installation: Installation, queues: Sequence[str]) -> list[str]:
    """:return: the queues to select in: what lies in the bad queue waits for nobody."""
    return list(queues) or [name for name in installation.queue_names() if name != 'bad']


@verb()
@click.argument('entries', nargs=-1, metavar='[ENTRY]...')
@all_option
@_queue_option
@selection_options
@click.option('--reason', default='', metavar='TEXT', help='Why, for the next one who looks.')
@yes_option
@json_option
@click.pass_context
def hold(
    context: click.Context,
    installation: Installation,
    entries: tuple[str, ...],
    everything: bool,
    queues: tuple[str, ...],
    criteria: Criteria,
    reason: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Keep entries from being taken until `switchboard release`, also over a restart.

    They stay in their queue.  While they are held they do not expire; messages with the same order key pass them.
    What a process is working on cannot be held.

    \b
    switchboard hold 1795317402.6748 --reason 'ask the author first'
    switchboard hold --queue out --metadata sender=eve@example.com
    """
    found, missing = gather(installation, entries, _working(installation, queues), everything, criteria)
    if not entries:
        found = [each for each in found if each.suffix == READY and not is_held(each.filebase)]

    def deed(each: Found) -> tuple[str, str]:
        return each.queue, hold_entry(installation.board(each.queue), each.filebase, reason)

    if found and not entries and not agreed(found, 'hold', yes=yes):
        raise click.Abort
    say_if_none(found, missing)
    context.exit(do_each(found, deed, 'held', missing, as_json=as_json))


@verb()
@click.argument('entries', nargs=-1, metavar='[ENTRY]...')
@all_option
@_queue_option
@selection_options
@yes_option
@json_option
@click.pass_context
def release(
    context: click.Context,
    installation: Installation,
    entries: tuple[str, ...],
    everything: bool,
    queues: tuple[str, ...],
    criteria: Criteria,
    yes: bool,
    as_json: bool,
) -> None:
    """Let entries go that `switchboard hold` keeps: each has its old time and place.

    \b
    switchboard release 9999317402.6748
    switchboard release --all --queue out
    """
    found, missing = gather(installation, entries, _working(installation, queues), everything, criteria)
    if not entries:
        found = [each for each in found if each.suffix == READY and is_held(each.filebase)]

    def deed(each: Found) -> tuple[str, str]:
        return each.queue, let_go(installation.board(each.queue), each.filebase)

    if found and not entries and not agreed(found, 'release', yes=yes):
        raise click.Abort
    say_if_none(found, missing)
    context.exit(do_each(found, deed, 'released', missing, as_json=as_json))
