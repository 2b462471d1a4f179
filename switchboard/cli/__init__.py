"""``switchboard``, the operator's program: one verb for each thing that an operator does.  It shows and asks, and decides nothing.

In reading order: app (the verbs, imported when they are used), context (which installation), completion (names for the shell), options, output, layout and terminal (tables, lines, JSON),
exits (from errors to statuses); then ``commands``.

Here is what all verbs share: the group, and the place where an error becomes one line and an exit status.  Verbs raise;
only `main` ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Sequence

import click

from switchboard import __version__
from switchboard.cli.app import Verbs
from switchboard.cli.context import Installation, installation_options
from switchboard.cli.exits import LOOKING, Exit, exit_of, lines_of
from switchboard.cli.output import (
    drop_unwritten_errors,
    is_of_output,
    make_streams_safe,
    output_failed,
    write_error,
)
from switchboard.errors import NotRunningError, SwitchboardError

TRACEBACK_VARIABLE = 'SWITCHBOARD_TRACEBACK'


@click.group(
    cls=Verbs, context_settings={'help_option_names': ['-h', '--help'], 'max_content_width': 100, 'obj': None}
)
@installation_options
@click.version_option(__version__, prog_name='switchboard', message='%(prog)s %(version)s')
@click.option('-v', '--verbose', is_flag=True, help='Also print the steps on the way.')
@click.pass_context
def switchboard(context: click.Context, verbose: bool) -> None:
    """A durable message queue for one machine, without a broker.

    `switchboard VERB --help` tells all about a verb.  -C and -s may also stand behind the verb.
    """
    import logging  # not for --version and --help

    context.ensure_object(Installation)
    # The core logs what it finds strange.  In a command that is noise, unless somebody asks.
    logger = logging.getLogger('switchboard')
    if verbose:
        from switchboard.status import log

        log.configure(level='DEBUG', waits=True)
        log.set_process_name('switchboard')
    elif not logger.handlers:
        logger.addHandler(logging.NullHandler())


def main(args: Sequence[str] | None = None) -> None:
    """Run one verb and end the process with its status."""
    make_streams_safe()
    status = call(args)
    drop_unwritten_errors()
    gc.freeze()  # or the interpreter looks through all of it once more, for rubbish that goes with the process anyway
    sys.exit(status)


def call(args: Sequence[str] | None = None) -> int:
    """Run one verb; every error becomes a line on standard error, or an object with ``--json``.

    :return: the exit status.
    """
    installation = Installation()
    status = _call(args, installation)
    try:
        sys.stdout.flush()
    except OSError as error:
        changes, as_json = installation.verb not in LOOKING, _is_json(args, installation)
        status = output_failed(error, status, changes=changes, as_json=as_json)
    return status


def _call(args: Sequence[str] | None, installation: Installation) -> int:
    stdout = sys.stdout
    try:
        status = switchboard.main(args, prog_name='switchboard', standalone_mode=False, obj=installation)
        return int(status) if isinstance(status, int) else Exit.OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError):
            click.echo(error.format_message(), err=True)
        return Exit.USAGE
    except click.ClickException as error:
        return _usage(error, installation.verb, as_json=_is_json(args, installation))
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SystemExit:
        # A verb that is a program of its own has ended, or the reader has gone: click puts another stream in place then.
        if sys.stdout is stdout:
            raise
        return output_failed(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)), Exit.OK, changes=False)
    except (SwitchboardError, OSError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        return _failed(error, installation, as_json=_is_json(args, installation))
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        text = f'{type(error).__name__}: {error}'
        text = f'a mistake in this program: {text}; {TRACEBACK_VARIABLE}=1 shows where'
        write_error(error, Exit.SOFTWARE, [text], as_json=_is_json(args, installation))
        return Exit.SOFTWARE


def _failed(error: SwitchboardError | OSError, installation: Installation, *, as_json: bool) -> int:
    if is_of_output(error):
        return output_failed(error, Exit.OK, changes=False, as_json=as_json)
    if isinstance(error, NotRunningError) and (text := installation.master_elsewhere()):
        error.add_note(text)
    lines = [installation.as_called(line) for line in lines_of(error)]
    write_error(error, exit_of(error), lines, as_json=as_json)
    return exit_of(error)


def _is_json(args: Sequence[str] | None, installation: Installation) -> bool:
    # A mistake may stand before the option, and is found first.
    return installation.as_json or '--json' in (sys.argv[1:] if args is None else args)


def _usage(error: click.ClickException, verb: str, *, as_json: bool) -> int:
    text = error.format_message()
    if isinstance(error, click.UsageError):
        # Of an option that lacks its value click says no place.
        where = error.ctx.command_path if error.ctx is not None else f'switchboard {verb}'.strip()
        text = f'{text.removesuffix(".")}; see `{where} --help`'
    status = error.exit_code if error.exit_code != 1 else int(Exit.NO_INPUT)
    write_error(error, status, [text], as_json=as_json)
    return status
