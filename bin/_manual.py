"""``bin/_manual.py DIRECTORY`` writes man pages and shell completion, from the verbs themselves, as ``share/`` of an installation has them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from click_man.core import generate_man_page

from switchboard import __version__
from switchboard.cli import switchboard
from switchboard.master.programs import master, runner

# Where each shell looks, below share/.
COMPLETIONS = {
    'bash': 'bash-completion/completions/switchboard',
    'zsh': 'zsh/site-functions/_switchboard',
    'fish': 'fish/vendor_completions.d/switchboard.fish',
}
PROGRAMS = {'switchboard': switchboard, 'switchboard-master': master, 'switchboard-runner': runner}


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
        yield name, generate_man_page(context, __version__)
        if isinstance(command, click.Group):
            for verb in command.list_commands(context):
                found = command.get_command(context, verb)
                assert found is not None
                below = click.Context(found, info_name=verb, parent=context)
                yield f'{name}-{verb}', generate_man_page(below, __version__)


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


if __name__ == '__main__':
    write(Path(sys.argv[1]))
