"""``switchboard web``: the operators' desk, in the foreground."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from switchboard.cli.context import Installation, verb
from switchboard.cli.options import RenamedOption
from switchboard.cli.output import print_note
from switchboard.errors import ConfigError, SwitchboardError
from switchboard.installing import install_advice


class MissingLibraryError(SwitchboardError):
    """The desk's libraries are not installed."""


@contextmanager
def _by_its_option() -> Iterator[None]:
    """Name a setting that is wrong as the command line does: it was not read from a file."""
    try:
        yield
    except ConfigError as error:
        options: dict[str | None, str] = {
            param.name: param.opts[0] for param in click.get_current_context().command.params
        }
        error.key = options.get(error.key) or error.key
        raise


@verb()
@click.option(
    '--listen',
    default='127.0.0.1:8025',
    show_default=True,
    metavar='HOST:PORT|PATH',
    help='Where; a path is a Unix socket.',
)
@click.option(
    '--allowed-host',
    'allowed_hosts',
    cls=RenamedOption,
    old=('--host',),
    multiple=True,
    metavar='NAME[:PORT]',
    help='What browsers call it; default: the loopback names.',
)
@click.option('--read-only', is_flag=True, help='Look only: nothing that writes is there.')
@click.option(
    '--allow-edit', cls=RenamedOption, old=('--edit',), is_flag=True, help='Let messages be changed, too.'
)
@click.option(
    '--users-file',
    type=click.Path(path_type=Path, dir_okay=False),
    help='Lines of name:password; nobody else is let in.',
)
@click.option(
    '--user-header', default='', metavar='HEADER', help='The header in which a proxy in front names the user.'
)
@click.option(
    '--environment', default='', metavar='WORD', help='A word for every title: production, test ...'
)
@click.option(
    '--environment-colour',
    cls=RenamedOption,
    old=('--colour',),
    default='grey',
    metavar='COLOUR',
    help='Of its badge: grey, green, amber, red, violet, blue.',
)
@click.option(
    '--redact', multiple=True, metavar='PATTERN', help='Also hide the values of metadata keys like this.'
)
def web(installation: Installation, **options: Any) -> None:
    """Show the operators' desk, a web page, until Ctrl-C.

    It needs no master, and listens where only this machine can reach it.  For others: a Unix socket and `ssh -L`, a proxy with
    single sign-on, or --users-file with --allowed-host.  A socket that systemd hands over is used instead of --listen.

    \b
    switchboard web
    switchboard web --read-only --environment production --environment-colour red
    switchboard web --listen /run/switchboard/desk.sock
    """
    try:
        from switchboard.web.desk import Desk
        from switchboard.web.server import (
            browser_address,
            listener,
            listening_address,
            make_server,
            systemd_socket,
        )
        from switchboard.web.settings import DeskSettings
    except ImportError as error:
        raise MissingLibraryError(install_advice('the desk', error.name or 'starlette', 'web')) from error
    passed = systemd_socket()
    with _by_its_option():
        settings = DeskSettings.of(
            **options | ({} if passed is None else {'listen': listening_address(passed)})
        )
    path = installation.config_path
    desk = Desk(installation.existing_directory(), path.absolute() if path is not None else None, settings)
    server = make_server(desk)
    sockets = [passed or listener(desk)]
    print_note(f'the desk is at {browser_address(desk)}')
    desk.counter.start()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, setattr, server, 'should_exit', True)
        await server.serve(sockets)

    try:
        asyncio.run(serve())
    finally:
        desk.counter.close()
