"""The verbs of ``switchboard``: where each one lives, and the line about it in ``--help``.

A verb's module is imported when the verb is used: importing all of them would make each start three times as slow.
"""

from __future__ import annotations

import importlib

import click

from switchboard.cli.completion import complete_names
from switchboard.cli.context import Installation
from switchboard.suggestions import did_you_mean

# By family: the verb, the module in this package, and what it does.  The function is called like the verb, with `_` for `-`.
FAMILIES: dict[str, tuple[tuple[str, str, str], ...]] = {
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
        ('retry', 'change', 'Send entries back to where they came from.'),
        ('mv', 'change', 'Move entries to another queue.'),
        ('rm', 'change', 'Put entries into the trash, or remove them.'),
        ('restore', 'change', 'Bring entries back out of the trash.'),
        ('hold', 'change', 'Keep entries from being taken.'),
        ('release', 'change', 'Let held entries go.'),
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

VERBS = {name: (module, summary) for verbs in FAMILIES.values() for name, module, summary in verbs}


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
        for family, verbs in FAMILIES.items():
            with formatter.section(family):
                formatter.write_dl([(name.ljust(width), summary) for name, _, summary in verbs])
