"""The widths of a table's columns, and the columns left out where there is no room: a pure function of their widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# A cell is its text, or the text and a style of rich's.
Cell = str | tuple[str, str]
GAP = '  '


class Column(NamedTuple):
    """One column.

    :param align_right: numbers stand at the right.
    :param shrink_to: how narrow it may become; 0: it is never cut.
    :param drop_rank: columns with the highest number are the first that are left out; 0: it always stays.
    """

    title: str
    align_right: bool = False
    shrink_to: int = 0
    drop_rank: int = 0


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
    for number in sorted((n for n in shown if columns[n].drop_rank), key=lambda n: -columns[n].drop_rank):
        if excess() <= 0:
            break
        del shown[number]
    # Where something was left out there may be room again for a cut column.
    for number in shown:
        if shown[number] < widths[number] and excess() < 0:
            shown[number] = min(widths[number], shown[number] - excess())
    return shown
