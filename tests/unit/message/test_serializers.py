"""Kinds: which one holds a message, and what reads it again."""

from __future__ import annotations

import datetime
import email
import json
import sys
from dataclasses import dataclass
from email.message import EmailMessage, Message
from typing import Any

import pytest

from switchboard import Switchboard
from switchboard.errors import ConfigError, CorruptEntryError, UnserializableError
from switchboard.message.mail import mail_from_bytes
from switchboard.message.serializers import Serializers, kind_family, library_serializer


@dataclass
class Invoice:
    number: int


class InvoiceSerializer:
    kind = 'invoice+json'

    def dumps(self, msg: Invoice) -> bytes:
        return json.dumps(msg.number).encode()

    def loads(self, body: bytes) -> Invoice:
        return Invoice(json.loads(body)['number'] if body.startswith(b'{') else json.loads(body))


class DerivedMessage(EmailMessage):
    pass


@pytest.mark.parametrize(
    ('msg', 'kind'),
    [
        (b'', 'bytes'),
        (bytearray(b'x'), 'bytes'),
        (memoryview(b'x'), 'bytes'),
        ('', 'text'),
        (Message(), 'mail'),
        (EmailMessage(), 'mail+default'),
        (DerivedMessage(), 'mail+default'),
        (mail_from_bytes(b'x'), 'mail'),
        (mail_from_bytes(b'x', modern=True), 'mail+default'),
        ({}, 'json'),
        ([], 'json'),
        (0, 'json'),
        (0.5, 'json'),
        (True, 'json'),
        (None, 'json'),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_type_of_a_message_chooses_its_kind(msg: Any, kind: str) -> None:
    serializers = Serializers()
    assert serializers.for_message(msg).kind == kind
    assert serializers.for_message(msg).kind == kind  # remembered, and still the same


@pytest.mark.parametrize('msg', [object(), 1j, Invoice(1), int], ids=lambda msg: type(msg).__name__)
def test_a_message_that_nothing_holds_is_an_error_that_names_its_type(msg: Any) -> None:
    with pytest.raises(UnserializableError, match=type(msg).__name__):
        Serializers().for_message(msg)


@pytest.mark.parametrize('kind', ['mail', 'mail+default', 'bytes', 'text', 'json'])
def test_what_is_accepted_is_read_and_nothing_else(kind: str) -> None:
    assert Serializers().for_kind(kind) is not None
    assert Serializers(accept=(kind_family(kind),)).for_kind(kind) is not None
    assert Serializers(accept=('bytes' if kind != 'bytes' else 'text',)).for_kind(kind) is None


@pytest.mark.parametrize('kind', ['pickle', 'mailman', 'msgpack', 'yaml', 'mailx', '', 'unknown'])
def test_other_kinds_are_not_read_unless_they_are_named(kind: str) -> None:
    assert Serializers().for_kind(kind) is None


def test_a_kind_that_there_is_not_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match='no such kind') as caught:
        Serializers(accept=('mail', 'xml'))
    assert caught.value.key == 'accept'
    with pytest.raises(ConfigError, match='does not name') as caught:
        Serializers(prefer='yaml')
    assert caught.value.key == 'serializer'


@pytest.mark.parametrize('prefer', ['msgpack', 'yaml'])
def test_values_can_be_written_in_another_kind_than_json(prefer: str) -> None:
    serializers = Serializers(accept=('json', prefer), prefer=prefer)
    serializer = serializers.for_message({'a': [1]})
    assert serializer.kind == prefer
    assert serializer.loads(serializer.dumps({'a': [1]})) == {'a': [1]}
    assert serializers.for_kind('json') is not None


def test_a_program_can_bring_a_type_of_its_own(tmp_path: Any) -> None:
    queue = Switchboard('in', tmp_path / 'in')
    queue.serializers.register(Invoice, InvoiceSerializer())
    queue.serializers.accept |= {'invoice'}
    assert queue.dequeue(queue.enqueue(Invoice(7)))[0] == Invoice(7)


def test_what_it_registers_later_holds_for_types_that_were_looked_up_before() -> None:
    serializers = Serializers()
    with pytest.raises(UnserializableError):
        serializers.for_message(Invoice(1))
    serializers.register(Invoice, InvoiceSerializer())
    assert serializers.for_message(Invoice(1)).kind == 'invoice+json'


def test_an_error_in_a_programs_own_serializer_sends_the_entry_to_bad_and_not_the_runner_down(
    tmp_path: Any,
) -> None:
    class Failing(InvoiceSerializer):
        def loads(self, body: bytes) -> Invoice:
            raise KeyError('number')

    queue = Switchboard('in', tmp_path / 'in')
    queue.serializers.register(Invoice, Failing())
    queue.serializers.accept |= {'invoice'}
    queue.enqueue(Invoice(1))
    queue.enqueue('next')
    taken = queue.take()
    assert taken is not None
    assert taken.msg == 'next'
    (name,) = Switchboard('bad', tmp_path / 'bad').get_files('.psv')
    assert "KeyError('number')" in Switchboard('bad', tmp_path / 'bad').history(name)[-1]['reason']


class TestText:
    @pytest.mark.parametrize('text', ['', 'h\u00e4', '\ud800', 'a\udcff\U0001f600', '\0\r\n'])
    def test_any_text_comes_back(self, text: str) -> None:
        serializer = Serializers().for_message(text)
        assert serializer.loads(serializer.dumps(text)) == text

    def test_what_is_no_utf_8_is_damage(self) -> None:
        serializer = Serializers().for_kind('text')
        assert serializer is not None
        with pytest.raises(CorruptEntryError, match='text'):
            serializer.loads(b'\xff')


def test_a_mail_that_cannot_be_flattened_is_an_error_of_that_message() -> None:
    msg = email.message_from_string('Subject: x\n\nbody')
    msg.set_payload(object())
    with pytest.raises(UnserializableError, match='cannot be flattened'):
        Serializers().for_message(msg).dumps(msg)


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
