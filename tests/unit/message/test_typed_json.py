"""JSON with types: what comes back is what went in, of the same type, or there is an error that names the place."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock_time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from switchboard.errors import CorruptEntryError, UnserializableError
from switchboard.message.typed_json import (
    MAX_DEPTH,
    OWN_TAGS,
    dump_json,
    is_equal,
    load_json,
    plain_json,
    tagged,
    untag,
)


class Colour(Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


@attrs.frozen
class Size:
    x: int


class Address(pydantic.BaseModel):
    city: str


Pair = namedtuple('Pair', 'a b')


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
        ({'a': [{'b': {1j}}]}, r"it\['a'\]\[0\]\['b'\]\{1j\}: a value of type complex"),
        ([bytearray(b'x')], r'it\[0\]: .*bytearray.*use bytes\(\)'),
        ({'a': Decimal('NaN')}, r"it\['a'\]: .*NaN.* would not come back equal"),
        ({'a': Decimal('-Infinity')}, r"it\['a'\]: .*Infinity.* would not come back equal"),
        ({'a': Colour.RED}, r"it\['a'\]: .*Colour.*use its \.value"),
        ([Point(1)], r'it\[0\]: .*Point.*use dataclasses\.asdict\(\)'),
        ([Size(1)], r'it\[0\]: .*Size.*use attrs\.asdict\(\)'),
        ({'a': (1, Address(city='x'))}, r"it\['a'\]\[1\]: .*Address.*use \.model_dump\(\)"),
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
        dump_json({1j})


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


def test_a_member_that_stands_twice_is_an_error_where_it_would_be_forgotten() -> None:
    content = b'[{"a": 1, "b": {"a": 2}, "a": 3}]'
    assert load_json(content, 'it') == [{'a': 3, 'b': {'a': 2}}]
    with pytest.raises(CorruptEntryError, match="it: there are two members 'a'"):
        load_json(content, 'it', unique=True)


plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
zones = st.none() | st.integers(-86399, 86399).map(lambda s: timezone(timedelta(seconds=s)))
scalars = (
    plain
    | st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=zones)
    | st.timedeltas()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.uuids()
    | st.binary(max_size=8)
)
hashables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(['__type__', '__value__', 'a']) | st.text(max_size=3)
typed = st.recursive(
    hashables | st.sets(hashables, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.fixed_dictionaries(
            {'__type__': st.sampled_from([*OWN_TAGS, 'date', 'what', 1]) | inner, '__value__': inner}
        )
    ),
    max_leaves=8,
)


def shape(value: Any) -> Any:
    """The value with the type of each part."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), {
            shape(item) if not isinstance(item, tuple | frozenset) else repr(type(item)) for item in value
        }
    return type(value), str(value) if isinstance(value, Decimal) else value


class TestTypes:
    @given(typed)
    def test_a_value_comes_back_equal_and_of_the_same_types(self, value: Any) -> None:
        again = load_json(dump_json(value), 'it')
        assert again == value
        assert is_equal(again, value)
        assert repr(shape(again)) == repr(shape(value)) or shape(again) == shape(value)

    @given(typed)
    def test_plain_json_of_it_is_json_that_others_can_indent(self, value: Any) -> None:
        assert untag(json.loads(json.dumps(tagged(value), indent=2))) == value

    @pytest.mark.parametrize(
        ('value', 'text'),
        [
            (
                datetime.fromisoformat('2026-11-28T18:00:00'),
                '{"__type__":"datetime","__value__":"2026-11-28T18:00:00"}',
            ),
            (
                datetime(2026, 11, 28, 18, 0, tzinfo=UTC),
                '{"__type__":"datetime","__value__":"2026-11-28T18:00:00+00:00"}',
            ),
            (date(2026, 11, 28), '{"__type__":"date","__value__":"2026-11-28"}'),
            (clock_time(18, 0), '{"__type__":"time","__value__":"18:00:00"}'),
            (Decimal('1.50'), '{"__type__":"decimal","__value__":"1.50"}'),
            (uuid.UUID(int=1), '{"__type__":"uuid","__value__":{"hex":"00000000000000000000000000000001"}}'),
            (b'abc', '{"__type__":"bytes","__value__":"abc"}'),
            (b'\xff', '{"__type__":"base64","__value__":"/w=="}'),
            (
                timedelta(1, 2, 3),
                '{"__type__":"timedelta","__value__":{"days":1,"seconds":2,"microseconds":3}}',
            ),
            ((1, [2]), '{"__type__":"tuple","__value__":[1,[2]]}'),
            ({2, 1}, '{"__type__":"set","__value__":[1,2]}'),
            (frozenset(('a',)), '{"__type__":"frozenset","__value__":["a"]}'),
            (
                {'__type__': 'date', '__value__': 'x'},
                '{"__type__":"dict","__value__":[["__type__","date"],["__value__","x"]]}',
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_the_vectors_of_the_format_page_hold(self, value: Any, text: str) -> None:
        assert dump_json(value) == text.encode()
        assert is_equal(load_json(text.encode(), 'it'), value)

    @given(scalars.filter(lambda value: not isinstance(value, timedelta)))
    def test_what_kombu_has_a_form_for_is_written_and_read_as_by_kombu(self, value: Any) -> None:
        assert json.loads(dump_json(value)) == json.loads(kombu_json.dumps(value))
        assert is_equal(kombu_json.loads(dump_json(value).decode()), value)
        assert is_equal(load_json(kombu_json.dumps(value).encode(), 'it'), value)

    @pytest.mark.parametrize(
        'text',
        [
            '{"__type__":"what","__value__":1}',
            '{"__type__":"os.system","__value__":["true"]}',
            '{"__type__":["set"],"__value__":[]}',
            '{"__type__":"datetime","__value__":"yesterday"}',
            '{"__type__":"datetime","__value__":17}',
            '{"__type__":"set","__value__":[[1]]}',
            '{"__type__":"set","__value__":"ab"}',
            '{"__type__":"base64","__value__":"a b"}',
            '{"__type__":"bytes","__value__":"\\udc80"}',
            '{"__type__":"decimal","__value__":"NaN"}',
            '{"__type__":"decimal","__value__":"1e99999999999999999999"}',
            '{"__type__":"uuid","__value__":{"hex":"x"}}',
            '{"__type__":"uuid","__value__":{"int":1}}',
            '{"__type__":"timedelta","__value__":{"days":9999999999999}}',
            '{"__type__":"timedelta","__value__":{"days":1.5}}',
            '{"__type__":"timedelta","__value__":{"weeks":1}}',
            '{"__type__":"dict","__value__":[[1,2]]}',
            '{"__type__":"dict","__value__":[["a"]]}',
            '{"__type__":"date","__value__":"2026-11-28","more":1}',
            '{"__type__":"date"}',
        ],
    )
    def test_a_tag_that_is_not_known_or_does_not_fit_stays_a_dictionary(self, text: str) -> None:
        assert load_json(text.encode(), 'it') == json.loads(text)

    def test_relatives_come_back_as_an_equal_value_of_the_type_they_are_derived_from(self) -> None:
        class Stamp(datetime):
            pass

        value = {'a': Pair(1, 2), 'b': Stamp(2026, 1, 1, tzinfo=UTC)}
        again = load_json(dump_json(value), 'it')
        assert again == value
        assert (type(again['a']), type(again['b'])) == (tuple, datetime)

    def test_a_time_of_a_named_zone_comes_back_as_the_same_instant(self) -> None:
        value = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo('Europe/Berlin'))
        assert load_json(dump_json(value), 'it') == value

    @pytest.mark.parametrize('fold', [0, 1])
    def test_so_does_one_in_the_hour_that_a_zone_repeats(self, fold: int) -> None:
        """Python calls no such time equal to one of another zone."""
        value = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo('Europe/Berlin'), fold=fold)
        back = load_json(dump_json(value), 'it')
        assert back.astimezone(UTC) == value.astimezone(UTC)
        assert back.utcoffset() == value.utcoffset()

    def test_equal_sets_have_equal_bytes(self) -> None:
        first, second = set(), set()
        for number in range(0, 400, 8):
            first.add(number)
            second.add(392 - number)
        assert dump_json(first) == dump_json(second)

    def test_for_people_anything_can_be_written(self) -> None:
        value = {1: object, 'a': [1j, {2}], 'b': float('inf')}
        json.dumps(plain_json(value), allow_nan=False)


class TestBounds:
    @pytest.mark.parametrize(
        'text', ['NaN', '[Infinity]', '{"a":-Infinity}', '1e999', '-1e400', ' NaN', '1' * 5000]
    )
    def test_a_number_that_is_none_is_refused(self, text: str) -> None:
        with pytest.raises(CorruptEntryError, match='it: '):
            load_json(text.encode(), 'it')

    @pytest.mark.parametrize(
        ('opening', 'closing'), [('[', ']'), ('{"a":', '}'), ('[{"a":', '}]'), (' [', ' ]')]
    )
    def test_the_depth_is_limited_when_it_is_read(self, opening: str, closing: str) -> None:
        brackets = sum(opening.count(bracket) for bracket in '[{')

        def nested(levels: int) -> bytes:
            count = levels // brackets
            return (opening * count + '1' + closing * count).encode()

        load_json(nested(MAX_DEPTH), 'it')
        for levels in (MAX_DEPTH + 2, 900, 100_000):
            with pytest.raises(CorruptEntryError, match='it: '):
                load_json(nested(levels), 'it')

    @pytest.mark.parametrize('kind', [tuple, frozenset, list])
    def test_what_can_be_written_can_be_read_however_deep_it_is(self, kind: Any) -> None:
        def nested(levels: int) -> Any:
            value: Any = 1
            for _ in range(levels):
                value = kind([value])
            return value

        levels = MAX_DEPTH if kind is list else MAX_DEPTH // 2
        assert load_json(dump_json(nested(levels)), 'it') == nested(levels)
        for more in (levels + 1, 900):
            with pytest.raises(UnserializableError, match='nested too deeply'):
                dump_json(nested(more))
