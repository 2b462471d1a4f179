"""``switchboard metrics``: numbers for Prometheus, once or by a server of its own."""

from __future__ import annotations

from pathlib import Path

import click

from switchboard.cli.context import Installation, verb
from switchboard.cli.options import DURATION, RenamedOption
from switchboard.cli.output import print_note, write_bytes
from switchboard.errors import SwitchboardError
from switchboard.installing import install_advice
from switchboard.operating.spool_view import SpoolView


@verb()
@click.option(
    '--textfile',
    type=click.Path(path_type=Path, dir_okay=False),
    metavar='PATH',
    help='Write this file instead, by one rename.',
)
@click.option(
    '--listen',
    metavar='HOST:PORT',
    is_flag=False,
    flag_value='127.0.0.1:9736',
    help='Serve /metrics; without an address, on 127.0.0.1:9736.',
)
@click.option(
    '--allowed-host',
    'allowed_hosts',
    cls=RenamedOption,
    old=('--host',),
    multiple=True,
    metavar='NAME:PORT',
    help='By which name it is asked for, besides those of a loopback address.',
)
@click.option(
    '--count-timeout',
    'count_timeout_s',
    cls=RenamedOption,
    old=('--budget',),
    type=DURATION,
    default='10s',
    show_default=True,
    help='How long one count of the queues may take.',
)
def metrics(
    installation: Installation,
    textfile: Path | None,
    listen: str | None,
    allowed_hosts: tuple[str, ...],
    count_timeout_s: float,
) -> None:
    """Write numbers for Prometheus: queues, runners, the master, the disk.

    Once to standard output, or to a file for the node exporter (--textfile), or as a server until it is stopped (--listen). The
    queues are counted in the time that --count-timeout says; of one that has more than that, the numbers are lower bounds, and say so.
    """
    try:
        from switchboard.metrics.collector import render
        from switchboard.metrics.counting import count_all
        from switchboard.metrics.exporter import Exporter
        from switchboard.metrics.listener import Listener
        from switchboard.metrics.textfile import write_textfile
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition('.')[0] != 'prometheus_client':
            raise
        raise SwitchboardError(
            install_advice('`switchboard metrics`', 'prometheus-client', 'metrics')
        ) from error
    if listen is not None and textfile is not None:
        raise click.UsageError('give --listen or --textfile')
    directory, config = installation.existing_directory(), installation.config_or_none
    if listen is None:
        count = count_all(SpoolView(directory, config), count_timeout_s)
        text, _ = render(directory, count, config)
        if textfile is None:
            write_bytes(text)
        else:
            write_textfile(textfile, text)
        return
    exporter = Exporter(lambda: _view(installation), count_timeout_s)
    server = Listener(exporter.render, listen, allowed_hosts)
    exporter.start()
    print_note(f'metrics are at http://{listen.rpartition(":")[0]}:{server.port}/metrics')
    try:
        server.serve()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
        exporter.close()


def _view(installation: Installation) -> SpoolView:
    """:return: the spool by the configuration of now; by the one before, while it has mistakes."""
    from switchboard.config.config import Config

    directory, config, path = (
        installation.existing_directory(),
        installation.config_or_none,
        installation.config_path,
    )
    if config is not None and path is not None:
        try:
            config = Config.load(path)
        except (SwitchboardError, OSError):
            pass  # the master's own reload tells of it
    return SpoolView(directory, config)
