"""A line of the last hour, drawn here and served as a file of its own: the pages' policy allows nothing inside of them."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH, HEIGHT = 120, 28


def sparkline(values: Sequence[float], slots: int, *, filled: bool = True) -> str:
    """:return: an SVG file; the newest value stands at the right edge.

    :param slots: how many values fill the width.
    """
    shown = list(values)[-slots:]
    top = max([*shown, 1.0])
    step = WIDTH / max(slots - 1, 1)
    start = WIDTH - step * (len(shown) - 1)
    points = [
        f'{start + step * at:.1f},{HEIGHT - 3 - (HEIGHT - 6) * value / top:.1f}'
        for at, value in enumerate(shown)
    ]
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="#5b7cfa" stroke-width="1.5" stroke-linejoin="round"/>'
    area = ''
    if filled and len(points) > 1:
        corners = f'{start:.1f},{HEIGHT - 2} {" ".join(points)} {WIDTH},{HEIGHT - 2}'
        area = f'<polygon points="{corners}" fill="#5b7cfa" fill-opacity="0.16"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'{area}{line if len(points) > 1 else ""}</svg>\n'
    )
