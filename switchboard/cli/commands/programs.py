"""``run``, one runner in the foreground; and ``drop``, ``master`` and ``runner``: the low-level programs, where only ``switchboard`` is in the path.

``switchboard-drop`` and its like start faster and are what mail servers and service managers are given.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from switchboard.cli.context import Installation, verb
from switchboard.master import programs
from switchboard.master.programs import once_option, slice_of, until_empty_option

PLACES = ('-s', '-C', '--spool', '--config')


@verb(context_settings={'ignore_unknown_options': True, 'allow_interspersed_args': False})
@click.argument('queue')
@click.argument('arguments', nargs=-1, type=click.UNPROCESSED, metavar='[ARGUMENT]...')
def drop(installation: Installation, queue: str, arguments: tuple[str, ...]) -> NoReturn:
    """Store a message from standard input in QUEUE, as mail servers do.

    Exit status 0: it is stored, and nothing is printed.  75: it is not, and one line says why.  The arguments are those of
    `switchboard-drop`: -f SENDER, -r RECIPIENT, -m KEY=VALUE, -d content|message-id.
    """
    from switchboard.drop.__main__ import run

    places: list[str] = []
    if any(word.startswith(PLACES) for word in arguments):
        pass  # a place that stands behind the queue is read by the program itself
    elif installation.named_spool is not None:
        places = ['-s', str(installation.named_spool)]
    elif installation.config_path is not None and not os.environ.get('SWITCHBOARD_SPOOL'):
        places = ['-C', str(installation.config_path)]
    sys.exit(run([queue, *places, *arguments]))


@verb(help=programs.master.help)
def master(installation: Installation) -> NoReturn:
    """See `switchboard-master`."""
    installation.logs = True
    programs.master.main(['-C', str(installation.config_to_load)], prog_name='switchboard master')
    raise AssertionError('a program ends by itself')


@verb()
@click.argument('runner', metavar='RUNNER[:SLICE/COUNT]')
@once_option
@until_empty_option
def runner(installation: Installation, runner: str, once: bool, until_empty: bool) -> NoReturn:
    """Run one slice of one runner, in the foreground and without a master: for debugging."""
    installation.logs = True
    flags = [flag for flag, is_set in (('--once', once), ('--until-empty', until_empty)) if is_set]
    programs.runner.main(
        [runner, '-C', str(installation.config_to_load), *flags], prog_name='switchboard runner'
    )
    raise AssertionError('a program ends by itself')


@verb()
@click.argument('runner', callback=slice_of, metavar='RUNNER[:SLICE/COUNT]')
@once_option
@until_empty_option
def run(installation: Installation, runner: tuple[str, int, int], once: bool, until_empty: bool) -> int:
    """Run one runner in the foreground, without a master.

    It logs to standard error, and ends with Ctrl-C after the message at work.  It may run beside a master: claims keep
    them apart.

    \b
    switchboard run archive --until-empty
    switchboard run lists:2/4
    """
    name, slice_index, count = runner
    installation.logs = True
    config = installation.config
    installation.check_runner(name)
    installation.spool(make=True)
    return programs.one_runner(config, name, slice_index, count, once=once, until_empty=until_empty)
