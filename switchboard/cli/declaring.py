"""``declare``, ``delete`` and ``purge``: queues that are in no configuration file, and what waits in any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from switchboard.cli.deeds import ENTRIES, confirm, counted, yes_option
from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.installation import Installation, verb
from switchboard.cli.optionwords import read_options
from switchboard.cli.selecting import DURATION
from switchboard.cli.tables import complain
from switchboard.cli.wording import number, visible
from switchboard.errors import SwitchboardError, UnknownQueueError
from switchboard.operating.census import count
from switchboard.spool.spool import Spool


def _read(_context: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    words = {}
    for value in values:
        key, equals, text = value.partition('=')
        if not equals:
            raise click.BadParameter(f'{value!r} is not KEY=VALUE')
        words[key.strip()] = text.strip()
    try:
        return read_options(words)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@verb()
@click.argument('name', metavar='QUEUE')
@click.option(
    '-o',
    '--option',
    'options',
    multiple=True,
    metavar='KEY=VALUE',
    callback=_read,
    help="A queue's option, written as in the configuration: ttl=1h, max_messages=1000.",
)
@click.option('--auto-delete', is_flag=True, help='Delete it when its last consumer leaves.')
@click.option('--expires', 'expires_s', type=DURATION, help='Delete it when nobody has used it for so long.')
def declare(
    installation: Installation, name: str, options: dict[str, Any], auto_delete: bool, expires_s: float | None
) -> None:
    """Make a queue that is not in the configuration, or make sure that it is there as asked for.

    It stands in the spool, in a small file of its own, and stays until `delete`.  The configuration file is not touched; sections
    like [queue.*] hold for it too, below what is said here.  One that is there otherwise is an error: nothing is changed.

    \b
    switchboard declare night-shift -o ttl=12h -o dead_letter=late
    """
    installation.spool().declare(name, options=options, auto_delete=auto_delete, expires_s=expires_s)
    click.echo(f'{visible(name)}: declared')


def _confirm(what: str, installation: Installation, names: Sequence[str], *, yes: bool) -> None:
    """Ask if there is anything that would be dropped."""
    counts = [count(folder, name, sizes=False) for name, folder in installation.places(names)]
    by_queue = [(one.queue, one.entries) for one in counts if one.entries]
    if by_queue:
        confirm(f'{what}, with {counted(by_queue)}', yes=yes)


def _each(names: Sequence[str], deed: Callable[[str], int], done: str) -> Exit:
    failed = []
    for name in names:
        try:
            dropped = deed(name)
        except (SwitchboardError, OSError) as error:
            failed.append(exit_of(error))
            complain(error)
        else:
            click.echo(
                f'{visible(name)}: {done}' + (f', {number(dropped, *ENTRIES)} dropped' if dropped else '')
            )
    return exit_of_all(failed, len(names) - len(failed))


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@click.option('--if-empty', is_flag=True, help='Only if there is nothing in it.')
@click.option('--if-unused', is_flag=True, help='Only if nobody consumes it: no runner, and no program.')
@yes_option
@click.pass_context
def delete(
    context: click.Context,
    installation: Installation,
    names: tuple[str, ...],
    if_empty: bool,
    if_unused: bool,
    yes: bool,
) -> None:
    """Delete queues that were declared by programs or with `declare`, or that only have a directory; asks if there is anything in them.

    What waits in them is dropped, what is delayed and held too.  What a process is working on may be finished.  Bindings to them go
    with them.  A queue of the configuration is deleted by taking it out there.
    """
    if not if_empty:
        _confirm('delete ' + ', '.join(map(visible, names)), installation, names, yes=yes)
    spool = installation.spool()
    context.exit(
        _each(names, lambda name: spool.delete(name, if_empty=if_empty, if_unused=if_unused), 'deleted')
    )


@verb()
@click.argument('names', nargs=-1, required=True, metavar='QUEUE...')
@yes_option
@click.pass_context
def purge(context: click.Context, installation: Installation, names: tuple[str, ...], yes: bool) -> None:
    """Drop all that waits in queues, what is delayed and held too; there is no way back, so it asks.

    What a process is working on stays.  To drop some of it: `switchboard rm --queue QUEUE --older 1d`.
    """
    if 'bad' in names:
        raise click.UsageError('bad is what others could not keep: `switchboard rm --queue bad --all`')
    _confirm('purge ' + ', '.join(map(visible, names)), installation, names, yes=yes)
    spool = installation.spool()

    def drop(name: str) -> int:
        try:
            return spool.purge(name)
        except UnknownQueueError:  # its section was removed
            return Spool(installation.directory).purge(name)

    context.exit(_each(names, drop, 'purged'))
