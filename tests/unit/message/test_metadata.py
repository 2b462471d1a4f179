"""Metadata and JSON: what comes back is what went in, or there is an error that names the place."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.errors import CorruptEntryError, UnserializableError
from switchboard.message.metadata import dump_json, dump_metadata, load_json, load_metadata

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=8,
)


class Level(IntEnum):
    HIGH = 9


@given(values)
def test_what_json_holds_comes_back_equal(value: Any) -> None:
    assert load_json(dump_json(value), 'it') == value


@pytest.mark.parametrize(
    'value', ['\udcff', '\ud800x', '\0', '\u2028', 10**4000, -(2**70), 1e308, 5e-324, Level.HIGH]
)
def test_corners_of_json_come_back_equal(value: Any) -> None:
    assert load_json(dump_json(value), 'it') == value


@pytest.mark.parametrize('value', [OrderedDict(a=1), defaultdict(list, a=[1])])
def test_a_relative_of_a_dictionary_comes_back_as_an_equal_dictionary(value: Any) -> None:
    assert load_json(dump_json(value), 'it') == value


@pytest.mark.parametrize(
    ('value', 'place'),
    [
        ((1,), r'it: a value of type tuple .* use a list'),
        ({'a': [{'b': {1}}]}, r"it\['a'\]\[0\]\['b'\]: a value of type set"),
        ([b'x'], r'it\[0\]: .*bytes.*decode it'),
        ({'a': float('inf')}, r"it\['a'\]: inf is no JSON number"),
        ([float('nan')], r'it\[0\]: nan is no JSON number'),
        ({'a': {2: 'x'}}, r"it\['a'\]: the key 2 is of type int"),
        ({None: 1}, r'the key None is of type NoneType'),
        pytest.param(10**5000, 'it: ', id='a number of 5,001 digits'),
        (object, 'a value of type type'),
    ],
)
def test_what_json_does_not_hold_is_named_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(UnserializableError, match=place):
        dump_json(value, 'it')


def test_an_error_about_a_value_is_a_type_error_too() -> None:
    with pytest.raises(TypeError):
        dump_json({1, 2})


def test_nesting_too_deep_and_circles_are_errors() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle['self'] = circle
    for value in (deep, circle):
        with pytest.raises(UnserializableError, match='nested too deeply'):
            dump_json(value)
    while deep:  # or its end would overflow the stack of the interpreter
        deep = deep.pop()


@pytest.mark.parametrize('content', [b'', b'{', b'[1,]', b'\xff', b'[' * 100_000, b'1' * 5000, b'{"a":1}x'])
def test_json_of_others_that_cannot_be_read_is_damage(content: bytes) -> None:
    with pytest.raises(CorruptEntryError, match='it: '):
        load_json(content, 'it')


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
