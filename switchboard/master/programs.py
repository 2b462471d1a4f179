"""The low-level programs ``bin/master`` and ``bin/runner``: for service managers, for debugging and for tests.

People use ``switchboard``; these two do one thing each, in the foreground.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click

from switchboard.config.config import Config
from switchboard.errors import AlreadyRunningError, ConfigError, SwitchboardError
from switchboard.master import launch
from switchboard.master.policy import EXIT_CONFIG, EXIT_SOFTWARE
from switchboard.master.signals import leaving_when_told

RUNNER = re.compile(r'(?P<name>[^:]+)(?::(?P<part>[0-9]{1,6})/(?P<count>[0-9]{1,6}))?')

config_option = click.option(
    '-C',
    '--config',
    'path',
    type=click.Path(path_type=Path, dir_okay=False),
    envvar='SWITCHBOARD_CONFIG',
    default='etc/switchboard.cfg',
    show_default=True,
    help='The configuration file.',
)


def slice_of(_context: click.Context, _param: click.Parameter, value: str) -> tuple[str, int, int]:
    """:return: name, slice counted from 0, and number of slices; they are written from 1, as `status` and `ps` show them."""
    match = RUNNER.fullmatch(value)
    if match is None:
        raise click.BadParameter(f'{value!r} is not of the form NAME or NAME:SLICE/COUNT')
    part, count = int(match['part'] or 1), int(match['count'] or 1)
    if not 1 <= part <= count:
        raise click.BadParameter(f'{value!r}: slices are counted from 1 to {count}')
    return match['name'], part - 1, count


@click.command()
@config_option
def master(path: Path) -> None:
    """Supervise the runners of one installation, in the foreground.

    Exit status: 0 stopped; 69 stopped, and a runner had given up; 75 another master is running; 78 the
    configuration cannot be used; 70 any other error.
    """
    with leaving_when_told():
        sys.exit(_guarded(lambda: launch.foreground(Config.load(path))))


@click.command()
@click.argument('runner', callback=slice_of, metavar='NAME[:SLICE/COUNT]')
@config_option
@click.option('--once', is_flag=True, help='One pass over the queue, then stop.')
@click.option('--until-empty', is_flag=True, help='Stop when nothing is ready any more.')
def runner(runner: tuple[str, int, int], path: Path, once: bool, until_empty: bool) -> None:
    """Run one slice of one runner, in the foreground and without a master."""
    name, part, count = runner
    sys.exit(
        _guarded(
            lambda: launch.one_runner(
                Config.load(path), name, part, count, once=once, until_empty=until_empty
            )
        )
    )


def _guarded(run: Callable[[], int]) -> int:
    """:return: the exit status of `run`, or the one that its error means, after one line about it."""
    try:
        return run()
    except ConfigError as error:
        code, text = EXIT_CONFIG, str(error)
    except AlreadyRunningError as error:
        code, text = os.EX_TEMPFAIL, str(error)
    except (SwitchboardError, OSError) as error:
        code, text = EXIT_SOFTWARE, str(error)
    click.echo(text, err=True)
    return code
