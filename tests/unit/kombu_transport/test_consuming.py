"""Consumers: woken at once, never given more than they have room for, and replaced by others when they die."""

from __future__ import annotations

import os
import signal
import threading
import time

import kombu
import pytest
from amqp.exceptions import ConsumerCancelled
from kombu.asynchronous import Hub

from switchboard import Spool
from tests.helpers.processes import watches
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.large_directories import grow_and_renew
from tests.unit.declared.test_presence import in_child, kill

# Nobody who looks only now and then would look within a test.
HOUR_S = 3600


def put(connect, *bodies, queue='work', **keys):
    producer = kombu.Producer(connect().default_channel)
    for body in bodies:
        producer.publish(body, routing_key=queue, **keys)


def drain(connection, count):
    for _ in range(count):
        connection.drain_events(timeout=PATIENCE_S)


class Inbox:
    """Keeps what is delivered."""

    def __init__(self, acks: bool = True) -> None:
        self.bodies: list[object] = []
        self.messages: list[object] = []
        self._acks = acks

    def __call__(self, body, message):
        self.bodies.append(body)
        self.messages.append(message)
        if self._acks:
            message.ack()


def test_nothing_comes_from_an_empty_queue(connection, channel, queue):
    with kombu.Consumer(channel, queue, callbacks=[Inbox()]), pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.01)


def test_a_waiting_consumer_is_woken_by_a_message_of_another_process(connect, queue, spool_path):
    connection = connect(poll_interval=HOUR_S)
    inbox = Inbox()
    consumer = os.getpid()

    def publish() -> None:
        queue = Spool(spool_path, durability='lazy')['work']
        eventually(lambda: watches(consumer, queue.queue_directory), 'asleep')
        queue.enqueue({'a': 1})

    pid = in_child(lambda: threading.Thread(target=publish).start())
    try:
        with kombu.Consumer(connection, queue, callbacks=[inbox]):
            connection.drain_events(timeout=PATIENCE_S)
    finally:
        kill(pid)
    assert inbox.bodies == [{'a': 1}]


def test_a_consumer_that_waits_follows_a_directory_that_is_renewed(connect, queue, spool_path):
    connection = connect(poll_interval=HOUR_S)
    inbox = Inbox()

    def renew_and_publish() -> None:
        queue = Spool(spool_path, durability='lazy')['work']
        eventually(lambda: watches(os.getpid(), queue.queue_directory), 'asleep')
        grow_and_renew(queue.folder)
        eventually(lambda: watches(os.getpid(), queue.queue_directory), 'asleep again')
        queue.enqueue({'a': 1})

    thread = threading.Thread(target=renew_and_publish)
    thread.start()
    with kombu.Consumer(connection, queue, callbacks=[inbox]):
        connection.drain_events(timeout=PATIENCE_S)
    thread.join()
    assert inbox.bodies == [{'a': 1}]


def test_who_waits_for_one_event_gets_one_message(connection, connect, channel, queue):
    put(connect, *range(5))
    inbox = Inbox()
    with kombu.Consumer(channel, queue, callbacks=[inbox]):
        for number in range(5):
            assert inbox.bodies == list(range(number))
            connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == list(range(5))


def test_a_callback_may_wait_for_an_event_itself(connection, connect, channel, queue):
    put(connect, 'first', 'second')
    inbox = Inbox()

    def wait_for_the_next(body, message):
        if body == 'first':
            connection.drain_events(timeout=PATIENCE_S)
        inbox(body, message)

    with kombu.Consumer(channel, queue, callbacks=[wait_for_the_next]):
        connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == ['second', 'first']


def test_prefetch_is_the_most_that_is_delivered_and_unacknowledged(
    connection, connect, channel, queue, files
):
    put(connect, *range(5))
    inbox = Inbox(acks=False)
    with kombu.Consumer(channel, queue, callbacks=[inbox], prefetch_count=2) as consumer:
        drain(connection, 2)
        assert inbox.bodies == [0, 1]
        assert sum(name.endswith('.bak') for name in files('work')) == 2
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
        inbox.messages[0].ack()
        connection.drain_events(timeout=PATIENCE_S)
        assert inbox.bodies == [0, 1, 2]
        consumer.qos(prefetch_count=4)
        drain(connection, 2)
        assert inbox.bodies == [0, 1, 2, 3, 4]


def test_without_prefetch_there_is_a_limit_all_the_same(connect):
    connection = connect(max_unacked=3)
    queue = kombu.Queue('work')(connection.default_channel)
    queue.declare()
    put(connect, *range(5))
    inbox = Inbox(acks=False)
    with kombu.Consumer(connection.default_channel, queue, callbacks=[inbox]):
        drain(connection, 3)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
    assert inbox.bodies == [0, 1, 2]


def test_consumers_of_one_connection_take_turns(connection, connect, channel):
    inboxes = []
    for name in ('one', 'two'):
        kombu.Queue(name)(channel).declare()
        put(connect, *range(50), queue=name)
        inboxes.append(Inbox())
    one, two = inboxes
    with (
        kombu.Consumer(channel, kombu.Queue('one'), callbacks=[one]),
        kombu.Consumer(channel, kombu.Queue('two'), callbacks=[two]),
    ):
        drain(connection, 49)
        assert one.bodies
        assert two.bodies


def test_two_channels_may_consume_from_one_queue(connection, connect, queue):
    one, two = Inbox(acks=False), Inbox(acks=False)
    first, second = connection.channel(), connection.channel()
    with (
        kombu.Consumer(first, kombu.Queue('work'), callbacks=[one], prefetch_count=1),
        kombu.Consumer(second, kombu.Queue('work'), callbacks=[two], prefetch_count=1),
    ):
        put(connect, 'a', 'b')
        drain(connection, 2)
    assert sorted(one.bodies + two.bodies) == ['a', 'b']
    assert len(one.bodies) == len(two.bodies) == 1


def test_a_callback_may_cancel_its_consumer(connection, connect, channel, queue):
    put(connect, *range(5))
    inbox = Inbox()
    consumer = kombu.Consumer(channel, queue, callbacks=[inbox, lambda *_: consumer.cancel()])
    consumer.consume()
    connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == [0]


def test_a_callback_that_raises_loses_nothing(connection, connect, channel, queue):
    put(connect, 'x')

    def fail(body, message):
        raise LookupError(body)

    with kombu.Consumer(channel, queue, callbacks=[fail]), pytest.raises(LookupError):
        connection.drain_events(timeout=PATIENCE_S)
    channel.close()
    assert kombu.Queue('work')(connection.channel()).get().payload == 'x'


def test_a_consumer_hears_that_its_queue_was_deleted(connection, connect, channel, queue):
    cancelled = []
    kombu.Queue('other')(channel).declare()
    consumer = kombu.Consumer(channel, queue, callbacks=[Inbox()])
    consumer.consume()
    channel.basic_consume('other', True, Inbox(), 'tag', on_cancel=cancelled.append)
    kombu.Queue('other')(connect().default_channel).delete()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.05)
    assert cancelled == ['tag']
    kombu.Queue('work')(connect().default_channel).delete()
    with pytest.raises(ConsumerCancelled):
        connection.drain_events(timeout=PATIENCE_S)


# Death.


def consume_and_keep(connect, count):
    connection = connect()
    inbox = Inbox(acks=False)
    kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[inbox]).consume()
    while len(inbox.bodies) < count:
        connection.drain_events(timeout=PATIENCE_S)
    return connection


def test_what_a_killed_consumer_held_comes_at_once_to_one_that_waits(connect, queue):
    put(connect, *range(3))
    connection = connect(
        poll_interval=HOUR_S, recovery_interval=HOUR_S
    )  # its locks are free at its death, and somebody is told
    pid = in_child(lambda: consume_and_keep(connect, 3))
    inbox = Inbox()
    with kombu.Consumer(connection, queue, callbacks=[inbox]):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)  # nothing is taken from one that lives
        threading.Timer(0.05, kill, [pid]).start()
        while len(inbox.bodies) < 3:
            connection.drain_events(timeout=PATIENCE_S)
    assert sorted(inbox.bodies) == [0, 1, 2]  # the kernel drops one lock after the other
    assert all(message.delivery_info['redelivered'] for message in inbox.messages)


def test_a_new_consumer_gets_what_a_dead_one_held(connection, connect, channel, queue):
    put(connect, 'x')
    kill(in_child(lambda: consume_and_keep(connect, 1)))
    assert queue.get() is None
    inbox = Inbox()
    with kombu.Consumer(channel, queue, callbacks=[inbox]):
        connection.drain_events(timeout=PATIENCE_S)
    assert inbox.messages[0].delivery_info['attempts'] == 2


def test_a_message_that_kills_its_consumers_goes_to_bad(connect, channel, queue, files):
    put(connect, 'poison')
    for _ in range(2):
        kill(in_child(lambda: consume_and_keep(lambda: connect(delivery_limit=2), 1)))
    connection = connect(delivery_limit=2)
    with (
        kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[Inbox()]),
        pytest.raises(TimeoutError),
    ):
        connection.drain_events(timeout=0.01)
    assert len(files('bad')) == 1


def test_a_stopped_consumer_keeps_what_it_has(connection, connect, channel, queue):
    put(connect, 'x')
    pid = in_child(lambda: consume_and_keep(connect, 1))
    try:
        os.kill(pid, signal.SIGSTOP)
        with kombu.Consumer(channel, queue, callbacks=[Inbox()]), pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.2)
    finally:
        kill(pid)


def test_a_forked_child_neither_consumes_nor_gives_back(connection, connect, channel, queue, files):
    put(connect, 'x')
    message = queue.get()
    pid = os.fork()
    if pid == 0:
        try:
            connection.collect()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert [name.endswith('.bak') for name in files('work')] == [True]
    message.ack()
    assert files('work') == []


# The event loop.


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


def run_until(hub, condition):
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s
        hub.run_once()


def test_the_loop_delivers_what_is_there_and_what_comes(connect, queue, hub):
    put(connect, 'before')
    connection = connect(poll_interval=HOUR_S)
    inbox = Inbox()
    connection.register_with_event_loop(hub)
    with kombu.Consumer(connection, queue, callbacks=[inbox]):
        run_until(hub, lambda: inbox.bodies == ['before'])
        threading.Timer(0.05, put, (connect, 'after')).start()
        run_until(hub, lambda: inbox.bodies == ['before', 'after'])


def test_an_acknowledgement_makes_the_loop_deliver_the_next(connect, queue, hub):
    put(connect, *range(20))
    connection = connect(poll_interval=HOUR_S)
    inbox = Inbox(acks=False)
    connection.register_with_event_loop(hub)
    with kombu.Consumer(connection, queue, callbacks=[inbox], prefetch_count=1):
        for number in range(20):
            run_until(hub, lambda number=number: len(inbox.bodies) == number + 1)
            # From another thread, as Celery's pools of threads do it.
            thread = threading.Thread(target=inbox.messages[number].ack)
            thread.start()
            thread.join()


def test_the_loop_looks_at_all_others_after_each_message(connect, queue, hub):
    put(connect, *range(20))
    connection = connect(poll_interval=HOUR_S)
    inbox = Inbox()
    connection.register_with_event_loop(hub)
    with kombu.Consumer(connection, queue, callbacks=[inbox]):
        while len(inbox.bodies) < 20:
            before = len(inbox.bodies)
            hub.run_once()
            assert len(inbox.bodies) <= before + len(connection.transport.watch.descriptors())


def test_the_loop_delivers_a_message_when_it_is_due(connect, hub):
    connection = connect(eta='broker', poll_interval=HOUR_S)
    channel = connection.default_channel
    queue = kombu.Queue('work')(channel)
    queue.declare()
    spool_queue = channel.spool_connection.spool['work']
    inbox = Inbox()
    connection.register_with_event_loop(hub)
    with kombu.Consumer(channel, queue, callbacks=[inbox]):
        started = time.perf_counter()  # before it is written, which may take longer than the delay
        spool_queue.enqueue({'a': 1}, delay=0.3)
        run_until(hub, lambda: inbox.bodies)
    assert time.perf_counter() - started > 0.25


def test_a_callback_that_raises_does_not_stop_the_loop(connect, queue, hub):
    put(connect, 'bad', 'good')
    connection = connect(poll_interval=HOUR_S)
    inbox = Inbox()

    def receive(body, message):
        inbox(body, message)
        if body == 'bad':
            raise LookupError

    connection.register_with_event_loop(hub)
    with kombu.Consumer(connection, queue, callbacks=[receive], prefetch_count=1):
        with pytest.raises(LookupError):
            run_until(hub, lambda: False)
        run_until(hub, lambda: inbox.bodies == ['bad', 'good'])


def test_a_closed_connection_leaves_the_loop(connection, channel, queue, hub):
    connection.register_with_event_loop(hub)
    assert hub.readers
    connection.release()
    assert not hub.readers
    assert all(scheduled.entry.canceled for scheduled in hub.timer.queue)
