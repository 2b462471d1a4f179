"""``pause``, ``resume`` and ``drain``: what an operator says to a queue while it works."""

from __future__ import annotations

import click

from switchboard.cli.installation import Installation, verb
from switchboard.cli.wording import visible

_reason = click.option('--reason', default='', metavar='TEXT', help='Why, for the next one who looks.')


def _check(installation: Installation, names: tuple[str, ...]) -> None:
    installation.places(names)  # all of them or none: an unknown one is an error before anything is done


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
def drain(installation: Installation, names: tuple[str, ...], reason: str) -> None:
    """Let nothing into queues: producers are told to try again later.  Runners go on until they are empty.

    It holds until `switchboard resume`, also over a restart.
    """
    _check(installation, names)
    for name in names:
        installation.spool().drain(name, reason)
        click.echo(f'{visible(name)}: draining')


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
def resume(installation: Installation, names: tuple[str, ...]) -> None:
    """End `pause` and `drain`."""
    _check(installation, names)
    for name in names:
        was = installation.spool().resume(name)
        click.echo(f'{visible(name)}: resumed' if was else f'{visible(name)}: was not paused')
