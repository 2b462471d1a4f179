"""Tables: coloured by rich where people look, plain aligned text where programs read.

On a terminal a table fits its width: long texts are cut, and columns that matter least are left out, before a line would
break.  In a pipe nothing is cut or left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from switchboard.cli.output import console, is_terminal, write_line
from switchboard.operating.text import one_line

if TYPE_CHECKING:
    from rich.table import Table

# Rows that are laid out together, so that a list of any length can be written while it is read.
CHUNK_ROWS = 1000

# A cell is its text, or the text and a style of rich's.
Cell = str | tuple[str, str]
GAP = '  '


class Column(NamedTuple):
    """One column.

    :param align_right: numbers stand at the right.
    :param shrink_to: how narrow it may become; 0: it is never cut.
    :param hide_rank: columns with the highest number are the first that are left out; 0: it always stays.
    """

    title: str
    align_right: bool = False
    shrink_to: int = 0
    hide_rank: int = 0


def cell_text(cell: Cell) -> str:
    """:return: the text of a cell."""
    return cell if isinstance(cell, str) else cell[0]


def layout(columns: Sequence[Column], widths: Sequence[int], line_width: int) -> dict[int, int]:
    """Decide which columns are shown, and how wide.

    :param widths: the width that each would need.
    :param line_width: the width of the line.
    :return: the width by the column's number.
    """
    shown = {number: width for number, width in enumerate(widths) if width}

    def excess() -> int:
        return sum(shown.values()) + len(GAP) * (len(shown) - 1) - line_width

    def shrink(number: int) -> None:
        least = max(columns[number].shrink_to, len(columns[number].title))
        if columns[number].shrink_to and shown[number] > least:
            shown[number] = max(least, shown[number] - max(0, excess()))

    for number in sorted(shown, key=lambda number: -widths[number]):
        shrink(number)
    for number in sorted((n for n in shown if columns[n].hide_rank), key=lambda n: -columns[n].hide_rank):
        if excess() <= 0:
            break
        del shown[number]
    # Where something was left out there may be room again for a cut column.
    for number in shown:
        if shown[number] < widths[number] and excess() < 0:
            shown[number] = min(widths[number], shown[number] - excess())
    return shown


def rich_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], line_width: int, *, heading: bool = True
) -> Table:
    """:return: a table that is at most `line_width` wide."""
    from rich.table import Table
    from rich.text import Text

    texts = [[one_line(cell_text(cell)) for cell in row] for row in rows]
    widths = []
    for number, column in enumerate(columns):
        widest = max((Text(text[number]).cell_len for text in texts), default=0)
        widths.append(max(widest, len(column.title)) if widest else 0)
    shown = layout(columns, widths, line_width)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=heading, header_style='bold')
    for number, width in shown.items():
        column = columns[number]
        table.add_column(
            column.title,
            justify='right' if column.align_right else 'left',
            width=width,
            no_wrap=True,
            overflow='ellipsis',
        )
    for row, text in zip(rows, texts, strict=True):
        cells = []
        for number in shown:
            cell = row[number]
            cells.append(Text(text[number], style=cell[1] if isinstance(cell, tuple) else ''))
        table.add_row(*cells)
    return table


def line_width() -> int | None:
    """:return: how many columns the terminal has; None where programs read."""
    if not is_terminal():
        return None
    return console().width


def write_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> bool:
    """Write a table; columns that are empty in every row are left out on a terminal.

    :return: whether there was a row to write.
    """
    chunk: list[Sequence[Cell]] = []
    written = False
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            _write(columns, chunk, heading=not written)
            chunk, written = [], True
    if chunk:
        _write(columns, chunk, heading=not written)
    return written or bool(chunk)


def _write(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, heading: bool) -> None:
    if is_terminal():
        screen = console()
        screen.print(rich_table(columns, rows, screen.width, heading=heading), no_wrap=True, crop=True)
        return
    texts = [[one_line(cell_text(cell)) or '-' for cell in row] for row in rows]
    if heading:
        texts.insert(0, [column.title for column in columns])
    widths = [max(len(text[number]) for text in texts) for number in range(len(columns))]
    for text in texts:
        parts = [
            part.rjust(width) if column.align_right else part.ljust(width)
            for part, width, column in zip(text, widths, columns, strict=True)
        ]
        write_line(GAP.join(parts).rstrip())
