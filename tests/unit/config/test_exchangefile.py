from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import pytest

from switchboard.config.exchangefile import MAX_BINDINGS, read_exchanges
from switchboard.config.inifile import MAX_PROBLEMS, Problems, in_order
from switchboard.routing.exchange import ExchangeTable

SAMPLE = Path(__file__).parents[3] / 'etc' / 'exchange.cfg'

DESIGN = """\
[exchange.mail]
type = topic                     ; direct | fanout | topic | headers
alternate = unrouted             ; where what matches nothing goes
bindings =
    lists.*.post    -> in
    lists.#.bounce  -> bounces, exchange:audit
    #               -> archive

[exchange.audit]
type = headers
bindings =
    all: format=pdf, kind=report -> print
    any: priority=high           -> urgent
"""


def read(text: str, queues: Collection[str] | None = None) -> tuple[ExchangeTable, list[str], list[str]]:
    problems = Problems()
    table = read_exchanges(text.encode(), 'x.cfg', problems, queues)
    return (
        table,
        [str(one) for one in in_order(problems.errors)],
        [str(one) for one in in_order(problems.warnings)],
    )


def errors(text: str, queues: Collection[str] | None = None) -> list[str]:
    table, found, _ = read(text, queues)
    assert not found or not table.exchanges
    return found


def warnings(text: str) -> list[str]:
    _, wrong, found = read(text)
    assert wrong == []
    return found


def test_the_file_of_the_design_routes_as_it_reads() -> None:
    table, wrong, odd = read(DESIGN)
    assert (wrong, odd) == ([], [])
    assert table.route('mail', 'lists.a.post') == ('in', 'archive')
    assert table.route('mail', 'lists.bounce', {'priority': 'high'}) == ('bounces', 'urgent', 'archive')
    assert table.route('mail', '') == ('archive',)
    assert table.route('audit', '', {'format': 'pdf', 'kind': 'report'}) == ('print',)


def test_records_know_their_lines() -> None:
    mail = read(DESIGN)[0].exchanges['mail']
    assert (mail.file, mail.line) == ('x.cfg', 1)
    assert [binding.line for binding in mail.bindings] == [5, 6, 7]


def test_the_sample_file_is_read_without_an_error() -> None:
    table, wrong, odd = read(SAMPLE.read_text())
    assert (wrong, odd) == ([], [])
    assert {one.type for one in table.exchanges.values()} == {'topic', 'fanout', 'headers'}
    assert table.route('mail', 'lists.gardening.post') == ('lists', 'archive')
    assert table.route('mail', 'lists.gardening.post.urgent') == ('out', 'archive')
    assert table.route('mail', 'nobody.knows') == ('unrouted',)


def test_a_pattern_that_starts_with_a_hash_is_a_pattern_and_a_comment_is_none() -> None:
    table, wrong, _ = read(
        '[exchange.x]\ntype = topic\nbindings = # -> one\n    # a comment\n    #.b -> two\n# c -> three\n    ; d -> four\n'
    )
    assert wrong == []
    assert [str(binding) for binding in table.exchanges['x'].bindings] == ['# -> one', '#.b -> two']


def test_a_fanout_exchange_needs_no_arrows() -> None:
    table, wrong, _ = read('[exchange.x]\ntype = fanout\nbindings =\n  a, b\n  -> c\n')
    assert wrong == []
    assert table.route('x', '') == ('a', 'b', 'c')


def test_a_direct_binding_may_be_for_the_empty_key() -> None:
    assert read('[exchange.x]\ntype = direct\nbindings = -> a\n')[0].route('x', '') == ('a',)


def test_header_values_may_be_quoted_or_left_out() -> None:
    table, wrong, _ = read(
        '[exchange.x]\ntype = headers\nbindings =\n  all: a = "1, 2 ; 3", b -> q\n  any: c=x y , d= -> r\n  all: -> s\n'
    )
    assert wrong == [
        "x.cfg:4 [exchange.x] bindings: 'all: a = \"1, 2' is no binding; write `pattern -> queue`"
    ]
    table, wrong, _ = read(
        '[exchange.x]\ntype = headers\nbindings =\n  all: a = "1, 2", b -> q\n  any: c=x y , d= -> r\n  all: -> s\n'
    )
    assert wrong == []
    assert table.route('x', '', {'a': '1, 2', 'b': []}) == ('q', 's')
    assert table.route('x', '', {'c': 'x y'}) == ('r', 's')
    assert table.route('x', '', {'d': ''}) == ('r', 's')
    assert [str(one) for one in table.exchanges['x'].bindings] == [
        'all: a="1, 2", b -> q',
        'any: c=x y, d="" -> r',
        'all:  -> s',
    ]


def binding_error(kind: str, binding: str) -> str:
    (error,) = errors(f'[exchange.x]\ntype = {kind}\nbindings =\n    {binding}\n', {'in', 'out'})
    prefix = 'x.cfg:4 [exchange.x] bindings: '
    assert error.startswith(prefix)
    return error.removeprefix(prefix)


@pytest.mark.parametrize(
    ('kind', 'binding', 'error'),
    [
        ('topic', 'a', "'a' is no binding; write `pattern -> queue`"),
        ('topic', 'a ->', 'a target is missing; write a queue or exchange:NAME'),
        ('topic', 'a -> in,', 'a target is missing; write a queue or exchange:NAME'),
        ('topic', 'a -> exchange:', 'a target is missing; write a queue or exchange:NAME'),
        ('topic', 'a -> inn', "there is no queue 'inn'; did you mean in?"),
        ('topic', 'a -> exchange:y', "there is no exchange 'y'"),
        ('topic', 'a -> exchange:xx', "there is no exchange 'xx'; did you mean x?"),
        ('topic', 'a -> b -> in', "'a -> b': one arrow a line; put several targets behind it, with commas"),
        ('topic', 'a b -> in', "'a b' holds a blank; a pattern is words with points between and no blanks"),
        (
            'topic',
            'a*.b -> in',
            "'a*.b': * and # stand for whole words; to put a line aside, start it with ;",
        ),
        ('topic', '#a -> in', "'#a': * and # stand for whole words; to put a line aside, start it with ;"),
        ('topic', 'all: a=b -> in', "'all: a=b' are conditions on headers; they are for type = headers"),
        ('topic', f'{"é" * 128} -> in', 'a pattern of 256 bytes; 255 are allowed'),
        ('direct', 'any: a=b -> in', "'any: a=b' are conditions on headers; they are for type = headers"),
        ('fanout', 'a -> in', "'a': a fanout exchange has no patterns; write `-> queue`"),
        ('headers', 'a.b -> in', "'a.b' are no conditions; write `all: key=value, key=value` or `any: ...`"),
        (
            'headers',
            'al: a=b -> in',
            "'al: a=b' are no conditions; write `all: key=value, key=value` or `any: ...`",
        ),
        ('headers', 'any: -> in', 'any: without a condition matches nothing'),
        ('headers', 'all: a="b -> in', '\'a="b\' is no condition; write key, key=value or key="value"'),
        ('headers', 'all: a=b, =c -> in', '\'=c\' is no condition; write key, key=value or key="value"'),
    ],
)
def test_a_binding_that_is_wrong_is_told_with_its_line(kind: str, binding: str, error: str) -> None:
    assert binding_error(kind, binding) == error


@pytest.mark.parametrize(
    ('text', 'error'),
    [
        (
            '[exchange.x]\n',
            'x.cfg:1 [exchange.x]: has no type; write `type =` and one of direct, fanout, topic, headers',
        ),
        (
            '[exchange.x]\ntyp = topic\n',
            'x.cfg:2 [exchange.x] typ: is no key of an exchange; did you mean type?',
        ),
        (
            '[exchange.x]\ntype = topics\n',
            "x.cfg:2 [exchange.x] type: 'topics' is none of direct, fanout, topic, headers; did you mean topic?",
        ),
        (
            '[exchange.x]\ntype = topic\nbinding = a -> b\n',
            'x.cfg:3 [exchange.x] binding: is no key of an exchange; did you mean bindings?',
        ),
        (
            '[queue.x]\n',
            'x.cfg:1 [queue.x]: is not known here; sections of this file are called [exchange.NAME]',
        ),
        (
            '[exchange]\n',
            'x.cfg:1 [exchange]: is not known here; sections of this file are called [exchange.NAME]',
        ),
        (
            '[exchange.x]\ntype = topic\n[exchange.x]\ntype = topic\n',
            'x.cfg:3 [exchange.x]: was opened before, in line 1; put both into one',
        ),
        (
            '[exchange.x]\ntype = topic\nalternate = a, b\n',
            'x.cfg:3 [exchange.x] alternate: takes one queue or one exchange; bind a fanout exchange for more',
        ),
        (
            '[exchange.x]\ntype = topic\nalternate = exchange:y\n',
            "x.cfg:3 [exchange.x] alternate: there is no exchange 'y'",
        ),
    ],
)
def test_a_section_that_is_wrong_is_told_with_its_line(text: str, error: str) -> None:
    assert errors(text) == [error]


@pytest.mark.parametrize('name', ['', '.x', '-x', 'a b', 'a/b', 'x' * 101])
def test_a_name_that_no_exchange_can_have_is_refused(name: str) -> None:
    (error,) = errors(f'[exchange.{name}]\ntype = topic\n')
    assert 'cannot be an exchange name' in error


def test_a_circle_is_told_at_a_line_that_is_part_of_it() -> None:
    text = '[exchange.a]\ntype = fanout\nbindings =\n  q\n  exchange:b\n[exchange.b]\ntype = direct\nalternate = exchange:a\n'
    assert errors(text) == ['x.cfg:5 [exchange.a] bindings: exchanges are bound in a circle: a -> b -> a']
    assert errors('[exchange.a]\ntype = direct\nalternate = exchange:a\n') == [
        'x.cfg:3 [exchange.a] alternate: exchanges are bound in a circle: a -> a'
    ]


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    found = errors(
        '[exchange.a]\ntype = topic\nbindings =\n  a b -> q\n  c\nodd = 1\n[other]\n[exchange.b]\nalternate = exchange:c\n'
    )
    assert [int(error.split(':')[1].split()[0]) for error in found] == [4, 5, 6, 7, 8, 9]


def test_bindings_that_add_nothing_are_told() -> None:
    text = (
        '[exchange.x]\ntype = topic\nbindings =\n'
        '    a.*   -> one\n    a.b   -> one, two\n    a.b   -> two\n    #.*.# -> three\n    *.#   -> three\n    a.*.# -> four\n'
    )
    assert warnings(text) == [
        'x.cfg:6 [exchange.x] bindings: a.b adds nothing for two: line 5 says the same',
        'x.cfg:8 [exchange.x] bindings: *.# adds nothing for three: line 7 says the same',
    ]


def test_twins_of_other_types_are_told_too() -> None:
    assert warnings(
        '[exchange.x]\ntype = headers\nbindings =\n  all: a=1, b=2 -> q\n  all: b=2, a=1 -> q\n  any: a=1, b=2 -> q\n'
    ) == ['x.cfg:5 [exchange.x] bindings: all: b=2, a=1 adds nothing for q: line 4 says the same']
    assert len(warnings('[exchange.x]\ntype = fanout\nbindings =\n  q\n  q\n')) == 1
    assert len(warnings('[exchange.x]\ntype = direct\nbindings =\n  a -> q\n  a -> r, q\n  b -> q\n')) == 1


def test_other_oddities_are_told() -> None:
    assert warnings('[exchange.x]\ntype = direct\nbindings = a.* -> q\n') == [
        'x.cfg:3 [exchange.x] bindings: a.* is compared letter by letter: wildcards are for type = topic'
    ]
    assert warnings('[exchange.x]\ntype = direct\nbindings = a -> q, q\n') == [
        'x.cfg:3 [exchange.x] bindings: names q twice; it gets one copy'
    ]
    assert warnings('[exchange.x]\ntype = direct\n') == [
        'x.cfg:1 [exchange.x]: has no bindings: it takes nothing'
    ]
    assert 'all goes to its alternate' in warnings('[exchange.x]\ntype = topic\nalternate = q\n')[0]


def test_ten_thousand_bindings_are_read_and_examined_quickly() -> None:
    lines = ''.join(f'  lists.{number}.*.post -> q{number % 50}\n' for number in range(10_000))
    started = time.process_time()
    table, wrong, odd = read(f'[exchange.x]\ntype = topic\nbindings =\n{lines}')
    assert time.process_time() - started < 10
    assert (wrong, odd) == ([], [])
    assert table.route('x', 'lists.77.a.post') == ('q27',)


def test_a_list_of_bindings_without_end_is_refused() -> None:
    (error,) = errors('[exchange.x]\ntype = direct\nbindings =\n' + '  a -> b\n' * (MAX_BINDINGS + 1))
    assert error == 'x.cfg:3 [exchange.x] bindings: has 100001 bindings; 100000 are allowed'


def test_a_list_of_twins_or_of_mistakes_is_not_told_to_its_end() -> None:
    many = 20_000
    assert len(warnings('[exchange.x]\ntype = topic\nbindings =\n' + '  # -> b\n' * many)) == MAX_PROBLEMS
    assert len(errors('[exchange.x]\ntype = topic\nbindings =\n' + '  # -> b c\n' * many)) == MAX_PROBLEMS


@pytest.mark.parametrize(
    ('conditions', 'reason'),
    [
        ('all: a=1, b=2, a=2', "a cannot be both '1' and '2'"),
        ('all: a=1, a, a=1', ''),
        ('any: a=1, a=2', ''),
    ],
)
def test_conditions_that_no_message_can_meet_are_told(conditions: str, reason: str) -> None:
    told = warnings(f'[exchange.x]\ntype = headers\nbindings =\n  {conditions} -> q\n')
    assert [reason in one and 'can never match' in one for one in told] == ([True] if reason else [])


def test_what_means_something_elsewhere_is_told_of_an_exchange_too() -> None:
    text = '[exchange.x]\ntype = topic\nalternate = in # or so\nbindings =\n    a.# -> in\n'
    _, _, (found,) = read(text)
    assert (
        found
        == 'x.cfg:3 [exchange.x] alternate: `#` is a part of the value here: a comment begins with ` ; `'
    )
