"""The history of an entry: appended, torn, left over from another message, forged."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.message.journal import (
    count_since_retry,
    drop_undone_moves,
    find_records,
    origin_queue,
    pack_record,
    parse_records,
)

DIGEST = 'f8ee685d0123456789abcdef0000000000000001'
OTHER = 'f8ee685d0123456789abcdef0000000000000002'
RECORDS: list[dict[str, Any]] = [
    {'event': 'one'},
    {'event': 'two', 'text': 'h\u00e4\n#5 x {}'},
    {'event': 'three'},
]

values = (
    st.none()
    | st.integers(-(10**13), 10**13)
    | st.text(max_size=9)
    | st.lists(st.text(max_size=3), max_size=3)
)
# Words by which a record is understood are text, or are left out.
keys = st.text(max_size=3).filter(lambda key: key != 'to')
records = st.lists(
    st.builds(
        dict.__or__,
        st.dictionaries(keys, values, max_size=3),
        st.fixed_dictionaries({}, optional={'to': st.text(max_size=9), 'event': st.text(max_size=9)}),
    ),
    max_size=4,
)


def pack(many: list[dict[str, Any]], digest: str = DIGEST) -> bytes:
    return b''.join(pack_record(record, digest) for record in many)


def test_the_vector_of_the_format_page_holds() -> None:
    record = {'event': 'moved', 'time': 1732242000.5, 'queue': 'in', 'to': 'out'}
    assert pack_record(record, DIGEST) == (
        b'\n#61 ad383ac8 {"event":"moved","time":1732242000.5,"queue":"in","to":"out"}'
    )


@given(records)
def test_records_read_back_as_they_were_written(many: list[dict[str, Any]]) -> None:
    packed = pack(many)
    assert parse_records(packed, DIGEST) == (many, len(packed))


@given(st.integers(0, len(pack(RECORDS)) - 1))
def test_a_torn_append_and_what_stands_behind_it_do_not_count(length: int) -> None:
    ends = [len(pack(RECORDS[:count])) for count in range(4)]
    whole = max(count for count in range(4) if ends[count] <= length)
    assert parse_records(pack(RECORDS)[:length], DIGEST) == (RECORDS[:whole], ends[whole])


@given(st.data())
def test_a_record_with_a_changed_byte_does_not_count(data: st.DataObject) -> None:
    packed = bytearray(pack(RECORDS))
    first_end = len(pack(RECORDS[:1]))
    position = data.draw(st.integers(first_end, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    read, end = parse_records(bytes(packed), DIGEST)
    assert read == RECORDS[: len(read)]
    assert len(read) < 3
    assert end <= position


def test_what_a_recycled_file_held_before_is_never_history() -> None:
    assert parse_records(pack(RECORDS, OTHER), DIGEST) == ([], 0)
    behind = pack(RECORDS[:1]) + pack(RECORDS[1:], OTHER)
    assert parse_records(behind, DIGEST) == (RECORDS[:1], len(pack(RECORDS[:1])))


@pytest.mark.parametrize(
    'tail',
    [
        b'',
        b'\n',
        b'\n#',
        b'\n#x',
        b'\n#5',
        b'\n#-1 00000000 {}',
        b'\n#99999999999999999999999 0 {}',
        b'\n#2 00000000 []',
    ],
)
def test_what_is_no_record_is_none(tail: bytes) -> None:
    assert parse_records(tail, DIGEST) == ([], 0)


def test_words_that_are_none_are_left_out_as_a_record_is_read() -> None:
    for odd in ([1], {}, None, True, 1.5):
        record = {'event': odd, 'queue': odd, 'to': odd, 'cause': odd, 'set': odd}
        [read] = parse_records(pack([record]), DIGEST)[0]
        assert read == {'set': odd}


def test_a_record_that_is_no_object_does_not_count() -> None:
    assert parse_records(pack([[1]]), DIGEST) == ([], 0)


class TestHistoryOfAFileWithoutAHeader:
    @given(st.binary(), records)
    def test_it_is_found_from_the_end(self, body: bytes, many: list[dict[str, Any]]) -> None:
        assert find_records(body + pack(many), DIGEST) == (many, len(body))

    def test_records_behind_which_something_else_stands_do_not_count(self) -> None:
        content = b'body' + pack(RECORDS) + b'more'
        assert find_records(content, DIGEST) == ([], len(content))

    def test_after_a_torn_append_the_later_ones_are_found(self) -> None:
        content = b'body' + pack(RECORDS[:1])[:-2] + pack(RECORDS[1:])
        found, start = find_records(content, DIGEST)
        assert found == RECORDS[1:]
        assert content[start:] == pack(RECORDS[1:])

    def test_a_body_full_of_what_looks_like_records_takes_no_time(self) -> None:
        content = (b'\n#%d 00000000 ' % 1_000_000) * 200_000
        started_s = time.process_time()
        assert find_records(content, DIGEST) == ([], len(content))
        assert time.process_time() - started_s < 5  # it was hours


class TestQuestions:
    def test_counts_start_anew_when_an_operator_sends_the_entry_back(self) -> None:
        events = ['failed', 'failed', 'recovered', 'retried', 'failed']
        history = [{'event': event} for event in events]
        assert count_since_retry(history, 'failed') == 1
        assert count_since_retry(history, 'recovered') == 0
        assert count_since_retry(history[:3], 'failed') == 2

    def test_an_entry_came_from_the_queue_that_was_named_last(self) -> None:
        history = [
            {'event': 'moved', 'queue': 'a', 'to': 'b'},
            {'event': 'preserved', 'queue': 'b'},
            {'event': 'failed', 'queue': 'not asked'},
            {'event': 'preserved', 'queue': 7},
        ]
        assert origin_queue(history, '') == 'b'
        assert origin_queue(history[:1], '') == 'a'
        assert origin_queue([], '') is None


class TestMovesThatDidNotTakePlace:
    """A record is written before the rename, so one of a move that a crash prevented may stand in a history."""

    TO_B: ClassVar = {'event': 'moved', 'queue': 'a', 'to': 'b', 'drop': ['x']}

    def test_one_that_took_place_counts(self) -> None:
        assert drop_undone_moves([self.TO_B], 'b') == [self.TO_B]

    def test_one_that_did_not_is_left_out(self) -> None:
        assert drop_undone_moves([self.TO_B], 'a') == []

    def test_who_does_not_know_where_it_is_believes_all(self) -> None:
        assert drop_undone_moves([self.TO_B], '') == [self.TO_B]

    def test_the_second_try_counts(self) -> None:
        recovered = {'event': 'recovered'}
        assert drop_undone_moves([self.TO_B, recovered, self.TO_B], 'b') == [recovered, self.TO_B]

    def test_a_later_move_tells_that_an_earlier_one_took_place(self) -> None:
        onward = {'event': 'dead-lettered', 'queue': 'b', 'to': 'c'}
        assert drop_undone_moves([self.TO_B, onward], 'c') == [self.TO_B, onward]

    def test_a_later_move_tells_that_an_earlier_one_did_not(self) -> None:
        elsewhere = {'event': 'moved', 'queue': 'a', 'to': 'c'}
        assert drop_undone_moves([self.TO_B, elsewhere], 'c') == [elsewhere]

    def test_where_it_was_preserved_tells_too(self) -> None:
        from_a, from_b = ({'event': 'preserved', 'queue': queue} for queue in 'ab')
        assert drop_undone_moves([self.TO_B, from_b], 'bad') == [self.TO_B, from_b]
        assert drop_undone_moves([self.TO_B, from_a], 'bad') == [from_a]

    def test_the_origin_of_what_was_not_moved_after_all_is_where_it_came_from_before(self) -> None:
        history = [{'event': 'preserved', 'queue': 'a'}, {'event': 'moved', 'queue': 'bad', 'to': 'b'}]
        assert origin_queue(history, 'bad') == 'a'
        assert origin_queue(history, 'b') == 'bad'
