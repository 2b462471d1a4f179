"""``switchboard export-mailman``: the way back to Mailman's own queues."""

from __future__ import annotations

from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.output import tell, write_json
from switchboard.errors import ConfigError
from switchboard.operating.text import number


@verb(name='export-mailman')
@json_option
def export_mailman(installation: Installation, as_json: bool) -> None:
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
    if as_json:
        write_json(written)
    else:
        tell(
            ', '.join(f'{name} {number(count, "entry", "entries")}' for name, count in written.items())
            or 'nothing waits'
        )
