from __future__ import annotations

import pytest

from switchboard.routing.exchange import Binding, Exchange, ExchangeTable, HeaderMatch, Target
from switchboard.routing.topics import explain_mismatch
from switchboard.routing.topology import Edge, Graph, Node

TABLE = ExchangeTable(
    [
        Exchange(
            'mail',
            'topic',
            (
                Binding('lists.*.post', (Target('in'),), 3),
                Binding('lists.#.bounce', (Target('bounces'), Target('audit', True)), 4),
                Binding('lists.#', (Target('bounces'), Target('archive')), 5),
            ),
            Target('unrouted'),
            'exchange.cfg',
            1,
        ),
        Exchange(
            'audit',
            'headers',
            (Binding(HeaderMatch('any', (('priority', 'high'), ('urgent', None))), (Target('pager'),), 9),),
            file='exchange.cfg',
            line=7,
        ),
    ]
)


def test_each_binding_is_told_with_its_line_and_what_came_of_it() -> None:
    steps = TABLE.explain('mail', 'lists.a.bounce', {'priority': 'high'})
    assert [str(step) for step in steps] == [
        "- mail, line 3: lists.*.post -> in: word 3 is 'bounce', not 'post'",
        '+ mail, line 4: lists.#.bounce -> bounces, exchange:audit: matches [bounces]',
        '    + audit, line 9: any: priority=high, urgent -> pager: matches [pager]',
        '+ mail, line 5: lists.# -> bounces, archive: matches (bounces has its copy already) [archive]',
    ]
    assert {step.file for step in steps} == {'exchange.cfg'}


def test_the_alternate_is_a_step_of_its_own() -> None:
    steps = TABLE.explain('mail', 'other')
    assert [step.matched for step in steps] == [False, False, False, True]
    assert steps[-1].reason == 'no queue was reached, so the alternate unrouted takes it'
    assert steps[-1].delivered == ('unrouted',)


def test_a_message_that_nobody_takes_ends_with_a_step_that_says_so() -> None:
    steps = TABLE.explain('audit', '', {'priority': 'low'})
    assert [str(step) for step in steps] == [
        "- audit, line 9: any: priority=high, urgent -> pager: priority is 'low', not 'high'; urgent is not there",
        '- audit: nobody takes the message: publishing it is an error',
    ]


def test_the_default_exchange_is_explained_too() -> None:
    assert TABLE.explain('', 'in')[0].delivered == ('in',)
    assert not TABLE.explain('', '')[0].matched


def test_a_direct_and_a_fanout_exchange_are_explained() -> None:
    table = ExchangeTable(
        [
            Exchange('d', 'direct', (Binding('a', (Target('f', True),)), Binding('b', (Target('f', True),)))),
            Exchange('f', 'fanout', (Binding('', (Target('q'),)),)),
            Exchange('top', 'fanout', (Binding('', (Target('d', True), Target('f', True))),)),
        ]
    )
    assert [str(step) for step in table.explain('d', 'b')] == [
        '- d: a -> exchange:f: the routing key is another',
        '+ d: b -> exchange:f: matches',
        '    + f: -> q: matches [q]',
    ]
    assert str(table.explain('top', 'a')[-1]) == '    + f: was walked through above'


@pytest.mark.parametrize(
    ('pattern', 'key', 'reason'),
    [
        ('a.b', 'a', 'the key has 1 word, the pattern wants 2'),
        ('a.*', 'a.b.c', 'the key has 3 words, the pattern wants 2'),
        ('a.#.b.*', 'a.b', 'the key has 2 words, the pattern wants at least 3'),
        ('a.b', 'c.b', "word 1 is 'c', not 'a'"),
        ('a.#', 'b.c', "word 1 is 'b', not 'a'"),
        ('a.#.b', 'a.c', 'the words after the first 1 do not fit'),
        ('#.b', 'a.c', 'the words do not fit'),
        ('*', '', 'the key has 0 words, the pattern wants 1'),
    ],
)
def test_a_mismatch_is_told_in_words(pattern: str, key: str, reason: str) -> None:
    assert explain_mismatch(pattern, key) == reason


def test_a_table_draws_itself_as_text() -> None:
    assert TABLE.graph().to_text().splitlines() == [
        'exchange mail (topic)',
        '    lists.*.post   -> in',
        '    lists.#.bounce -> bounces',
        '    lists.#.bounce -> exchange:audit',
        '    lists.#        -> bounces',
        '    lists.#        -> archive',
        '    (alternate)    -> unrouted',
        'exchange audit (headers)',
        '    any: priority=high, urgent -> pager',
    ]


def test_a_table_draws_itself_for_graphviz() -> None:
    lines = TABLE.graph().to_dot().splitlines()
    assert lines[0] == 'digraph switchboard {'
    assert lines[-1] == '}'
    assert '    "exchange:mail" [label="mail\\ntopic", shape=diamond];' in lines
    assert '    "exchange:mail" -> "queue:unrouted" [label="(alternate)", style=dashed];' in lines
    assert sum('[label="bounces", shape=box]' in line for line in lines) == 1


def test_names_cannot_break_out_of_the_drawing() -> None:
    graph = Graph((Node('queue', 'a"b\\c\nd'),), (Edge(('queue', '"'), ('queue', '\\'), 'binding', '"];'),))
    assert '"queue:a\\"b\\\\c\\nd"' in graph.to_dot()
    assert '[label="\\"];", style=solid]' in graph.to_dot()


def test_an_empty_table_is_drawn_empty() -> None:
    assert ExchangeTable().graph().to_text() == ''
    assert '->' not in ExchangeTable().graph().to_dot()


def test_what_is_bound_without_a_pattern_is_labelled() -> None:
    table = ExchangeTable(
        [
            Exchange('f', 'fanout', (Binding('', (Target('q'),)),)),
            Exchange('d', 'direct', (Binding('', (Target('q'),)),)),
        ]
    )
    assert [edge.label for edge in table.graph().edges] == ['(all)', '(empty key)']
