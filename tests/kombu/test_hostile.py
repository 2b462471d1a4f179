"""What a transport meets in the wild: messages that are none, forks, threads, full disks, consumers that are never idle."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading

import kombu
import pytest

from switchboard import Spool
from switchboard.extra.kombu import deliveries
from switchboard.extra.kombu.faults import DiskFault, QueueFull
from tests.kombu.test_consuming import Inbox, consume_and_keep, put
from tests.unit.test_presence import in_child, kill


@pytest.fixture
def queue(channel):
    queue = kombu.Queue('work')(channel)
    queue.declare()
    return queue


@pytest.fixture
def board(queue, spool_path):
    return Spool(spool_path, durability='lazy')['work']


def test_many_bad_messages_in_a_row_are_passed_over(board, queue, files, connect):
    for _ in range(1100):  # more than Python has frames
        board.enqueue({'body': 'x', 'properties': {'body_encoding': 'no such one'}})
    put(connect, 'good')
    assert queue.get(no_ack=True).payload == 'good'
    assert len(files('bad')) == 1100


@pytest.mark.parametrize(
    'value',
    [
        {'body': 1, 'properties': {}},
        {'body': 'x', 'properties': None},
        {'body': 'x', 'properties': {}, 'headers': []},
    ],
)
def test_a_value_that_only_looks_like_a_message_is_delivered_as_a_value(board, queue, value):
    board.enqueue(value)
    assert queue.get(no_ack=True).payload == value


@pytest.mark.parametrize(
    'message',
    [
        {'body': 'eA==', 'properties': {'body_encoding': 'base64'}, 'headers': {'compression': 'application/x-gzip'}},
        {'body': 'x', 'properties': {}, 'headers': {'compression': 'zipper'}},
        {'body': 'lone \udc80 surrogate', 'properties': {}},
        {'body': 'x', 'properties': {'delivery_info': 'x'}},
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_read_goes_to_bad_and_kills_nobody(
    board, queue, connection, channel, connect, files, message
):
    board.enqueue(message)
    put(connect, 'good')
    inbox = Inbox()
    with kombu.Consumer(channel, queue, callbacks=[inbox]):
        connection.drain_events(timeout=1)
    assert inbox.bodies == ['good']
    [name] = files('bad')
    [*_, record] = channel.broker.spool['bad'].history(name.removesuffix('.psv'))
    assert record['cause'] == 'corrupt'
    assert len(record['reason']) <= 500


def test_closing_in_one_thread_ends_the_wait_in_another(connect, queue):
    connection = connect()
    errors: list[BaseException] = []
    waiting = threading.Event()
    watch = connection.default_channel.connection._watch
    real = watch.wait
    watch.wait = lambda timeout_s: waiting.set() or real(timeout_s)

    def drain() -> None:
        try:
            with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[Inbox()]):
                connection.drain_events()
        except DiskFault as error:
            errors.append(error)

    thread = threading.Thread(target=drain)
    thread.start()
    assert waiting.wait(10)
    connection.release()
    thread.join(10)
    assert len(errors) == 1


@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork')
def test_a_forked_child_may_publish_though_a_thread_of_its_parent_was_publishing(connect, channel, queue):
    lock = channel.broker.lock
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)  # it would wait for a thread that is not there
            kombu.Producer(channel).publish('from the child', routing_key='work')
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    release.set()
    thread.join()
    assert status == 0
    assert queue.get(no_ack=True).payload == 'from the child'


def test_a_consumer_that_is_never_idle_finds_what_the_dead_have_left(connect, queue):
    put(connect, 'left')
    pid = in_child(lambda: consume_and_keep(connect, 1))
    connection = connect(recovery=0.01)
    inbox = Inbox()

    def again(body, message):
        if body == 'more':
            put(lambda: connection, 'more')

    put(connect, 'more')
    with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[inbox, again]):
        connection.drain_events(timeout=1)
        kill(pid)
        while 'left' not in inbox.bodies:
            connection.drain_events(timeout=1)
            assert len(inbox.bodies) < 10_000


def test_channels_share_the_files_that_a_process_may_have_open(connection, connect, queue, monkeypatch):
    monkeypatch.setattr(deliveries, '_files', lambda: 3)
    put(connect, *range(5))
    inbox = Inbox(acks=False)
    one, two = connection.channel(), connection.channel()
    with (
        kombu.Consumer(one, kombu.Queue('work'), callbacks=[inbox], prefetch_count=2),
        kombu.Consumer(two, kombu.Queue('work'), callbacks=[inbox], prefetch_count=2),
    ):
        connection.drain_events(timeout=1)
        assert len(inbox.bodies) == 3
        inbox.messages[0].ack()
        connection.drain_events(timeout=1)
        assert len(inbox.bodies) == 4


def test_a_full_disk_refuses_what_comes_and_lets_be_done_what_is_there(connect, queue, board, monkeypatch):
    put(connect, 'x')
    connection = connect()
    channel = connection.default_channel
    disk = channel.broker.spool.disk

    def full(fd, content, offset):
        raise OSError(errno.ENOSPC, 'no room')

    monkeypatch.setattr(disk, 'pwrite', full)
    with pytest.raises(QueueFull):
        kombu.Producer(channel).publish('y', routing_key='work')
    inbox = Inbox()
    with kombu.Consumer(channel, kombu.Queue('work'), callbacks=[inbox], auto_declare=False):
        connection.drain_events(timeout=1)
    assert inbox.bodies == ['x']


def inotify_descriptors() -> int:
    links = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]
    return sum(os.path.exists(link) and os.readlink(link) == 'anon_inode:inotify' for link in links)


def test_who_only_publishes_takes_none_of_the_few_inotify_descriptors(connect, queue):
    before = inotify_descriptors()
    connection = connect()
    put(lambda: connection, 'x')
    assert inotify_descriptors() == before
    with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[Inbox()]):
        connection.drain_events(timeout=1)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
    assert inotify_descriptors() == before + 1


def test_an_exclusive_queue_goes_with_a_program_that_ends_without_closing(spool_path, files):
    program = (
        'import kombu, switchboard.extra.kombu\n'
        f'connection = kombu.Connection("switchboard://{spool_path}?durability=lazy")\n'
        'kombu.Queue("mine", exclusive=True)(connection.default_channel).declare()\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=30)
    assert files('.run/declared') == ['.lock']
    assert files('.run/owners') == []
    assert 'mine' not in files('.')
