"""``switchboard run``: one runner in the foreground, without a master."""

from __future__ import annotations

import click

from switchboard.cli.context import Installation, verb
from switchboard.master.programs import slice_of


@verb()
@click.argument('runner', callback=slice_of, metavar='NAME[:SLICE/COUNT]')
@click.option('--once', is_flag=True, help='One pass over the queue, then stop.')
@click.option('--until-empty', is_flag=True, help='Stop when nothing is ready any more.')
@click.pass_context
def run(
    context: click.Context,
    installation: Installation,
    runner: tuple[str, int, int],
    once: bool,
    until_empty: bool,
) -> None:
    """Run one runner in the foreground, without a master.

    It logs to standard error, and ends with Ctrl-C after the message at work.  It may run beside a master: claims keep
    them apart.

    \b
    switchboard run archive --until-empty
    switchboard run lists:2/4
    """
    from switchboard.master.programs import one_runner

    name, part, count = runner
    config = installation.config
    installation.check_runner(name)
    installation.spool(make=True)
    context.exit(one_runner(config, name, part, count, once=once, until_empty=until_empty))
