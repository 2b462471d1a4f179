"""Man pages and shell completion, written from the verbs themselves, as ``share/`` of an installation has them; bin/_backend.py asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from click_man.man import ManPage

from switchboard import __version__
from switchboard.cli.app import switchboard
from switchboard.master.programs import master, runner

# Where each shell looks, below share/.
COMPLETIONS = {
    'bash': 'bash-completion/completions/switchboard',
    'zsh': 'zsh/site-functions/_switchboard',
    'fish': 'fish/vendor_completions.d/switchboard.fish',
}
PROGRAMS = {'switchboard': switchboard, 'switchboard-master': master, 'switchboard-runner': runner}


def as_roff(text: str) -> str:
    """:return: a text in which nothing means anything to roff."""
    lines = text.replace('\\', '\\e').split('\n')
    return '\n'.join(rf'\&{line}' if line.startswith(('.', "'")) else line for line in lines)


def described(text: str) -> str:
    """:return: the description of a verb; its examples, which click finds by a backspace, keep their lines."""
    paragraphs = []
    for paragraph in cleandoc(text).split('\n\n'):
        mark, _, rest = paragraph.partition('\n')
        example = mark.strip() == '\b'
        paragraphs.append(f'.nf\n{as_roff(rest)}\n.fi' if example else as_roff(paragraph))
    return '\n\n'.join(paragraphs)


def summary(command: click.Command) -> str:
    """:return: the first sentence of a description, whole."""
    first = cleandoc(command.help or '').partition('\n\n')[0]
    return as_roff(' '.join(first.split()).partition('. ')[0].removesuffix('.'))


def page(context: click.Context) -> str:
    """:return: the man page of a command."""
    command = context.command
    made = ManPage(context.command_path)
    made.version = __version__
    made.short_help = summary(command)
    made.synopsis = ' '.join(command.collect_usage_pieces(context))
    made.description = described(command.help or '')
    records = [
        each.get_help_record(context)
        for each in command.get_params(context)
        if isinstance(each, click.Option)
    ]
    made.options = [(record[0], as_roff(record[1])) for record in records if record is not None]
    if isinstance(command, click.Group):
        made.commands = [(verb, summary(found)) for verb, found in command.commands.items()]
    return str(made)


def pages() -> Iterator[tuple[str, str]]:
    """:return: the name and the text of each man page: of the programs, and of each verb."""
    for name, command in PROGRAMS.items():
        context = click.Context(command, info_name=name)
        if isinstance(command, click.Group):
            # The page lists what was loaded.
            command.commands = {
                verb: found
                for verb in command.list_commands(context)
                if (found := command.get_command(context, verb)) is not None
            }
        yield name, page(context)
        if isinstance(command, click.Group):
            for verb in command.list_commands(context):
                found = command.get_command(context, verb)
                assert found is not None
                below = click.Context(found, info_name=verb, parent=context)
                yield f'{name}-{verb}', page(below)


def write(directory: Path) -> None:
    """Write all of it below a directory."""
    manual = directory / 'man' / 'man1'
    manual.mkdir(parents=True, exist_ok=True)
    # A program that is also a verb has one page, the program's.
    for name, text in sorted(dict(reversed(list(pages()))).items()):
        (manual / f'{name}.1').write_text(text)
    for shell, place in COMPLETIONS.items():
        completion = get_completion_class(shell)
        assert completion is not None
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without the look for the version of a bash that need not be here.
        made = completion(switchboard, {}, 'switchboard', '_SWITCHBOARD_COMPLETE')
        path.write_text(made.source_template % made.source_vars() + '\n')
