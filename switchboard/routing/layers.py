"""Where the nodes of a topology stand in its picture: in layers from left to right.

As in every drawing by layers: edges that would make a circle are turned for as long as layers are given out; each node stands one
layer behind what leads to it; edges over several layers get a bend in each; and the nodes of a layer are put where their
neighbours are, back and forth some times.  Ways of dead letters move no node: they run in lanes beside the layers and below
everything.

Good for some dozens of nodes.  For hundreds there is Graphviz, which knows all that is not here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from switchboard.routing.topology import Edge, Graph, Node, NodeKind

End = tuple[NodeKind, str]

MARGIN, ROW_GAP, BEND_HEIGHT = 24.0, 18.0, 14.0
CHARACTER, PADDING, LEAST_WIDTH = 7.0, 14.0, 60.0
LABEL_CHARACTER, MAX_LABEL, MAX_NOTE = 6.1, 44, 34
# Between two lanes of dead letters, and between the first one and what it runs beside.
LANE, LANE_SPACE = 6.0, 10.0
SWEEPS = 12


@dataclass(eq=False)
class Box:
    """A node, or the bend of an edge that crosses a layer; `x` and `y` are its middle."""

    node: Node | None
    rank: int
    x: float = 0.0
    y: float = 0.0
    before: list[Box] = field(default_factory=list)
    after: list[Box] = field(default_factory=list)

    @property
    def width(self) -> float:
        """How wide it is drawn."""
        if self.node is None:
            return 0.0
        longest = max(len(self.node.name), len(short(self.node.note)) * 0.85)
        return max(LEAST_WIDTH, longest * CHARACTER + 2 * PADDING)

    @property
    def height(self) -> float:
        """How high it is drawn."""
        if self.node is None:
            return BEND_HEIGHT
        return 40.0 if self.node.note else 30.0


@dataclass(eq=False)
class Way:
    """All edges of one kind between the same two nodes, and the boxes that they pass."""

    edge: Edge
    labels: list[str]
    boxes: list[Box] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What is written beside it."""
        shown = ', '.join(self.labels[:3]) + (f' +{len(self.labels) - 3}' if len(self.labels) > 3 else '')
        return shown if len(shown) <= MAX_LABEL else shown[: MAX_LABEL - 1] + '\u2026'

    @property
    def moves(self) -> bool:
        """Do its nodes stand where it wants them to?"""
        return self.edge.kind != 'dead-letter'

    @property
    def is_direct(self) -> bool:
        """Does it lead to the next layer, so that nothing is in between?"""
        return self.boxes[-1].rank == self.boxes[0].rank + 1


class Layers:
    """A graph whose nodes have their places.

    :ivar boxes: by the node's kind and name.
    :ivar ways: in the order of the edges.
    :ivar sides: the left and the right side of each layer.
    """

    def __init__(self, graph: Graph) -> None:
        known = {(node.kind, node.name): node for node in graph.nodes}
        self.ways = merged(edge for edge in graph.edges if edge.source in known and edge.target in known)
        ranks = ranked(list(known), [(way.edge.source, way.edge.target) for way in self.ways if way.moves])
        self.boxes = {end: Box(node, ranks[end]) for end, node in known.items()}
        self._layers: list[list[Box]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
        for box in self.boxes.values():
            self._layers[box.rank].append(box)
        for way in self.ways:
            self._lay(way)
        # Dead letters for one target share their lanes: one for each layer that they come from, one below, one up to it.
        self._out: dict[int, list[End]] = defaultdict(list)
        self._in: dict[int, list[End]] = defaultdict(list)
        self._below: list[End] = []
        for way in self.ways:
            self._give_lanes(way)
        self.sides: list[tuple[float, float]] = []
        self._place()

    def _lay(self, way: Way) -> None:
        source, target = self.boxes[way.edge.source], self.boxes[way.edge.target]
        way.boxes = [source]
        if way.moves:
            step = 1 if target.rank > source.rank else -1
            for rank in range(source.rank + step, target.rank, step):
                bend = Box(None, rank)
                self._layers[rank].append(bend)
                way.boxes.append(bend)
        way.boxes.append(target)
        for one, other in pairwise(way.boxes) if way.moves else ():
            first, second = (one, other) if one.rank < other.rank else (other, one)
            first.after.append(second)
            second.before.append(first)

    def _give_lanes(self, way: Way) -> None:
        if way.moves or way.is_direct:
            return
        target = way.edge.target
        lanes = [self._out[way.boxes[0].rank]]
        if way.boxes[0].rank != way.boxes[1].rank:
            lanes += [self._below, self._in[way.boxes[1].rank]]
        for lane in lanes:
            if target not in lane:
                lane.append(target)

    def lane_out(self, way: Way) -> float:
        """:return: where the lane right of the source's layer is."""
        rank = way.boxes[0].rank
        return self.sides[rank][1] + LANE_SPACE + LANE * self._out[rank].index(way.edge.target)

    def lane_in(self, way: Way) -> float:
        """:return: where the lane left of the target's layer is."""
        rank = way.boxes[-1].rank
        return self.sides[rank][0] - 2 * LANE_SPACE - LANE * self._in[rank].index(way.edge.target)

    def lane_below(self, way: Way) -> float:
        """:return: where the lane below all layers is."""
        return self.low + LANE_SPACE + LANE * self._below.index(way.edge.target)

    @property
    def low(self) -> float:
        """Where the lowest box ends."""
        return max((box.y + box.height / 2 for layer in self._layers for box in layer), default=0.0)

    @property
    def height(self) -> float:
        """Of the whole picture."""
        return self.low + MARGIN + (LANE_SPACE + LANE * len(self._below) if self._below else 0.0)

    @property
    def width(self) -> float:
        """Of the whole picture."""
        lanes = self._out[len(self._layers) - 1]
        right = self.sides[-1][1] if self.sides else 0.0
        return right + MARGIN + (LANE_SPACE + LANE * len(lanes) if lanes else 0.0)

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
        x = MARGIN + self._lanes(-1)
        for number, layer in enumerate(self._layers):
            width = max((box.width for box in layer), default=0.0)
            for box in layer:
                box.x, box.y = x + width / 2, box.y - top + MARGIN
            self.sides.append((x, x + width))
            x += width + self._gap(number)

    def _gap(self, number: int) -> float:
        labels = [
            len(way.text)
            for way in self.ways
            if min(box.rank for box in way.boxes[:2]) == number and way.moves
        ]
        return 50.0 + max(labels, default=0) * LABEL_CHARACTER + self._lanes(number)

    def _lanes(self, number: int) -> float:
        """:return: how much room the lanes between two layers take."""
        out, into = self._out[number], self._in[number + 1]
        return sum(LANE_SPACE + LANE * len(lanes) for lanes in (out, into) if lanes)

    def _stack(self, layer: list[Box], wanted: dict[Box, float] | None = None) -> None:
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


def short(note: str) -> str:
    """:return: the end of a note that is too long."""
    return note if len(note) <= MAX_NOTE else '\u2026' + note[1 - MAX_NOTE :]


def merged(edges: Iterable[Edge]) -> list[Way]:
    """:return: one way for all edges of a kind between the same two nodes."""
    ways: dict[tuple[End, End, str], Way] = {}
    for edge in edges:
        way = ways.setdefault((edge.source, edge.target, edge.kind), Way(edge, []))
        label = edge.label if edge.kind == 'binding' else {'alternate': 'alternate'}.get(edge.kind, '')
        if label and label not in way.labels:
            way.labels.append(label)
    return list(ways.values())


def ranked(ends: list[End], edges: list[tuple[End, End]]) -> dict[End, int]:
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


def _middle(neighbours: list[Box], box: Box) -> float:
    return sum(one.y for one in neighbours) / len(neighbours) if neighbours else box.y
