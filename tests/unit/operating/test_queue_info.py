"""What there is to know of a queue, read by a process that may not write and makes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.config.config import Config
from switchboard.errors import UnknownQueueError
from switchboard.metrics.collector import render
from switchboard.metrics.counting import count_all
from switchboard.operating.grouping import NONE, ages_by_group
from switchboard.operating.queue_info import Throughput, count_queue, origins_of, queue_info, throughput
from switchboard.operating.selection import Selection
from switchboard.operating.spool_view import SpoolView, read_flags
from switchboard.status.record import ProcessState, SliceRecord
from tests.helpers.commands import fail, succeed


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / 'switchboard.cfg'
    path.write_text(
        '[switchboard]\nspool = s\n[queue.in]\nmax_messages = 5\n[runner.works]\nclass = null\nqueue = in\ninstances = 2\n'
    )
    return Config.load(path)


def test_nothing_is_made_by_looking(config: Config) -> None:
    config.spool.mkdir()
    view = SpoolView(config.spool, config)
    assert queue_info(view, 'in').own_options == {'max_messages': '5'}
    assert count_queue(view, 'in').entries == 0
    assert view.queue_names() == ['in', 'bad']
    assert list(view.select(Selection.parse('queue:in'))) == []
    assert list(config.spool.iterdir()) == []


def test_flags_say_since_when_and_why(config: Config) -> None:
    spool = Spool.from_config(config)
    spool.pause('in', 'the server is moved')
    info = queue_info(SpoolView(config.spool, config), 'in')
    assert info.flags['paused']['reason'] == 'the server is moved'
    assert info.flags['paused']['since'] > 0
    for content in (b'', b'[1]', b'nonsense', b'[' * 5000):
        (config.spool / '.run' / 'draining').mkdir(exist_ok=True)
        (config.spool / '.run' / 'draining' / 'in').write_bytes(content)
        assert read_flags(config.spool, 'in')['draining'] == {}


def test_throughput_is_summed_by_queue(config: Config) -> None:
    records = [
        SliceRecord('works', 0, 2, state=ProcessState.RUNNING, done=3, failed=1),
        SliceRecord('works', 1, 2, state=ProcessState.RUNNING, done=4, retried=2),
    ]
    assert throughput(config, records) == {'in': Throughput(done=7, failed=1, retried=2, slices=2)}


def test_a_queue_that_is_not_there_is_named(config: Config) -> None:
    config.spool.mkdir()
    view = SpoolView(config.spool, config)
    with pytest.raises(UnknownQueueError, match='did you mean in'):
        view.queue_folders(['inn'])
    with pytest.raises(UnknownQueueError):
        view.select(Selection.parse('queue:nosuch'))
    assert list(view.select(Selection.parse('queue:no*'))) == []


def test_entries_are_grouped_by_what_they_have_and_by_age(config: Config) -> None:
    spool = Spool.from_config(config)
    for error in ('TimeoutError', 'ValueError', 'TimeoutError'):
        fail(spool, 'in', 'x', error)
    spool['in'].enqueue('y', rcpt=['ann@Example.com', 'bob@example.com'])
    view = SpoolView(config.spool, config)
    now_ns = spool.clock.time_ns()
    found = sorted(name for name, _ in ages_by_group(view.queue_folders(['bad']), now_ns, {}, by='error'))
    assert found == ['TimeoutError', 'TimeoutError', 'ValueError']
    domains = [
        name for name, _ in ages_by_group(view.queue_folders(['in']), now_ns, {}, by='rcpt', domain=True)
    ]
    assert domains == ['example.com']
    assert {name for name, _ in ages_by_group(view.queue_folders(['bad']), now_ns, {}, by='nosuch')} == {NONE}
    assert origins_of(view.folder('bad'), 'bad') == {'in': 3}
    assert origins_of(view.folder('bad'), 'bad', limit=1) == {'in': 1, '?': 2}


def test_what_made_room_in_a_full_queue_is_told_wherever_queues_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / 'switchboard.cfg'
    path.write_text('[switchboard]\nspool = s\n[queue.in]\nmax_messages = 2\noverflow = drop-oldest\n')
    spool = Spool.from_config(path)
    view = SpoolView(Path(spool.directory), Config.load(path))
    assert count_queue(view, 'in').evicted == 0
    for number in range(5):
        spool['in'].enqueue(number)
    assert count_queue(view, 'in').evicted == 3
    assert [one['evicted'] for one in succeed('-C', str(path), 'queues', 'in', '--json').objects] == [3]
    for line in ('queues', 'show in'):
        ran = succeed('-C', str(path), *line.split())
        assert '3 messages made room for newer ones so far' in ran.out
        assert ran.err == ''  # it is no trouble of this call, and stays true for ever
    text, _ = render(Path(spool.directory), count_all(view, 5.0), Config.load(path))
    assert 'switchboard_queue_evicted_total{queue="in"} 3.0' in text.decode()
