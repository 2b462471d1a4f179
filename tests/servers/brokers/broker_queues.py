"""Queues on brokers for the conformance suite, which looks into queues: here that is done by taking all and giving it back."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

from redis import Redis

from switchboard import Spool
from switchboard.brokers.connection import Connection
from switchboard.brokers.decode import filebase_of
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.brokers.producer import LONGEST_WAIT_S
from switchboard.brokers.queue import BrokerQueue
from switchboard.brokers.rabbitmq.delays import delay_queue_name
from switchboard.brokers.redis.keys import redis_key
from switchboard.clock import SYSTEM_CLOCK
from switchboard.errors import BrokerDownError, EntryTakenError, UnknownQueueError
from switchboard.message.journal import Record
from switchboard.message.naming import CLAIMED
from switchboard.options import QueueOptions
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from tests.contracts.queue import Backend, drain
from tests.helpers.waiting import eventually


def unacked(connection: Connection) -> int:
    """:return: how many messages a connection holds."""
    return sum(map(connection.is_ours, list(connection.held.values())))


class SeenQueue(BrokerQueue):
    """A queue on a broker whose messages can be listed, as long as nobody else takes any meanwhile."""

    delayed: set[str]

    def release(self, filebase: str, *, delay_s: float = 0.0, record: Record | None = None) -> str:
        if delay_s > 0:
            self.delayed.add(delay_queue_name(self.producer.queue_of(filebase), min(delay_s, LONGEST_WAIT_S)))
        return super().release(filebase, delay_s=delay_s, record=record)

    @property
    def files(self) -> list[str]:
        return self._list(self.broker_queues)

    def get_files(self, extension: str = '.pck') -> list[str]:
        if extension == CLAIMED:
            return super().get_files(extension)
        return self._list(self.broker_queues) + self._list_delayed()

    def _list(self, queues: list[str]) -> list[str]:
        had_waiting = self.consumer.wait_s() is not None
        self.consumer.close()
        found = []
        for queue in queues:
            deliveries = []
            try:
                while (delivery := self.connection.get(queue)) is not None:
                    deliveries.append(delivery)
            except UnknownQueueError:
                pass  # nobody has put anything into it
            found += [filebase_of(delivery) for delivery in deliveries]
            for delivery in reversed(deliveries):
                self.connection.requeue(delivery)
        if had_waiting:
            self.consumer.has_next()
        return found if len(queues) == 1 else sorted(found)

    def _list_delayed(self) -> list[str]:
        if self.url.kind == 'rabbitmq':
            return self._list(sorted(self.delayed))
        client = Redis.from_url(self.url.address)
        return [
            one.decode()
            for queue in self.broker_queues
            for one in client.zrange(f'switchboard:{queue}:delayed', 0, -1)
        ]

    def history(self, filebase: str) -> list[Record]:
        try:
            return super().history(filebase)
        except EntryTakenError:
            claim = self.consumer.find(filebase)
            if claim is None:
                raise
            self.record_deaths(claim)
            self.consumer.unregister(claim)
            self.connection.requeue(claim.delivery)
            return claim.entry.records


class OnBroker(Backend):
    """Queues of one broker, of names that nobody else has; what cannot be processed goes to a spool's bad queue."""

    cannot = frozenset({'clock'})

    def __init__(self, url: str, path: Path, *, options: str = '') -> None:
        self.url = url
        self.options = options
        self.spool = Spool(path)
        self.prefix = uuid.uuid4().hex[:8]
        self.queues: list[BrokerQueue] = []
        self.delayed: set[str] = set()

    def queue(
        self,
        name: str = 'in',
        *share: Any,
        cls: type[BrokerQueue] = SeenQueue,
        url_options: str = '',
        bad: BrokerQueue | None = None,
        **keys: Any,
    ) -> Any:
        disk = Disk()
        more = url_options or self.options
        queue = cls(
            name,
            f'{self.url}?queue={self.prefix}.{name}{more}',
            *share,
            bad=bad or self.spool['bad'],
            delivery_counts=DeliveryCounts(
                Folder(self.spool.path(f'.held@{name}'), disk), disk, SYSTEM_CLOCK
            ),
            **keys,
        )
        if isinstance(queue, SeenQueue):
            queue.delayed = self.delayed
        self.queues.append(queue)
        return queue

    def preserved(self) -> Any:
        return self.spool['bad']

    def close(self) -> None:
        names = {name for queue in self.queues for name in queue.all_queues} | self.delayed
        for queue in self.queues:
            queue.close()
        if self.queues:
            for name in names:
                self.queues[0].connection.delete_queue(name)
            self.queues[0].close()


def queue_of(place: OnBroker, url_options: str = '', **options: Any) -> BrokerQueue:
    """A queue as programs have it, not one that lists by taking."""
    queue: BrokerQueue = place.queue(
        options=QueueOptions(**options), cls=BrokerQueue, url_options=url_options
    )
    return queue


def wait(seconds: float) -> None:
    """Let time pass where there is nothing to wait for: a heartbeat that does not come, a lease that does not end."""
    threading.Event().wait(seconds)


# Of a holder that lives and must not lose it, however busy this machine is: it is renewed each quarter of that.
HELD_LEASE = '10s'

# The first write needs no memory: after it, Redis runs the rest above its maxmemory as well.
END_LEASES = """
redis.call('ZREM', KEYS[1], '')
local ended = 0
for _, tag in ipairs(ARGV) do ended = ended + redis.call('ZADD', KEYS[1], 'XX', 'CH', 0, tag) end
return ended
"""


def _leases(place: OnBroker, queue: Any) -> dict[bytes, float]:
    key = redis_key(queue.all_queues[0], 'leases')
    return dict(Redis.from_url(place.url).zrange(key, 0, -1, withscores=True))


def wait_for_renewal(place: OnBroker, queue: Any) -> None:
    """Return when Redis has heard once more that the holders of all that is out of a queue live."""
    before = _leases(place, queue)
    eventually(
        lambda: all(ends > before[tag] for tag, ends in _leases(place, queue).items()), 'all leases renewed'
    )


def end_leases(place: OnBroker, queue: Any) -> None:
    """Have the leases of a queue be over, as if their time had passed without a word of the holders."""
    key, tags = redis_key(queue.all_queues[0], 'leases'), list(_leases(place, queue))
    assert Redis.from_url(place.url).eval(END_LEASES, 1, key, *tags) == len(tags) > 0


def wait_for_broker(queue: BrokerQueue) -> None:
    def is_back() -> bool:
        try:
            queue.connection.connect()
            queue.count()
        except BrokerDownError:
            return False
        return True

    eventually(is_back, 'back: the broker', every=0.1)


__all__ = [
    'HELD_LEASE',
    'OnBroker',
    'SeenQueue',
    'drain',
    'end_leases',
    'queue_of',
    'wait',
    'wait_for_broker',
    'wait_for_renewal',
]
