"""The output that needs rich: coloured tables, progress lines, the live table of `top`.  Imported only where people look, for it takes 40 ms."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner as RichSpinner
from rich.table import Table
from rich.text import Text

from switchboard.cli.layout import Cell, Column, cell_text, layout
from switchboard.operating.text import one_line


def console(*, stderr: bool = False) -> Console:
    """:return: the terminal; nothing in a text is markup or gets colours by what it looks like."""
    return Console(
        file=sys.stderr if stderr else sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


def rich_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], line_width: int, *, heading: bool = True
) -> Table:
    """:return: a table that is at most `line_width` wide."""
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


class Spinner:
    """One line that changes, with something that turns in front of it.

    It has no thread: what waits calls `update` now and then, and may fork while the line is shown.
    """

    def __init__(self) -> None:
        self._spinner = RichSpinner('dots')
        self._live = Live(
            self._spinner,
            console=console(stderr=True),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def update(self, text: str) -> None:
        """Say something else."""
        self._spinner.update(text=Text(one_line(text), no_wrap=True, overflow='ellipsis'))
        self._live.start()
        self._live.refresh()

    def stop(self) -> None:
        """Take the line away."""
        self._live.stop()
