from __future__ import annotations

import itertools
import pickle
import sys
import time
from types import FrameType
from typing import Any

import pytest

from switchboard.errors import NoRouteError, RouteError, RouteLoopError, UnknownExchangeError
from switchboard.routing.exchange import (
    MAX_ROUTING_KEY_LENGTH,
    Binding,
    Exchange,
    ExchangeTable,
    ExchangeType,
    HeaderMatch,
    Target,
)


def target(text: str) -> Target:
    return Target(text.removeprefix('exchange:'), text.startswith('exchange:'))


def bind(match: str | HeaderMatch, *targets: str, line: int | None = None) -> Binding:
    return Binding(match, tuple(target(one) for one in targets), line)


def exchange(name: str, type: ExchangeType, *bindings: Binding, alternate: str | None = None) -> Exchange:
    return Exchange(name, type, bindings, target(alternate) if alternate else None)


def topics(*patterns: str) -> ExchangeTable:
    """A topic exchange that delivers to the queue called like the pattern."""
    return ExchangeTable([exchange('x', 'topic', *(bind(pattern, pattern) for pattern in patterns))])


def test_the_default_exchange_delivers_to_the_queue_that_the_key_names() -> None:
    assert ExchangeTable().route('', 'in') == ('in',)
    with pytest.raises(NoRouteError):
        ExchangeTable().route('', '')


def test_a_direct_exchange_compares_keys_letter_by_letter() -> None:
    table = ExchangeTable([exchange('x', 'direct', bind('a.b', 'one'), bind('#', 'two'), bind('', 'three'))])
    assert table.route('x', 'a.b') == ('one',)
    assert table.route('x', '#') == ('two',)
    assert table.route('x', '') == ('three',)
    with pytest.raises(NoRouteError):
        table.route('x', 'a.c')


def test_a_fanout_exchange_delivers_everything_everywhere() -> None:
    table = ExchangeTable([exchange('x', 'fanout', bind('', 'one'), bind('', 'two', 'three'))])
    assert table.route('x', 'any.thing') == ('one', 'two', 'three')


@pytest.mark.parametrize(
    ('pattern', 'key', 'matches'),
    [
        ('lists.*.post', 'lists.a.post', True),
        ('lists.*.post', 'lists.post', False),
        ('lists.*.post', 'lists.a.b.post', False),
        ('lists.#.post', 'lists.post', True),
        ('lists.#.post', 'lists.a.b.post', True),
        ('lists.#.post', 'lists.a.b.posts', False),
        ('#', '', True),
        ('#', 'a', True),
        ('#', 'a.b.c', True),
        ('*', '', False),
        ('*', 'a', True),
        ('*', '.', False),
        ('*.*', '.', True),
        ('', '', True),
        ('', 'a', False),
        ('#.#', 'a', True),
        ('#.*', '', False),
        ('*.#', 'a', True),
        ('#.*.#.*', 'a', False),
        ('#.*.#.*', 'a.b', True),
        ('a.#', 'a', True),
        ('#.a', 'b.a', True),
        ('#.a', 'a.b', False),
        ('#.a.#', 'b.a.c', True),
        ('#.a.#.a.#', 'b.a.c', False),
        ('#.a.#.a.#', 'b.a.c.a', True),
        ('a..b', 'a..b', True),
        ('a.*.b', 'a..b', True),
        ('A', 'a', False),
    ],
)
def test_a_star_is_one_word_and_a_hash_is_any_number(pattern: str, key: str, matches: bool) -> None:
    if matches:
        assert topics(pattern).route('x', key) == (pattern,)
    else:
        with pytest.raises(NoRouteError):
            topics(pattern).route('x', key)


def test_a_wildcard_in_a_key_is_a_word_like_any_other() -> None:
    assert topics('a.*', 'a.b').route('x', 'a.*') == ('a.*',)
    assert topics('a.*', 'a.b').route('x', 'a.#') == ('a.*',)


PDF = HeaderMatch('all', (('format', 'pdf'), ('kind', 'report')))
HIGH = HeaderMatch('any', (('priority', 'high'), ('urgent', 'true')))


@pytest.mark.parametrize(
    ('match', 'headers', 'matches'),
    [
        (PDF, {'format': 'pdf', 'kind': 'report', 'more': 1}, True),
        (PDF, {'kind': 'report', 'format': 'pdf'}, True),
        (PDF, {'format': 'pdf'}, False),
        (PDF, {'format': 'pdf', 'kind': 'letter'}, False),
        (HIGH, {'priority': 'high'}, True),
        (HIGH, {'urgent': True}, True),
        (HIGH, {'urgent': 'true'}, True),
        (HIGH, {'urgent': False}, False),
        (HIGH, {}, False),
        (HeaderMatch('all', (('n', '5'),)), {'n': 5}, True),
        (HeaderMatch('all', (('n', '5'),)), {'n': 5.0}, False),
        (HeaderMatch('all', (('n', '1.5'),)), {'n': 1.5}, True),
        (HeaderMatch('all', (('n', 'null'),)), {'n': None}, True),
        (HeaderMatch('all', (('n', 'None'),)), {'n': None}, False),
        (HeaderMatch('all', (('n', '[]'),)), {'n': []}, False),
        (HeaderMatch('all', (('n', None),)), {'n': []}, True),
        (HeaderMatch('all', (('n', None),)), {'m': 1}, False),
        (HeaderMatch('any', (('n', None), ('m', None))), {'m': 1}, True),
        (HeaderMatch('all', (('n', '1'),)), {'n': 10**5000}, False),
        (HeaderMatch('all', (('x-n', '1'),)), {'x-n': 2}, False),
        (HeaderMatch('all'), {}, True),
        (HeaderMatch('any'), {'n': 1}, False),
    ],
)
def test_headers_are_compared_by_their_text(
    match: HeaderMatch, headers: dict[str, object], matches: bool
) -> None:
    table = ExchangeTable([exchange('x', 'headers', bind(match, 'q'), alternate='rest')])
    assert table.route('x', 'ignored', headers) == (('q',) if matches else ('rest',))
    assert match.matches(headers) is matches


def test_a_headers_exchange_without_metadata_matches_only_what_asks_for_nothing() -> None:
    table = ExchangeTable([exchange('x', 'headers', bind(PDF, 'a'), bind(HeaderMatch('all'), 'b'))])
    assert table.route('x', '') == ('b',)


def test_a_queue_gets_one_copy_in_the_order_of_the_first_match() -> None:
    table = ExchangeTable(
        [
            exchange('x', 'topic', bind('a.*', 'three', 'one'), bind('#', 'exchange:y', 'two', 'one')),
            exchange('y', 'fanout', bind('', 'four', 'three')),
        ]
    )
    assert table.route('x', 'a.b') == ('three', 'one', 'four', 'two')
    assert table.route('x', 'b') == ('four', 'three', 'two', 'one')


def test_what_matches_nothing_goes_to_the_alternate() -> None:
    table = ExchangeTable([exchange('x', 'direct', bind('a', 'one'), alternate='rest')])
    assert table.route('x', 'a') == ('one',)
    assert table.route('x', 'b') == ('rest',)


def test_an_alternate_may_be_an_exchange() -> None:
    table = ExchangeTable(
        [
            exchange('x', 'direct', alternate='exchange:y'),
            exchange('y', 'topic', bind('a', 'one'), alternate='two'),
        ]
    )
    assert table.route('x', 'a') == ('one',)
    assert table.route('x', 'b') == ('two',)


def test_the_alternate_also_takes_what_a_bound_exchange_had_no_use_for() -> None:
    table = ExchangeTable(
        [
            exchange('x', 'fanout', bind('', 'exchange:y'), alternate='rest'),
            exchange('y', 'direct', bind('a', 'one')),
        ]
    )
    assert table.route('x', 'a') == ('one',)
    assert table.route('x', 'b') == ('rest',)


def test_an_exchange_that_is_reached_twice_is_asked_once() -> None:
    names = [str(number) for number in range(50)]
    layers = [
        exchange(name, 'fanout', bind('', f'exchange:{after}'), bind('', f'exchange:{after}'))
        for name, after in zip(names, [*names[1:], 'last'], strict=True)
    ]
    table = ExchangeTable([*layers, exchange('last', 'fanout', bind('', 'q'))])
    assert table.route('0', '') == ('q',)
    assert len(table.explain('0', '')) < 200


def test_no_route_is_an_error_that_says_for_what() -> None:
    with pytest.raises(NoRouteError) as caught:
        topics('a').route('x', 'b')
    assert (caught.value.exchange, caught.value.routing_key) == ('x', 'b')


def test_an_unknown_exchange_is_an_error_wherever_it_is_named() -> None:
    with pytest.raises(UnknownExchangeError):
        ExchangeTable().route('x', 'a')
    with pytest.raises(UnknownExchangeError):
        ExchangeTable().explain('x', 'a')
    with pytest.raises(UnknownExchangeError, match='nowhere'):
        ExchangeTable([exchange('x', 'fanout', bind('', 'exchange:nowhere'))])
    with pytest.raises(UnknownExchangeError, match='nowhere'):
        ExchangeTable([exchange('x', 'fanout', alternate='exchange:nowhere')])


def test_a_circle_is_found_when_the_table_is_made() -> None:
    with pytest.raises(RouteLoopError) as caught:
        ExchangeTable(
            [
                exchange('a', 'fanout', bind('', 'exchange:b')),
                exchange('b', 'fanout', alternate='exchange:c'),
                exchange('c', 'direct', bind('k', 'q', 'exchange:a')),
            ]
        )
    cycle = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert {(one, after) for one, after in itertools.pairwise(cycle)} == {
        ('a', 'b'),
        ('b', 'c'),
        ('c', 'a'),
    }
    with pytest.raises(RouteLoopError):
        ExchangeTable([exchange('a', 'fanout', bind('', 'exchange:a'))])


def test_nesting_has_a_limit_and_no_stack_overflow() -> None:
    def chain(length: int) -> ExchangeTable:
        links = [exchange(f'{n}', 'fanout', bind('', f'exchange:{n + 1}')) for n in range(length - 1)]
        return ExchangeTable([*links, exchange(f'{length - 1}', 'fanout', bind('', 'q'))])

    assert chain(100).route('0', '') == ('q',)
    with pytest.raises(RouteError, match='more than 100'):
        chain(101)
    with pytest.raises(RouteError, match='more than 100'):
        chain(20_000)


def test_two_exchanges_of_one_name_are_refused() -> None:
    for name in ('x', ''):
        with pytest.raises(RouteError, match='twice'):
            ExchangeTable([exchange(name, 'fanout'), exchange(name, 'topic')])


def test_a_binding_must_fit_the_type_of_its_exchange() -> None:
    for one in (exchange('x', 'headers', bind('a', 'q')), exchange('x', 'topic', bind(PDF, 'q'))):
        with pytest.raises(RouteError, match='does not fit'):
            ExchangeTable([one])


def test_a_table_is_never_changed() -> None:
    table = topics('a')
    with pytest.raises(AttributeError):
        table.exchanges = {}
    with pytest.raises(TypeError):
        table.exchanges['y'] = exchange('y', 'fanout')


def test_tables_that_route_alike_are_equal_wherever_their_lines_are() -> None:
    one = ExchangeTable([exchange('x', 'direct', bind('a', 'q', line=1))])
    two = ExchangeTable([exchange('x', 'direct', bind('a', 'q', line=7))])
    assert one == two
    assert hash(one) == hash(two)
    assert one != topics('a')
    assert one != 'x'


def test_a_table_can_be_pickled() -> None:
    table = ExchangeTable(
        [exchange('x', 'topic', bind('.'.join('a' * 5000), 'q')), exchange('y', 'headers', bind(PDF, 'q'))]
    )
    copy = pickle.loads(pickle.dumps(table))
    assert copy == table
    assert copy.route('x', '.'.join('a' * 5000)) == ('q',)


def test_a_key_of_ten_thousand_words_meets_patterns_full_of_hashes_in_bounded_time() -> None:
    hard = '.'.join(['#', 'a'] * 60)
    table = topics(*(f'{hard}.{number}' for number in range(20)))
    started = time.process_time()
    with pytest.raises(NoRouteError):
        table.route('x', '.'.join('a' * 10_000))
    assert time.process_time() - started < 10


def test_a_key_without_bounds_is_refused() -> None:
    assert topics('#').route('x', 'a' * MAX_ROUTING_KEY_LENGTH) == ('#',)
    with pytest.raises(RouteError, match='65537 characters'):
        topics('#').route('x', 'a' * (MAX_ROUTING_KEY_LENGTH + 1))


def test_routing_does_not_look_at_each_binding() -> None:
    """Steps are counted and not seconds: the lines that are run."""
    few, many = (topics(*(f'lists.{n}.*.post' for n in range(count)), '#.bounce') for count in (10, 10_000))

    def steps(table: ExchangeTable) -> int:
        lines = 0

        def count(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal lines
            lines += event == 'line'
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            queues = table.route('x', 'lists.7.a.post')
        finally:
            sys.settrace(before)
        assert queues == ('lists.7.*.post',)
        return lines

    assert 0 < steps(few) == steps(many)
