"""URLs, options, fail-over, pools, copies, batches, and the errors that kombu's users catch."""

from __future__ import annotations

import copy
import errno
import importlib.util
import pickle
import subprocess
import sys
import threading

import kombu
import pytest
from amqp.exceptions import InvalidPath
from kombu.exceptions import OperationalError

from switchboard.extra.kombu import Transport
from switchboard.kombu_transport.address import Address, read_address
from switchboard.kombu_transport.errors import DiskFault, SpoolMissing
from switchboard.kombu_transport.spool_connection import KEPT_QUEUES
from tests.faults.harness.tmpfs import fill, small_disk
from tests.helpers.descriptors import Opened
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S
from tests.kombu.suites import ROOT
from tests.unit.kombu_transport.frugal import WAYS

# How many files a program may open: as many as it likes, or fewer than it needs.
LIMITS = ('', '128')


@pytest.mark.parametrize(
    ('keys', 'address'),
    [
        ({'hostname': 'switchboard:///var/x'}, Address('/var/x')),
        (
            {'hostname': 'switchboard:///var/x/?eta=broker&create=yes'},
            Address('/var/x', eta='broker', create=True),
        ),
        ({'hostname': 'switchboard://localhost:1/var/x?rescan=2.5'}, Address('/var/x', poll_interval_s=2.5)),
        ({'hostname': 'switchboard:///var/x?recovery=2.5'}, Address('/var/x', recovery_interval_s=2.5)),
        ({'hostname': '/var/x', 'transport': 'switchboard'}, Address('/var/x')),
        ({'transport': 'switchboard.extra.kombu:Transport', 'virtual_host': '/var/x'}, Address('/var/x')),
        ({'transport': 'switchboard', 'transport_options': {'directory': '/var/x'}}, Address('/var/x')),
        (
            {'hostname': 'switchboard:///var/x?poll_interval=250ms&recovery_interval=1m'},
            Address('/var/x', poll_interval_s=0.25, recovery_interval_s=60.0),
        ),
        ({'hostname': 'switchboard:///var/a%20b'}, Address('/var/a b')),
        ({'hostname': 'switchboard:////var//x/'}, Address('/var//x')),
        (
            {
                'hostname': 'switchboard:///x?eta=worker',
                'transport_options': {'eta': 'broker', 'max_retries': 3},
            },
            Address('/x'),
        ),
        ({'hostname': 'switchboard://?config=/etc/x.cfg'}, Address('', config='/etc/x.cfg')),
    ],
)
def test_addresses(keys, address):
    assert read_address(kombu.Connection(**keys)) == address


@pytest.mark.parametrize(
    ('url', 'says'),
    [
        ('switchboard:///x?colour=red', "'colour' is not known: .* eta, poll_interval, recovery_interval$"),
        ('switchboard:///x?eta=never', 'worker, broker'),
        ('switchboard:///x?delivery_limit=-1', 'at least 0'),
        ('switchboard:///x?create=perhaps', 'neither yes nor no'),
        ('switchboard://example.org/x', 'three slashes'),
        ('switchboard://', 'no directory'),
        ('switchboard://localhost:x/spool', 'no URL'),
    ],
)
def test_an_address_that_cannot_be_used_says_why(url, says):
    with pytest.raises(InvalidPath, match=says):
        kombu.Connection(url).connect()


def test_an_address_that_is_no_url_says_so():
    connection = kombu.Connection('switchboard:///x')
    connection.hostname = 'switchboard://['  # as a list of several may hold it; alone, kombu refuses it first
    with pytest.raises(InvalidPath, match='no URL'):
        read_address(connection)


def test_a_spool_that_is_not_there_is_no_connection(tmp_path):
    with pytest.raises(SpoolMissing, match='create=yes'):
        kombu.Connection(f'switchboard://{tmp_path}/missing').transport.establish_connection()
    assert kombu.Connection(f'switchboard://{tmp_path}/made?create=yes').connect()
    with pytest.raises(InvalidPath):
        kombu.Connection(f'switchboard://?config={tmp_path}/missing.cfg').connect()


def test_the_name_is_known_without_an_import_of_ours(spool_path):
    program = (
        'import kombu.serialization, kombu\n'
        f'connection = kombu.Connection("switchboard://{spool_path}")\n'
        'assert connection.connect()\n'
        'assert kombu.serialization.loads(*reversed(kombu.serialization.dumps([1], "switchboard"))) or True\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True, timeout=PATIENCE_S)


def test_fail_over_keeps_the_options_of_each(tmp_path, spool_path):
    missing, there = f'switchboard://{tmp_path}/missing', f'switchboard://{spool_path}?eta=broker'
    connection = kombu.Connection(f'{missing}?eta=broker;{there}')
    assert connection.connect()
    assert connection.transport.spool_connection.address == Address(str(spool_path), eta='broker')
    again = connection.clone()
    assert again.connect()
    assert again.transport.spool_connection.address.directory == str(spool_path)
    for one in (connection, again):
        one.release()


def test_a_connection_fails_over_from_another_transport_with_the_options_of_each(tmp_path):
    nobody = f'redis://127.0.0.1:{free_port()}/0'
    connection = kombu.Connection(f'{nobody};switchboard://{tmp_path}/made?create=yes&eta=broker')
    connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0)
    assert connection.transport.spool_connection.address == Address(
        f'{tmp_path}/made', create=True, eta='broker'
    )
    connection.release()


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('limit', LIMITS, ids=['enough files', 'too few files'])
@pytest.mark.in_turns('limit', LIMITS)
def test_a_hundred_connections_leave_no_descriptor(way, limit, spool_path):
    if (
        way != 'threads' and importlib.util.find_spec(way) is None
    ):  # not imported: eventlet meddles with forks
        pytest.skip(f'{way} is not installed')
    command = [
        sys.executable,
        '-W',
        'ignore',
        '-m',
        'tests.unit.kombu_transport.frugal',
        way,
        str(spool_path),
    ]
    command += [limit] if limit else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    before, after = done.stdout.split()
    assert before == after


def test_queues_that_are_declared_keep_no_descriptor(connection):
    channel = connection.default_channel
    kombu.Queue('first')(channel).declare()
    opened = Opened()
    for number in range(50):
        kombu.Queue(f'queue{number}')(channel).declare()
    assert opened() == []


def test_queues_that_are_published_to_keep_few(connection):
    channel = connection.default_channel
    producer = kombu.Producer(channel)
    opened = Opened()
    for number in range(4 * KEPT_QUEUES):
        kombu.Queue(f'queue{number}')(channel).declare()
        producer.publish('x', routing_key=f'queue{number}')
    assert len(opened()) < 2 * KEPT_QUEUES
    for number in range(4 * KEPT_QUEUES):
        producer.publish('y', routing_key=f'queue{number}')
    assert kombu.Queue('queue0')(channel).get(no_ack=True).payload == 'x'


def test_copies_lead_to_the_same_spool(connection, spool_path):
    connection.connect()
    for one in (connection.clone(), copy.copy(connection), pickle.loads(pickle.dumps(connection))):
        assert one.connect()
        assert one.transport.spool_connection.address == connection.transport.spool_connection.address
        assert one.as_uri() == connection.as_uri() == f'switchboard://{spool_path}?durability=lazy'
        one.release()


@pytest.mark.parametrize(
    'keys',
    [
        {'transport_options': {'directory': '/var/x'}},
        {'virtual_host': '/var/x'},
        {'hostname': 'switchboard:///var/x'},
    ],
)
def test_a_connection_says_where_it_leads(keys):
    assert kombu.Connection(transport='switchboard', **keys).as_uri() == 'switchboard:///var/x'


def test_pools(connection):
    kombu.Queue('q')(connection.default_channel).declare()
    pool = connection.Pool(limit=2)
    with pool.acquire() as one, pool.acquire() as two:
        kombu.Producer(one).publish('x', routing_key='q')
        assert kombu.Queue('q')(two.default_channel).get(no_ack=True).payload == 'x'
    pool.force_close_all()


def test_publishing_tries_again_where_the_disk_refused_once(connect):
    connection = connect()
    kombu.Queue('q')(connection.default_channel).declare()
    broken = connection.transport.spool_connection.spool.pool
    broken.acquire = lambda: (_ for _ in ()).throw(OSError(errno.EIO, 'no'))
    with pytest.raises(DiskFault):
        kombu.Producer(connection.default_channel).publish('x', routing_key='q')
    errors = []
    kombu.Producer(connection).publish(
        'x',
        routing_key='q',
        retry=True,
        retry_policy={'max_retries': 2, 'errback': lambda error, interval: errors.append(error)},
    )
    assert isinstance(errors[0], DiskFault)
    assert kombu.Queue('q')(connection.default_channel).get(no_ack=True).payload == 'x'


def test_who_waits_is_told_when_another_thread_has_closed_before_he_sleeps(connect, monkeypatch):
    connection = connect()
    kombu.Consumer(connection.default_channel, [kombu.Queue('q')], callbacks=[print]).consume()
    deliver = Transport.deliver

    def deliver_and_close(transport, channels):
        is_delivered = deliver(transport, channels)
        closer = threading.Thread(target=connection.close)
        closer.start()
        closer.join()
        return is_delivered

    transport = connection.transport
    monkeypatch.setattr(Transport, 'deliver', deliver_and_close)
    with pytest.raises(DiskFault, match='closed'):
        transport.drain_events(transport, timeout=PATIENCE_S)


def test_errors_of_the_disk_are_errors_of_the_connection(spool_path):
    assert issubclass(DiskFault, Transport.connection_errors)
    with pytest.raises(OperationalError):
        kombu.Connection(f'switchboard://{spool_path}/nowhere').ensure_connection(
            max_retries=1, interval_start=0
        )


@pytest.mark.slow
def test_there_is_no_new_connection_to_a_disk_that_still_refuses(tmp_path):
    with small_disk(tmp_path / 'small') as spool:
        url = f'switchboard://{spool}?durability=lazy'
        connection = kombu.Connection(url)
        kombu.Queue('known')(connection.default_channel).declare()
        ballast = fill(spool)
        kombu.Connection(url).connect()  # who has to write nothing may work
        with pytest.raises(DiskFault):
            kombu.Exchange('new')(connection.default_channel).declare()
        with pytest.raises(DiskFault):
            kombu.Connection(url).connect()
        ballast.unlink()
        kombu.Exchange('new')(kombu.Connection(url).default_channel).declare()


# Batches.

has_batches = pytest.mark.skipif(not hasattr(kombu.Producer, 'batch'), reason='new in kombu 5.7')


@has_batches
def test_a_batch_is_visible_when_it_ends_with_one_flush(connect, files):
    channel = connect(durability='full').default_channel
    kombu.Queue('q')(channel).declare()
    flushes = []
    producer = kombu.Producer(channel)
    assert producer.supports_batch_publish
    disk = channel.spool_connection.spool.disk
    real = disk.sync_files
    disk.sync_files = lambda fds, **keys: flushes.append(len(fds)) or real(fds, **keys)
    with producer.batch():
        for number in range(10):
            producer.publish(number, routing_key='q')
        assert files('q') == []
    assert len(files('q')) == 10
    assert flushes == [10]


@has_batches
def test_a_batch_that_fails_stores_nothing(channel, files):
    kombu.Queue('q')(channel).declare()
    fanout = kombu.Exchange('e', type='fanout')
    for name in ('a', 'b'):
        kombu.Queue(name, exchange=fanout)(channel).declare()
    producer = kombu.Producer(channel)

    def fail() -> None:
        with producer.batch():
            producer.publish(1, routing_key='q')
            producer.publish(2, exchange=fanout)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert files('q') == files('a') == files('b') == []
    with producer.batch() as batch:
        producer.publish(1, routing_key='q')
        producer.publish(2, exchange=fanout)
        batch.flush()
        assert [len(files(name)) for name in 'qab'] == [1, 1, 1]


@has_batches
def test_a_batch_flushes_by_itself_when_it_is_full(channel, files):
    kombu.Queue('q')(channel).declare()
    producer = kombu.Producer(channel)
    with producer.batch(max_size=3):
        for number in range(4):
            producer.publish(number, routing_key='q')
        assert len(files('q')) == 3
    assert len(files('q')) == 4


DIRECTORIES = """
import resource
import sys
from gevent import monkey
monkey.patch_all()
import gevent
gevent.get_hub()
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for _ in range(200):
    folder = Folder(sys.argv[1], Disk())
    folder.open()
    folder.close()
    Folder(sys.argv[1], Disk()).open()
"""


def test_under_gevent_a_directory_is_closed_at_once(tmp_path):
    pytest.importorskip('gevent')
    command = [sys.executable, '-W', 'ignore', '-c', DIRECTORIES, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=PATIENCE_S).returncode == 0
