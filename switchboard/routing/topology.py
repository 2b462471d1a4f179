"""The picture of an installation: which exchange feeds which queue, as text for a terminal and as DOT for Graphviz.

Pure data.  The exchange table draws itself into a :class:`Graph`; a caller that knows more (which runner takes from which queue)
adds nodes and edges to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

NodeKind = Literal['exchange', 'queue', 'runner']
EdgeKind = Literal['binding', 'alternate', 'consumes', 'publishes', 'dead-letter']

_SHAPES = {'exchange': 'diamond', 'queue': 'box', 'runner': 'ellipse'}
_STYLES = {'alternate': 'dashed', 'dead-letter': 'dotted', 'publishes': 'dashed'}


class Node(NamedTuple):
    """An exchange, a queue or a runner; `note` is a word about it, such as the exchange's type."""

    kind: NodeKind
    name: str
    note: str = ''

    def fields(self) -> dict[str, str]:
        """:return: the node for programs."""
        return {'node': self.kind, 'name': self.name, 'note': self.note}

    def __str__(self) -> str:
        return f'{self.kind} {self.name}' + (f' ({self.note})' if self.note else '')


class Edge(NamedTuple):
    """A way that messages go; `label` is the pattern of a binding."""

    source: tuple[NodeKind, str]
    target: tuple[NodeKind, str]
    kind: EdgeKind
    label: str = ''

    def fields(self) -> dict[str, str | list[str]]:
        """:return: the way for programs: ends are kind and name."""
        return {'edge': self.kind, 'from': [*self.source], 'to': [*self.target], 'label': self.label}


class Graph(NamedTuple):
    """Nodes and edges, in the order in which the configuration names them."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    def with_more(self, nodes: Iterable[Node], edges: Iterable[Edge]) -> Graph:
        """:return: this graph with the given nodes and edges; a node that is there already stays as it is."""
        known = {(node.kind, node.name): node for node in self.nodes}
        for node in nodes:
            known.setdefault((node.kind, node.name), node)
        return Graph(tuple(known.values()), (*self.edges, *edges))

    def to_text(self) -> str:
        """:return: each node with what leaves it, one line an edge."""
        leaving: dict[tuple[NodeKind, str], list[Edge]] = {}
        for edge in self.edges:
            leaving.setdefault(edge.source, []).append(edge)
        lines: list[str] = []
        for node in self.nodes:
            edges = leaving.get((node.kind, node.name), [])
            if not edges and node.kind == 'queue':
                continue
            lines.append(str(node))
            labels = [_label(edge) for edge in edges]
            # One pattern of 200 characters must not push all arrows out of sight.
            width = min(max((len(label) for label in labels), default=0), 40)
            lines += [
                f'    {label:<{width}} -> {_place(edge.target)}'
                for label, edge in zip(labels, edges, strict=True)
            ]
        return '\n'.join(lines) + '\n' if lines else ''

    def to_dot(self) -> str:
        """:return: the graph in Graphviz' language: ``switchboard graph --dot | dot -Tsvg``."""
        lines = ['digraph switchboard {', '    rankdir=LR;', '    node [fontname="sans-serif"];']
        for node in self.nodes:
            label = node.name + (f'\n{node.note}' if node.note else '')
            lines.append(
                f'    {_id(node.kind, node.name)} [label={_quoted(label)}, shape={_SHAPES[node.kind]}];'
            )
        for edge in self.edges:
            style = _STYLES.get(edge.kind, 'solid')
            lines.append(
                f'    {_id(*edge.source)} -> {_id(*edge.target)} [label={_quoted(_label(edge))}, style={style}];'
            )
        return '\n'.join([*lines, '}', ''])


def _label(edge: Edge) -> str:
    return edge.label if edge.kind == 'binding' else f'({edge.kind})'


def _place(end: tuple[NodeKind, str]) -> str:
    kind, name = end
    return name if kind == 'queue' else f'{kind}:{name}'


def _id(kind: str, name: str) -> str:
    return _quoted(f'{kind}:{name}')


def _quoted(text: str) -> str:
    return '"' + text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n') + '"'
