"""The selection language: one table of what it finds, and that what it writes is what it reads."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchboard import Spool
from switchboard.errors import SelectionError
from switchboard.message.naming import NS_PER_S
from switchboard.operating.finding import FoundEntry
from switchboard.operating.selection import ALIASES, FIELDS, METADATA_PREFIX, Pattern, Selection, Term, select
from switchboard.operating.summary import STATES
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from tests.helpers.commands import fail

PAGE = Path(__file__).parents[3] / 'docs' / 'reference' / 'cli.md'
QUEUES = ('in', 'out', 'bad', 'parked')


@pytest.fixture(scope='module')
def spool(tmp_path_factory: pytest.TempPathFactory) -> Spool:
    return Spool(tmp_path_factory.mktemp('selection') / 'spool', durability='lazy')


@pytest.fixture(scope='module')
def names(spool: Spool) -> dict[str, str]:
    """:return: what the table calls an entry, by its filebase."""
    queue = spool['in']
    found = {
        queue.enqueue('plain'): 'plain',
        queue.enqueue(b'x' * 5000, list='dogs', n=3, flag=True): 'large',
        queue.enqueue('later', delay=3600): 'later',
        queue.enqueue('first', priority=9, kind='metal', to=['a b', 'c*d']): 'first',
        spool['out'].enqueue({'json': 1}, list='cats'): 'json',
        fail(spool, 'in', 'x', 'TimeoutError', 'no route to host'): 'timeout',
        fail(spool, 'out', 'y', 'ValueError', 'Wrong: "quoted"'): 'value',
    }
    again = fail(spool, 'in', 'z', 'TimeoutError', 'again')
    from switchboard.handoff.moving import send_back

    again = send_back(spool['bad'], again, spool['parked'])
    found[again] = 'again'
    return found


# What is asked, and which entries fit.
TABLE = {
    '': 'plain large later first json timeout value again',
    'queue:out': 'json',
    'queue:in,out': 'plain large later first json',
    'queue:*': 'plain large later first json timeout value again',
    '-queue:in,bad': 'json again',
    'state:delayed': 'later',
    'state:waiting,delayed queue:in': 'plain large later first',
    '-state:waiting,delayed': 'timeout value',
    'state:held': '',
    'error:TimeoutError': 'timeout again',
    'error:timeouterror queue:bad': 'timeout',
    'error:Time*': 'timeout again',
    'error:*Error': 'timeout value again',
    'error:Timeout': '',
    '-error:Time*': 'plain large later first json value',
    'error:rejected': 'timeout value again',
    'cause:rejected': 'timeout value again',
    'cause:Time*': '',
    'match:route': 'timeout',
    'match:"NO ROUTE"': 'timeout',
    r'match:\"quoted\"': 'value',
    'match:"no*host"': 'timeout',
    'origin:in queue:bad': 'timeout',
    'kind:json': 'json',
    '-kind:text queue:in': 'large',
    'older:1h': '',
    'older:0 queue:bad': 'timeout value',
    'younger:1h state:waiting': 'plain large first json again',
    'newer:1h queue:bad': 'timeout value',
    'age:>1d': '',
    'age:<1d queue:out': 'json',
    'size:>4K': 'large',
    'size:5000': 'large',
    'size:<=5 queue:in': 'plain later first',
    'tries:>0': 'timeout value',
    'tries:0 queue:in': 'plain large later first',
    'sent_back:>=1': 'again',
    'priority:9': 'first',
    '-priority:0': 'first',
    'list:dogs': 'large',
    'list:dogs,cats': 'large json',
    'list:*': 'large json',
    '-list:*': 'plain later first timeout value again',
    'n:3': 'large',
    'flag:true': 'large',
    'to:"a b"': 'first',
    r'to:c\*d': 'first',
    r'to:c\*': '',
    'metadata.kind:metal': 'first',
    'metadata.list:dogs': 'large',
    'kind:text metadata.kind:metal priority:>5': 'first',
    'nosuchkey:1': '',
}


@pytest.mark.parametrize('text', TABLE)
def test_a_selection_finds_what_the_table_says(spool: Spool, names: dict[str, str], text: str) -> None:
    places = [(name, Folder(spool.path(name), Disk())) for name in QUEUES]
    found = {names[each.filebase] for each in select(places, Selection.parse(text), spool.clock.time_ns())}
    assert found == set(TABLE[text].split())


def test_an_entry_is_found_by_the_beginning_of_its_name_or_digest(
    spool: Spool, names: dict[str, str]
) -> None:
    places = [('in', Folder(spool.path('in'), Disk()))]
    filebase = next(filebase for filebase, name in names.items() if name == 'plain')
    for beginning in (filebase, filebase[:20], filebase.partition('+')[2][:30]):
        found = list(select(places, Selection.parse(f'id:{beginning}'), spool.clock.time_ns()))
        assert [each.filebase for each in found] == [filebase]
    assert all(each.filebase != filebase for each in select(places, Selection.parse(f'-id:{filebase}'), 0))


@pytest.mark.parametrize(
    ('text', 'why'),
    [
        (
            'Timeout',
            'no field:value; quotes hold a value with blanks together, and a text in the error is `match:Timeout`',
        ),
        (':x', 'names no field'),
        ('-:x', 'names no field'),
        ('"":x', 'names no field'),
        ('metadata.:x', 'the name of a key'),
        ('error:"open', 'a quote is not closed'),
        ('state:hold', "there is no state 'hold'; did you mean held?"),
        ('older:90', 'did you mean 90s?'),
        ('older:>1d', 'say `older:1d`'),
        ('size:much', 'is not a size'),
        ('tries:>many', 'is not a number'),
        ('tries:', 'is not a number'),
        ('id:', 'wants the beginning of a name'),
        ('a:b ' * 65, 'at most 64 words'),
        ('a:' + 'b' * 8000, 'at most 8000 characters'),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(SelectionError, match=re.escape(why)):
        Selection.parse(text)


@pytest.mark.parametrize(
    ('text', 'written'),
    [
        ('  queue:bad\terror:"Timeout*" ', 'queue:bad error:Timeout*'),
        ('older:90m', 'older:1h30m'),
        ('size:>1024', 'size:>1K'),
        ('newer:1d from:in attempts:>3 retried:2', 'younger:1d origin:in tries:>3 sent_back:2'),
        ('a:"b c",d', 'a:"b c",d'),
        ('"a b":c', '"a b":c'),
        ('metadata.x:y metadata.kind:z', 'x:y metadata.kind:z'),
        (r'a:\*', r'a:\*'),
        ('a:', 'a:""'),
    ],
)
def test_a_selection_is_written_in_one_form(text: str, written: str) -> None:
    assert str(Selection.parse(text)) == written


texts = st.text(st.characters(exclude_categories=('Cs',)), max_size=12)
patterns = st.lists(texts, min_size=1, max_size=3).map(lambda pieces: Pattern(tuple(pieces)))
comparisons = st.sampled_from(('', '>', '>=', '<', '<='))


def _term(field: str) -> st.SearchStrategy[Term]:
    known = FIELDS.get(ALIASES.get(field, field))
    if field == 'state':
        values = st.sampled_from(STATES).map(Pattern.exactly)
    elif ALIASES.get(field, field) == 'id':
        values = st.text('0123456789abcdef.+', min_size=1, max_size=20).map(Pattern.exactly)
    elif known is None or known.kind == 'text':
        values = patterns
    elif field in ('older', 'younger', 'newer'):
        values = st.integers(0, 10**9).map(lambda ms: Pattern.exactly(f'{ms}ms'))
    elif known.kind == 'duration':
        values = st.builds(lambda c, ms: Pattern.exactly(f'{c}{ms}ms'), comparisons, st.integers(0, 10**9))
    elif known.kind == 'size':
        values = st.builds(lambda c, n: Pattern.exactly(f'{c}{n}'), comparisons, st.integers(0, 10**15 - 1))
    else:
        values = st.builds(lambda c, n: Pattern.exactly(f'{c}{n}'), comparisons, st.integers(0, 10**8))
    return st.builds(
        lambda found, negated: Term.make(field, *found, negated=negated),
        st.lists(values, min_size=1, max_size=3),
        st.booleans(),
    )


keys = texts.filter(lambda key: bool(key) and key != METADATA_PREFIX)
terms = (
    st.sampled_from(sorted({*FIELDS, *ALIASES})) | keys | keys.map(lambda key: METADATA_PREFIX + key)
).flatmap(_term)


@example(Selection.parse('size:<=999999999999999K'))
@given(st.lists(terms, max_size=5).map(lambda found: Selection(tuple(found))))
def test_what_is_written_reads_as_it_was(selection: Selection) -> None:
    assert Selection.parse(str(selection)) == selection


@given(st.text(max_size=60))
def test_any_text_is_a_selection_or_a_clear_error(text: str) -> None:
    try:
        selection = Selection.parse(text)
    except SelectionError:
        return
    assert Selection.parse(str(selection)) == selection


@given(patterns, texts)
def test_a_pattern_fits_as_a_shells_does(pattern: Pattern, text: str) -> None:
    expected = re.fullmatch('.*'.join(map(re.escape, pattern.pieces)), text, re.DOTALL) is not None
    assert pattern.matches(text) is expected


def test_many_stars_take_no_longer_than_the_text_is_long() -> None:
    assert not Pattern(('', *['a'] * 2000, 'b')).matches('a' * 100_000)


def test_a_name_that_decides_is_not_opened(spool: Spool, names: dict[str, str]) -> None:
    class Shut(Disk):
        def open(self, path: Any, *args: Any, **keys: Any) -> int:
            assert not os.fspath(path).endswith('.pck')
            return Disk.open(path, *args, **keys)

    places = [('in', Folder(spool.path('in'), Shut()))]
    for text in ('', 'state:waiting', 'younger:1h', 'priority:9', 'queue:in', 'id:1'):
        assert all(
            found.summary is None for found in select(places, Selection.parse(text), 2_000_000_000 * NS_PER_S)
        )


def test_what_had_to_be_opened_is_not_opened_again(spool: Spool, names: dict[str, str]) -> None:
    places = [('bad', Folder(spool.path('bad'), Disk()))]
    (found,) = select(places, Selection.parse('error:ValueError'), spool.clock.time_ns())
    assert isinstance(found, FoundEntry)
    assert found.summary is not None
    assert found.look() is found.summary


def test_a_history_that_makes_nonsense_is_its_entrys_and_no_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', durability='lazy')
    good = fail(spool, 'in', 'good')
    hostile = [
        {'event': 'preserved', 'time': 10**400, 'queue': 'in'},
        {'event': 'preserved', 'time': float('inf'), 'queue': 'in'},
        {'event': 'preserved', 'time': float('nan'), 'queue': ['in']},
        {'event': 'failed', 'time': -1, 'error': {'a': 1}, 'message': [1], 'cause': 7},
        {'event': 'failed', 'time': True, 'set': {'a': [[[]]]}, 'drop': [[]]},
    ]
    for record in hostile:
        queue = spool['in']
        filebase = queue.enqueue('bad')
        queue.dequeue(filebase)
        queue.annotate(filebase, record)
        queue.finish(filebase, preserve=True)
    places = [('bad', Folder(spool.path('bad'), Disk()))]
    for text in ('error:ValueError', 'error:ValueError older:0', 'error:ValueError age:<1h a:*,-'):
        found = [each.filebase for each in select(places, Selection.parse(text), spool.clock.time_ns())]
        assert found == ([good] if 'a:' not in text else [])


@pytest.mark.parametrize(
    ('text', 'slip'),
    [
        ('eror:ValueError', "; 'eror' is taken for a key of the metadata: did you mean error?"),
        ('-kindd:mail', "; 'kindd' is taken for a key of the metadata: did you mean kind?"),
        ('error:ValueError customer:ann', ''),
        (
            'n:>3',
            "; 'n' is a key of the metadata, whose values are texts here: only fields are compared by < and >",
        ),
        (
            'task:shop.add',
            "; 'task' is looked for in the metadata and not in the body: `ls --columns task` shows that",
        ),
    ],
)
def test_a_field_with_a_slip_in_it_is_told_where_nothing_fits(text: str, slip: str) -> None:
    assert Selection.parse(text).hint_if_nothing_matches() == slip


def test_the_names_that_json_has_for_fields_are_other_names_of_them() -> None:
    written = Selection.parse('filebase:17 body_bytes:>1K sent_back:2 attempts:3')
    assert str(written) == 'id:17 size:>1K sent_back:2 tries:3'


def test_the_page_names_each_field_and_each_other_name() -> None:
    page = PAGE.read_text()
    fields = re.search(r'The fields are `([^`]+)`', page)
    assert fields
    assert set(fields[1].split()) == FIELDS.keys()
    sentences = page.partition(fields[0])[2].partition('\n\n')[0]
    assert ALIASES.keys() <= set(re.findall(r'`([^`]+)`', sentences))
