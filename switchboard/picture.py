"""The topology as a picture: SVG, drawn in layers from left to right, without any other program.

As in every drawing by layers: edges that would make a circle are turned for as long as layers are given out; each node stands one
layer behind what leads to it; edges over several layers get a bend in each; and the nodes of a layer are put where their
neighbours are, back and forth some times.  Ways of dead letters go where they may: they move no node.

Good for some dozens of nodes.  For hundreds there is Graphviz, which knows all that is not here.
"""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from switchboard.topology import Edge, Graph, Node, NodeKind

End = tuple[NodeKind, str]
Point = tuple[float, float]

MARGIN, ROW_GAP, BEND_HEIGHT = 24.0, 18.0, 14.0
CHARACTER, PADDING, LEAST_WIDTH = 7.0, 14.0, 60.0
LABEL_CHARACTER, LABEL_HEIGHT, MAX_LABEL = 5.8, 12.0, 44
SWEEPS = 12

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


@dataclass(eq=False)
class _Box:
    """A node, or the bend of an edge that crosses a layer."""

    node: Node | None
    rank: int
    x: float = 0.0
    y: float = 0.0
    before: list[_Box] = field(default_factory=list)
    after: list[_Box] = field(default_factory=list)

    @property
    def width(self) -> float:
        if self.node is None:
            return 0.0
        longest = max(len(self.node.name), len(_short(self.node.note)) * 0.85)
        return max(LEAST_WIDTH, longest * CHARACTER + 2 * PADDING)

    @property
    def height(self) -> float:
        if self.node is None:
            return BEND_HEIGHT
        return 40.0 if self.node.note else 30.0


@dataclass(eq=False)
class _Way:
    """All edges of one kind between the same two nodes, and the boxes that they pass."""

    edge: Edge
    labels: list[str]
    boxes: list[_Box] = field(default_factory=list)

    @property
    def text(self) -> str:
        shown = ', '.join(self.labels[:3]) + (f' +{len(self.labels) - 3}' if len(self.labels) > 3 else '')
        return shown if len(shown) <= MAX_LABEL else shown[: MAX_LABEL - 1] + '\u2026'


def to_svg(graph: Graph) -> str:
    """:return: the graph as an SVG document."""
    return _Drawing(graph).svg()


class _Drawing:
    def __init__(self, graph: Graph) -> None:
        known = {(node.kind, node.name): node for node in graph.nodes}
        self._ways = _merged(edge for edge in graph.edges if edge.source in known and edge.target in known)
        ranks = _ranks(list(known), [(way.edge.source, way.edge.target) for way in self._ways if _moves(way)])
        self._boxes = {end: _Box(node, ranks[end]) for end, node in known.items()}
        self._layers: list[list[_Box]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
        for box in self._boxes.values():
            self._layers[box.rank].append(box)
        for way in self._ways:
            self._lay(way)
        self._place()

    def _lay(self, way: _Way) -> None:
        source, target = self._boxes[way.edge.source], self._boxes[way.edge.target]
        way.boxes = [source]
        if _moves(way):
            step = 1 if target.rank > source.rank else -1
            for rank in range(source.rank + step, target.rank, step):
                bend = _Box(None, rank)
                self._layers[rank].append(bend)
                way.boxes.append(bend)
        way.boxes.append(target)
        for one, other in pairwise(way.boxes) if _moves(way) else ():
            first, second = (one, other) if one.rank < other.rank else (other, one)
            first.after.append(second)
            second.before.append(first)

    # Where everything stands.

    def _place(self) -> None:
        for layer in self._layers:
            self._stack(layer)
        for sweep in range(SWEEPS):
            downward = sweep % 2 == 0
            for layer in self._layers if downward else reversed(self._layers):
                middles = {box: _middle(box.before if downward else box.after, box) for box in layer}
                layer.sort(key=middles.__getitem__)
                self._stack(layer, middles)
        top = min((box.y - box.height / 2 for layer in self._layers for box in layer), default=0.0)
        x = MARGIN
        for number, layer in enumerate(self._layers):
            width = max((box.width for box in layer), default=0.0)
            for box in layer:
                box.x, box.y = x + width / 2, box.y - top + MARGIN
            x += width + self._gap(number)

    def _gap(self, number: int) -> float:
        labels = [
            len(way.text)
            for way in self._ways
            if min(box.rank for box in way.boxes[:2]) == number and _moves(way)
        ]
        return 50.0 + max(labels, default=0) * LABEL_CHARACTER

    def _stack(self, layer: list[_Box], wanted: dict[_Box, float] | None = None) -> None:
        """Put the boxes of a layer below each other, in their order, each as near to where it wants to be as there is room."""
        y = -1e9
        for box in layer:
            least = y + box.height / 2 + ROW_GAP if y > -1e9 else (wanted or {}).get(box, 0.0)
            box.y = max(least, (wanted or {}).get(box, least))
            y = box.y + box.height / 2
        if wanted:  # what was pushed down moves all of them up by half
            shift = sum(wanted[box] - box.y for box in layer) / len(layer)
            for box in layer:
                box.y += shift

    # How it looks.

    def svg(self) -> str:
        boxes = [box for layer in self._layers for box in layer]
        low = max((box.y + box.height / 2 for box in boxes), default=0.0)
        width = max((box.x + box.width / 2 for box in boxes), default=0.0) + MARGIN
        bows = sum(1 for way in self._ways if not _moves(way))
        height = low + MARGIN + (20.0 + 9.0 * bows if bows else 0.0)
        taken: list[tuple[float, float, float, float]] = []
        ways = [line for number, way in enumerate(self._ways) for line in self._way(way, number, low, taken)]
        nodes = [line for box in self._boxes.values() for line in _node(box)]
        size = f'width="{width:.0f}" height="{height:.0f}"'
        arrows = [_ARROW.format(id='arrow', colour='#55636f'), _ARROW.format(id='dead', colour='#a8332f')]
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size} role="img">',
            '<title>Exchanges, queues and runners</title>',
            f'<style>{_STYLE}</style>',
            f'<defs>{"".join(arrows)}</defs>',
            f'<rect {size} fill="#fff"/>',
            *(line for line in ways if line.startswith('<path')),
            *nodes,
            *(line for line in ways if not line.startswith('<path')),
            '</svg>',
        ]
        return '\n'.join(lines) + '\n'

    def _way(
        self, way: _Way, number: int, low: float, taken: list[tuple[float, float, float, float]]
    ) -> Iterator[str]:
        if _moves(way):
            points = _points(way.boxes)
            line = _curve(points)
        else:
            points = _bow(way.boxes, low + 16.0 + 9.0 * (number % 12))
            line = _arc(points)
        marker = 'dead' if way.edge.kind == 'dead-letter' else 'arrow'
        yield f'<path class="way {way.edge.kind}" d="{line}" marker-end="url(#{marker})"/>'
        if way.text:
            x, y = _free_place(points, len(way.text) * LABEL_CHARACTER, taken)
            yield f'<text class="label" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{_escaped(way.text)}</text>'


def _moves(way: _Way) -> bool:
    return way.edge.kind != 'dead-letter'


def _short(note: str) -> str:
    return note if len(note) <= 34 else '\u2026' + note[-33:]


def _escaped(text: str) -> str:
    return html.escape(_FORBIDDEN.sub('\ufffd', text))


def _merged(edges: Iterable[Edge]) -> list[_Way]:
    ways: dict[tuple[End, End, str], _Way] = {}
    for edge in edges:
        way = ways.setdefault((edge.source, edge.target, edge.kind), _Way(edge, []))
        label = edge.label if edge.kind == 'binding' else {'alternate': 'alternate'}.get(edge.kind, '')
        if label and label not in way.labels:
            way.labels.append(label)
    return list(ways.values())


def _ranks(ends: list[End], edges: list[tuple[End, End]]) -> dict[End, int]:
    """:return: for each node a layer behind all that lead to it; where they lead in a circle, the last edge found does not count."""
    onward: dict[End, list[End]] = defaultdict(list)
    entered = {target for _, target in edges}
    for source, target in edges:
        onward[source].append(target)
    order: list[End] = []
    state: dict[End, int] = {}
    straight: dict[End, list[End]] = defaultdict(list)
    for first in sorted(ends, key=lambda end: end in entered):
        ahead: list[tuple[End, Iterator[End]]] = []
        if first not in state:
            state[first] = 1
            ahead.append((first, iter(onward[first])))
        while ahead:
            at, rest = ahead[-1]
            after = next(rest, None)
            if after is None:
                state[at] = 2
                order.append(at)
                ahead.pop()
            elif state.get(after) != 1:
                straight[at].append(after)
                if after not in state:
                    state[after] = 1
                    ahead.append((after, iter(onward[after])))
    ranks = dict.fromkeys(ends, 0)
    for at in reversed(order):
        for target in straight[at]:
            ranks[target] = max(ranks[target], ranks[at] + 1)
    return ranks


def _middle(neighbours: list[_Box], box: _Box) -> float:
    return sum(one.y for one in neighbours) / len(neighbours) if neighbours else box.y


def _points(boxes: list[_Box]) -> list[Point]:
    first, last = boxes[0], boxes[-1]
    forward = 1 if last.x >= first.x else -1
    return [
        (first.x + forward * first.width / 2, first.y),
        *((box.x, box.y) for box in boxes[1:-1]),
        (last.x - forward * last.width / 2, last.y),
    ]


def _bow(boxes: list[_Box], low: float) -> list[Point]:
    """A way beside the layers: out at the side and in at the side or, from one layer to another, below everything."""
    first, last = boxes
    if first.rank == last.rank:
        side = max(first.x + first.width / 2, last.x + last.width / 2) + 26
        return [
            (first.x + first.width / 2, first.y),
            (side, first.y),
            (side, last.y),
            (last.x + last.width / 2, last.y),
        ]
    return [
        (first.x, first.y + first.height / 2),
        (first.x, low),
        (last.x, low),
        (last.x, last.y + last.height / 2),
    ]


def _curve(points: list[Point]) -> str:
    parts = [f'M{points[0][0]:.1f} {points[0][1]:.1f}']
    for (x1, y1), (x2, y2) in pairwise(points):
        half = (x2 - x1) / 2
        parts.append(f'C{x1 + half:.1f} {y1:.1f} {x2 - half:.1f} {y2:.1f} {x2:.1f} {y2:.1f}')
    return ' '.join(parts)


def _arc(points: list[Point]) -> str:
    (x1, y1), *middle, (x2, y2) = points
    return f'M{x1:.1f} {y1:.1f} C{" ".join(f"{x:.1f} {y:.1f}" for x, y in middle)} {x2:.1f} {y2:.1f}'


def _free_place(points: list[Point], width: float, taken: list[tuple[float, float, float, float]]) -> Point:
    """:return: where a label on the first stretch of a way meets no other one."""
    (x1, y1), (x2, y2) = points[0], points[1]
    places = []
    for share in (0.5, 0.6, 0.4, 0.7, 0.3):
        # The curve itself: flat at both ends.
        x, y = x1 + (x2 - x1) * share, y1 + (y2 - y1) * share * share * (3 - 2 * share) - 3
        places.append((x - width / 2, y - LABEL_HEIGHT, x + width / 2, y))
    best = min(places, key=lambda place: sum(_meet(place, other) for other in taken))
    taken.append(best)
    return (best[0] + best[2]) / 2, best[3]


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _node(box: _Box) -> Iterator[str]:
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
        note = _escaped(_short(node.note))
        yield f'<text class="note" x="{box.x:.1f}" y="{box.y + 11:.1f}" text-anchor="middle">{note}</text>'
