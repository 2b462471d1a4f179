"""Routing against references that are slow, short and plainly right."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.config.exchangefile import redundant
from switchboard.errors import NoRouteError
from switchboard.routing.exchange import Binding, Exchange, ExchangeTable, ExchangeType, HeaderMatch, Target
from switchboard.routing.headers import comparable_text
from switchboard.routing.topics import TopicTrie, explain_mismatch, normalize_pattern, split_words

pytestmark = pytest.mark.slow

# Few letters, so that keys and patterns meet; an empty word now and then.
WORDS = st.sampled_from(['a', 'a', 'b', 'c', ''])
KEYS = st.lists(WORDS, max_size=7).map('.'.join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(['*', '#', '#'])), max_size=7).map('.'.join)

VALUES = st.one_of(
    st.sampled_from(['x', 'y', '1', 'true']), st.integers(0, 2), st.booleans(), st.none(), st.just([1])
)
HEADERS = st.dictionaries(st.sampled_from('abcd'), VALUES, max_size=4)
CONDITIONS = st.tuples(st.sampled_from('abcd'), st.sampled_from([None, 'x', 'y', '1', 'true', 'null']))
MATCHES = st.builds(HeaderMatch, st.sampled_from(['all', 'any']), st.lists(CONDITIONS, max_size=3).map(tuple))


def matches(pattern: str, key: str) -> bool:
    """The definition: try each way to share out the words."""
    wanted, given_words = split_words(pattern), split_words(key)

    @functools.cache
    def fits(i: int, j: int) -> bool:
        if i == len(wanted):
            return j == len(given_words)
        if wanted[i] == '#':
            return fits(i + 1, j) or (j < len(given_words) and fits(i, j + 1))
        return j < len(given_words) and wanted[i] in ('*', given_words[j]) and fits(i + 1, j + 1)

    return fits(0, 0)


@given(st.lists(PATTERNS, max_size=12), KEYS)
def test_the_trie_finds_what_each_pattern_alone_would(patterns: list[str], key: str) -> None:
    expected = [number for number, pattern in enumerate(patterns) if matches(pattern, key)]
    assert TopicTrie(patterns).match(key) == expected


@given(PATTERNS, KEYS)
def test_the_canonical_form_of_a_pattern_matches_the_same_keys(pattern: str, key: str) -> None:
    form = '.'.join(normalize_pattern(pattern))
    assert matches(form, key) == matches(pattern, key)
    assert '.'.join(normalize_pattern(form)) == form


@given(PATTERNS, KEYS)
def test_a_mismatch_can_always_be_told_in_words(pattern: str, key: str) -> None:
    assert explain_mismatch(pattern, key)


def holds(condition: tuple[str, str | None], headers: Mapping[str, object]) -> bool:
    key, wanted = condition
    return key in headers and (wanted is None or comparable_text(headers[key]) == wanted)


@given(st.lists(MATCHES, max_size=8), HEADERS)
def test_the_index_of_headers_finds_what_each_binding_alone_would(
    found: list[HeaderMatch], headers: dict[str, object]
) -> None:
    bindings = tuple(Binding(match, (Target(f'q{number}'),)) for number, match in enumerate(found))
    table = ExchangeTable([Exchange('x', 'headers', bindings, Target('rest'))])
    expected = []
    for number, match in enumerate(found):
        results = [holds(condition, headers) for condition in match.conditions]
        if all(results) if match.mode == 'all' else any(results):
            expected.append(f'q{number}')
    assert table.route('x', '', headers) == (tuple(expected) or ('rest',))


KINDS: list[ExchangeType] = ['direct', 'fanout', 'topic', 'headers']
QUEUES = st.sampled_from(['q1', 'q2', 'q3', 'q4'])


@st.composite
def tables(draw: st.DrawFn) -> ExchangeTable:
    """Up to five exchanges; each leads only to later ones, so there is no circle."""
    names = [f'x{number}' for number in range(draw(st.integers(1, 5)))]
    exchanges = []
    for number, name in enumerate(names):
        kind: ExchangeType = draw(st.sampled_from(KINDS))
        queues = QUEUES.map(Target)
        later = names[number + 1 :]
        targets = (
            st.one_of(queues, st.sampled_from(later).map(lambda one: Target(one, True))) if later else queues
        )
        match = {'direct': KEYS, 'fanout': st.just(''), 'topic': PATTERNS, 'headers': MATCHES}[kind]
        binding = st.builds(Binding, match, st.lists(targets, min_size=1, max_size=3).map(tuple))
        bindings = draw(st.lists(binding, max_size=4).map(tuple))
        exchanges.append(Exchange(name, kind, bindings, draw(st.none() | targets)))
    return ExchangeTable(exchanges)


def reference(table: ExchangeTable, name: str, key: str, headers: Mapping[str, object]) -> list[str]:
    """What the words of the reference say, with no memory of what was asked before."""
    exchange = table.exchanges[name]

    def fits(binding: Binding) -> bool:
        if isinstance(binding.match, HeaderMatch):
            results = [holds(condition, headers) for condition in binding.match.conditions]
            return all(results) if binding.match.mode == 'all' else any(results)
        if exchange.type == 'topic':
            return matches(binding.match, key)
        return exchange.type == 'fanout' or binding.match == key

    def follow(target: Target) -> list[str]:
        return reference(table, target.name, key, headers) if target.is_exchange else [target.name]

    queues = [
        queue
        for binding in exchange.bindings
        if fits(binding)
        for target in binding.targets
        for queue in follow(target)
    ]
    if not queues and exchange.alternate is not None:
        queues = follow(exchange.alternate)
    return list(dict.fromkeys(queues))


@given(tables(), KEYS, HEADERS)
def test_a_table_routes_as_the_reference_does(
    table: ExchangeTable, key: str, headers: dict[str, object]
) -> None:
    expected = reference(table, 'x0', key, headers)
    if expected:
        assert list(table.route('x0', key, headers)) == expected
    else:
        with pytest.raises(NoRouteError):
            table.route('x0', key, headers)


@given(tables(), KEYS, HEADERS)
def test_an_explanation_delivers_what_routing_does(
    table: ExchangeTable, key: str, headers: dict[str, object]
) -> None:
    steps = table.explain('x0', key, headers)
    delivered = [queue for step in steps for queue in step.delivered]
    assert sorted(delivered) == sorted(reference(table, 'x0', key, headers))
    assert all(step.reason and str(step) for step in steps)


@given(tables())
def test_a_table_survives_pickling_and_can_be_drawn(table: ExchangeTable) -> None:
    assert pickle.loads(pickle.dumps(table)) == table
    graph = table.graph()
    known = {(node.kind, node.name) for node in graph.nodes}
    assert all(edge.source in known and edge.target in known for edge in graph.edges)
    assert graph.to_dot().count(' -> ') >= len(graph.edges)


@given(st.lists(PATTERNS, min_size=1, max_size=6), st.lists(KEYS, min_size=1, max_size=20))
def test_a_binding_that_is_called_redundant_can_go(patterns: list[str], keys: list[str]) -> None:
    exchange = Exchange('x', 'topic', tuple(Binding(pattern, (Target('q'),)) for pattern in patterns))
    gone = {number for number, _, _ in redundant(exchange)}
    left = [pattern for number, pattern in enumerate(patterns) if number not in gone]
    for key in keys:
        assert any(matches(one, key) for one in left) == any(matches(one, key) for one in patterns)
