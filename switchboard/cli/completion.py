"""Names that a shell offers where a verb expects one: queues, entries, runners and exchanges of the installation that the line names.

The word in the help says which names are meant: a parameter that is shown as ``QUEUE`` takes queues.  So a new verb needs nothing more.
If anything goes wrong, nothing is offered, and nothing is said: somebody is in the middle of a line.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click

from switchboard.cli.context import Installation

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Nobody looks at more, and a queue may hold a million.
MAX_ENTRIES = 200


def _entries(installation: Installation, incomplete: str) -> Iterator[str]:
    """Entries of the bad queue first: operators deal with those; ``QUEUE/`` names those of one queue."""
    from switchboard.message.naming import CLAIMED, PRESERVED, READY
    from switchboard.operating.queue_counts import walk_entries
    from switchboard.store.layout import BAD

    queue, slash, _ = incomplete.rpartition('/')
    queue_folders = installation.view.queue_folders([queue] if slash else ())
    found = (
        f'{queue}{slash}{filebase}'
        for _, folder in sorted(queue_folders, key=lambda each: each[0] != BAD)
        for filebase, _ in walk_entries(folder, (PRESERVED, READY, CLAIMED))
    )
    yield from itertools.islice((each for each in found if each.startswith(incomplete)), MAX_ENTRIES)


# By the word in what the help shows; several may stand side by side.
_SOURCES: Mapping[str, Callable[[Installation, str], Iterable[str]]] = {
    'ENTRY': _entries,
    'QUEUE': lambda installation, _: installation.view.queue_names(),
    'RUNNER=': lambda installation, _: [f'{name}=' for name in installation.config.runners],
    'RUNNER(?!=)': lambda installation, _: installation.config.runners,
    'EXCHANGE': lambda installation, _: installation.exchanges().exchanges,
}


class NameParamType(click.types.StringParamType):
    """A text that the shell can complete.

    :param shown: how the help shows the parameter.
    """

    def __init__(self, shown: str) -> None:
        self.sources = [source for word, source in _SOURCES.items() if re.search(word, shown)]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """:return: the names that begin so."""
        from click.shell_completion import CompletionItem

        found: list[str] = []
        installation = ctx.ensure_object(Installation)
        installation.warns = False
        for source in self.sources:
            with contextlib.suppress(Exception):  # a traceback in the middle of a typed line helps nobody
                found += source(installation, incomplete)
        return [CompletionItem(each) for each in dict.fromkeys(found) if each.startswith(incomplete)]


def complete_names(params: list[click.Parameter]) -> None:
    """Have each parameter that is shown as a name complete it."""
    for param in params:
        names = NameParamType(param.metavar or (param.name or '').upper())
        if type(param.type) is click.types.StringParamType and names.sources:
            param.type = names
