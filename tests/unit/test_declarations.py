"""Queues that programs declare: they are there for all processes, and go when it is time, with nothing lost on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import (
    QueueInUseError,
    QueueLockedError,
    QueueMismatchError,
    UnknownQueueError,
)
from switchboard.testing.clock import FakeClock
from tests.unit.test_presence import in_child, kill


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Spool:
    return Spool(tmp_path / 'spool', durability='lazy', clock=clock)


@pytest.fixture
def other(spool: Spool, tmp_path: Path, clock: FakeClock) -> Spool:
    """The same spool, as another process sees it."""
    return Spool(tmp_path / 'spool', durability='lazy', clock=clock)


@pytest.fixture
def configured(tmp_path: Path) -> Spool:
    (tmp_path / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = spool\n\n[queue.in]\nexternal = yes\n\n[queue.t-*]\nttl = 7s\n'
    )
    return Spool.from_config(tmp_path / 'switchboard.cfg')


def left(spool: Spool, name: str) -> list[str]:
    """What lies in a queue's directory."""
    path = Path(spool.path(name))
    return sorted(os.listdir(path)) if path.exists() else []


# Declaring.


def test_options_hold_for_every_process(spool, other):
    spool.declare('in', options={'ttl_s': 5.0, 'max_messages': 3, 'accept': ['json']})
    options = other['in'].options
    assert (options.ttl_s, options.max_messages, options.accept) == (5.0, 3, ('json',))
    assert options.durability == 'lazy'


def test_a_second_declaration_must_ask_for_the_same(spool, other):
    spool.declare('in', options={'ttl_s': 5.0}, arguments={'x': [1]})
    other.declare('in', options={'ttl_s': 5.0}, arguments={'x': [1]})
    for keys in ({}, {'options': {'ttl_s': 6.0}, 'arguments': {'x': [1]}}, {'auto_delete': True}):
        with pytest.raises(QueueMismatchError):
            other.declare('in', **keys)
    assert other['in'].options.ttl_s == 5.0


def test_an_unknown_option_is_refused(spool):
    with pytest.raises(QueueMismatchError, match='colour'):
        spool.declare('in', options={'colour': 'red'})
    assert 'in' not in spool.queue_names()


def test_a_declared_queue_counts_as_known_beside_the_configurations(configured):
    with pytest.raises(UnknownQueueError):
        configured['reply']
    configured.declare('reply', expires_s=60.0)
    assert configured['reply'].enqueue('x')
    assert {'in', 'reply'} <= set(configured.queue_names())


def test_patterns_of_the_configuration_hold_for_declared_queues_and_they_have_the_last_word(configured):
    assert configured.declare('t-1').options.ttl_s == 7.0
    assert configured.declare('t-2', options={'ttl_s': 1.0}).options.ttl_s == 1.0


def test_what_the_configuration_declares_is_neither_changed_nor_deleted(configured, tmp_path):
    configured.declare('in')
    for keys in ({'options': {'ttl_s': 5.0}}, {'auto_delete': True}):
        with pytest.raises(QueueMismatchError):
            configured.declare('in', **keys)
    with pytest.raises(QueueMismatchError):
        configured.delete('in')
    with pytest.raises(QueueMismatchError):
        configured.delete('bad')
    assert not (tmp_path / 'spool' / '.run' / 'declared' / 'in').exists()


def test_a_queue_with_messages_is_not_made_one_that_goes_away(spool):
    spool['in'].enqueue('precious')
    with pytest.raises(QueueMismatchError):
        spool.declare('in', auto_delete=True)
    spool.declare('in', options={'ttl_s': 9.0})
    assert len(spool['in'].files) == 1


def test_a_torn_record_is_as_none(spool, other):
    spool.declare('in')
    Path(spool.path('.run', 'declared', 'in')).write_bytes(b'')
    other.declare('in', options={'ttl_s': 1.0})
    assert other['in'].options.ttl_s == 1.0


def test_a_record_is_a_file_that_people_can_read(spool):
    spool.declare('in', auto_delete=True, expires_s=3.0)
    record = json.loads(Path(spool.path('.run', 'declared', 'in')).read_text())
    assert record['auto_delete'] is True
    assert record['expires_s'] == 3.0


# Owners.


def test_an_exclusive_queue_is_its_owners_alone(spool, other):
    mine, theirs = spool.declared.owner, other.declared.owner
    spool.declare('reply', owner=mine)
    spool.declare('reply', owner=mine)
    for keys in ({'owner': theirs}, {}):
        with pytest.raises(QueueLockedError):
            other.declare('reply', **keys)
    with pytest.raises(QueueLockedError):
        other.consume('reply', theirs)
    assert spool.consume('reply', mine).is_held
    other.publish('anybody may answer', routing_key='reply')
    assert spool['reply'].take().msg == 'anybody may answer'


def test_an_exclusive_queue_goes_with_its_owner(spool, other):
    spool.declare('reply', owner=spool.declared.owner)
    assert other.reap() == []
    spool.declared.owner.leave()
    assert other.reap() == ['reply']
    assert 'reply' not in other.queue_names()
    assert left(spool, '.run/owners') == []


def test_an_exclusive_queue_goes_when_its_owner_is_killed(spool, tmp_path):
    def own() -> Spool:
        child = Spool(tmp_path / 'spool')
        child.declare('reply', owner=child.declared.owner)
        child['reply'].enqueue('lost with its owner')
        return child

    pid = in_child(own)
    assert spool.reap() == []
    kill(pid)
    assert spool.reap() == ['reply']


def test_a_new_owner_gets_a_new_queue_at_once(spool, other):
    spool.declare('reply', owner=spool.declared.owner)
    spool['reply'].enqueue('old')
    spool.declared.owner.leave()
    other.declare('reply', owner=other.declared.owner)
    assert other['reply'].take() is None


def test_a_forked_child_is_another_owner(spool):
    spool.declare('reply', owner=spool.declared.owner)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                spool.declare('reply', owner=spool.declared.owner)
                os.write(writer, b'n')
            except QueueLockedError:
                os.write(writer, b'y')
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 1) == b'y'
    assert spool.reap() == []


# Consumers.


def test_consumers_are_counted_as_long_as_they_live(spool, other, tmp_path):
    spool.declare('in')
    ticket = spool.consume('in')
    pid = in_child(lambda: Spool(tmp_path / 'spool').consume('in'))
    assert other.consumers('in') == 2
    kill(pid)
    assert other.consumers('in') == 1
    ticket.leave()
    assert other.consumers('in') == 0
    with pytest.raises(UnknownQueueError):
        other.consume('nowhere')


def test_an_auto_delete_queue_goes_with_its_last_consumer_and_not_before_it_had_one(spool, other):
    spool.declare('in', auto_delete=True)
    assert other.reap() == []
    one, two = spool.consume('in'), other.consume('in')
    one.leave()
    assert 'in' in spool.queue_names()
    two.leave()
    assert 'in' not in spool.queue_names()
    assert left(spool, '.run/consumers') == []


def test_an_auto_delete_queue_that_is_declared_again_waits_for_a_consumer_again(spool):
    for _ in range(2):
        spool.declare('in', auto_delete=True)
        assert spool.reap() == []
        spool.consume('in').leave()
        assert 'in' not in spool.queue_names()


def test_an_auto_delete_queue_goes_when_its_last_consumer_is_killed(spool, tmp_path):
    spool.declare('in', auto_delete=True)
    pid = in_child(lambda: Spool(tmp_path / 'spool').consume('in'))
    assert spool.reap() == []
    kill(pid)
    assert spool.reap() == ['in']


# Time.


def test_an_expiring_queue_goes_when_nobody_used_it_for_its_time(spool, clock):
    spool.declare('in', expires_s=60.0)
    clock.advance(59)
    assert spool.reap() == []
    clock.advance(2)
    assert spool.reap() == ['in']


@pytest.mark.parametrize('use', ['declare', 'consume', 'leave'])
def test_use_puts_the_end_off(spool, clock, use):
    spool.declare('in', expires_s=60.0)
    ticket = spool.consume('in') if use == 'leave' else None
    clock.advance(50)
    if use == 'declare':
        spool.declare('in', expires_s=60.0)
    elif use == 'leave':
        ticket.leave()
    else:
        ticket = spool.consume('in')
        spool.reap()
        ticket.leave()
    clock.advance(50)
    assert spool.reap() == []
    clock.advance(11)
    assert spool.reap() == ['in']


def test_a_consumer_keeps_an_expiring_queue(spool, clock):
    spool.declare('in', expires_s=60.0)
    ticket = spool.consume('in')
    clock.advance(1000)
    assert spool.reap() == []
    assert ticket.is_held


# Deleting.


def test_deleting_drops_what_waits_and_says_how_much(spool):
    spool.declare('in')
    spool['in'].enqueue_many(['a', 'b', ('later', {'delay': 60})])
    assert spool.delete('in') == 3
    assert 'in' not in spool.queue_names()
    with pytest.raises(UnknownQueueError):
        spool.delete('in')


def test_deleting_if_empty_and_if_unused(spool):
    spool.declare('in')
    filebase = spool['in'].enqueue('x')
    with pytest.raises(QueueInUseError, match='messages'):
        spool.delete('in', if_empty=True)
    spool['in'].dequeue(filebase)
    with pytest.raises(QueueInUseError, match='messages'):
        spool.delete('in', if_empty=True)
    spool['in'].finish(filebase)
    ticket = spool.consume('in')
    with pytest.raises(QueueInUseError, match='1 consumers'):
        spool.delete('in', if_unused=True)
    ticket.leave()
    assert spool.delete('in', if_unused=True, if_empty=True) == 0
    assert 'in' not in spool.queue_names()


def test_purging_leaves_what_is_being_worked_on(spool):
    filebases = spool['in'].enqueue_many(['a', 'b', 'c'])
    spool['in'].dequeue(filebases[0])
    assert spool.purge('in') == 2
    spool['in'].finish(filebases[0])
    assert left(spool, 'in') == []


def test_a_producer_that_knew_the_queue_hears_that_it_is_gone(configured, tmp_path):
    producer = Spool.from_config(tmp_path / 'switchboard.cfg')
    configured.declare('reply')
    board = producer['reply']
    board.enqueue('in time')
    assert configured.delete('reply') == 1
    with pytest.raises(UnknownQueueError):
        board.enqueue('too late')
    with pytest.raises(UnknownQueueError):
        producer.publish('too late', routing_key='reply')
    assert left(configured, 'reply') == []


def test_a_producer_that_knew_the_queue_finds_the_new_one_of_its_name(spool, other):
    spool.declare('in', options={'ttl_s': 5.0})
    other['in'].enqueue('old')
    spool.delete('in')
    spool.declare('in', options={'ttl_s': 9.0})
    other.publish('new', routing_key='in')
    assert spool['in'].take().msg == 'new'
    assert other['in'].options.ttl_s == 9.0


def test_what_is_being_worked_on_may_be_finished(spool, other):
    spool.declare('in')
    filebase = spool['in'].enqueue('slow job')
    board = other['in']
    board.dequeue(filebase)
    spool['in'].enqueue('waits')
    assert spool.delete('in') == 1
    with pytest.raises(UnknownQueueError):
        spool.consume('in')
    board.finish(filebase)
    assert spool.reap() == ['in']
    assert left(spool, 'in') == left(spool, 'bad') == []


def test_what_is_given_back_to_a_deleted_queue_goes_to_bad_and_says_why(spool, other):
    spool.declare('in')
    filebase = spool['in'].enqueue('slow job')
    board = other['in']
    board.dequeue(filebase)
    assert spool.delete('in') == 0
    board.release(filebase)
    assert spool.reap() == ['in']
    assert left(spool, 'bad') == [f'{filebase}.psv']
    assert spool['bad'].history(filebase)[-1]['reason'] == 'its queue was deleted'


def test_what_a_dead_process_held_goes_to_bad_too(spool, tmp_path):
    spool.declare('in')
    filebase = spool['in'].enqueue('slow job')

    def work() -> object:
        board = Spool(tmp_path / 'spool')['in']
        board.dequeue(filebase)
        return board

    pid = in_child(work)
    spool.delete('in')
    assert spool.reap() == []
    kill(pid)
    assert spool.reap() == ['in']
    assert left(spool, 'bad') == [f'{filebase}.psv']


def test_a_queue_can_be_declared_anew_while_the_old_one_waits_for_its_last_worker(spool, other):
    spool.declare('in', auto_delete=True)
    filebase = spool['in'].enqueue('slow job')
    board = other['in']
    board.dequeue(filebase)
    spool.delete('in')
    spool.declare('in', options={'ttl_s': 3.0})
    assert spool.reap() == []
    spool['in'].enqueue('new')
    board.finish(filebase)
    assert spool['in'].take().msg == 'new'


def test_a_queue_that_nobody_declared_is_deleted_too(spool):
    spool['in'].enqueue('x')
    assert spool.delete('in') == 1
    assert 'in' not in spool.queue_names()
    assert left(spool, '.run/declared') == ['.lock']


# Dead letters of declared queues.


def test_causes_that_were_named_are_dropped_and_others_kept(spool, clock):
    board = spool.declare('in', options={'ttl_s': 5.0}, discard=('expired',))
    board.enqueue('stale')
    clock.advance(6)
    assert board.take() is None
    assert left(spool, 'bad') == left(spool, 'in') == []
    board.finish(board.enqueue('refused'), preserve=True, reason='no')
    assert len(left(spool, 'bad')) == 1


def test_dead_letters_get_the_key_that_was_declared(spool, clock):
    spool.declare('late')
    board = spool.declare(
        'in', options={'ttl_s': 5.0, 'dead_letter': 'exchange:'}, discard=('expired',), dead_letter_key='late'
    )
    board.enqueue('stale', routing_key='another')
    clock.advance(6)
    assert board.take() is None
    assert spool['late'].take().msg == 'stale'
