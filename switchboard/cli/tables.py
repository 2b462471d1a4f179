"""Tables: coloured by rich where people look, plain aligned text where programs read.

On a terminal a table fits its width: long texts are cut, and columns that matter least are left out, before a line would
break (see `layout`).  In a pipe nothing is cut or left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from switchboard.cli.exits import lines_of
from switchboard.cli.layout import GAP, Cell, Column, text_of
from switchboard.cli.wording import one_line, visible

# Rows that are laid out together, so that a list of any length can be written while it is read.
CHUNK_ROWS = 1000


def is_terminal() -> bool:
    """:return: whether people look at standard output."""
    return sys.stdout.isatty()


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


def complain(error: Exception, subject: str = '') -> None:
    """Say what is wrong, and what to do next.

    :param subject: what it is about, for errors that do not name it.
    """
    for line in lines_of(error):
        text = line if subject in line else f'{subject}: {line}'
        say(f'switchboard: {visible(text)}')


def styled(text: str, style: str) -> str:
    """:return: the text with the colour of a word like `error`, if standard error is a terminal; click takes it off if not."""
    colours = {'error': 'red', 'warning': 'yellow', 'good': 'green', 'dim': 'bright_black'}
    return click.style(text, fg=colours[style])
