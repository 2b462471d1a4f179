"""A configuration that is put into force is seen by programs that the master does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard import Runner, Spool
from switchboard.config.config import Config
from switchboard.errors import NoRouteError, UnknownQueueError
from switchboard.handoff.publish_many import Publication
from switchboard.options import RunnerOptions
from switchboard.spool.active_config import LOOK_EVERY_NS, activate
from switchboard.testing import FakeClock

A_LOOK_S = LOOK_EVERY_NS / 1e9 + 0.001
CONFIGURATION = '[switchboard]\nspool = spool\ndurability = lazy\n[queue.in]\n'
EXCHANGES = '[exchange.mail]\ntype = direct\nbindings =\n    key -> in\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / 'exchange.cfg').write_text(EXCHANGES)
    path = tmp_path / 'switchboard.cfg'
    path.write_text(CONFIGURATION)
    activate(Config.load(path))
    return path


@pytest.fixture
def spool(path: Path, clock: FakeClock) -> Spool:
    return Spool.from_config(path, clock=clock)


def add_queue(path: Path) -> None:
    path.write_text(CONFIGURATION + '[queue.new]\nmax_messages = 1\n')
    (path.parent / 'exchange.cfg').write_text(EXCHANGES + '    other -> new\n')


def test_a_publisher_sees_a_new_exchange_table_at_its_next_publish(spool, path, clock):
    with pytest.raises(NoRouteError):
        spool.publish('x', exchange='mail', routing_key='other')
    add_queue(path)
    activate(Config.load(path))
    clock.advance(A_LOOK_S)
    assert list(spool.publish('x', exchange='mail', routing_key='other')) == ['new']


def test_a_file_that_is_being_edited_changes_nothing(spool, path, clock):
    add_queue(path)
    clock.advance(A_LOOK_S)
    with pytest.raises(NoRouteError):
        spool.publish('x', exchange='mail', routing_key='other')


def test_a_file_that_broke_after_it_was_put_in_force_leaves_the_old_one(spool, path, clock, caplog):
    add_queue(path)
    activate(Config.load(path))
    path.write_text('[switchboard]\nnonsense = 1\n')
    clock.advance(A_LOOK_S)
    assert list(spool.publish('x', exchange='mail', routing_key='key')) == ['in']
    assert 'configuration refused' in caplog.text


def test_options_of_queues_are_the_new_ones_too(spool, path, clock):
    add_queue(path)
    with pytest.raises(UnknownQueueError):
        spool.queue('new')
    activate(Config.load(path))
    clock.advance(A_LOOK_S)
    spool.publish('x', exchange='mail', routing_key='key')
    assert spool['new'].options.max_messages == 1


def test_a_runner_that_only_emits_goes_by_what_is_in_force(spool, path, clock):
    class Emits(Runner):
        def dispose(self, msg, msgdata):
            self.emit('other', msg, exchange='mail')

    runner = Emits(spool, RunnerOptions('r', '', queue='in'), clock=clock)
    add_queue(path)
    activate(Config.load(path))
    clock.advance(A_LOOK_S)
    spool['in'].enqueue('x')
    runner.run(until_empty=True)
    assert len(Spool.from_config(path, clock=clock)['new'].files) == 1
    assert spool['bad'].get_files('.psv') == []


@pytest.mark.parametrize(
    'ask',
    [
        lambda spool: spool['new'],
        lambda spool: spool.exchanges.route('mail', 'other', {}),
        lambda spool: spool.publish('x', routing_key='new'),
        lambda spool: spool.publish_many([Publication('x', {}, ('new',))])[0]['new'],
        lambda spool: spool.queue_options('new'),
        lambda spool: spool.queue('new'),
        lambda spool: spool.pause('new'),
        lambda spool: spool.config.queue_options('new'),
        lambda spool: 'new' in spool or pytest.fail('unknown'),
        lambda spool: spool.queue_names().index('new'),
    ],
)
def test_whatever_is_asked_the_answer_is_of_what_is_in_force(spool, path, clock, ask):
    add_queue(path)
    activate(Config.load(path))
    clock.advance(A_LOOK_S)
    ask(spool)


def test_the_same_configuration_put_in_force_again_is_not_read_again(spool, path, clock):
    before = spool.config
    activate(Config.load(path))
    clock.advance(A_LOOK_S)
    spool.publish('x', exchange='mail', routing_key='key')
    assert spool.config is before


def test_putting_in_force_leaves_nothing_else_behind(path, tmp_path):
    activate(Config.load(path))
    assert not [one.name for one in (tmp_path / 'spool' / '.run').iterdir() if one.name.endswith('.new')]
