"""``scale`` and ``tidy``: how many work on a queue, and the broom."""

from __future__ import annotations

import dataclasses

import click

from switchboard.cli.exits import Exit
from switchboard.cli.installation import Installation, json_option, verb
from switchboard.cli.lifecycle import tell_failure, timeout_option
from switchboard.cli.tables import write_json
from switchboard.cli.wording import number, visible


def _count_of(
    _context: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, int]]:
    counts = []
    for value in values:
        runner, equals, count = value.partition('=')
        if not equals or not runner or not count.isdecimal():
            raise click.BadParameter(f'{value!r} is not RUNNER=NUMBER')
        counts.append((runner, int(count)))
    return counts


@verb()
@click.argument('counts', nargs=-1, required=True, metavar='RUNNER=NUMBER...', callback=_count_of)
@timeout_option
@click.pass_context
def scale(
    context: click.Context, installation: Installation, counts: list[tuple[str, int]], timeout_s: float | None
) -> None:
    """Give runners another number of processes, each with a slice of the queue, while they run.

    The new ones are prepared first, and begin when no old one shares a part of the queue with them: messages with one order key
    stay in order.  It holds until the configuration names another number, or the master is started anew.

    \b
    switchboard scale in=4
    switchboard scale in=4 out=2
    """
    from switchboard.cli.asking import ask_and_show

    directory = installation.existing_directory()
    for runner, _ in counts:
        installation.check_runner(runner)
    worst = Exit.OK
    for runner, count in counts:
        request = {'do': 'scale', 'runner': runner, 'instances': count}
        answer = ask_and_show(directory, request, f'scaling {runner} to {count}', timeout_s)
        failed = tell_failure(answer, Exit.UNAVAILABLE)
        if failed is Exit.OK:
            click.echo(f'{visible(runner)}: {number(count, "slice")}')
        worst = failed or worst
    context.exit(worst)


@verb()
@json_option
def tidy(installation: Installation, as_json: bool) -> None:
    """Do what the master's janitor does now and then, once and now.

    Claims and hand-offs of dead processes are recovered, entries whose time is over go to the dead letters, queues whose owner is
    gone are deleted, and keys that deduplication need not know any more are forgotten.
    """
    from switchboard.operating.janitor import tidy as tidy_spool

    done = dataclasses.asdict(tidy_spool(installation.spool()))
    if as_json:
        write_json(done)
        return
    parts = [f'{what} {count}' for what, count in done.items() if count]
    click.echo(', '.join(parts) or 'nothing to do')
