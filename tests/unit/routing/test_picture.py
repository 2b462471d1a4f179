"""The picture of a topology: whole, well-formed, and with nothing on top of anything."""

from __future__ import annotations

import re
import time
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchboard.config.config import Config
from switchboard.routing.picture import to_svg
from switchboard.routing.topology import Edge, EdgeKind, Graph, Node, NodeKind

SVG = '{http://www.w3.org/2000/svg}'
KINDS: list[NodeKind] = ['exchange', 'queue', 'runner']
WAYS: list[EdgeKind] = ['binding', 'alternate', 'consumes', 'publishes', 'dead-letter']


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """:return: left, top, right and bottom of each node, in the order of the graph's nodes."""
    found = []
    for rect in ElementTree.fromstring(svg).iter(f'{SVG}rect'):
        if 'node' in rect.get('class', ''):
            x, y, width, height = (float(rect.get(name, '')) for name in ('x', 'y', 'width', 'height'))
            found.append((x, y, x + width, y + height))
    return found


def texts(svg: str) -> list[str]:
    return [
        (text.text or '') + ''.join(child.tail or '' for child in text)
        for text in ElementTree.fromstring(svg).iter(f'{SVG}text')
    ]


def chain(*ends: tuple[NodeKind, str]) -> Graph:
    """A graph in which each node leads to the next."""
    nodes = tuple(Node(kind, name) for kind, name in ends)
    return Graph(nodes, tuple(Edge(a, b, 'binding', 'key') for a, b in pairwise(ends)))


def test_what_leads_to_something_stands_left_of_it() -> None:
    svg = to_svg(chain(('exchange', 'mail'), ('queue', 'in'), ('runner', 'work')))
    mail, queue, runner = boxes(svg)
    assert mail[2] < queue[0]
    assert queue[2] < runner[0]
    assert [text for text in texts(svg) if text != 'key'] == ['mail', 'in', 'work']


def test_an_empty_graph_is_an_empty_picture() -> None:
    assert boxes(to_svg(Graph())) == []


def test_several_bindings_between_the_same_two_are_one_line() -> None:
    edges = tuple(Edge(('exchange', 'x'), ('queue', 'q'), 'binding', f'key{number}') for number in range(5))
    svg = to_svg(Graph((Node('exchange', 'x'), Node('queue', 'q')), edges))
    assert 'key0, key1, key2 +2' in texts(svg)
    assert svg.count('marker-end') == 1


def test_what_people_write_into_patterns_stays_text() -> None:
    nasty = '<script>&"\x00\x1b]]>'
    edge = Edge(('exchange', 'x'), ('queue', 'q'), 'binding', nasty)
    svg = to_svg(Graph((Node('exchange', 'x', nasty), Node('queue', 'q')), (edge,)))
    assert any(text.startswith('<script>&"') for text in texts(svg))


def test_a_circle_can_be_drawn() -> None:
    graph = chain(('exchange', 'a'), ('queue', 'b'), ('runner', 'c'))
    back = Edge(('runner', 'c'), ('exchange', 'a'), 'publishes')
    assert len(boxes(to_svg(Graph(graph.nodes, (*graph.edges, back))))) == 3


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    names = draw(
        st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from('abcdef')), unique=True, max_size=14)
    )
    nodes = tuple(Node(kind, name, draw(st.sampled_from(['', 'note']))) for kind, name in names)
    if not names:
        return Graph(nodes)
    ends = st.sampled_from(names)
    edge = st.builds(Edge, ends, ends, st.sampled_from(WAYS), st.sampled_from(['', 'key', 'a.#']))
    return Graph(nodes, tuple(draw(st.lists(edge, max_size=30))))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_no_node_stands_on_another_and_all_are_inside(graph: Graph) -> None:
    svg = to_svg(graph)
    found = boxes(svg)
    assert len(found) == len(graph.nodes)
    for one, other in combinations(found, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    width, height = map(float, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    assert all(
        left >= 0 and top >= 0 and right <= width and bottom <= height for left, top, right, bottom in found
    )


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_ways_of_dead_letters_run_through_no_node(graph: Graph) -> None:
    svg = to_svg(graph)
    found = boxes(svg)
    for path in ElementTree.fromstring(svg).iter(f'{SVG}path'):
        line = path.get('d', '')
        if 'dead-letter' not in path.get('class', '') or 'C' in line:
            continue  # a curve leads to the next layer, with nothing in between
        numbers = [float(number) for number in re.findall(r'-?[\d.]+', line)]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        for (x1, y1), (x2, y2) in pairwise(points):
            left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
            for box in found:
                assert right <= box[0] + 0.2 or box[2] - 0.2 <= left or bottom <= box[1] or box[3] <= top


def test_labels_stand_beside_nodes_and_not_on_them() -> None:
    """As in a usual topology: long conditions beside short ways, and many bindings of one exchange."""
    nodes = [Node('exchange', 'x', 'topic'), Node('exchange', 'y', 'headers'), Node('queue', 'in')]
    edges = [Edge(('queue', 'in'), ('runner', 'route'), 'consumes')]
    nodes.append(Node('runner', 'route', 'runners.route:Route'))
    for number in range(20):
        nodes.append(Node('queue', f'queue{number}'))
        edges.append(Edge(('exchange', 'x'), ('queue', f'queue{number}'), 'binding', f'some.*.key{number}.#'))
    edges.append(Edge(('exchange', 'y'), ('queue', 'queue19'), 'binding', 'all: format=pdf, kind=report'))
    edges.append(Edge(('runner', 'route'), ('exchange', 'x'), 'publishes'))
    svg = to_svg(Graph(tuple(nodes), tuple(edges)))
    labels = [text for text in ElementTree.fromstring(svg).iter(f'{SVG}text') if text.get('class') == 'label']
    assert len(labels) == 21
    for label in labels:
        half = len(label.text or '') * 5.8 / 2
        x, y = float(label.get('x', '')), float(label.get('y', ''))
        for left, top, right, bottom in boxes(svg):
            assert x + half <= left or right <= x - half or y <= top or bottom <= y - 9


def test_a_label_that_is_cut_says_all_of_it_when_it_is_pointed_at() -> None:
    edge = Edge(('exchange', 'x'), ('queue', 'q'), 'binding', 'word.' * 20)
    svg = to_svg(Graph((Node('exchange', 'x'), Node('queue', 'q')), (edge,)))
    titles = [title.text for title in ElementTree.fromstring(svg).iter(f'{SVG}title')]
    assert 'word.' * 20 in titles


@pytest.mark.parametrize('queues', [900, 2000])
def test_a_large_installation_is_drawn_in_a_moment(queues: int) -> None:
    nodes = (Node('exchange', 'x'), *(Node('queue', f'q{number}') for number in range(queues)))
    edges = tuple(
        Edge(('exchange', 'x'), ('queue', f'q{number}'), 'binding', 'k') for number in range(queues)
    )
    began_s = time.process_time()
    to_svg(Graph(nodes, edges))
    assert time.process_time() - began_s < 20


def test_the_picture_in_the_manual_is_that_of_the_sample_configuration() -> None:
    root = Path(__file__).parents[3]
    drawn = to_svg(Config.load(root / 'etc' / 'switchboard.cfg').graph())
    assert (root / 'docs' / 'reference' / 'graph.svg').read_text() == drawn
