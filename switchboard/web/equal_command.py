"""The command line that does the same as a page or an act: it teaches, and makes runbooks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from switchboard.operating.selection import Criteria

# A command with more names than that is no help.
MAX_NAMES = 20


def command(place: Path | None, *words: str) -> str:
    """:return: a line for a shell.

    :param place: the configuration, or the spool of an installation without one.
    """
    option = [] if place is None else ['-s' if place.is_dir() else '-C', str(place)]
    return shlex.join(['switchboard', *option, *words])


def for_selection(place: Path | None, verb: Sequence[str], criteria: Criteria, *more: str) -> str:
    """:return: a verb for all that fit a selection."""
    where = ('--where', str(criteria)) if criteria else ()
    return command(place, *verb, *where, *more)


def for_names(place: Path | None, verb: Sequence[str], names: Sequence[str], *more: str) -> str:
    """:return: a verb for some entries; of many, from a file."""
    if len(names) <= MAX_NAMES:
        return command(place, *verb, *names, *more)
    return f'{command(place, *verb, "-", *more)} < names'
