"""Metadata: what is stored of them, and what a reader adds."""

from __future__ import annotations

import json
import pickle
from decimal import Decimal
from email.message import Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import CorruptEntryError, UnserializableError
from switchboard.message.entry import Entry, is_body_changed, metadata_changes, read_entry
from switchboard.message.entry_header import content_checksum, pack_header
from switchboard.message.mail import mail_from_bytes
from switchboard.message.metadata import dump_metadata, load_metadata
from switchboard.message.naming import NameGenerator
from switchboard.message.packing import Packer
from switchboard.message.serializers import Serializers
from switchboard.options import QueueOptions

values = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.booleans(), max_size=3)


class TestMetadata:
    def test_the_version_and_the_parse_flag_are_added_when_read(self) -> None:
        assert load_metadata(b'{}') == {'version': 3, '_parsemsg': False}
        assert load_metadata(b'{"version":9,"_parsemsg":true,"a":1}') == {
            'version': 3,
            '_parsemsg': False,
            'a': 1,
        }

    def test_two_readings_share_nothing(self) -> None:
        load_metadata(b'{}')['a'] = 1
        assert 'a' not in load_metadata(b'{}')

    @given(st.dictionaries(st.text(max_size=5), values, max_size=5))
    def test_keys_with_an_underscore_and_the_version_are_left_out(self, metadata: dict[str, Any]) -> None:
        stored = json.loads(dump_metadata({**metadata, 'version': object(), '_x': object()}))
        assert stored == {
            key: value for key, value in metadata.items() if key[:1] != '_' and key != 'version'
        }

    def test_nothing_is_two_braces(self) -> None:
        assert dump_metadata({}) == dump_metadata({'_a': 1}) == b'{}'

    @pytest.mark.parametrize('content', [b'[]', b'null', b'"a"', b'{}{}', b''])
    def test_what_is_no_object_is_damage(self, content: bytes) -> None:
        with pytest.raises(CorruptEntryError, match='metadata'):
            load_metadata(content)

    def test_an_object_that_looks_like_a_tag_is_one_object_of_metadata(self) -> None:
        metadata = load_metadata(b'{"__type__":"tuple","__value__":{"__type__":"set","__value__":[1]}}')
        assert (metadata['__type__'], metadata['__value__']) == ('tuple', {1})


SERIALIZERS = Serializers(accept=('mail', 'bytes', 'text', 'json', 'mailman', 'yaml'))
metadata = st.dictionaries(
    st.text(max_size=3), st.none() | st.integers() | st.lists(st.integers(), max_size=2), max_size=5
)


def pack(msg: Any) -> Entry:
    packed = Packer('in', QueueOptions(), SERIALIZERS, NameGenerator()).pack(msg, {})
    return read_entry(packed.filebase, packed.content)


def by_another_program(kind: str, body: bytes) -> Entry:
    digest = NameGenerator().digest('00000000')
    content = pack_header(kind, 2, len(body), digest, content_checksum(b'{}', body)) + b'{}' + body
    return read_entry(f'1732242000.5+{digest}', content)


class TestChanges:
    @given(metadata, metadata)
    def test_a_record_of_the_changes_turns_one_into_the_other(
        self, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        record = json.loads(json.dumps(metadata_changes(before, after)))
        result = {**before, **record.get('set', {})}
        for key in record.get('drop', []):
            del result[key]

        def lasting(values: dict[str, Any]) -> dict[str, Any]:
            return {
                key: value for key, value in values.items() if not key.startswith('_') and key != 'version'
            }

        assert lasting(result) == lasting(after)

    @given(metadata)
    def test_nothing_is_said_of_what_did_not_change(self, values: dict[str, Any]) -> None:
        assert metadata_changes(values, {**values, '_volatile': 1, 'version': 9}) == {}

    @pytest.mark.parametrize('value', [1j, [object()], object(), float('nan')])
    def test_a_value_that_cannot_be_stored_is_named_or_stays_as_it_was(self, value: Any) -> None:
        with pytest.raises(UnserializableError, match='recipients'):
            metadata_changes({}, {'recipients': value, 'n': 1})
        assert metadata_changes({}, {'recipients': value, 'n': 1}, strict=False) == {'set': {'n': 1}}

    def test_what_could_not_be_stored_and_was_not_touched_is_no_error(self) -> None:
        assert metadata_changes({'seen': {1j, 2}}, {'seen': {2, 1j}}) == {}  # as in a file of Mailman's

    @pytest.mark.parametrize(
        ('before', 'after'),
        [
            ({1}, frozenset((1,))),
            ([1], (1,)),
            (1, True),
            ({'a': (1,)}, {'a': [1]}),
            (Decimal('1.0'), Decimal(1)),
        ],
    )
    def test_an_equal_value_of_another_type_is_a_change(self, before: Any, after: Any) -> None:
        assert metadata_changes({'a': before}, {'a': after}) == {'set': {'a': after}}

    def test_another_order_of_keys_is_none(self) -> None:
        assert metadata_changes({'a': {'x': 1, 'y': {2}}}, {'a': {'y': {2}, 'x': 1}}) == {}


class TestBody:
    @pytest.mark.parametrize('msg', ['x', b'x', {'a': [1]}, [], None])
    def test_what_is_equal_is_unchanged(self, msg: Any) -> None:
        entry = pack(msg)
        assert not is_body_changed(entry, entry.load(SERIALIZERS)[0], SERIALIZERS)

    def test_what_was_added_inside_is_a_change(self) -> None:
        entry = pack({'a': [1]})
        msg = entry.load(SERIALIZERS)[0]
        msg['a'].append(2)
        assert is_body_changed(entry, msg, SERIALIZERS)

    @pytest.mark.parametrize(
        ('kind', 'body'),
        [('json', b' { "a" : 1 } '), ('yaml', b'a:   1 # one\n'), ('mail', b'Subject: x\r\n\r\nbody\r\n')],
    )
    def test_the_style_of_another_program_is_no_change_even_when_it_was_looked_into(
        self, kind: str, body: bytes
    ) -> None:
        entry = by_another_program(kind, body)
        msg = entry.load(SERIALIZERS)[0]
        if isinstance(msg, Message):
            assert msg.get_payload()
        assert not is_body_changed(entry, msg, SERIALIZERS)

    def test_a_header_more_is_a_change(self) -> None:
        entry = pack(mail_from_bytes(b'Subject: x\n\nbody\n'))
        msg = entry.load(SERIALIZERS)[0]
        msg['X-Seen'] = 'yes'
        assert is_body_changed(entry, msg, SERIALIZERS)

    def test_a_file_of_mailmans_is_compared_by_what_its_mail_says(self) -> None:
        original = Message()
        original['Subject'] = 'x'
        original.set_payload('body\n')
        content = pickle.dumps(original) + pickle.dumps({})
        entry = read_entry('1732242000.5+' + '0' * 40, content)
        msg = entry.load(SERIALIZERS)[0]
        assert not is_body_changed(entry, msg, SERIALIZERS)
        msg['X-Seen'] = 'yes'
        assert is_body_changed(entry, msg, SERIALIZERS)

    def test_what_cannot_be_stored_any_more_is_an_error(self) -> None:
        entry = pack({'a': 1})
        with pytest.raises(UnserializableError, match="'a'"):
            is_body_changed(entry, {'a': {1j}}, SERIALIZERS)
