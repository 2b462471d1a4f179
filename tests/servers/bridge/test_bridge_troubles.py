"""A bridge from a real broker, in trouble: what was fetched is stored once, and then acknowledged."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('kombu')

from switchboard import Spool
from switchboard.brokers import connect
from switchboard.brokers.message import OutgoingMessage
from switchboard.message.naming import PRESERVED
from switchboard.runners.bridge import FromBroker
from switchboard.store.disk import Disk
from tests.helpers.configurations import load
from tests.helpers.waiting import eventually
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import unacked, wait
from tests.servers.mail.arrivals import arrive
from tests.servers.rabbitmq.rabbits import setting

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

SECTIONS = """
[runner.down]
class = runners.bridge:FromBroker
queue =
url = {url}
remote_queue = {name}
routing_key = in
prefetch = 3
[queue.in]
consumed_externally = yes
max_messages = 2
"""


class NothingIsPreserved(Disk):
    """A disk that fails as long as something is to be preserved."""

    fails = True

    def rename_exclusive(self, source: str, target: str, **keys: Any) -> None:
        if self.fails and target.endswith(PRESERVED):
            raise OSError(5, 'no such luck')
        super().rename_exclusive(source, target, **keys)


class Inwards:
    """A bridge, and a connection of who sends to it."""

    def __init__(self, url: str, directory: Path) -> None:
        self.disk = NothingIsPreserved()
        self.name = uuid.uuid4().hex[:8]
        text = SECTIONS.format(url=url, name=self.name)
        self.config = load(directory, text, head='[switchboard]\nspool = spool\ndurability = lazy\n')
        self.spool = Spool.from_config(self.config, disk=self.disk)
        self.runner = FromBroker(self.spool, self.config.runners['down'])
        self.connection = connect(url)
        self.connection.declare_queue(self.name)

    def send(self, *bodies: bytes, **properties: str) -> None:
        for body in bodies:
            self.connection.publish(OutgoingMessage(body, {}, properties), routing_key=self.name)

    def unacked(self) -> int:
        return unacked(self.runner.connection)

    def close(self) -> None:
        self.runner.cleanup()
        self.connection.delete_queue(self.name)
        self.connection.close()


@pytest.fixture
def inwards(rabbitmq_server: Broker, tmp_path: Path) -> Iterator[Inwards]:
    made = Inwards(rabbitmq_server.url, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize('properties', [{}, {'message_id': '1'}], ids=['without an id', 'with an id'])
def test_what_cannot_be_preserved_for_now_holds_up_no_other_and_is_in_bad_once(
    inwards: Inwards, properties: dict[str, str]
) -> None:
    runner, bad = inwards.runner, inwards.spool['bad']
    runner.setup()
    runner.periodic()
    inwards.send(b'{', content_type='application/json', **properties)
    inwards.send(b'good')
    eventually(lambda: runner.periodic() or inwards.spool['in'].files, 'arrived')
    for _ in range(2):
        runner.periodic()
    assert [one.msg for one in arrive(inwards.spool['in'], 1)] == [b'good']
    assert inwards.unacked() == 1
    assert bad.get_files('.psv') == []
    inwards.disk.fails = False
    runner.periodic()
    assert inwards.unacked() == 0
    [filebase] = bad.get_files('.psv')
    assert bad.get_files() == bad.get_files('.bak') == []
    assert 'CorruptEntryError' in bad.history(filebase)[-1]['reason']
    assert inwards.connection.count(inwards.name) == 0


def test_while_the_queue_is_full_for_longer_than_the_broker_waits_nothing_is_lost(
    inwards: Inwards, rabbitmq_server: Broker
) -> None:
    inwards.send(*(str(number).encode() for number in range(6)), content_type='text/plain')
    with setting(rabbitmq_server, consumer_timeout=1000, channel_tick_interval=500):
        thread = threading.Thread(target=inwards.runner.run)
        thread.start()
        try:
            wait(
                4
            )  # it has stored two, and holds more; the broker has closed its channel, and gives them out again
            found = arrive(Spool.from_config(inwards.config)['in'], 6)
        finally:
            inwards.runner.stop()
            thread.join(60)
    assert sorted(str(one.msg) for one in found) == ['0', '1', '2', '3', '4', '5']
    assert inwards.connection.count(inwards.name) == 0


def test_what_was_stored_when_redis_went_away_is_acknowledged_when_it_is_back(
    redis_server: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inwards = Inwards(redis_server.url, tmp_path)
    runner = inwards.runner
    runner.setup()
    inwards.send(b'one', b'two', content_type='text/plain')
    store = runner.store_arrived

    def store_and_be_alone() -> Any:
        monkeypatch.undo()
        stored = store()
        redis_server.stop()
        return stored

    monkeypatch.setattr(runner, 'store_arrived', store_and_be_alone)
    try:
        runner.periodic()
        assert inwards.unacked() == 2
    finally:
        redis_server.start()
    eventually(lambda: runner.periodic() or not inwards.unacked(), 'acknowledged')
    assert inwards.unacked() == inwards.connection.count(inwards.name) == 0
    assert sorted(one.msg for one in arrive(inwards.spool['in'], 2)) == ['one', 'two']
    inwards.close()
