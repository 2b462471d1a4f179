"""``switchboard tidy`` and ``spares``: the janitor, and the pool of files to be written again; and ``export-mailman``: the way back to Mailman's own queues."""

from __future__ import annotations

import dataclasses

import click

from switchboard.cli.context import Installation, installation_options, json_option, json_report_option, verb
from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.output import is_json, print_error, report, write_json, write_line
from switchboard.errors import ConfigError
from switchboard.message.naming import NS_PER_S
from switchboard.operating.text import bytes_text, intcomma, number, size
from switchboard.store.pool import ALWAYS_KEPT, MAX_SPARE_BYTES, MAX_SPARES


@verb()
@json_option
def tidy(installation: Installation) -> Exit:
    """Do what the master's janitor does now and then, once and now.

    Claims and hand-offs of dead processes are recovered, entries whose time is over go to the dead letters, queues whose owner is
    gone are deleted, and keys that deduplication need not know any more are forgotten.
    """
    from switchboard.operating.janitor import tidy as tidy_spool

    statuses: list[Exit] = []

    def tell(subject: str, error: Exception) -> None:
        statuses.append(exit_of(error))
        print_error(error, subject)

    done = dataclasses.asdict(tidy_spool(installation.spool(), tell))
    parts = [f'{what.replace("_", " ")} {intcomma(count)}' for what, count in done.items() if count]
    report(', '.join(parts) or ('nothing else to do' if statuses else 'nothing to do'), **done)
    return exit_of_all(statuses, succeeded=1)


@click.group(invoke_without_command=True)
@installation_options
@json_option
@click.pass_context
def spares(context: click.Context) -> None:
    """Show, fill or empty the pool of spare files.

    A finished message's file is kept and written again, because making and deleting files costs more: up to many times as
    much, by the file system.  The pool grows and shrinks by itself; fill it before a rush, empty it to give the room back.
    """
    if context.invoked_subcommand is None:
        _show(context.ensure_object(Installation))


def _show(installation: Installation) -> None:
    spool = installation.spool()
    pool = spool.pool
    count = size_bytes = 0
    with pool.folder.scan() as entries:
        for entry in entries:
            try:
                size_bytes += entry.stat(follow_symlinks=False).st_size
                count += 1
            except FileNotFoundError:
                pass  # it was taken while it was counted
    unused, since_ns = pool.unused(spool.run_folder, spool.clock.monotonic_ns()) or (None, 0)
    if is_json():
        limits = {'limit_bytes': MAX_SPARE_BYTES, 'always_kept': ALWAYS_KEPT}
        write_json(
            {
                'spares': count,
                'size_bytes': size_bytes,
                'unused': unused,
                'unused_s': since_ns // NS_PER_S,
                **limits,
            }
        )
        return
    write_line(
        f'{number(count, "spare")}, {bytes_text(size_bytes)}: as many as messages were waiting at once; '
        f'at most {size(MAX_SPARE_BYTES)} are kept'
    )
    if unused is not None:
        write_line(
            f'{unused} of them unused for {since_ns // (60 * NS_PER_S)} minutes; files unused for an hour go slowly'
        )


@verb()
@json_option
def show(installation: Installation) -> None:
    """Say how many there are."""
    _show(installation)


@verb()
@click.argument('number_wanted', metavar='NUMBER', type=click.IntRange(1, MAX_SPARES))
@click.option(
    '--size',
    'size_bytes',
    default=4096,
    show_default=True,
    type=click.IntRange(1, 1 << 20),
    help='Bytes each.',
)
@json_report_option
def fill(installation: Installation, number_wanted: int, size_bytes: int) -> None:
    """Make spares until there are NUMBER."""
    made = installation.spool().pool.fill(number_wanted, size_bytes)
    report(f'{number(made, "spare")} made', act='fill', spares=made)


@verb()
@json_report_option
def empty(installation: Installation) -> None:
    """Delete every spare that nobody is writing to."""
    deleted = installation.spool().pool.empty()
    report(f'{number(deleted, "spare")} deleted', act='empty', spares=deleted)


for _each in (show, fill, empty):
    spares.add_command(_each)


@verb(name='export-mailman')
@json_option
def export_mailman(installation: Installation) -> None:
    """Write what waits in Mailman's queues as Mailman's own files.

    For a site that takes the plugin out again: stop Mailman, `switchboard -s QUEUE_DIR export-mailman`, remove the plugin's section, start
    Mailman.  What lies in bad stays as it is.  This must run where Mailman can be imported, as its user.
    """
    try:
        from switchboard.mailman.export import export
    except ImportError as error:
        raise ConfigError(
            f'Mailman cannot be imported here ({error}): use the Python that Mailman runs in'
        ) from error
    written = {name: count for name, count in export(installation.spool().directory).items() if count}
    parts = [f'{name} {number(count, "entry", "entries")}' for name, count in written.items()]
    report(', '.join(parts) or 'nothing waits', **written)
