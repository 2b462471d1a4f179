"""Publishing many messages to a real RabbitMQ, some of which cannot go: the others go, and go once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from switchboard.brokers import connect
from switchboard.brokers.encode import encode
from switchboard.brokers.message import OutgoingMessage
from switchboard.brokers.rabbitmq.driver import RabbitDriver
from switchboard.errors import (
    MessageTooLargeError,
    NoRouteError,
    SwitchboardError,
    UnknownExchangeError,
    UnserializableError,
)
from tests.servers.brokers.broker import Broker
from tests.servers.rabbitmq.rabbits import setting

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

MIB = 1 << 20


class Out:
    """A connection, and a queue to publish to."""

    def __init__(self, url: str) -> None:
        connection = connect(url)
        assert isinstance(connection.driver, RabbitDriver)
        self.connection, self.driver = connection, connection.driver
        self.queue = uuid.uuid4().hex[:8]
        self.connection.declare_queue(self.queue)

    def posting(self, number: int = 0, exchange: str = '', body: str = 'x', **changes: Any) -> Any:
        outgoing = encode(body, {}, message_id=str(number))
        return replace(outgoing, **changes), exchange, self.queue

    def publish(self, *messages: Any) -> list[type]:
        return [type(one) for one in self.connection.publish_many(messages)]

    def ids(self) -> list[str]:
        found = []
        while (delivery := self.connection.get(self.queue)) is not None:
            found.append(str(delivery.message_id))
            self.connection.ack(delivery)
        return found


@pytest.fixture
def out(rabbitmq_server: Broker) -> Iterator[Out]:
    out = Out(rabbitmq_server.url)
    yield out
    out.connection.delete_queue(out.queue)
    out.connection.close()


STORED = type(None)

# What AMQP has no room for, and what it has no form for.
UNFIT: dict[str, tuple[dict[str, Any], type[SwitchboardError]]] = {
    'a number': ({'headers': {'n': 2**70}}, MessageTooLargeError),
    'a name of a header': ({'headers': {'n' * 256: 1}}, MessageTooLargeError),
    'a property': ({'properties': {'message_id': 'm' * 256}}, MessageTooLargeError),
    'a priority': ({'properties': {'priority': 256}}, MessageTooLargeError),
    'all headers': ({'headers': {f'n{number}': 'x' * 20_000 for number in range(10)}}, MessageTooLargeError),
    'an object': ({'headers': {'n': object()}}, UnserializableError),
    'no text': ({'properties': {'correlation_id': 7}}, UnserializableError),
}


class TestWhatAmqpCannotCarry:
    @pytest.mark.parametrize(('changes', 'error'), UNFIT.values(), ids=UNFIT)
    def test_it_is_sorted_out_and_the_others_are_stored(
        self, out: Out, changes: dict[str, Any], error: type[Exception]
    ) -> None:
        connection_number = out.connection.connection_number
        unfit = out.posting(9, **changes)
        assert out.publish(out.posting(1), unfit, out.posting(2)) == [STORED, error, STORED]
        assert out.publish(unfit) == [error]
        assert out.ids() == ['1', '2']
        assert out.connection.connection_number == connection_number

    def test_a_key_that_is_too_long_is_sorted_out_as_well(self, out: Out) -> None:
        outgoing = out.posting(9)[0]
        for exchange, key in (('', 'k' * 256), ('', '\u00e4' * 128), ('e' * 256, 'k')):
            outcomes = out.publish(out.posting(1), (outgoing, exchange, key), out.posting(2))
            assert outcomes == [STORED, MessageTooLargeError, STORED]
        assert out.ids() == ['1', '2'] * 3

    def test_each_outcome_is_that_of_its_message(self, out: Out) -> None:
        unfit = out.posting(9, headers={'n': 2**70})
        nowhere = (out.posting(8)[0], '', 'no such queue')
        outcomes = out.publish(unfit, out.posting(1), nowhere, unfit, out.posting(2), nowhere)
        assert outcomes == [
            MessageTooLargeError,
            STORED,
            NoRouteError,
            MessageTooLargeError,
            STORED,
            NoRouteError,
        ]


class TestWhatTheBrokerRefuses:
    def test_a_message_larger_than_it_takes_has_no_other_published_twice(
        self, out: Out, rabbitmq_server: Broker
    ) -> None:
        with setting(rabbitmq_server, max_message_size=2 * MIB):
            large = out.posting(99, body='x' * (3 * MIB))
            before = [out.posting(number) for number in range(50)]
            after = [out.posting(number) for number in range(50, 100)]
            outcomes = out.publish(*before, large, *after)
        assert outcomes == [STORED] * 50 + [MessageTooLargeError] + [STORED] * 50
        assert out.ids() == [str(number) for number in range(100)]

    def test_an_exchange_that_is_not_there_has_no_other_published_twice(self, out: Out) -> None:
        lost = out.posting(99, exchange='no such exchange')
        before = [out.posting(number) for number in range(50)]
        after = [out.posting(number) for number in range(50, 100)]
        outcomes = out.publish(*before, lost, *after)
        assert outcomes == [STORED] * 50 + [UnknownExchangeError] + [STORED] * 50
        assert out.ids() == [str(number) for number in range(100)]

    def test_which_one_it_was_is_found_out_though_all_are_small(
        self, out: Out, rabbitmq_server: Broker
    ) -> None:
        with setting(rabbitmq_server, max_message_size=1000):
            outcomes = out.publish(*(out.posting(n, body='x' * (2000 * (n == 5))) for n in range(10)))
        assert outcomes == [STORED] * 5 + [MessageTooLargeError] + [STORED] * 4
        assert set(out.ids()) == set('0123456789') - {'5'}

    def test_a_property_that_it_does_not_understand_is_not_called_too_large(self, out: Out) -> None:
        odd = out.posting(9, properties={'expiration': 'soon'})
        assert out.publish(odd, out.posting(1)) == [UnserializableError, STORED]
        assert out.ids() == ['1']


class TestALostConnection:
    def test_what_was_confirmed_before_is_not_published_again(
        self, out: Out, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from switchboard.brokers.rabbitmq.publisher import Confirms

        send, sent = Confirms.send, []

        def send_until_it_breaks(self: Confirms, *args: Any, **keys: Any) -> int:
            if len(sent) == 150:
                self.wait(30, 1)
                out.driver.connection.sock.close()
            sent.append(args)
            return send(self, *args, **keys)

        monkeypatch.setattr(Confirms, 'send', send_until_it_breaks)
        assert out.publish(*(out.posting(number) for number in range(200))) == [STORED] * 200
        assert out.ids() == [str(number) for number in range(200)]


def test_a_letter_is_not_changed_by_being_published(out: Out) -> None:
    outgoing = OutgoingMessage(b'x', {'a': 1}, {'message_id': '1'})
    assert out.publish((outgoing, '', out.queue)) == [STORED]
    assert outgoing == OutgoingMessage(b'x', {'a': 1}, {'message_id': '1'})
