"""Queues that programs declare: they are there for all processes, and go when it is time, with nothing lost on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.declared.declarations import Declarations
from switchboard.errors import (
    ConfigError,
    QueueLockedError,
    QueueMismatchError,
    UnknownQueueError,
)
from switchboard.message.naming import NameGenerator
from switchboard.store.disk import Disk
from tests.unit.declared.leftovers import left
from tests.unit.declared.test_presence import in_child, kill

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
    with pytest.raises(ConfigError, match='colour'):
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


def test_options_of_before_are_read_by_their_names_of_today(spool, other):
    spool.declare('in', options={'flush': 'two', 'ttl_s': 1.0})
    path = Path(spool.path('.run', 'declared', 'in'))
    record = json.loads(path.read_text())
    assert record['options'] == {'directory_sync': 'always', 'ttl_s': 1.0}
    path.write_text(json.dumps({**record, 'options': {'flush': 'two', 'ttl_s': 1.0}}))
    assert other['in'].options.directory_sync == 'always'
    with pytest.raises(ConfigError, match='old name'):
        spool.declare('out', options={'flush': 'two', 'directory_sync': 'auto'})
    with pytest.raises(ConfigError):
        spool.declare('out', options={'flush': []})


def test_a_record_keeps_its_names_for_the_version_before(spool):
    spool.declare('in', discard_causes=('expired',), dead_letter_routing_key='late')
    record = json.loads(Path(spool.directory, '.run', 'declared', 'in').read_text())
    # A version that does not know a name takes the record for a damaged one, and the queue for one that is not there.
    assert set(record) == {
        *(
            'owner',
            'auto_delete',
            'expires_s',
            'options',
            'arguments',
            'discard',
            'dead_letter_key',
            'deleted',
        ),
    }
    declaration = spool.declared.records.get('in')
    assert (declaration.discard_causes, declaration.dead_letter_routing_key) == (('expired',), 'late')
    spool.declare('in', discard_causes=('expired',), dead_letter_routing_key='late')


# Owners.


def test_an_exclusive_queue_is_its_owners_alone(spool, other):
    mine, theirs = spool.declared.owner, other.declared.owner
    spool.declare('reply', owner=mine)
    spool.declare('reply', owner=mine)
    for keys in ({'owner': theirs}, {}):
        with pytest.raises(QueueLockedError):
            other.declare('reply', **keys)
    with pytest.raises(QueueLockedError):
        other.register_consumer('reply', theirs)
    assert spool.register_consumer('reply', mine).is_active
    other.publish('anybody may answer', routing_key='reply')
    assert spool['reply'].take().msg == 'anybody may answer'


def test_an_exclusive_queue_goes_with_its_owner(spool, other):
    spool.declare('reply', owner=spool.declared.owner)
    assert other.delete_unused_queues() == []
    spool.declared.owner.close()
    assert other.delete_unused_queues() == ['reply']
    assert 'reply' not in other.queue_names()
    assert left(spool, '.run/owners') == []


def test_an_exclusive_queue_goes_when_its_owner_is_killed(spool, tmp_path):
    def own() -> Spool:
        child = Spool(tmp_path / 'spool')
        child.declare('reply', owner=child.declared.owner)
        child['reply'].enqueue('lost with its owner')
        return child

    pid = in_child(own)
    assert spool.delete_unused_queues() == []
    kill(pid)
    assert spool.delete_unused_queues() == ['reply']


def test_a_new_owner_gets_a_new_queue_at_once(spool, other):
    spool.declare('reply', owner=spool.declared.owner)
    spool['reply'].enqueue('old')
    spool.declared.owner.close()
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
    assert spool.delete_unused_queues() == []


# Consumers.


def test_consumers_are_counted_as_long_as_they_live(spool, other, tmp_path):
    spool.declare('in')
    ticket = spool.register_consumer('in')
    pid = in_child(lambda: Spool(tmp_path / 'spool').register_consumer('in'))
    assert other.consumer_count('in') == 2
    kill(pid)
    assert other.consumer_count('in') == 1
    ticket.close()
    assert other.consumer_count('in') == 0
    with pytest.raises(UnknownQueueError):
        other.register_consumer('nowhere')


def test_an_auto_delete_queue_goes_with_its_last_consumer_and_not_before_it_had_one(spool, other):
    spool.declare('in', auto_delete=True)
    assert other.delete_unused_queues() == []
    one, two = spool.register_consumer('in'), other.register_consumer('in')
    one.close()
    assert 'in' in spool.queue_names()
    two.close()
    assert 'in' not in spool.queue_names()
    assert left(spool, '.run/consumers') == []


def test_an_auto_delete_queue_that_is_declared_again_waits_for_a_consumer_again(spool):
    for _ in range(2):
        spool.declare('in', auto_delete=True)
        assert spool.delete_unused_queues() == []
        spool.register_consumer('in').close()
        assert 'in' not in spool.queue_names()


def test_an_auto_delete_queue_goes_when_its_last_consumer_is_killed(spool, tmp_path):
    spool.declare('in', auto_delete=True)
    pid = in_child(lambda: Spool(tmp_path / 'spool').register_consumer('in'))
    assert spool.delete_unused_queues() == []
    kill(pid)
    assert spool.delete_unused_queues() == ['in']


# Time.


def test_an_expiring_queue_goes_when_nobody_used_it_for_its_time(spool, clock):
    spool.declare('in', expires_s=60.0)
    clock.advance(59)
    assert spool.delete_unused_queues() == []
    clock.advance(2)
    assert spool.delete_unused_queues() == ['in']


@pytest.mark.parametrize('use', ['declare', 'consume', 'close'])
def test_use_puts_the_end_off(spool, clock, use):
    spool.declare('in', expires_s=60.0)
    ticket = spool.register_consumer('in') if use == 'close' else None
    clock.advance(50)
    if use == 'declare':
        spool.declare('in', expires_s=60.0)
    elif use == 'close':
        ticket.close()
    else:
        ticket = spool.register_consumer('in')
        spool.delete_unused_queues()
        ticket.close()
    clock.advance(50)
    assert spool.delete_unused_queues() == []
    clock.advance(11)
    assert spool.delete_unused_queues() == ['in']


def test_a_consumer_keeps_an_expiring_queue(spool, clock):
    spool.declare('in', expires_s=60.0)
    ticket = spool.register_consumer('in')
    clock.advance(1000)
    assert spool.delete_unused_queues() == []
    assert ticket.is_active


@pytest.mark.parametrize(
    'content',
    [b'', b'[' * 10_000, b'{"x":1e999}', b'NaN', b'1' * 9999, b'{"discard_causes":1}', b'[]', b'"x"'],
)
def test_a_record_that_anybody_may_have_written_is_one_or_none(spool, clock, content):
    spool.declare('in')
    [path] = [found for found in Path(spool.directory).rglob('in') if found.is_file()]
    path.write_bytes(content)
    declarations = Declarations(str(path.parent.parent), Disk(), clock, NameGenerator(clock))
    assert declarations.path('in') == str(path)
    assert declarations.get('in') is None
