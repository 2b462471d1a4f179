"""``switchboard init``: a configuration to start from, and the directories of a spool."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

import switchboard
from switchboard.cli.installation import Installation, verb
from switchboard.cli.tables import say
from switchboard.cli.wording import number
from switchboard.master.lock import master_alive
from switchboard.spool.current import activate
from switchboard.store.pool import KEPT_OPEN

# Files that wait for the first messages: as many as a process keeps open.  Of these no message has to make its own.
FIRST_SPARES = KEPT_OPEN

SAMPLES = ('switchboard.cfg', 'exchange.cfg')


def sample_directory() -> Path:
    """:return: where the commented sample configuration lies: in the checkout, or where an installation has put it.

    :raises FileNotFoundError: it is in neither place.
    """
    checkout = Path(switchboard.__file__).resolve().parent.parent / 'etc'
    shared = Path(sys.prefix) / 'share' / 'switchboard' / 'etc'
    for directory in (checkout, shared):
        if all((directory / name).is_file() for name in SAMPLES):
            return directory
    raise FileNotFoundError(
        2, 'the sample configuration is not there: this installation is not complete', str(shared)
    )


def copy_samples(directory: Path) -> list[Path]:
    """Copy the sample configuration into a directory; what is there already stays as it is.

    The two files belong together: beside a configuration of somebody else's, the sample's exchanges would be mistakes.

    :return: the files that were made.
    """
    if (directory / SAMPLES[0]).exists():
        return []
    source = sample_directory()
    directory.mkdir(parents=True, exist_ok=True)
    made = []
    for name in SAMPLES:
        target = directory / name
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, 'wb') as stream:
            stream.write((source / name).read_bytes())
        made.append(target)
    return made


@verb()
@click.argument('directory', required=False, type=click.Path(path_type=Path, file_okay=False))
def init(installation: Installation, directory: Path | None) -> None:
    """Make a configuration or a spool.

    With DIRECTORY, a commented sample configuration is put into DIRECTORY/etc, and its spool is made.  Without one, the
    spool of the configuration in use, or of -s, and its queues, and files that wait for the first messages.  What is there
    already is left as it is.

    \b
    switchboard init mail        mail/etc/switchboard.cfg and what it says
    switchboard -s /tmp/x init   a spool without a configuration
    """
    if directory is not None:
        if installation.named_spool is not None or installation.named_config is not None:
            raise click.UsageError('give DIRECTORY, or -C or -s, not both')
        for path in copy_samples(directory / 'etc'):
            click.echo(f'made {path}')
        installation.named_config = directory / 'etc' / SAMPLES[0]
    there = installation.directory.is_dir()
    spool = installation.spool(make=True)
    config = spool.config
    queues = config.queue_names() if config is not None else ('bad',)
    # A running master has a configuration in force already, and takes another at a reload.
    if config is not None and not master_alive(spool.directory):
        activate(config)
    missing = [name for name in queues if not os.path.isdir(spool.path(name))]
    for name in missing:
        spool.board(name)
    if not there:
        spool.spares.fill(FIRST_SPARES)
    if not missing:
        click.echo(f'{spool.directory}: all is there already')
        return
    what = 'added to' if there else 'made'
    click.echo(f'{what} {spool.directory} ({number(len(missing), "queue")}: {", ".join(missing)})')
    if directory is not None:
        say(f'next: look into {installation.named_config}, then `cd {directory} && switchboard start`')
