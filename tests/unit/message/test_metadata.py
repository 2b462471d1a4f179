"""Metadata: what is stored of them, and what a reader adds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import CorruptEntryError
from switchboard.message.metadata import dump_metadata, load_metadata

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
