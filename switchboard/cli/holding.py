"""``hold`` and ``release``: single entries that nobody is to take for now."""

from __future__ import annotations

import click

from switchboard.cli.deeds import Meant, entries_verb
from switchboard.cli.exits import Exit
from switchboard.message.naming import READY, is_held
from switchboard.operating.finding import Found
from switchboard.operating.holding import hold as hold_entry
from switchboard.operating.holding import let_go


def _find(meant: Meant, *, held: bool) -> list[Found]:
    # What lies in the bad queue waits for nobody.
    found = meant.find([name for name in meant.installation.queue_names() if name != 'bad'])
    if meant.entries:
        return found
    return [each for each in found if each.suffix == READY and is_held(each.filebase) == held]


@entries_verb(
    click.option('--reason', default='', metavar='TEXT', help='Why, for the next one who looks.'),
    searched='all of them',
)
def hold(meant: Meant, reason: str) -> Exit:
    """Keep entries from being taken until `switchboard release`, also over a restart.

    They stay in their queue.  While they are held they do not expire; messages with the same order key pass them.
    What a process is working on cannot be held.

    \b
    switchboard hold 1795317402.6748 --reason 'ask the author first'
    switchboard hold --queue out --metadata sender=eve@example.com
    """

    def deed(each: Found) -> tuple[str, str]:
        return each.queue, hold_entry(meant.installation.board(each.queue), each.filebase, reason)

    return meant.do_each(_find(meant, held=False), deed, ask='hold {}', done='held')


@entries_verb(searched='all of them')
def release(meant: Meant) -> Exit:
    """Let entries go that `switchboard hold` keeps: each has its old time and place.

    \b
    switchboard release 9999317402.6748
    switchboard release --all --queue out
    """

    def deed(each: Found) -> tuple[str, str]:
        return each.queue, let_go(meant.installation.board(each.queue), each.filebase)

    return meant.do_each(_find(meant, held=True), deed, ask='release {}', done='released')
