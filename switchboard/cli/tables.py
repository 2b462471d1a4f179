"""Tables: coloured by rich where people look, plain aligned text where programs read.

On a terminal a table fits its width: long texts are cut, and columns that matter least are left out, before a line would
break.  In a pipe nothing is cut or left out.  How wide each column gets is decided here for both, in one pure function.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from switchboard.cli.wording import one_line

# A cell is its text, or the text and a style of rich's.
Cell = str | tuple[str, str]
GAP = '  '
# Rows that are laid out together, so that a list of any length can be written while it is read.
CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    :param right: numbers stand at the right.
    :param shrink_to: how narrow it may become; 0: it is never cut.
    :param drop: columns with the highest number are the first that are left out; 0: it always stays.
    """

    title: str
    right: bool = False
    shrink_to: int = 0
    drop: int = 0


def is_terminal() -> bool:
    """:return: whether people look at standard output."""
    return sys.stdout.isatty()


def text_of(cell: Cell) -> str:
    """:return: the text of a cell."""
    return cell if isinstance(cell, str) else cell[0]


def layout(columns: Sequence[Column], widths: Sequence[int], room: int) -> dict[int, int]:
    """Decide which columns are shown, and how wide.

    :param widths: what each would need.
    :param room: what the line has.
    :return: the width by the column's number.
    """
    shown = {number: width for number, width in enumerate(widths) if width}

    def excess() -> int:
        return sum(shown.values()) + len(GAP) * (len(shown) - 1) - room

    def shrink(number: int) -> None:
        least = max(columns[number].shrink_to, len(columns[number].title))
        if columns[number].shrink_to and shown[number] > least:
            shown[number] = max(least, shown[number] - max(0, excess()))

    for number in sorted(shown, key=lambda number: -widths[number]):
        shrink(number)
    for number in sorted((n for n in shown if columns[n].drop), key=lambda n: -columns[n].drop):
        if excess() <= 0:
            break
        del shown[number]
    # Where something was left out there may be room again for what was cut.
    for number in shown:
        if shown[number] < widths[number] and excess() < 0:
            shown[number] = min(widths[number], shown[number] - excess())
    return shown


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, heading: bool = True) -> bool:
    """Write a table; columns that are empty in every row are left out on a terminal.

    :return: whether there was a row to write.
    """
    chunk: list[Sequence[Cell]] = []
    written = False
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            _write(columns, chunk, heading=heading and not written)
            chunk, written = [], True
    if chunk:
        _write(columns, chunk, heading=heading and not written)
    return written or bool(chunk)


def _write(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, heading: bool) -> None:
    if is_terminal():
        from switchboard.cli.terminal import console, rich_table

        screen = console()
        screen.print(rich_table(columns, rows, screen.width, heading=heading), no_wrap=True, crop=True)
        return
    texts = [[one_line(text_of(cell)) or '-' for cell in row] for row in rows]
    if heading:
        texts.insert(0, [column.title for column in columns])
    widths = [max(len(text[number]) for text in texts) for number in range(len(columns))]
    for text in texts:
        parts = [
            part.rjust(width) if column.right else part.ljust(width)
            for part, width, column in zip(text, widths, columns, strict=True)
        ]
        click.echo(GAP.join(parts).rstrip())


def write_json(value: Any) -> None:
    """Write one line of JSON.  ASCII only, so that no message can play tricks on a terminal with it."""
    click.echo(json.dumps(value, separators=(', ', ': '), default=str))


def say(text: str) -> None:
    """Write a line for people to standard error, where it does not get into what a program reads."""
    click.echo(text, err=True)


def styled(text: str, style: str) -> str:
    """:return: the text with the colour of a word like `error`, if standard error is a terminal; click takes it off if not."""
    colours = {'error': 'red', 'warning': 'yellow', 'good': 'green', 'dim': 'bright_black'}
    return click.style(text, fg=colours[style])
