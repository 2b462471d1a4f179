"""MessagePack and YAML: what comes back is equal, or it was not accepted."""

from __future__ import annotations

import datetime
import sys
from typing import Any

import pytest

from switchboard.errors import ConfigError, CorruptEntryError, UnserializableError
from switchboard.message.serializers import Serializers, library_serializer

VALUES: list[Any] = [None, True, 0, -1.5, '', 'h\u00e4\n', [], [1, [2]], {}, {'a': {'b': [None]}}, {1: 'one'}]


@pytest.fixture(params=['msgpack', 'yaml'])
def serializer(request: pytest.FixtureRequest) -> Any:
    return library_serializer(request.param)


@pytest.mark.parametrize('value', VALUES, ids=repr)
def test_values_come_back_equal(serializer: Any, value: Any) -> None:
    assert serializer.loads(serializer.dumps(value)) == value


def test_each_holds_more_than_json() -> None:
    msgpack, yaml = library_serializer('msgpack'), library_serializer('yaml')
    assert msgpack.loads(msgpack.dumps(b'\xff')) == b'\xff'
    day = datetime.date(2024, 1, 2)
    assert yaml.loads(yaml.dumps([day])) == [day]


@pytest.mark.parametrize('value', [(1,), {'a': (1, 2)}, float('nan'), object(), {1}.__iter__(), {(1,): 2}])
def test_what_would_not_come_back_equal_is_not_accepted(serializer: Any, value: Any) -> None:
    with pytest.raises(UnserializableError, match=serializer.kind):
        serializer.dumps(value)


def test_what_cannot_be_read_is_damage() -> None:
    for serializer, contents in (
        (library_serializer('msgpack'), [b'', b'\xc1', b'\x93\x01', b'\x01\x02']),
        (
            library_serializer('yaml'),
            [b'\xff', b'{', b'[' * 2_000, b'!!python/object/apply:os.getcwd []', b'a: *unknown'],
        ),
    ):
        for content in contents:
            with pytest.raises(CorruptEntryError, match=serializer.kind):
                serializer.loads(content)


@pytest.mark.parametrize('kind', ['msgpack', 'yaml'])
def test_without_its_library_the_error_says_what_to_install(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(
        ConfigError, match=rf"the library {kind}, which is not installed: .*pip install .*\[{kind}\]'"
    ):
        Serializers(accept=(kind,))
