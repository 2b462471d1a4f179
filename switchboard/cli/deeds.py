"""Verbs about entries: which are meant, who has agreed, and what became of each.

Named entries are dealt with at once.  Selected ones are counted first and shown, and somebody must say yes.  What was
counted is what is dealt with: an entry that comes meanwhile, such as one that was sent back and failed again, is not.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.selecting import selection_options
from switchboard.cli.tables import complain, say, write_json
from switchboard.cli.wording import number, visible
from switchboard.errors import QueueError, SwitchboardError
from switchboard.operating.finding import Criteria, Found, find, select
from switchboard.queue.ready_queue import order

# Does something with one entry; returns the queue and the name under which it stands now, if it stands anywhere.
Deed = Callable[[Found], tuple[str, str] | None]

ENTRIES = ('entry', 'entries')

yes_option = click.option('-y', '--yes', is_flag=True, help='Do not ask; needed where there is no terminal.')


def counted(by_queue: Sequence[tuple[str, int]]) -> str:
    """:return: how many entries there are, and in which queues."""
    where = ', '.join(f'{visible(queue)} {many}' for queue, many in by_queue)
    return f'{number(sum(many for _, many in by_queue), *ENTRIES)} ({where})'


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless the command line has answered.

    :raises click.UsageError: there is nobody to ask.
    :raises click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f'{question}: nobody is there to ask; say --yes')
    if not click.confirm(f'{question}?', err=True):
        raise click.Abort


@dataclass
class Meant:
    """The entries that a command line means."""

    installation: Installation
    entries: Sequence[str]
    everything: bool
    queues: Sequence[str]
    criteria: Criteria
    yes: bool
    as_json: bool
    _missing: list[Exit] = field(default_factory=list)

    def find(self, queues: Sequence[str]) -> list[Found]:
        """Find them; one that was named and is not there is told, and makes the exit status.

        :param queues: where selected ones are looked for, if the command line does not say; named ones are found in any queue.
        """
        selected = self.everything or self.criteria != Criteria()
        if self.entries and selected:
            raise click.UsageError('name entries, or select them with --all, --error and so on; not both')
        if selected:
            places = self.installation.places(self.queues or queues)
            picked = select(places, self.criteria, time.time_ns())
            # In the order in which they would be taken, so that what is sent back keeps its order.
            return sorted(picked, key=lambda each: order(each.filebase))
        if not self.entries:
            raise click.UsageError('name an entry, or select some with --all, --error, --origin, --older ...')
        found = []
        places = self.installation.places()
        for text in self.entries:
            try:
                found.append(find(places, text))
            except QueueError as error:
                self._missing.append(exit_of(error))
                complain(error)
        return found

    def do_each(
        self, found: Sequence[Found], deed: Deed, *, ask: str, done: str, ask_always: bool = False
    ) -> Exit:
        """Ask if they were selected, then do it to one after the other; a failure is one line, and does not stop the others.

        :param ask: what is about to happen, with ``{}`` for the number of entries and their queues.
        :param ask_always: also if they were named.
        :raises click.UsageError: there is nobody to ask.
        """
        if not found and not self._missing:
            say('no entry fits: nothing to do')
        if found and (ask_always or not self.entries):
            queues = Counter(each.queue for each in found)
            confirm(ask.format(counted(queues.most_common())), yes=self.yes)
        failed = list(self._missing)
        for each in found:
            try:
                self._tell(each, deed(each))
            except (SwitchboardError, OSError) as error:
                failed.append(exit_of(error))
                complain(error, f'{each.queue}/{each.filebase}')
        asked = len(found) + len(self._missing)
        succeeded = asked - len(failed)
        if asked > 1:
            say(f'{done} {number(succeeded, *ENTRIES)}' + (f', {len(failed)} not' if failed else ''))
        return exit_of_all(failed, succeeded)

    def _tell(self, each: Found, now: tuple[str, str] | None) -> None:
        if self.as_json:
            queue, filebase = now or (None, None)
            write_json({'entry': each.filebase, 'from': each.queue, 'queue': queue, 'filebase': filebase})
        elif now is not None:
            click.echo(f'{each.queue}/{each.filebase} -> {now[0]}/{now[1]}')
        else:
            click.echo(f'{each.queue}/{each.filebase}')


def entries_verb(
    *options: Callable[..., Any], searched: str, words: str = '[ENTRY]...'
) -> Callable[[Callable[..., Exit]], click.Command]:
    """Make a verb of a function that is handed what is `Meant`, and returns the exit status.

    :param options: those that only this verb has.
    :param searched: the queues to select in if none is named, for the help.
    """
    queue_help = f'Select in this queue; default: {searched}.'
    decorators: tuple[Callable[..., Any], ...] = (
        click.argument('entries', nargs=-1, metavar=words),
        click.option('--all', 'everything', is_flag=True, help='Select all entries of the queue.'),
        click.option('-q', '--queue', 'queues', multiple=True, metavar='QUEUE', help=queue_help),
        selection_options,
        *options,
        yes_option,
        json_option,
    )

    def make(function: Callable[..., Exit]) -> click.Command:
        def call(
            installation: Installation,
            entries: tuple[str, ...],
            everything: bool,
            queues: tuple[str, ...],
            criteria: Criteria,
            yes: bool,
            as_json: bool,
            **own: Any,
        ) -> None:
            meant = Meant(installation, entries, everything, queues, criteria, yes, as_json)
            click.get_current_context().exit(function(meant, **own))

        call.__name__ = function.__name__
        call.__doc__ = function.__doc__
        wrapped: Callable[..., None] = call
        for decorate in reversed(decorators):
            wrapped = decorate(wrapped)
        return verb()(wrapped)

    return make
