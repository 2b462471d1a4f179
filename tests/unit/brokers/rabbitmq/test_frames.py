"""Frames of RabbitMQ's, with whatever a stranger has put into a message: they are read, or the message says why they cannot be."""

from __future__ import annotations

from struct import pack
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import spec
from amqp.exceptions import UnexpectedFrame
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from switchboard.brokers.message import UNREADABLE_HEADER
from switchboard.brokers.rabbitmq.frames import HEADER_FRAME, METHOD_FRAME, tolerant_frame_handler

BODY_FRAME = 3
HEADERS, MESSAGE_ID = 1 << 13, 1 << 7
GET_OK = pack('>HH', *spec.Basic.GetOk)


def received(properties: bytes, *, routing_key: bytes = b'in', body: bytes = b'body') -> tuple[Any, Any]:
    """:return: the arguments of the method, and the message, that py-amqp gives on."""
    given_on: list[tuple[Any, ...]] = []
    on_frame = tolerant_frame_handler(SimpleNamespace(bytes_recv=0), lambda *all: given_on.append(all))
    method = GET_OK + dumps('Lbs', [7, False, 'x']) + bytes([len(routing_key)]) + routing_key + pack('>I', 0)
    on_frame((METHOD_FRAME, 1, method))
    on_frame((HEADER_FRAME, 1, pack('>HHQ', 60, 0, len(body)) + properties))
    if body:
        on_frame((BODY_FRAME, 1, body))
    [(_channel, _method, arguments, message)] = given_on
    return loads('Lbssl', arguments, 4)[0], message


def table(*items: bytes) -> bytes:
    content = b''.join(items)
    return pack('>I', len(content)) + content


def nested(levels: int) -> bytes:
    value = b'I\0\0\0\1'
    for _ in range(levels):
        value = b'F' + table(b'\1a' + value)
    return value


UNREADABLE_PROPERTIES = {
    'an id that is no UTF-8': pack('>H', MESSAGE_ID) + b'\2\xff\xfe',
    'a date beyond all years': pack('>H', HEADERS) + table(b'\1aT' + pack('>Q', 2**62)),
    'tables in tables': pack('>H', HEADERS) + table(b'\1a' + nested(5000)),
    'a value of no type': pack('>H', HEADERS) + table(b'\1a?'),
    'a table that is cut short': pack('>H', HEADERS) + pack('>I', 99),
    'nothing at all': b'',
}


@pytest.mark.parametrize('body', [b'body', b''])
@pytest.mark.parametrize('properties', UNREADABLE_PROPERTIES.values(), ids=UNREADABLE_PROPERTIES)
def test_a_message_whose_properties_cannot_be_read_comes_with_the_reason(
    properties: bytes, body: bytes
) -> None:
    _, message = received(properties, body=body)
    assert set(message.properties) == {'application_headers'}
    assert 'cannot be read' in message.properties['application_headers'][UNREADABLE_HEADER]
    assert message.body == body or not body


def test_honest_properties_are_what_they_were() -> None:
    _, message = received(pack('>H', HEADERS | MESSAGE_ID) + table(b'\1aI\0\0\0\1') + b'\2id')
    assert message.properties == {'application_headers': {'a': 1}, 'message_id': 'id'}


def test_a_routing_key_that_is_no_text_is_made_one() -> None:
    arguments, message = received(pack('>H', 0), routing_key=b'a.\xff\xfe.b')
    assert arguments == [7, False, 'x', 'a.??.b', 0]
    assert message.body == b'body'


def test_what_is_no_message_is_as_wrong_as_ever() -> None:
    on_frame = tolerant_frame_handler(SimpleNamespace(bytes_recv=0), lambda *_all: None)
    with pytest.raises(UnexpectedFrame):
        on_frame((BODY_FRAME, 1, b''))


@given(st.binary(max_size=60), st.binary(max_size=20))
def test_whatever_stands_there_the_message_is_given_on(properties: bytes, routing_key: bytes) -> None:
    arguments, message = received(properties, routing_key=routing_key)
    assert arguments[0] == 7
    assert message.body == b'body'
