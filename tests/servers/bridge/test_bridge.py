"""Bridges to real brokers, while everything that can go away does: nothing is lost, and nothing is doubled on our side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('kombu')

from redis import Redis

from tests.servers.bridge.bridging import Producer, Site, bridged, fill_disk
from tests.servers.brokers.broker import Broker

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

# What goes out comes in again, by the same broker: both directions work at once.
ROUND = """
[runner.up]
class = runners.bridge:ToBroker
queue = out
batch_size = 20
recovery_interval = 300ms
url = {url}
remote_exchange = {name}
remote_queue = {name}
remote_bindings = #
timeout = 2s
connect_timeout = 2s
[runner.down]
class = runners.bridge:FromBroker
queue =
recovery_interval = 1s
url = {url}
remote_queue = {name}
remote_exchange = {name}
remote_bindings = #
routing_key = in
prefetch = 50
timeout = 2s
connect_timeout = 2s
own_messages = accept
[queue.out]
max_recoveries = 1000
[queue.in]
consumed_externally = yes
"""


@pytest.fixture
def name() -> str:
    """A name that no other test has used at this broker."""
    return f'bridge.{uuid.uuid4().hex[:12]}'


def check_the_end(site: Site, producer: Producer) -> None:
    """Let all that is on its way arrive, and compare it with what was accepted."""
    producer.stop()
    site.wait_for(lambda: site.count('in') >= len(producer.accepted), 'all there')
    site.wait_for(lambda: site.count('out') == 0, 'all finished')
    assert site.stop() == 0
    arrived = site.take_all('in')
    assert arrived.keys() - producer.accepted == set()
    assert producer.accepted - arrived.keys() == set()
    assert [text for text, times in arrived.items() if times > 1] == []
    assert os.listdir(site.spool_directory / 'bad') == []


def test_rabbitmq_goes_and_comes_while_messages_flow_both_ways(
    rabbitmq_server: Broker, tmp_path: Path, name: str
) -> None:
    sections = ROUND.format(url=rabbitmq_server.url, name=name)
    with bridged(tmp_path, sections) as (site, can_be_filled), Producer(site, 'out') as producer:
        site.start()
        site.wait_for_more('in', 50)
        try:
            rabbitmq_server.kill()
            waiting = site.count('out')
            site.kill_runners()
            site.wait_for(lambda: site.count('out') > waiting + 100, 'stored, and not forwarded')
            rabbitmq_server.start()
            for _ in range(6):
                site.wait_for_more('in', 20)
                site.kill_runners()
            if can_be_filled:
                ballast = fill_disk(site)
                refused = producer.refused
                site.wait_for(lambda: producer.refused > refused and site.says('No space'), 'full')
                site.kill_runners()
                ballast.unlink()
                site.wait_for_more('in', 50)
            with rabbitmq_server.standing_still():
                site.wait_for_more('out', 100)
                site.wait_for(lambda: site.says('no confirm within 2 s') or site.says('timed out'), 'noticed')
            site.reload()
            site.wait_for_more('in', 20)
            rabbitmq_server.stop()
            site.kill()
            site.start()
            site.wait_for_more('out', 50)
        finally:
            if not rabbitmq_server.is_running:
                rabbitmq_server.start()
        site.kill_runners()
        site.wait_for_more('in', 50)
        check_the_end(site, producer)
        assert len(producer.accepted) > 1000


def test_redis_goes_and_comes_while_messages_flow_both_ways(
    redis_server: Broker, tmp_path: Path, name: str
) -> None:
    sections = ROUND.format(url=f'{redis_server.url}?lease=2s', name=name)
    with bridged(tmp_path, sections) as (site, _), Producer(site, 'out') as producer:
        site.start()
        # While it flushes, it answers what it writes only afterwards, as it is configured: who is killed then has not kept it.
        Redis.from_url(redis_server.url).config_set('appendfsync', 'always')
        site.wait_for_more('in', 50)
        try:
            redis_server.kill()
            waiting = site.count('out')
            site.kill_runners()
            site.wait_for(lambda: site.count('out') > waiting + 50, 'stored, and not forwarded')
            redis_server.start()
            site.wait_for_more('in', 100)
            site.kill()
            redis_server.stop()
            site.start()
        finally:
            if not redis_server.is_running:
                redis_server.start()
        site.kill_runners()
        site.wait_for_more('in', 50)
        check_the_end(site, producer)


# A site that sends, and one that takes: other spools, other queues, one exchange between them.
FROM_HERE = """
[runner.up]
class = runners.bridge:ToBroker
queue = out
url = {url}
send_history = yes
remote_exchange = {name}
remote_queue = {name}
remote_bindings = #
remote_routing_key = {{place}}.{{kind|any}}
origin_name = here
[queue.out]
"""
TO_THERE = """
[runner.down]
class = runners.bridge:FromBroker
queue =
url = {url}
remote_queue = {name}
routing_key = in
declare = no
[queue.in]
consumed_externally = yes
"""


def work_off(home: Path, sections: str, runner: str) -> Site:
    """:return: a site of which one runner has worked off what is there."""
    home.mkdir(exist_ok=True)
    (home / 'disk').mkdir(exist_ok=True)
    site = Site(home, sections)
    code = 'from switchboard.master.programs import runner; runner()'
    command = [sys.executable, '-c', code, '-C', str(site.config), '--until-empty', runner]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.parametrize('kind', ['rabbitmq', 'redis'])
def test_a_message_arrives_with_its_metadata_its_kind_and_its_history(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    broker: Broker = request.getfixturevalue(f'{kind}_server')
    here = work_off(tmp_path / 'here', FROM_HERE.format(url=broker.url, name=name), 'up')
    queue = here.spool['out']
    metadata = {'place': 'north', 'numbers': [1, 2.5, None], 'big': 2**70, 'odd\udcff': 'key'}
    sent: list[Any] = [
        {'a': [1, None]},
        'text \u00fc',
        b'\x00\xff',
        message_from_bytes(b'Subject: x\n\nbody\n'),
    ]
    digests = [queue.enqueue(one, metadata).partition('+')[2] for one in sent]
    failed = queue.get_files()[0]
    queue.dequeue(failed)
    queue.release(failed, record={'event': 'failed', 'error': 'Oops', 'message': 'once'})
    work_off(tmp_path / 'here', FROM_HERE.format(url=broker.url, name=name), 'up')
    assert here.count('out') == 0
    there = work_off(tmp_path / 'there', TO_THERE.format(url=broker.url, name=name), 'down')
    taken = list(iter(there.spool['in'].take, None))
    assert [one.msg for one in taken[:3]] == sent[:3]
    assert isinstance(taken[3].msg, Message)
    assert bytes(taken[3].msg) == bytes(sent[3])
    for one, digest in zip(taken, digests, strict=True):
        assert metadata.items() <= one.msgdata.items()
        assert one.msgdata['routing_key'] == 'north.any'
        assert one.msgdata['bridge_path'] == ['here']
        assert one.msgdata['dedupe_key'].startswith(digest)
    history = there.spool['in'].history(taken[0].filebase)
    assert [record['event'] for record in history] == ['elsewhere', 'bridged']
    assert history[0]['record']['error'] == 'Oops'
    assert history[0]['site'] == 'here'


@pytest.mark.parametrize('kind', ['rabbitmq', 'redis'])
def test_messages_keep_their_order_however_many_are_fetched_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    broker: Broker = request.getfixturevalue(f'{kind}_server')
    sections = FROM_HERE.format(url=broker.url, name=name).replace(
        '[queue.out]', 'batch_size = 50\n[queue.out]'
    )
    here = work_off(tmp_path / 'here', sections, 'up')
    here.spool['out'].enqueue_many([(str(number), {'place': 'x'}) for number in range(300)])
    work_off(tmp_path / 'here', sections, 'up')
    sections = TO_THERE.format(url=broker.url, name=name).replace('declare', 'prefetch = 20\ndeclare')
    there = work_off(tmp_path / 'there', sections, 'down')
    assert [taken.msg for taken in iter(there.spool['in'].take, None)] == [
        str(number) for number in range(300)
    ]


def test_celery_and_other_programs_of_kombus_are_understood(
    rabbitmq_server: Broker, tmp_path: Path, name: str
) -> None:
    import kombu

    with kombu.Connection(rabbitmq_server.url) as connection:
        queue = kombu.Queue(name, kombu.Exchange(name, 'topic'), '#')
        producer = connection.Producer()
        producer.publish(
            {'n': 1},
            exchange=name,
            routing_key='a.b',
            declare=[queue],
            headers={'task': 'add'},
            compression='gzip',
        )
        producer.publish({'n': 2}, exchange=name, routing_key='a.b', serializer='pickle')
    there = work_off(tmp_path / 'there', TO_THERE.format(url=rabbitmq_server.url, name=name), 'down')
    [one] = list(iter(there.spool['in'].take, None))
    assert one.msg == {'n': 1}
    assert one.msgdata['task'] == 'add'
    [bad] = there.spool['bad'].get_files('.psv')
    assert 'pickle' in there.spool['bad'].history(bad)[-1]['reason']


def test_what_is_wrong_with_a_section_is_shown_by_check(tmp_path: Path) -> None:
    sections = ROUND.format(url='amqp://localhost//', name='x').replace('own_messages = accept\n', '')
    (tmp_path / 'switchboard.cfg').write_text(f'[switchboard]\nspool = spool\n{sections}')
    code = 'from switchboard.cli import main; main()'
    command = [
        sys.executable,
        '-c',
        code,
        '-C',
        str(tmp_path / 'switchboard.cfg'),
        'check',
        '--imports',
        '--json',
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    [error] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (error['section'], error['key']) == ('runner.down', 'own_messages')
    assert 'runner up publishes to where this one takes from' in error['reason']
    assert done.returncode == 78
