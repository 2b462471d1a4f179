"""Bridges between queues of this spool and a broker (RabbitMQ, Redis): store and forward, in both directions.

::

    [runner.upstream]
    class = to-broker
    queue = out
    batch_size = 100
    url = amqp://user:secret@broker.example.com//
    remote_exchange = orders

    [runner.downstream]
    class = from-broker
    queue =
    url = amqp://user:secret@broker.example.com//
    remote_queue = invoices
    routing_key = in

What the keys of a section name with ``remote_`` is the broker's; the rest is this spool's.

**Outwards** a batch is published at once and its entries are finished when the broker has confirmed them.  While the broker is away, or
refuses, all stay in the queue as they are, unwritten, and the runner waits; no attempt is counted.  A message that no queue of the
broker is bound for is tried again by the queue's retry policy.  Should this process die between the confirm and the end of the
entry, the message is sent again: its id, the digest of the entry, is the same each time, so its reader knows it again.

**Inwards** up to ``prefetch`` messages are stored with the flushes of one, then acknowledged.  A message with an id is remembered
for the local queue's ``dedupe_window``, together with a checksum of its body (ids of strangers may be counters that start again):
what the broker gives out a second time is acknowledged and not stored again.  While the disk or a local queue is full, nothing
more is fetched, and fetched messages stay unacknowledged; after its ``consumer_timeout`` RabbitMQ gives that out again, and it is
fetched again.  A message that can never be stored (a kind that the queue does not take, a key without a route) goes to bad as it came.

Rejected: ``dispose`` that waits for each confirm (a round trip a message); giving messages back to the broker while the disk is full
(brokers count that, and throw a message away in the end); dropping whatever this installation has sent itself (it may be
what it was meant to get).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from switchboard.brokers.encode import encode
from switchboard.brokers.message import KIND_HEADER
from switchboard.errors import (
    BrokerDownError,
    ConfigError,
    DestinationDown,
    MessageTooLargeError,
    NoRouteError,
    PermanentFailure,
    QueueMismatchError,
    SwitchboardError,
    TemporaryFailure,
    UnknownExchangeError,
    UnserializableError,
)
from switchboard.runner.api import RunnerOptions, Setting, Template, boolean, choice, integer
from switchboard.runners.bridge_in import FromBroker
from switchboard.runners.bridge_remote import PATH_HEADER, PATH_KEY, Bridge, path_of

if TYPE_CHECKING:
    from switchboard.brokers.message import OutgoingMessage

__all__ = ['FromBroker', 'ToBroker']


class ToBroker(Bridge):
    """Publishes the messages of its queue."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **Bridge.settings,
        'remote_routing_key': Setting(Template, default=Template('{routing_key|}')),
        'unroutable': Setting(choice('wait', 'bad'), default='wait'),
        'max_hops': Setting(integer(1), default=8),
        'send_history': Setting(boolean, default=False),
    }

    @classmethod
    def check(
        cls, values: Mapping[str, Any], options: RunnerOptions, runners: Mapping[str, RunnerOptions]
    ) -> None:
        """See `Runner`."""
        super().check(values, options, runners)
        if not options.queue:
            raise ConfigError('names the local queue that is to be sent on', key='queue')
        if not values['remote_exchange'] and not values['remote_queue']:
            raise ConfigError(
                'give remote_exchange or remote_queue: where messages are to go', key='remote_exchange'
            )

    def setup(self) -> None:
        """See `Runner`."""
        super().setup()
        self._outbox: list[tuple[str, tuple[OutgoingMessage, str, str]]] = []

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """Write the outgoing; it is sent by :meth:`on_batch_end`.

        :raises PermanentFailure: it goes in a circle, or its key cannot be made.
        """
        assert self.queue is not None
        path = [*path_of(msgdata.pop(PATH_KEY, None)), self.origin_name]
        if len(path) > self.setting_values['max_hops']:
            raise PermanentFailure(f'it has been through {len(path) - 1} bridges: {" -> ".join(path[:-1])}')
        msgdata.pop('dedupe_key', None)
        exchange = self.setting_values['remote_exchange']
        key = (
            self.setting_values['remote_routing_key'].fill(msg, msgdata)
            if exchange
            else self.setting_values['remote_queue']
        )
        history = self.queue.history(self.filebase) if self.setting_values['send_history'] else ()
        outgoing = encode(msg, msgdata, message_id=self.idempotency_key, history=history)
        outgoing.headers[PATH_HEADER] = path
        if KIND_HEADER in outgoing.headers:
            # A broker throws away expired messages.  The metadata say when that is, and the taker makes a dead letter of it.
            outgoing.properties.pop('expiration', None)
        self._outbox.append((self.filebase, (outgoing, exchange, key)))

    def on_batch_end(self) -> Mapping[str, Exception]:
        """Publish all, and wait for the broker's word on each."""
        outbox, self._outbox = self._outbox, []
        try:
            self.connect()
        except BrokerDownError:
            raise
        except SwitchboardError as error:
            raise DestinationDown(str(error)) from error
        outcomes = self._publish([message for _, message in outbox])
        return {
            filebase: self.as_runner_error(outcome)
            for (filebase, _), outcome in zip(outbox, outcomes, strict=True)
            if outcome is not None
        }

    def _publish(self, messages: Sequence[tuple[OutgoingMessage, str, str]]) -> list[Exception | None]:
        outcomes = self.connection.publish_many(messages)
        nowhere = [
            number
            for number, outcome in enumerate(outcomes)
            if isinstance(outcome, NoRouteError | UnknownExchangeError)
        ]
        if nowhere and self.setting_values['declare']:
            # An operator may have deleted at the broker, since we connected, the queue or exchange that was declared there.
            try:
                self.declare()
            except SwitchboardError:
                return outcomes
            again = self.connection.publish_many([messages[number] for number in nowhere])
            for number, outcome in zip(nowhere, again, strict=True):
                outcomes[number] = outcome
        return outcomes

    def as_runner_error(self, error: Exception) -> Exception:
        """:return: the fate of the message after this error."""
        if isinstance(error, NoRouteError):
            reason = f'no queue of the broker takes it: {error}'
            return (
                PermanentFailure(reason)
                if self.setting_values['unroutable'] == 'bad'
                else TemporaryFailure(reason)
            )
        if isinstance(error, MessageTooLargeError | UnserializableError):
            return PermanentFailure(str(error))
        if isinstance(error, UnknownExchangeError | QueueMismatchError):  # not there, or not for us
            return DestinationDown(str(error))
        return error
