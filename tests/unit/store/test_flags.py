"""Pause and drain: what operators say to a queue while it works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import QueueDrainingError
from switchboard.store.flags import LOOK_EVERY_NS

A_LOOK_S = LOOK_EVERY_NS / 1e9 + 0.001


def test_nothing_is_taken_from_a_paused_queue_and_messages_still_come_in(spool, clock):
    queue = spool['in']
    spool.pause('in', 'the disk is being replaced')
    clock.advance(A_LOOK_S)
    queue.enqueue('waits')
    assert queue.take() is None
    assert not queue.has_ready()
    assert queue.wait_s() is None
    spool.resume('in')
    clock.advance(A_LOOK_S)
    assert queue.take().msg == 'waits'


def test_a_pause_is_seen_by_other_processes_and_survives_a_restart(spool, clock):
    spool.pause('in')
    spool['in'].enqueue('waits')
    assert Spool(spool.directory, 'lazy', clock=clock)['in'].take() is None


def test_nothing_comes_into_a_queue_that_is_drained_and_what_is_there_is_worked_off(spool, clock):
    queue = spool['in']
    queue.enqueue('old')
    spool.drain('in')
    clock.advance(A_LOOK_S)
    with pytest.raises(QueueDrainingError):
        queue.enqueue('new')
    assert queue.take().msg == 'old'


def test_a_message_is_not_moved_into_a_queue_that_is_drained(spool, clock):
    filebase = spool['in'].enqueue('x')
    spool.drain('out')
    clock.advance(A_LOOK_S)
    spool['in'].dequeue(filebase)
    transaction = spool.transaction(spool['in'], filebase)
    with pytest.raises(QueueDrainingError):
        transaction.forward(spool['out'])


def test_the_flag_says_since_when_and_why(spool, clock):
    spool.pause('in', 'because')
    said = spool.flags.read('paused', 'in')
    assert said['reason'] == 'because'
    assert said['since'] == pytest.approx(clock.time_ns() / 1e9)
    assert spool.flags.read('draining', 'in') is None


def test_the_first_reason_stays(spool):
    spool.pause('in', 'first')
    spool.pause('in', 'second')
    assert spool.flags.read('paused', 'in')['reason'] == 'first'


def test_a_flag_put_up_by_hand_counts(spool, clock):
    (Path(spool.path('.run')) / 'paused').mkdir(exist_ok=True)
    (Path(spool.path('.run')) / 'paused' / 'in').touch()
    spool['in'].enqueue('waits')
    assert spool['in'].take() is None
    assert spool.flags.read('paused', 'in') == {}


def test_a_flag_with_damaged_content_counts(spool):
    spool.pause('in', 'because')
    (Path(spool.path('.run')) / 'paused' / 'in').write_bytes(b'\xff{')
    assert spool.flags.is_set('paused', 'in')
    assert spool.flags.read('paused', 'in') == {}


def test_resuming_what_was_not_paused_says_so(spool):
    assert spool.resume('in') is False
    spool.drain('in')
    assert spool.resume('in') is True


def test_resuming_leaves_nothing_in_the_queue(spool):
    spool.pause('in')
    spool.resume('in')
    assert list(Path(spool.path('in')).iterdir()) == []


def test_the_flag_is_json(spool):
    spool.pause('in', 'a reason with "quotes"')
    assert (
        json.loads((Path(spool.path('.run')) / 'paused' / 'in').read_bytes())['reason']
        == 'a reason with "quotes"'
    )
