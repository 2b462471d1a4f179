"""A dead letter tells a kombu program the same, whether it comes from RabbitMQ or from a spool."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import kombu

import switchboard.extra.kombu  # noqa: F401  makes the name known
from tests.helpers.waiting import eventually
from tests.servers.brokers.broker import Broker


class Deaths:
    """A message on its way through queues whose dead letters go through an exchange, at either broker."""

    def __init__(self, channel: Any) -> None:
        self.graves = kombu.Exchange('graves', type='topic')(channel)
        self.main = kombu.Exchange('main', type='topic')(channel)
        self.work = self._queue(channel, 'work', self.main, 'work.*')
        self.second = self._queue(
            channel, 'second', self.graves, 'work.*', **{'x-dead-letter-routing-key': 'last.key'}
        )
        self.last = self._queue(channel, 'last', self.graves, 'last.*')
        self.short = self._queue(
            channel,
            'short',
            self.main,
            'short.*',
            **{'x-max-length': 1, 'x-dead-letter-routing-key': 'last.short'},
        )
        self.plain = self._queue(
            channel,
            'plain',
            self.main,
            'unused',
            **{'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'last'},
        )
        self._producer = kombu.Producer(channel)

    def _queue(self, channel: Any, name: str, exchange: Any, key: str, **arguments: Any) -> Any:
        queue = kombu.Queue(
            name,
            exchange=exchange,
            routing_key=key,
            queue_arguments={'x-dead-letter-exchange': 'graves', **arguments},
        )(channel)
        queue.declare()
        return queue

    def put(self, exchange: Any, key: str, **properties: Any) -> None:
        self._producer.publish('x', exchange=exchange, routing_key=key, **properties)

    def get(self, queue: Any) -> Any:
        """Wait for a message of a queue."""
        return eventually(queue.get, f'a message in {queue.name}')

    def told(self) -> dict[str, Any]:
        """:return: the headers of dead letters, by how they died."""
        found = {}
        self.put(self.main, 'work.7')
        for queue in (self.work, self.second):
            self.get(queue).reject()
        found['rejected twice'] = self._last_word(self.get(self.last))
        self.put(self.main, 'work.8', expiration=0)
        found['expired'] = self._last_word(eventually(self._expired, 'an expired message'))
        self.put('', 'plain')
        self.get(self.plain).reject()
        found['without an exchange'] = self._last_word(self.get(self.last))
        # A spool counts a bounded queue once a second.
        found['too many'] = self._last_word(eventually(self._put_one_more, 'a message too many'))
        return found

    def _expired(self) -> Any:
        # A spool sees it when somebody looks for a message in the queue.
        assert self.work.get() is None
        return self.second.get()

    def _put_one_more(self) -> Any:
        self.put(self.main, 'short.1')
        return self.last.get()

    def _last_word(self, message: Any) -> dict[str, Any]:
        message.ack()
        assert 'expiration' not in message.properties
        headers: dict[str, Any] = message.headers
        for death in headers['x-death']:
            died = death.pop('time')
            assert isinstance(died, datetime.datetime)
            assert died.tzinfo is None
        return headers


def test_a_dead_letter_of_a_spool_has_the_headers_that_rabbitmq_gives_it(
    rabbitmq_server: Broker, tmp_path: Path
) -> None:
    (tmp_path / 'spool').mkdir()
    told = []
    for url in (rabbitmq_server.url, f'switchboard://{tmp_path / "spool"}?durability=lazy'):
        with kombu.Connection(url) as connection:
            told.append(Deaths(connection.default_channel).told())
    assert told[1] == told[0]
    assert [one['queue'] for one in told[0]['rejected twice']['x-death']] == ['second', 'work']
    assert told[0]['expired']['x-death'][0]['original-expiration'] == '0'
    assert told[0]['too many']['x-first-death-reason'] == 'maxlen'
