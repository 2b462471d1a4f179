"""The topology as a picture: SVG, drawn in layers from left to right, without any other program.

``layers`` says where everything stands; here it is drawn.  A label is put where it covers no node, and as few other labels and ways
as can be.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from switchboard.routing.layers import LABEL_CHARACTER, Box, Layers, Way, short
from switchboard.routing.topology import Graph

Point = tuple[float, float]
Area = tuple[float, float, float, float]

LABEL_HEIGHT, CORNER, NODE_SPACE = 12.0, 6.0, 4.0
# Where on its way a label may stand, the best place first.
PLACES = (0.5, 0.58, 0.42, 0.66, 0.34, 0.74, 0.26, 0.82, 0.18)
# How much worse it is to cover a node than another label, and that than another way.
NODE, LABEL, WAY = 1000, 100, 1
# What is drawn is looked for in squares of this size.
SQUARE = 40.0

_STYLE = """
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1c2733; }
.note { font-size: 10px; fill: #5a6b7b; }
.label { font: 10px ui-monospace, monospace; paint-order: stroke; stroke: #fff; stroke-width: 3px; }
.node { stroke-width: 1.4; }
.exchange { fill: #fdf3dc; stroke: #b9831c; }
.queue { fill: #e3effa; stroke: #2f6da8; }
.runner { fill: #e5f3e6; stroke: #3b8a45; }
.way { fill: none; stroke: #55636f; stroke-width: 1.3; }
.alternate, .publishes { stroke-dasharray: 6 4; }
.dead-letter { stroke: #a8332f; stroke-dasharray: 2 4; }
"""
_ARROW = (
    '<marker id="{id}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/></marker>'
)
# What no XML may hold, escaped or not.
_FORBIDDEN = re.compile('[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]')


def to_svg(graph: Graph) -> str:
    """:return: the graph as an SVG document."""
    layers = Layers(graph)
    width, height = layers.width, layers.height
    size = f'width="{width:.0f}" height="{height:.0f}"'
    arrows = [_ARROW.format(id='arrow', colour='#55636f'), _ARROW.format(id='dead', colour='#a8332f')]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size} role="img">',
        '<title>Exchanges, queues and runners</title>',
        f'<style>{_STYLE}</style>',
        f'<defs>{"".join(arrows)}</defs>',
        f'<rect {size} fill="#fff"/>',
        *(_line(layers, way) for way in layers.ways),
        *(line for box in layers.boxes.values() for line in _node(box)),
        *_labels(layers),
        '</svg>',
    ]
    return '\n'.join(lines) + '\n'


def _line(layers: Layers, way: Way) -> str:
    if way.moves or way.is_direct:
        line = _curve(_points(way.boxes, 0.0 if way.moves else 0.25))
    else:
        line = _rounded(_beside(layers, way))
    marker = 'arrow' if way.moves else 'dead'
    return f'<path class="way {way.edge.kind}" d="{line}" marker-end="url(#{marker})"/>'


def _points(boxes: list[Box], lower: float = 0.0) -> list[Point]:
    """:param lower: the share of a node's height by which the way begins and ends below its middle."""
    first, last = boxes[0], boxes[-1]
    forward = 1 if last.rank >= first.rank else -1
    if forward < 0:
        lower = -0.25  # or it would seem to come from what leads here
    return [
        (first.x + forward * first.width / 2, first.y + lower * first.height),
        *((box.x, box.y) for box in boxes[1:-1]),
        (last.x - forward * last.width / 2, last.y + lower * last.height),
    ]


def _beside(layers: Layers, way: Way) -> list[Point]:
    """A way beside the layers: out at the right, then to the same side or, from one layer to another, below everything."""
    first, last = way.boxes
    y1, y2, out = first.y + first.height / 4, last.y + last.height / 4, layers.lane_out(way)
    right = (first.x + first.width / 2, y1)
    if first is last:
        y2 = last.y - last.height / 4
    if first.rank == last.rank:
        return [right, (out, y1), (out, y2), (last.x + last.width / 2, y2)]
    below, into = layers.lane_below(way), layers.lane_in(way)
    return [right, (out, y1), (out, below), (into, below), (into, y2), (last.x - last.width / 2, y2)]


def _curve(points: list[Point]) -> str:
    parts = [f'M{points[0][0]:.1f} {points[0][1]:.1f}']
    for (x1, y1), (x2, y2) in pairwise(points):
        half = (x2 - x1) / 2
        parts.append(f'C{x1 + half:.1f} {y1:.1f} {x2 - half:.1f} {y2:.1f} {x2:.1f} {y2:.1f}')
    return ' '.join(parts)


def _rounded(points: list[Point]) -> str:
    parts = [f'M{points[0][0]:.1f} {points[0][1]:.1f}']
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        (x1, y1), (x2, y2) = _towards(corner, before), _towards(corner, after)
        parts.append(f'L{x1:.1f} {y1:.1f} Q{corner[0]:.1f} {corner[1]:.1f} {x2:.1f} {y2:.1f}')
    return ' '.join([*parts, f'L{points[-1][0]:.1f} {points[-1][1]:.1f}'])


def _towards(corner: Point, end: Point) -> Point:
    (x, y), (x2, y2) = corner, end
    length = abs(x2 - x) + abs(y2 - y)  # one of them is nothing
    share = min(CORNER, length / 2) / length if length else 0.0
    return x + (x2 - x) * share, y + (y2 - y) * share


def _on_curve(one: Point, other: Point, t: float) -> Point:
    """:return: a point on the curve that `_curve` draws between two points; `t` runs from 0 to 1."""
    along = t * (1.5 - 1.5 * t + t * t)
    aside = t * t * (3 - 2 * t)
    return one[0] + (other[0] - one[0]) * along, one[1] + (other[1] - one[1]) * aside


class _Ground:
    """What is drawn already, to be found by place."""

    def __init__(self, layers: Layers) -> None:
        self._areas: dict[tuple[int, int], list[tuple[Area, int]]] = defaultdict(list)
        for box in layers.boxes.values():
            left, top = box.x - box.width / 2, box.y - box.height / 2
            space = NODE_SPACE if box.node is not None else 0.0
            area = (left - space, top - space, left + box.width + space, top + box.height + space)
            self.take(area, NODE if box.node is not None else WAY)
        for way in layers.ways if len(layers.ways) <= 1000 else ():  # nobody could read it anyway
            if way.moves or way.is_direct:
                for one, other in pairwise(_points(way.boxes)):
                    steps = max(4, int(abs(other[0] - one[0]) / 12))
                    for step in range(steps + 1):
                        x, y = _on_curve(one, other, step / steps)
                        self.take((x, y, x, y), WAY)

    def take(self, area: Area, weight: int) -> None:
        """Note that something is drawn there."""
        for square in _squares(area):
            self._areas[square].append((area, weight))

    def cost(self, area: Area) -> int:
        """:return: how bad it would be to draw there."""
        found = {known for square in _squares(area) for known in self._areas.get(square, ())}
        return sum(weight for other, weight in found if _meet(area, other))


def _squares(area: Area) -> Iterator[tuple[int, int]]:
    left, top, right, bottom = (int(side // SQUARE) for side in area)
    for x in range(left, right + 1):
        for y in range(top, bottom + 1):
            yield x, y


def _meet(one: Area, other: Area) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def _labels(layers: Layers) -> Iterator[str]:
    ground = _Ground(layers)
    for way in layers.ways:
        if not way.text:
            continue
        points = _points(way.boxes)
        left, top, right, bottom = _free_place(points, len(way.text) * LABEL_CHARACTER, ground)
        ground.take((left, top, right, bottom), LABEL)
        whole = ', '.join(way.labels)
        more = f'<title>{_escaped(whole)}</title>' if whole != way.text else ''
        place = f'x="{(left + right) / 2:.1f}" y="{bottom:.1f}" text-anchor="middle"'
        yield f'<text class="label" {place}>{more}{_escaped(way.text)}</text>'


def _free_place(points: list[Point], width: float, ground: _Ground) -> Area:
    """:return: where a label on the first or the last stretch of a way covers least."""
    stretches = [(points[0], points[1])]
    if len(points) > 2:
        stretches.append((points[-2], points[-1]))
    places = []
    for number, (one, other) in enumerate(stretches):
        for t in PLACES:
            x, y = _on_curve(one, other, t)
            place = (x - width / 2, y - 3 - LABEL_HEIGHT, x + width / 2, y - 3)
            # Its own way runs there in any case; the first stretch is where one looks for it.
            places.append((ground.cost(place) + 4 * number, place))
    return min(places, key=lambda each: each[0])[1]


def _escaped(text: str) -> str:
    return html.escape(_FORBIDDEN.sub('\ufffd', text))


def _node(box: Box) -> Iterator[str]:
    node = box.node
    assert node is not None
    left, top = box.x - box.width / 2, box.y - box.height / 2
    round_ = {'exchange': 3.0, 'queue': 3.0, 'runner': box.height / 2}[node.kind]
    size = f'x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    yield f'<rect class="node {node.kind}" {size} rx="{round_}"/>'
    if node.kind == 'queue':  # messages, one behind the other
        for back in (6, 11):
            x = left + box.width - back
            yield f'<path class="node queue" d="M{x:.1f} {top:.1f} V{top + box.height:.1f}"/>'
    shift = -3 if node.note else 4
    middle = box.x - 5 * (node.kind == 'queue')
    yield f'<text x="{middle:.1f}" y="{box.y + shift:.1f}" text-anchor="middle">{_escaped(node.name)}</text>'
    if node.note:
        note = _escaped(short(node.note))
        yield f'<text class="note" x="{box.x:.1f}" y="{box.y + 11:.1f}" text-anchor="middle">{note}</text>'
