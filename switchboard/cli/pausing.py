"""``pause``, ``resume`` and ``drain``: what an operator says to a queue while it works."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from switchboard.cli.counting import census_of
from switchboard.cli.exits import Exit
from switchboard.cli.installation import Installation, verb
from switchboard.cli.progress import Progress
from switchboard.cli.selecting import DURATION
from switchboard.cli.stopping import LOOK_EVERY_S, TELL_EVERY_S
from switchboard.cli.tables import say
from switchboard.cli.wording import age, duration, visible
from switchboard.message.naming import NS
from switchboard.operating.census import Census

_reason = click.option('--reason', default='', metavar='TEXT', help='Why, for the next one who looks.')


def _check(installation: Installation, names: tuple[str, ...]) -> None:
    installation.known(names)  # all of them or none: an unknown one is an error before anything is done


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@_reason
def pause(installation: Installation, names: tuple[str, ...], reason: str) -> None:
    """Let nothing be taken out of queues: runners finish the message at work and wait.  What comes in is stored.

    It holds until `switchboard resume`, also over a restart.
    """
    _check(installation, names)
    for name in names:
        installation.spool().pause(name, reason)
        click.echo(f'{visible(name)}: paused')


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@_reason
@click.option('--wait', 'waits', is_flag=True, help='Wait until they are empty, and show how much is left.')
@click.option('--timeout', 'timeout_s', type=DURATION, help='With --wait: wait no longer than this.')
@click.pass_context
def drain(
    context: click.Context,
    installation: Installation,
    names: tuple[str, ...],
    reason: str,
    waits: bool,
    timeout_s: float | None,
) -> None:
    """Let nothing into queues: producers are told to try again later.  Runners go on until they are empty.

    It holds until `switchboard resume`, also over a restart.  What is delayed or held is waited for like all else.
    Exit status: 75 if the time ran out; the queues go on draining.
    """
    _check(installation, names)
    for name in names:
        installation.spool().drain(name, reason)
        click.echo(f'{visible(name)}: draining')
    if waits and not _wait_until_empty(installation, names, timeout_s):
        context.exit(Exit.TEMPORARY)


def _wait_until_empty(installation: Installation, names: Sequence[str], timeout_s: float | None) -> bool:
    """:return: False if the time ran out."""
    started_s = tell_s = time.monotonic()
    flags = installation.spool().flags
    for name in names:
        if flags.is_set('paused', name):
            say(
                f'switchboard: {visible(name)} is paused: nothing is taken out of it before `switchboard resume`'
            )
    with Progress() as progress:
        while left := [one for one in _counts(installation, names) if one.entries]:
            now_s = time.monotonic()
            text = f'draining, {duration(now_s - started_s)}; {", ".join(map(_left, left))}'
            if timeout_s is not None and now_s - started_s >= timeout_s:
                say(f'switchboard: not empty yet: {", ".join(map(_left, left))}')
                return False
            if progress.is_shown:
                progress.update(text)
            elif now_s - tell_s >= TELL_EVERY_S:
                tell_s = now_s
                say(text)
            # Counting a large queue takes its time, and is not all that there is to do.
            time.sleep(max(LOOK_EVERY_S, 10 * (time.monotonic() - now_s)))
    click.echo(f'empty after {duration(time.monotonic() - started_s)}')
    return True


def _counts(installation: Installation, names: Sequence[str]) -> list[Census]:
    return [census_of(installation, name, sizes=False) for name in installation.known(names)]


def _left(one: Census) -> str:
    parts = [
        f'{many} {what}'
        for many, what in (
            (one.waiting, 'waiting'),
            (one.claimed, 'claimed'),
            (one.delayed, 'delayed'),
            (one.held, 'held'),
        )
        if many
    ]
    due = f', next {age(time.time() - one.next_ns / NS)}' if one.next_ns and not one.waiting else ''
    return f'{visible(one.queue)}: {" and ".join(parts)}{due}'


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
def resume(installation: Installation, names: tuple[str, ...]) -> None:
    """End `pause` and `drain`."""
    _check(installation, names)
    for name in names:
        was = installation.spool().resume(name)
        click.echo(f'{visible(name)}: resumed' if was else f'{visible(name)}: was not paused')
