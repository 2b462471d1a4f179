"""The verbs of ``switchboard``: where each one lives, the line about it in ``--help``, and the place where its error becomes one line and an exit status.

A verb's module is imported when the verb is used: importing all of them would make each start three times as slow.

Verbs raise; only `run` ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import os
import sys
from collections.abc import Iterator, Sequence

import click

from switchboard import __version__
from switchboard.cli.completion import complete_names
from switchboard.cli.context import Installation, installation_options
from switchboard.cli.exits import READ_ONLY_VERBS, Exit, error_lines, exit_of
from switchboard.cli.output import (
    discard_unwritten_errors,
    is_output_error,
    make_streams_safe,
    output_failed,
    write_error,
)
from switchboard.errors import NotRunningError, SwitchboardError
from switchboard.suggestions import did_you_mean

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal  # the names of `signal` are enums, which take a millisecond

# By family: the verb, the module in this package, and what it does.  The function is called like the verb, with `_` for `-`.
VERB_GROUPS: dict[str, tuple[tuple[str, str, str], ...]] = {
    'Run': (
        ('init', 'config', 'Make a configuration or a spool.'),
        ('sample', 'config', 'Write a sample of a configuration file, or list them.'),
        ('start', 'lifecycle', 'Start the master and its runners.'),
        ('stop', 'lifecycle', 'Stop the master when its runners have finished their messages.'),
        ('restart', 'lifecycle', 'Restart runners, one slice at a time.'),
        ('reload', 'lifecycle', 'Read the configuration again, and restart changed runners.'),
        ('reopen', 'lifecycle', 'Reopen the log files, after a rotation.'),
        ('scale', 'lifecycle', 'Give runners another number of processes.'),
        ('run', 'programs', 'Run one runner in the foreground, without a master.'),
        ('drop', 'programs', 'Store a message from standard input, as mail servers do.'),
        ('master', 'programs', 'Supervise the runners in the foreground, for service managers.'),
        ('runner', 'programs', 'Run one slice of one runner, for debugging.'),
        ('status', 'status', 'Show the master and every runner.'),
        ('top', 'top', 'Show the same and the queues, live.'),
        ('metrics', 'metrics', 'Write numbers for Prometheus.'),
        ('web', 'web', "Show the operators' desk, a web page."),
    ),
    'Look': (
        ('queues', 'queues', 'Show how much is in every queue.'),
        ('ls', 'ls', 'List the entries of a queue.'),
        ('show', 'show', 'Show one entry: metadata, history, body; or one queue.'),
        ('trash', 'ls', 'List removed entries that can be restored.'),
        ('tail', 'tail', 'Follow entries as they arrive in queues.'),
        ('shape', 'queues', 'Show how old the entries of each queue are.'),
    ),
    'Change': (
        ('enqueue', 'enqueue', 'Put messages into a queue, or publish them.'),
        ('retry', 'retry', 'Send entries back to where they came from.'),
        ('mv', 'retry', 'Move entries to another queue.'),
        ('rm', 'retry', 'Put entries into the trash, or remove them.'),
        ('restore', 'retry', 'Bring entries back out of the trash.'),
        ('hold', 'retry', 'Keep entries from being taken.'),
        ('release', 'retry', 'Let held entries go.'),
        ('edit', 'edit', 'Change an entry, and send it back if it failed.'),
        ('pause', 'queues', 'Let nothing be taken out of queues.'),
        ('drain', 'queues', 'Let nothing into queues.'),
        ('resume', 'queues', 'End pause and drain.'),
        ('declare', 'queues', 'Make a queue that is not in the configuration.'),
        ('delete', 'queues', 'Delete queues that are not in the configuration.'),
        ('purge', 'queues', 'Drop all that waits in queues.'),
        ('tidy', 'maintenance', 'Tidy all queues now, as the janitor does each minute.'),
        ('spares', 'maintenance', 'Show, fill or empty the pool of spare files.'),
        ('export-mailman', 'maintenance', "Write waiting messages as Mailman's own files."),
    ),
    'Configure': (
        ('check', 'config', 'Show every mistake of the configuration.'),
        ('route', 'config', 'Explain where a message would go, and why.'),
        ('graph', 'config', 'Draw which exchange feeds which queue and runner.'),
        ('version', 'config', 'Show the versions of program and formats.'),
    ),
}

TRACEBACK_VARIABLE = 'SWITCHBOARD_TRACEBACK'

VERBS = {name: (module, summary) for verbs in VERB_GROUPS.values() for name, module, summary in verbs}

# What may be answered beforehand, asked or not: all that change something, but for programs that run until they are ended.
TAKES_YES = VERBS.keys() - READ_ONLY_VERBS - set('run drop master runner web'.split())


class Verbs(click.Group):
    """A group that imports a verb when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """:return: all verbs, in the order of the families."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """:return: the verb, imported now."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f'switchboard.cli.commands.{VERBS[cmd_name][0]}')
        command = getattr(module, cmd_name.replace('-', '_'))
        assert isinstance(command, click.Command)
        complete_names(command.params)
        for each in (command, *getattr(command, 'commands', {}).values()) if cmd_name in TAKES_YES else ():
            if not any('--yes' in param.opts for param in each.params):
                each.params.append(
                    click.Option(['-y', '--yes'], is_flag=True, hidden=True, expose_value=False)
                )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Look the verb up; a misspelled one gets a hint."""
        if args and not args[0].startswith('-') and args[0] not in VERBS:
            raise click.UsageError(f'there is no verb {args[0]!r}{did_you_mean(args[0], VERBS)}', ctx)
        if args and args[0] in VERBS:
            ctx.ensure_object(Installation).verb = args[0]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs by family, from the table above: help must not import them all."""
        width = max(map(len, VERBS))
        for family, verbs in VERB_GROUPS.items():
            with formatter.section(family):
                formatter.write_dl([(name.ljust(width), summary) for name, _, summary in verbs])


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
    context.with_resource(_hearing_interrupts())


@contextlib.contextmanager
def _hearing_interrupts() -> Iterator[None]:
    """Have Ctrl-C raise `KeyboardInterrupt` while a verb is at work, where it ends the process at once before and after."""
    ends = _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL
    if ends:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    try:
        yield
    finally:
        if ends:
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def run(args: Sequence[str] | None = None) -> NoReturn:
    """Run one verb and end the process with its status."""
    make_streams_safe()
    status = call(args)
    discard_unwritten_errors()
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
        changes, as_json = installation.verb not in READ_ONLY_VERBS, _is_json(args, installation)
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
        with contextlib.suppress(OSError):  # nobody reads it; the status says it too
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
    except (SwitchboardError, OSError, MemoryError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        if isinstance(error, MemoryError):
            error.__traceback__ = (
                None  # it keeps all that has filled the memory, and a line has to be written
            )
        return _failed(error, installation, as_json=_is_json(args, installation))
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        text = f'{type(error).__name__}: {error}'
        text = f'a mistake in this program: {text}; {TRACEBACK_VARIABLE}=1 shows where'
        write_error(error, Exit.SOFTWARE, [text], as_json=_is_json(args, installation))
        return Exit.SOFTWARE


def _failed(
    error: SwitchboardError | OSError | MemoryError, installation: Installation, *, as_json: bool
) -> int:
    if is_output_error(error):
        return output_failed(error, Exit.OK, changes=False, as_json=as_json)
    if isinstance(error, NotRunningError) and (text := installation.master_elsewhere()):
        error.add_note(text)
    lines = [installation.with_installation(line) for line in error_lines(error)]
    write_error(error, exit_of(error), lines, as_json=as_json)
    return exit_of(error)


def _is_json(args: Sequence[str] | None, installation: Installation) -> bool:
    # A mistake may stand before the option, and is found first.
    return installation.as_json or '--json' in (sys.argv[1:] if args is None else args)


def _usage(error: click.ClickException, verb: str, *, as_json: bool) -> int:
    if isinstance(error, click.NoSuchOption) and error.possibilities and error.ctx is not None:
        from switchboard.cli.options import with_new_names

        error.possibilities[:] = with_new_names(error.possibilities, error.ctx.command.params)
    text = error.format_message()
    if isinstance(error, click.UsageError):
        # Of an option that lacks its value click says no place.
        where = error.ctx.command_path if error.ctx is not None else f'switchboard {verb}'.strip()
        text = f'{text.removesuffix(".")}; see `{where} --help`'
    status = error.exit_code if error.exit_code != 1 else int(Exit.NO_INPUT)
    write_error(error, status, [text], as_json=as_json)
    return status
