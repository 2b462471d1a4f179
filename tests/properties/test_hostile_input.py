"""Whatever bytes a file or a name holds: nothing but an error of the tree comes of it, in bounded time and memory."""

from __future__ import annotations

import email.message
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchboard.config.exchangefile import read_exchanges
from switchboard.config.inifile import Problems
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.message.entry import read_entry
from switchboard.message.entry_header import MAGIC
from switchboard.message.journal import find_records, pack_record, parse_records
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import (
    SYSTEM_NAME_GENERATOR,
    Slice,
    check_queue_name,
    digest_of,
    is_filebase,
    parse_filebase,
)
from switchboard.message.packing import Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.routing.exchange import ExchangeTable

DIGEST = '0123456789abcdef0123456789abcdef01234567'
FILEBASE = f'1732242000.5+{DIGEST}'
SERIALIZERS = Serializers()
PACKER = Packer('in', QueueOptions(), SERIALIZERS, SYSTEM_NAME_GENERATOR)

MIB = 1024 * 1024


@contextmanager
def bounded(seconds: float = 10.0, peak_bytes: int | None = None) -> Iterator[None]:
    """Fail if the block takes much processor time, or much memory.  Generous: it tells a bound from none."""
    started_s, peak = time.process_time(), 0
    if peak_bytes is not None:
        tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - started_s < seconds
    assert peak_bytes is None or peak < peak_bytes


# Names.

NAMES = st.one_of(
    st.text(max_size=80),
    st.from_regex(r'[0-9]{9,11}\.[0-9]{0,10}\+[0-9a-fA-F]{39,41}(\+p[0-9]{0,2})?', fullmatch=True),
    st.from_regex(r'\d{10}\.\d{1,9}\+[0-9a-f]{40}(\+p[1-9])?\n?', fullmatch=True),
)


@given(NAMES)
# Digits, but not ours.
@example('1732242000.5+' + '\u0660' * 40)
@example('\u0661' * 10 + '.5+' + '0' * 40)
def test_a_name_is_of_the_grammar_or_not_and_both_questions_agree(name: str) -> None:
    parsed = parse_filebase(name)
    assert (parsed is not None) == is_filebase(name)
    if parsed is not None:
        assert name.isascii()
        assert '/' not in name
        assert digest_of(name) == parsed.digest
        assert sum(Slice(index, 7).contains(name) for index in range(7)) == 1


@given(st.text(max_size=120))
@example('..')
@example('a/b')
@example('a:b')
@example('a\n')
@example('a\0b')
def test_a_queue_name_is_one_component_that_no_listing_hides_or_it_is_refused(name: str) -> None:
    try:
        check_queue_name(name)
    except UnknownQueueError:
        return
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set('/:\0 ')
    assert name[0] not in '.-'


# Entries.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.one_of(st.binary(max_size=200), st.text(max_size=200), VALUES)
HEADERS = st.builds(
    lambda *fields: b' '.join(fields) + b'\n',
    st.sampled_from([MAGIC, b'switchboard/2', b'']),
    st.sampled_from([b'mail', b'text', b'json', b'bytes', b'pickle', b'\xff', b'a' * 40]),
    st.sampled_from([b'2', b'0', b'-1', b'999999999999', b'9' * 20, b'2147483648', b'\xd9\xa1']),
    st.sampled_from([b'0', b'5', b'999999999999', b'4294967296', b'1e9', b'+5']),
    st.sampled_from([DIGEST.encode(), b'0' * 40, b'x']),
    st.sampled_from([b'00000000', b'zzzzzzzz', b'0', b'0 0']),
)
CONTENTS = st.one_of(st.binary(max_size=400), st.builds(bytes.__add__, HEADERS, st.binary(max_size=100)))


def load(filebase: str, content: bytes) -> object:
    """Do what dequeue does with a file's bytes."""
    try:
        return read_entry(filebase, content).load(SERIALIZERS)
    except (CorruptEntryError, ContentDisallowedError):
        return None


@given(CONTENTS)
@example(b'')
@example(b'\x80\x04.')
@example(b'switchboard/1 mail 2 0 ' + DIGEST.encode() + b' 00000000\n{}')
def test_no_bytes_are_taken_for_an_entry_that_nobody_wrote(content: bytes) -> None:
    assert load(FILEBASE, content) is None


@given(MESSAGES, st.dictionaries(st.text(max_size=8), VALUES, max_size=3), st.data())
def test_a_changed_byte_or_a_lost_end_is_always_noticed(
    msg: object, metadata: dict[str, object], data: st.DataObject
) -> None:
    for key in ('delay', 'not_before', 'priority', 'ttl'):
        metadata.pop(key, None)
    packed = PACKER.pack(msg, dict(metadata))
    filebase, content = packed.filebase, packed.content
    assert read_entry(filebase, content).damage is None
    place = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    changed = content[:place] + bytes((byte,)) + content[place + 1 :]
    assert load(filebase, changed) is None
    assert load(filebase, content[:place]) is None
    other = FILEBASE[:-1] + 'f'
    assert load(other, content) is None


@given(st.binary(max_size=300), st.data())
def test_what_stands_behind_the_body_changes_no_message(tail: bytes, data: st.DataObject) -> None:
    packed = PACKER.pack('text', {'key': 1})
    filebase, content = packed.filebase, packed.content
    record = pack_record({'event': 'noted'}, digest_of(filebase))
    entry = read_entry(filebase, content + record + tail)
    assert entry.load(SERIALIZERS) == ('text', {'key': 1, 'version': 3, '_parsemsg': False})
    assert entry.records[0]['event'] == 'noted'
    assert len(content) <= entry.end <= len(content + record + tail)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_history_or_none(tail: bytes) -> None:
    records, end = parse_records(tail, DIGEST)
    assert 0 <= end <= len(tail)
    assert all(isinstance(record, dict) for record in records)
    records, start = find_records(tail, DIGEST)
    assert 0 <= start <= len(tail)


@given(st.binary(max_size=200))
@example(b'[' * 100_000)
@example(b'{"a":' * 50_000)
@example(b'1' * 10_000)
@example(b'{"a":NaN}')
@example('{"a":"\ud800"}'.encode('utf-8', 'surrogatepass'))
def test_any_bytes_are_metadata_or_an_error_of_the_tree(content: bytes) -> None:
    try:
        metadata = load_metadata(content)
    except CorruptEntryError:
        return
    assert metadata['version'] == 3


@given(st.binary(max_size=500))
@example(b'Content-Type: multipart/mixed; boundary=' + b'b' * 100 + b'\n\n--' + b'b' * 100)
@example(b'From: =?utf-8?q?' + b'=C3' * 50 + b'?=\nTo: ' + b'"' * 200 + b'\n\n')
def test_any_bytes_are_a_mail(body: bytes) -> None:
    serializer = SERIALIZERS.for_kind('mail')
    assert serializer is not None
    mail = serializer.loads(body)
    assert isinstance(mail, email.message.Message)
    mail.get('subject')
    assert serializer.dumps(serializer.loads(body)) == body


@pytest.mark.parametrize('length', [b'2147483648', b'999999999999'])
def test_a_length_that_nothing_could_hold_takes_no_memory(length: bytes) -> None:
    for lengths in (b'2 ' + length, length + b' 2'):
        content = b'switchboard/1 text ' + lengths + b' ' + DIGEST.encode() + b' 00000000\n{}'
        with bounded(peak_bytes=MIB):
            assert load(FILEBASE, content) is None


def test_a_body_full_of_what_looks_like_records_takes_linear_time() -> None:
    fake = pack_record({'event': 'failed', 'text': 'x'}, DIGEST)
    for content in (fake * 50_000, b'\n#' * 500_000, b'\n#9 00000000 ' * 100_000):
        with bounded():
            read_entry(FILEBASE, content)
            parse_records(content, DIGEST)


# Patterns and keys.

KEY_OF_10_000_WORDS = '.'.join(['a'] * 10_000)


def table_of(bindings: list[str], kind: str = 'topic') -> ExchangeTable:
    text = f'[exchange.x]\ntype = {kind}\nbindings =\n' + '\n'.join(f'    {line}' for line in bindings)
    problems = Problems()
    table = read_exchanges(text.encode(), 'exchange.cfg', problems)
    assert not problems.errors, problems.errors[:3]
    return table


@pytest.mark.parametrize(
    'patterns',
    [
        ['#'],
        ['.'.join(['#', 'a'] * 40)],
        ['.'.join(['#', 'a'] * 20 + ['b'])],
        ['.'.join(['*', '#'] * 30)],
        ['.'.join(['#', '*', 'a'][: 1 + number % 3] * 10) for number in range(60)],
    ],
    ids=['all', 'many any', 'almost', 'stars', 'many patterns'],
)
def test_a_key_of_ten_thousand_words_is_routed_in_bounded_time(patterns: list[str]) -> None:
    table = table_of([f'{pattern} -> q' for pattern in dict.fromkeys(patterns)])
    with bounded(peak_bytes=256 * MIB):
        try:
            table.route('x', KEY_OF_10_000_WORDS, {})
        except SwitchboardError:
            pass  # it may refuse


@given(st.text(max_size=60), st.lists(st.text(alphabet='ab*#.', max_size=12), max_size=4))
def test_any_key_is_routed_or_refused_by_an_error_of_the_tree(key: str, patterns: list[str]) -> None:
    lines = '\n'.join(f'    {pattern} -> q' for pattern in patterns)
    problems = Problems()
    table = read_exchanges(f'[exchange.x]\ntype=topic\nbindings =\n{lines}\n'.encode(), 'f', problems)
    if problems.errors or 'x' not in table:
        return
    try:
        assert set(table.route('x', key, {})) <= {'q'}
    except SwitchboardError:
        pass  # it may refuse


def test_very_many_bindings_are_read_in_linear_time() -> None:
    with bounded():
        table = table_of([f'list{number}.* -> q{number % 10}' for number in range(20_000)])
        assert table.route('x', 'list7.post', {}) == ('q7',)


@pytest.mark.slow
def test_a_million_bindings_are_refused_in_bounded_time() -> None:
    text = '[exchange.x]\ntype = topic\nbindings =\n' + '    a.b -> q\n' * 1_000_000
    problems = Problems()
    with bounded():
        read_exchanges(text.encode(), 'exchange.cfg', problems)
    assert 'bindings' in str(problems.errors[0])
