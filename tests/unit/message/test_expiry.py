"""Messages that are too old: nobody is handed one, and it goes where the queue's dead letters go."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard import Switchboard
from switchboard.errors import EntryExpiredError, UnserializableError
from switchboard.message.expiry import expiry_after_move, is_expired
from switchboard.options import QueueOptions
from switchboard.testing.clock import FakeClock


def make_queue(tmp_path: Path, clock: FakeClock, **options: object) -> Switchboard:
    return Switchboard('in', tmp_path / 'in', options=QueueOptions(**options), clock=clock)


def test_a_message_within_its_time_is_handed_out(tmp_path, clock):
    queue = make_queue(tmp_path, clock)
    filebase = queue.enqueue('fresh', ttl=10)
    clock.advance(9)
    msg, msgdata = queue.dequeue(filebase)
    assert msg == 'fresh'
    assert 'ttl' not in msgdata
    assert msgdata['expires'] == pytest.approx(clock.time_ns() / 1e9 + 1, abs=0.01)


def test_a_message_beyond_its_time_goes_to_bad_and_says_why(tmp_path, clock):
    queue = make_queue(tmp_path, clock)
    filebase = queue.enqueue('stale', ttl=10)
    clock.advance(11)
    with pytest.raises(EntryExpiredError):
        queue.dequeue(filebase)
    assert queue.files == []
    bad = Switchboard('bad', tmp_path / 'bad')
    assert bad.get_files('.psv') == [filebase]
    assert bad.history(filebase)[-1]['cause'] == 'expired'


def test_take_skips_what_has_expired_and_gives_the_next(tmp_path, clock):
    queue = make_queue(tmp_path, clock)
    queue.enqueue('stale', ttl=1)
    queue.enqueue('fresh')
    clock.advance(2)
    assert queue.take().msg == 'fresh'
    assert queue.take() is None


def test_a_queue_gives_every_message_a_time_to_live(tmp_path, clock):
    queue = make_queue(tmp_path, clock, ttl_s=5.0)
    queue.enqueue('one')
    clock.advance(6)
    assert queue.take() is None
    assert len(Switchboard('bad', tmp_path / 'bad').get_files('.psv')) == 1


def test_the_shorter_of_two_times_counts(tmp_path, clock):
    queue = make_queue(tmp_path, clock, ttl_s=5.0)
    queue.enqueue('one', ttl=100)
    clock.advance(6)
    assert queue.take() is None


def test_the_time_to_live_of_a_delayed_message_starts_when_it_is_ready(tmp_path, clock):
    queue = make_queue(tmp_path, clock, ttl_s=5.0)
    queue.enqueue('later', delay=60)
    clock.advance(62)
    assert queue.take().msg == 'later'


def test_the_time_of_one_queue_does_not_count_in_the_next(tmp_path, clock):
    short, long = make_queue(tmp_path, clock, ttl_s=5.0), Switchboard('out', tmp_path / 'out', clock=clock)
    short.enqueue('moving')
    taken = short.take()
    long.enqueue(taken.msg, taken.msgdata)
    clock.advance(100)
    assert long.take().msg == 'moving'


@pytest.mark.parametrize('ttl', ['1', True, float('inf'), float('nan'), [1]])
def test_a_time_to_live_that_is_no_number_of_seconds_is_refused(tmp_path, clock, ttl):
    queue = make_queue(tmp_path, clock)
    with pytest.raises(UnserializableError, match='ttl'):
        queue.enqueue('x', ttl=ttl)
    assert queue.get_files() == []


def test_a_foreign_value_of_expires_is_no_reason_to_drop_a_message(clock):
    assert not is_expired({'expires': 'yesterday'}, clock)
    assert is_expired({'expires': 0}, clock)


def test_a_dead_letter_does_not_die_again_on_arrival():
    fields = expiry_after_move({'expires': 1, 'queue_expires': 2}, None, 0, forgiven=True)
    assert fields == {'drop': ['expires', 'queue_expires']}
    assert expiry_after_move({'expires': 1}, None, 0, forgiven=False) == {}
    assert expiry_after_move({}, 3.0, 10**9, forgiven=False) == {'set': {'queue_expires': 4.0}}
