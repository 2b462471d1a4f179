"""What a transport meets in the wild: messages that are none, forks, threads, full disks, consumers that are never idle."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import kombu
import pytest
from amqp.exceptions import NotAllowed, PreconditionFailed

from switchboard import Spool
from switchboard.kombu_transport import unacked
from switchboard.kombu_transport.errors import DiskFault, QueueFull
from switchboard.kombu_transport.spool_connection import KEPT_QUEUES
from switchboard.message.journal import pack_record
from switchboard.message.naming import digest_of
from tests.helpers.descriptors import Opened, open_files
from tests.helpers.waiting import PATIENCE_S
from tests.unit.declared.test_presence import in_child, kill
from tests.unit.kombu_transport.test_consuming import Inbox, consume_and_keep, drain, put


@pytest.fixture
def spool_queue(queue, spool_path):
    return Spool(spool_path, durability='lazy')['work']


def test_many_bad_messages_in_a_row_are_passed_over(spool_queue, queue, files, connect):
    for _ in range(1100):  # more than Python has frames
        spool_queue.enqueue({'body': 'x', 'properties': {'body_encoding': 'no such one'}})
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
def test_a_value_that_only_looks_like_a_message_is_delivered_as_a_value(spool_queue, queue, value):
    spool_queue.enqueue(value)
    assert queue.get(no_ack=True).payload == value


def test_a_message_with_a_strange_history_is_delivered(spool_queue, queue):
    filebase = spool_queue.enqueue('good')
    with open(f'{spool_queue.queue_directory}/{filebase}.pck', 'ab') as file:
        for odd in ([1], {'a': 1}, None, 1.5):
            record = {'event': 'dead-lettered', 'queue': odd, 'cause': odd, 'time': 'now'}
            file.write(
                pack_record(record, digest_of(filebase)) + pack_record({'event': odd}, digest_of(filebase))
            )
    assert queue.get(no_ack=True).payload == 'good'


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
    spool_queue, queue, connection, channel, connect, files, message
):
    spool_queue.enqueue(message)
    put(connect, 'good')
    inbox = Inbox()
    with kombu.Consumer(channel, queue, callbacks=[inbox]):
        connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == ['good']
    [name] = files('bad')
    [*_, record] = channel.spool_connection.spool['bad'].history(name.removesuffix('.psv'))
    assert record['cause'] == 'corrupt'
    assert len(record['reason']) <= 500


def test_closing_in_one_thread_ends_the_wait_in_another(connect, queue):
    connection = connect()
    errors: list[BaseException] = []
    waiting = threading.Event()
    watch = connection.default_channel.connection.watch
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
    assert waiting.wait(60)
    connection.release()
    thread.join(60)
    assert len(errors) == 1


@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork')
def test_a_forked_child_may_publish_though_a_thread_of_its_parent_was_publishing(connect, channel, queue):
    lock = channel.spool_connection.lock
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(90)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)  # it would wait for a thread that is not there
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
    connection = connect(recovery_interval=0.01)
    inbox = Inbox()

    def again(body, message):
        if body == 'more':
            put(lambda: connection, 'more')

    put(connect, 'more')
    with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[inbox, again]):
        connection.drain_events(timeout=PATIENCE_S)
        kill(pid)
        while 'left' not in inbox.bodies:
            connection.drain_events(timeout=PATIENCE_S)
            assert len(inbox.bodies) < 10_000


def test_channels_share_the_files_that_a_process_may_have_open(connection, connect, queue, monkeypatch):
    monkeypatch.setattr(unacked, 'max_claims', lambda: 3)
    put(connect, *range(5))
    inbox = Inbox(acks=False)
    one, two = connection.channel(), connection.channel()
    with (
        kombu.Consumer(one, kombu.Queue('work'), callbacks=[inbox], prefetch_count=2),
        kombu.Consumer(two, kombu.Queue('work'), callbacks=[inbox], prefetch_count=2),
    ):
        drain(connection, 3)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
        inbox.messages[0].ack()
        connection.drain_events(timeout=PATIENCE_S)
        assert len(inbox.bodies) == 4


def test_who_holds_as_much_as_there_may_be_files_says_so(connection, connect, queue, monkeypatch, caplog):
    monkeypatch.setattr(unacked, 'max_claims', lambda: 3)
    put(connect, *range(5))
    inbox = Inbox(acks=False)
    with kombu.Consumer(
        connection.default_channel, kombu.Queue('work'), callbacks=[inbox], prefetch_count=10
    ):
        drain(connection, 3)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
    assert len(inbox.bodies) == 3
    [record] = [one for one in caplog.records if one.levelname == 'WARNING']
    assert 'eta=broker' in record.getMessage()


def test_tasks_that_wait_for_their_time_leave_files_for_others(connection, connect, queue, monkeypatch):
    monkeypatch.setattr(unacked, 'max_claims', lambda: 8)
    producer = connect().Producer()
    later, soon = ((datetime.now(UTC) + timedelta(seconds=seconds)).isoformat() for seconds in (3600, 2))
    for number in range(20):
        producer.publish(f'later {number}', routing_key='work', headers={'eta': later})
    producer.publish('soon', routing_key='work', headers={'eta': soon})
    put(connect, 'now')
    inbox = Inbox(acks=False)
    with kombu.Consumer(
        connection.default_channel, kombu.Queue('work'), callbacks=[inbox], prefetch_count=100
    ):
        while 'now' not in inbox.bodies:
            connection.drain_events(timeout=PATIENCE_S)
        assert sum(str(body).startswith('later') for body in inbox.bodies) == 6
        while 'soon' not in inbox.bodies:
            connection.drain_events(timeout=PATIENCE_S)  # its time has come
        assert len(inbox.bodies) == 8


def test_a_tag_that_is_in_use_is_not_taken_twice(connection, queue, spool_path):
    channel = connection.default_channel
    channel.basic_consume('work', no_ack=True, callback=print, consumer_tag='mine')
    with pytest.raises(NotAllowed) as refused:
        channel.basic_consume('work', no_ack=True, callback=print, consumer_tag='mine')
    assert refused.value.code == 530
    channel.basic_cancel('mine')
    assert Spool(spool_path).consumer_count('work') == 0


def test_damaged_exchanges_say_how_to_mend_them_and_stop_nothing_else(connect, spool_path):
    kombu.Queue('bound', kombu.Exchange('e'), 'k')(connect().default_channel).declare()
    (spool_path / '.run' / 'declared' / '.exchanges').write_bytes(b'{"exch')
    connection = connect()
    channel = connection.default_channel
    for name in ('bound', 'new'):
        queue = kombu.Queue(name)(channel)
        queue.declare()
        kombu.Producer(channel).publish('x', routing_key=name)
        queue.get().ack()
        queue.delete()
    with pytest.raises(PreconditionFailed, match='remove it and start the programs anew'):
        kombu.Exchange('e')(channel).declare()
    kombu.Queue('mine', exclusive=True)(channel).declare()
    connection.close()
    (spool_path / '.run' / 'declared' / '.exchanges').unlink()
    kombu.Queue('bound', kombu.Exchange('e'), 'k')(connect().default_channel).declare()


def test_a_full_disk_refuses_what_comes_and_lets_be_done_what_is_there(
    connect, queue, spool_queue, monkeypatch
):
    put(connect, 'x')
    connection = connect()
    channel = connection.default_channel
    disk = channel.spool_connection.spool.disk

    def full(fd, content, offset):
        raise OSError(errno.ENOSPC, 'no room')

    monkeypatch.setattr(disk, 'pwrite', full)
    with pytest.raises(QueueFull):
        kombu.Producer(channel).publish('y', routing_key='work')
    inbox = Inbox()
    with kombu.Consumer(channel, kombu.Queue('work'), callbacks=[inbox], auto_declare=False):
        connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == ['x']


@pytest.fixture
def refusing(monkeypatch):
    """Let a connection's disk refuse to end a claim: to give the file another name, or to delete it."""

    @contextmanager
    def refusing(connection):
        disk = connection.default_channel.spool_connection.spool.disk

        def refuse(call, name, *names, **keys):
            if name.endswith('.bak'):
                raise OSError(errno.EIO, 'input/output error')
            return call(name, *names, **keys)

        with monkeypatch.context() as patched:
            for name in ('rename', 'rename_exclusive', 'unlink'):
                patched.setattr(disk, name, partial(refuse, getattr(disk, name)))
            yield

    return refusing


@pytest.mark.slow
def test_what_the_disk_refused_to_acknowledge_is_done_when_it_obeys(connect, queue, files, refusing):
    put(connect, 'first', 'second')
    connection = connect(recovery_interval=0.01)
    inbox = Inbox(acks=False)
    consumer = kombu.Consumer(
        connection.default_channel, kombu.Queue('work'), callbacks=[inbox], prefetch_count=1
    )
    with consumer:
        connection.drain_events(timeout=PATIENCE_S)
        with refusing(connection), pytest.raises(DiskFault):
            inbox.messages[0].ack()
        connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == ['first', 'second']
    assert len(files('work')) == 1


def test_what_the_disk_refused_to_give_back_comes_when_it_obeys(connect, queue, files, refusing):
    put(connect, 'done', 'not done')
    connection = connect()
    inbox = Inbox(acks=False)
    with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[inbox]):
        drain(connection, 2)
    with refusing(connection):
        with pytest.raises(DiskFault):
            inbox.messages[0].ack()
        connection.close()
    assert [name[-4:] for name in files('work')] == ['.bak', '.bak']
    other = connect(recovery_interval=0.01)
    with kombu.Consumer(other.default_channel, kombu.Queue('work'), callbacks=[inbox]):
        other.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == ['done', 'not done', 'not done']
    assert len(files('work')) == 1


def test_what_could_not_be_taken_away_before_anybody_saw_it_is_delivered(connect, queue, files, refusing):
    put(connect, 'x')
    connection = connect(recovery_interval=0.01)
    inbox = Inbox()
    with refusing(connection), pytest.raises(DiskFault):
        kombu.Queue('work')(connection.default_channel).get(no_ack=True)
    with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[inbox], no_ack=True):
        connection.drain_events(timeout=PATIENCE_S)
    assert inbox.bodies == ['x']
    assert files('work') == []


@pytest.mark.slow
def test_who_answers_many_askers_keeps_no_directory_open_for_those_that_are_gone(connect, spool_path):
    answering, asking = connect(), connect()

    def directories() -> int:
        return sum(str(spool_path / 'reply') in path for path in open_files().values())

    for number in range(3 * KEPT_QUEUES):
        reply = kombu.Queue(f'reply{number}', durable=False)(asking.default_channel)
        reply.declare()
        put(lambda: answering, 'pong', queue=reply.name, delivery_mode=1)
        reply.delete()
    assert directories() <= 2 * (KEPT_QUEUES + 1)  # who asks has them open, too


def test_who_only_publishes_takes_none_of_the_few_inotify_descriptors(connect, queue):
    opened = Opened()
    connection = connect()
    put(lambda: connection, 'x')
    assert 'anon_inode:inotify' not in opened()
    with kombu.Consumer(connection.default_channel, kombu.Queue('work'), callbacks=[Inbox()]):
        connection.drain_events(timeout=PATIENCE_S)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.01)
    assert opened().count('anon_inode:inotify') == 1


def test_an_exclusive_queue_goes_with_a_program_that_ends_without_closing(spool_path, files):
    program = (
        'import kombu, switchboard.extra.kombu\n'
        f'connection = kombu.Connection("switchboard://{spool_path}?durability=lazy")\n'
        'kombu.Queue("mine", exclusive=True)(connection.default_channel).declare()\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=PATIENCE_S)
    assert files('.run/declared') == ['.lock']
    assert files('.run/owners') == []
    assert 'mine' not in files('.')
