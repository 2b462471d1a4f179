"""Queues that go away: what waits in them is dropped and counted, what is being worked on is not touched, nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import (
    QueueError,
    QueueInUseError,
    UnknownQueueError,
)
from tests.unit.declared.leftovers import left
from tests.unit.declared.test_presence import in_child, kill


def test_one_that_cannot_go_keeps_no_other(spool, clock):
    for name in ('a', 'b', 'c'):
        spool.declare(name, expires_s=10)
    record = Path(spool.directory, '.run', 'declared', 'a')
    record.unlink()
    record.mkdir()
    clock.advance(1000)
    failed = {}
    spool.delete_unused_queues(failed.__setitem__)
    clock.advance(1000)
    spool.delete_unused_queues(failed.__setitem__)
    assert list(failed) == ['a']
    assert {'a', 'b', 'c'} & set(os.listdir(spool.directory)) == {'a'}
    with pytest.raises((QueueError, OSError)):
        spool.delete_unused_queues()


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
    ticket = spool.register_consumer('in')
    with pytest.raises(QueueInUseError, match='1 consumer'):
        spool.delete('in', if_unused=True)
    ticket.close()
    assert spool.delete('in', if_unused=True, if_empty=True) == 0
    assert 'in' not in spool.queue_names()


def test_purging_leaves_what_is_being_worked_on(spool):
    filebases = spool['in'].enqueue_many(['a', 'b', 'c'])
    spool['in'].dequeue(filebases[0])
    assert spool.purge('in') == 2
    spool['in'].finish(filebases[0])
    assert left(spool, 'in') == []


def test_purging_drops_what_a_dead_process_has_left(spool):
    filebases = spool['in'].enqueue_many(['a', 'b', 'c'])
    kill(in_child(lambda: Spool(spool.directory)['in'].dequeue(filebases[0])))
    spool['in'].dequeue(filebases[1])
    assert spool.purge('in') == 2
    assert spool['in'].recover(include_own=True) == [filebases[1]]


def test_a_producer_that_knew_the_queue_hears_that_it_is_gone(configured, tmp_path):
    producer = Spool.from_config(tmp_path / 'switchboard.cfg')
    configured.declare('reply')
    queue = producer['reply']
    queue.enqueue('in time')
    assert configured.delete('reply') == 1
    with pytest.raises(UnknownQueueError):
        queue.enqueue('too late')
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
    queue = other['in']
    queue.dequeue(filebase)
    spool['in'].enqueue('waits')
    assert spool.delete('in') == 1
    with pytest.raises(UnknownQueueError):
        spool.register_consumer('in')
    queue.finish(filebase)
    assert spool.delete_unused_queues() == ['in']
    assert left(spool, 'in') == left(spool, 'bad') == []


def test_what_is_given_back_to_a_deleted_queue_goes_to_bad_and_says_why(spool, other):
    spool.declare('in')
    filebase = spool['in'].enqueue('slow job')
    queue = other['in']
    queue.dequeue(filebase)
    assert spool.delete('in') == 0
    queue.release(filebase)
    assert spool.delete_unused_queues() == ['in']
    assert left(spool, 'bad') == [f'{filebase}.psv']
    assert spool['bad'].history(filebase)[-1]['reason'] == 'its queue was deleted'


def test_what_a_dead_process_held_goes_to_bad_too(spool, tmp_path):
    spool.declare('in')
    filebase = spool['in'].enqueue('slow job')

    def work() -> object:
        queue = Spool(tmp_path / 'spool')['in']
        queue.dequeue(filebase)
        return queue

    pid = in_child(work)
    spool.delete('in')
    assert spool.delete_unused_queues() == []
    kill(pid)
    assert spool.delete_unused_queues() == ['in']
    assert left(spool, 'bad') == [f'{filebase}.psv']


def test_a_queue_can_be_declared_anew_while_the_old_one_waits_for_its_last_worker(spool, other):
    spool.declare('in', auto_delete=True)
    filebase = spool['in'].enqueue('slow job')
    queue = other['in']
    queue.dequeue(filebase)
    spool.delete('in')
    spool.declare('in', options={'ttl_s': 3.0})
    assert spool.delete_unused_queues() == []
    spool['in'].enqueue('new')
    queue.finish(filebase)
    assert spool['in'].take().msg == 'new'


def test_a_queue_that_nobody_declared_is_deleted_too(spool):
    spool['in'].enqueue('x')
    assert spool.delete('in') == 1
    assert 'in' not in spool.queue_names()
    assert left(spool, '.run/declared') == ['.lock']


# Dead letters of declared queues.


def test_causes_that_were_named_are_dropped_and_others_kept(spool, clock):
    queue = spool.declare('in', options={'ttl_s': 5.0}, discard_causes=('expired',))
    queue.enqueue('stale')
    clock.advance(6)
    assert queue.take() is None
    assert left(spool, 'bad') == left(spool, 'in') == []
    queue.finish(queue.enqueue('refused'), preserve=True, reason='no')
    assert len(left(spool, 'bad')) == 1


def test_dead_letters_get_the_key_that_was_declared(spool, clock):
    spool.declare('late')
    queue = spool.declare(
        'in',
        options={'ttl_s': 5.0, 'dead_letter': 'exchange:'},
        discard_causes=('expired',),
        dead_letter_routing_key='late',
    )
    queue.enqueue('stale', routing_key='another')
    clock.advance(6)
    assert queue.take() is None
    assert spool['late'].take().msg == 'stale'


def test_what_was_said_of_a_deleted_queue_is_not_said_of_the_next_one_of_its_name(spool, tmp_path):
    spool.declare('in').enqueue('x', dedupe_key='key')
    spool.pause('in')
    spool.drain('in')
    assert spool.delete('in') == 1
    queue = spool.declare('in')
    assert not spool.flags.is_set('paused', 'in', refresh=True)
    assert not spool.flags.is_set('draining', 'in', refresh=True)
    assert queue.enqueue('y', dedupe_key='key') in queue.files
    spool.delete_unused_queues()
    assert not [name for name in os.listdir(spool.directory) if name.startswith('.gone@')]


def test_places_of_dead_consumers_are_cleared_away_for_queues_of_the_configuration_too(spool):
    spool['in'].enqueue('x')
    kill(in_child(lambda: spool.register_consumer('in')))
    assert len(os.listdir(spool.path('.run', 'consumers', 'in'))) == 1
    spool.delete_unused_queues()
    assert os.listdir(spool.path('.run', 'consumers', 'in')) == []
