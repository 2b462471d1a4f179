"""From a message to a name and the bytes of a file."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.errors import ContentDisallowedError, MessageTooLargeError
from switchboard.message.entry import Entry, parse_header, read_entry
from switchboard.message.entry_header import MAX_METADATA_BYTES
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import (
    NS_PER_S,
    EntryName,
    NameGenerator,
    digest_of,
    parse_filebase,
    slice_digits,
)
from switchboard.message.packing import EncodedEntry, Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock


def packer(clock: Clock = SYSTEM_CLOCK, **options: Any) -> Packer:
    queue_options = QueueOptions(**options)
    serializers = Serializers(queue_options.accept, queue_options.pickle_classes)
    return Packer('in', queue_options, serializers, NameGenerator(clock))


def read(packed: EncodedEntry) -> Entry:
    return read_entry(packed.filebase, packed.content)


def name_of(packed: EncodedEntry) -> EntryName:
    name = parse_filebase(packed.filebase)
    assert name is not None
    return name


class TestName:
    def test_the_digest_begins_with_a_checksum_of_the_content_and_the_rest(self) -> None:
        one, other, different = (packer().pack(msg, {}, digest_tail='7' * 32) for msg in ('x', 'x', 'y'))
        assert one.filebase[20:] == other.filebase[20:] != different.filebase[20:]
        assert digest_of(one.filebase)[8:] == '7' * 32

    def test_equal_messages_are_not_all_for_one_slice(self) -> None:
        one = packer()
        assert len({digest_of(one.pack('x', {}).filebase)[:2] for _ in range(100)}) > 20

    def test_with_an_order_key_it_begins_with_the_digest_of_that(self) -> None:
        digest = digest_of(packer().pack('x', {'order_key': 'alice'}).filebase)
        assert digest.startswith(slice_digits('alice'))
        assert slice_digits('alice') == hashlib.sha1(b'alice').hexdigest()[:8] == '522b276a'

    @pytest.mark.parametrize('key', [0, 'h\u00e4', '\udcff', ['a'], True])
    def test_any_key_will_do(self, key: Any) -> None:
        first, second = (packer().pack(msg, {'order_key': key}).filebase for msg in ('x', 'y'))
        assert digest_of(first)[:8] == digest_of(second)[:8] == slice_digits(key)

    def test_the_priority_is_the_messages_own_or_the_queues(self) -> None:
        assert name_of(packer().pack('x', {})).priority == 0
        assert name_of(packer(priority=3).pack('x', {})).priority == 3
        assert name_of(packer(priority=3).pack('x', {'priority': 0})).priority == 0
        assert name_of(packer(priority=3).pack('x', {'priority': 'high'})).priority == 3
        assert name_of(packer(priority=3).pack('x', {'priority': True})).priority == 3

    def test_the_content_says_what_the_name_says(self) -> None:
        packed = packer().pack('x', {'a': 1})
        header = parse_header(packed.content)
        assert (header.kind, header.digest) == ('text', digest_of(packed.filebase))
        assert (read(packed).metadata, read(packed).body) == (b'{"a":1}', b'x')


class TestTime:
    def test_the_machines_own_dates_need_no_help(self) -> None:
        assert packer().pack('x', {}).modified_ns is None
        assert packer().pack('x', {'delay': 60}).modified_ns is None

    def test_after_a_clock_was_set_back_the_file_is_dated_as_its_name(self) -> None:
        clock = FakeClock()
        ours = packer(clock)
        first = name_of(ours.pack('x', {}))
        clock.set_back(3600)
        packed = ours.pack('x', {})
        assert packed.modified_ns == name_of(packed).when_ns == first.when_ns + 1

    def test_a_wish_for_a_delay_is_dated_now(self) -> None:
        clock = FakeClock()
        ours = packer(clock)
        ours.pack('x', {})
        clock.set_back(3600)
        packed = ours.pack('x', {'delay': 60})
        assert packed.modified_ns == clock.time_ns()
        assert name_of(packed).when_ns == clock.time_ns() + 60 * NS_PER_S

    def test_so_is_a_copy_after_a_clock_was_set_back(self) -> None:
        clock = FakeClock()
        ours = packer(clock)
        entry = read(ours.pack('x', {}))
        clock.set_back(3600)
        copy = ours.pack_copy(entry)
        assert copy.modified_ns == name_of(copy).when_ns > clock.time_ns()


class TestLimits:
    def test_metadata_that_could_not_be_read_again_are_not_accepted(self) -> None:
        with pytest.raises(MessageTooLargeError, match='metadata'):
            packer().pack('x', {'a': 'x' * MAX_METADATA_BYTES})

    def test_a_kind_that_is_not_accepted_is_told_with_the_queue(self) -> None:
        with pytest.raises(ContentDisallowedError) as caught:
            packer(accept=('text',)).pack({}, {})
        assert (caught.value.queue, caught.value.kind) == ('in', 'json')


RECORDS = [{'event': 'kept', 'set': {'n': 1}, 'drop': ['old']}, {'event': 'failed', 'error': 'E'}]


def entry_with_history(**metadata: Any) -> Entry:
    entry = read(packer().pack('x', {'n': 0, 'old': True, **metadata}))
    entry.records.extend(RECORDS)
    return entry


class TestInAnothersPlace:
    def test_time_slice_and_history_are_taken_over(self) -> None:
        old = entry_with_history()
        packed = packer().pack_replacement('changed', {'n': 2}, old)
        was = parse_filebase(old.filebase)
        assert was is not None
        assert name_of(packed).when_ns == was.when_ns
        assert digest_of(packed.filebase)[:8] == was.digest[:8]
        assert digest_of(packed.filebase) != was.digest
        assert [record['event'] for record in read(packed).records] == ['kept', 'failed']

    def test_what_the_history_said_of_the_metadata_is_not_said_again(self) -> None:
        packed = packer().pack_replacement('changed', {'n': 2, 'old': 'again'}, entry_with_history())
        assert read(packed).load(Serializers()) == (
            'changed',
            {'n': 2, 'old': 'again', 'version': 3, '_parsemsg': False},
        )


class TestCopy:
    def test_it_is_another_entry_of_the_same_slice_priority_and_content(self) -> None:
        entry = read(packer().pack(b'body', {'priority': 7}))
        packed = packer().pack_copy(entry)
        assert packed.filebase != entry.filebase
        assert digest_of(packed.filebase)[:8] == digest_of(entry.filebase)[:8]
        assert name_of(packed).priority == 7
        copy = read(packed)
        assert (copy.kind, copy.metadata, copy.body, copy.damage) == (
            'bytes',
            b'{"priority":7}',
            b'body',
            None,
        )

    def test_metadata_are_those_that_the_history_leaves(self) -> None:
        packed = packer().pack_copy(entry_with_history())
        assert load_metadata(read(packed).metadata) == {'n': 1, 'version': 3, '_parsemsg': False}
        assert [set(record) for record in read(packed).records] == [{'event'}, {'event', 'error'}]
