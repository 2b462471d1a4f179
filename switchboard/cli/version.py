"""``switchboard version``"""

from __future__ import annotations

import platform

import click

from switchboard import __version__
from switchboard.cli.tables import write_json
from switchboard.message.envelope import MAGIC


@click.command()
@click.option('--json', 'as_json', is_flag=True, help='One JSON object, for programs.')
def version(as_json: bool) -> None:
    """Show the versions of program and formats.

    A spool may be read by every version that names the same entry format.
    """
    magic = MAGIC.decode('ascii')
    if as_json:
        write_json({'switchboard': __version__, 'python': platform.python_version(), 'entry_format': magic})
        return
    click.echo(f'switchboard {__version__}')
    click.echo(f'Python {platform.python_version()}')
    click.echo(f'entry format {magic}')
