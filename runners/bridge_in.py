"""The inward half of a bridge: from a queue of the broker to queues here.  See ``bridge``."""

from __future__ import annotations

import logging
import select
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from switchboard.errors import (
    BrokerDownError,
    ConfigError,
    SwitchboardError,
    UnknownExchangeError,
    UnknownQueueError,
)
from switchboard.runner.api import (
    NS_PER_S,
    Backoff,
    RunnerOptions,
    Setting,
    Template,
    boolean,
    choice,
    integer,
    log_event,
    refusal_log_level,
)
from switchboard.runners.bridge_arrivals import ArrivalStore
from switchboard.runners.bridge_remote import INWARDS, OUTWARDS, PATH_HEADER, Bridge, path_of, remote_targets

if TYPE_CHECKING:
    from switchboard.brokers.message import Delivery

log = logging.getLogger('switchboard.runner')

# When it is to be worked off and not to be waited for: how often it is looked for what the broker is just pushing, and for how long.
LOOKS, PUSH_S = 3, 0.2


def _own_messages(value: str) -> str:
    return choice('accept', 'skip')('accept' if value == 'take' else value)  # the old word


class FromBroker(Bridge):
    """Stores what comes into a queue of the broker."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **Bridge.settings,
        'prefetch': Setting(integer(1, 10_000), default=100),
        'exchange': Setting(str, default=''),
        'routing_key': Setting(Template, default=Template('{routing_key|}')),
        'format': Setting(choice('message', 'kombu'), default='message', old_name='form'),
        'dedupe': Setting(boolean, default=True),
        'own_messages': Setting(_own_messages, default='accept', old_name='own'),
    }
    # Does it end when nothing is left, and how often is it to look until it believes that?
    _to_the_end = False
    _looks_left = LOOKS

    @classmethod
    def check(
        cls, values: Mapping[str, Any], options: RunnerOptions, runners: Mapping[str, RunnerOptions]
    ) -> None:
        """See `Runner`."""
        super().check(values, options, runners)
        if options.queue:
            raise ConfigError('leave it empty; the local queue is named by routing_key', key='queue')
        if not values['remote_queue']:
            raise ConfigError("needs this key: the broker's queue to take from", key='remote_queue')
        if not values['exchange'] and 'routing_key' not in options.settings:
            reason = 'give a local exchange, or a routing_key that is the name of a local queue'
            raise ConfigError(reason, key='exchange')
        if not options.settings.keys() & {'own_messages', 'own'}:
            cls._look_for_circle(options, runners)

    @classmethod
    def _look_for_circle(cls, options: RunnerOptions, runners: Mapping[str, RunnerOptions]) -> None:
        broker, exchange, queue = remote_targets(options.settings)
        for other in runners.values():
            if not (other.class_path.endswith(OUTWARDS) and options.class_path.endswith(INWARDS)):
                continue
            their_broker, their_exchange, their_queue = remote_targets(other.settings)
            same = their_exchange == exchange if their_exchange else their_queue == queue
            if broker == their_broker and same:
                raise ConfigError(
                    f'runner {other.name} publishes to where this one takes from: say `own_messages = skip` to leave '
                    'the messages of this installation, or `own_messages = accept` if they are meant to come back',
                    key='own_messages',
                )

    def setup(self) -> None:
        """See `Runner`.

        :raises ConfigError: there is no such exchange or queue here.
        """
        # Unacknowledged messages, in the order in which they came.
        self._unacked: list[Delivery] = []
        super().setup()
        exchange, key = self.setting_values['exchange'], self.setting_values['routing_key']
        try:
            if exchange not in self.spool.exchanges:
                raise UnknownExchangeError(exchange)
            if not exchange and key.is_fixed:
                self.spool[key.text]
        except (UnknownExchangeError, UnknownQueueError) as error:
            where = 'exchange' if exchange else 'routing_key'
            raise ConfigError(str(error), key=where) from error
        self._arrivals = ArrivalStore(self, self.connection.url)
        self._backoff = Backoff()
        self._is_down = False
        self._next_restore_ns = 0

    def run(self, *, once: bool = False, until_empty: bool = False) -> int:
        """See `IRunner`: one pass is all that is in the broker's queue."""
        self._to_the_end = once or until_empty
        self._looks_left = LOOKS
        return super().run(once=once, until_empty=until_empty)

    def periodic(self) -> None:
        """Store and acknowledge until nothing is there, or nothing can be stored."""
        try:
            while not self.is_stopping and self._turn():
                self.slot.heartbeat()
        except BrokerDownError as error:
            self._lose(error)
        except SwitchboardError as error:
            # A queue or exchange to be declared is there already and is different, or the queue is not there.
            self._report(str(error))
            self._rest()

    def _lose(self, error: BrokerDownError) -> None:
        """The broker is away; fetched messages are kept, for some brokers do not give them to others at once."""
        if not self._is_down:
            self._report(str(error))
        self._is_down = True
        self.wake_when_readable()
        self.wake_after(error.retry_after_s or self._backoff.next())

    def _report(self, reason: str, level: int = logging.ERROR) -> None:
        if level > logging.INFO:
            self.slot.error(reason)
        log_event(log, level, None, 'cannot take messages', runner=self.name, error=reason)

    def _rest(self) -> None:
        """Let some time pass: more each time, until something goes well."""
        self.wake_when_readable()
        self.wake_after(self._backoff.next())

    def _turn(self) -> bool:
        """:return: whether there may be more to do at once."""
        if self.connect() or not self.connection.descriptors():
            self._next_restore_ns = 0
            self.connection.consume(
                [self.setting_values['remote_queue']], prefetch=self.setting_values['prefetch']
            )
        self._is_down = False
        self.connection.flush_acks()
        self._restore()
        self._fetch()
        if not self._unacked:
            self._backoff.reset()
            self.wake_when_readable(*self.connection.descriptors())
            return self._to_the_end and self._more_comes()
        self._looks_left = LOOKS
        stored = self.store_arrived()
        done = {id(delivery) for delivery in stored}
        self._unacked = [one for one in self._unacked if id(one) not in done]
        self.connection.ack_later(*stored)
        self.connection.flush_acks()
        if stored:
            self._backoff.reset()
        if self._unacked:
            self._rest()
        return not self._unacked

    def _more_comes(self) -> bool:
        """Does a message come within a moment?  A runner that ends when the queue is empty waits here: no message wakes it."""
        self._looks_left -= 1
        is_ready = self.connection.count(self.setting_values['remote_queue']) > 0
        if self._looks_left <= 0 or not (is_ready or self.connection.has_message()):
            return False
        select.select(self.connection.descriptors(), [], [], PUSH_S)
        return True

    def _restore(self) -> None:
        """Now and then, have messages that dead processes held delivered again; RabbitMQ does that itself."""
        now_ns = self.clock.monotonic_ns()
        if now_ns >= self._next_restore_ns:
            self._next_restore_ns = now_ns + int(self.options.recovery_interval_s * NS_PER_S)
            self.connection.recover(self.setting_values['remote_queue'])

    def _fetch(self) -> None:
        limit = self.setting_values['prefetch']
        self.connection.has_message()  # or notices that have arrived would wake us again and again
        self._unacked = [one for one in self._unacked if self.connection.is_ours(one)]
        while len(self._unacked) < limit:
            delivery = self.connection.get(self.setting_values['remote_queue'])
            if delivery is None:
                break
            self._unacked.append(delivery)

    def store_arrived(self) -> list[Delivery]:
        """:return: the messages that may be acknowledged."""
        done: list[Delivery] = []
        wanted: list[Delivery] = []
        for delivery in self._unacked:
            (done if self._is_own(delivery) else wanted).append(delivery)
        trouble, level = '', logging.INFO
        for delivery, outcome, reason in self._arrivals.store(wanted):
            if isinstance(outcome, SwitchboardError):
                trouble, level = trouble or reason, max(level, refusal_log_level(outcome))
                continue
            done.append(delivery)
            about = {'runner': self.name, 'id': delivery.message_id}
            for queue, filebase in outcome.items():
                self.slot.begin(filebase)
                log_event(log, logging.INFO, filebase, 'stored', queue=queue, **about)
            if reason:
                self.slot.error(reason)
                log_event(log, logging.ERROR, None, 'preserved', **about, error=reason)
            self.slot.end('failed' if reason else 'done')
        if trouble:
            self._report(
                f'{len(self._unacked) - len(done)} fetched cannot be stored for now: {trouble}', level
            )
        return done

    def _is_own(self, delivery: Delivery) -> bool:
        """Is the message to be left, because this installation has sent it itself?"""
        if self.setting_values['own_messages'] == 'accept' or path_of(delivery.headers.get(PATH_HEADER))[
            -1:
        ] != [self.origin_name]:
            return False
        log_event(log, logging.DEBUG, None, 'skipped', runner=self.name, id=delivery.message_id)
        return True
