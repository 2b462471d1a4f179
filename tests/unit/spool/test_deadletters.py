"""Dead letters: where an entry goes that its queue cannot keep, and what its history says then."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from switchboard import Runner, Spool
from switchboard.errors import PermanentFailure
from switchboard.options import RunnerOptions
from switchboard.testing.clock import FakeClock

CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy

[queue.in]
dead_letter = dead
max_attempts = 2
retry = 1s

[queue.fan]
dead_letter = exchange:dead

[queue.gone]
dead_letter = exchange:nothing

[queue.dead]
[queue.audit]

[queue.full]
dead_letter = tiny
[queue.tiny]
max_messages = 1

[queue.a]
ttl = 1s
dead_letter = b
[queue.b]
ttl = 1s
dead_letter = a

[queue.ring]
max_messages = 2
overflow = drop-oldest
[queue.pushed]
max_messages = 2
overflow = dead-letter
dead_letter = dead
"""
EXCHANGES = """
[exchange.dead]
type = fanout
bindings =
    -> dead, audit

[exchange.nothing]
type = direct
bindings =
    never -> dead
"""


@pytest.fixture
def spool(make_spool: Callable[..., Spool], clock: FakeClock) -> Spool:
    return make_spool(CONFIGURATION, EXCHANGES, clock=clock)


class Refuse(Runner):
    """Fails as its message says."""

    def dispose(self, msg, msgdata):
        raise PermanentFailure('no') if msg == 'permanent' else ValueError('broken')


def work(spool: Spool, queue: str, clock: FakeClock) -> None:
    Refuse(spool, RunnerOptions('refuse', '', queue=queue), clock=clock).run(until_empty=True)


def letters(spool: Spool, name: str) -> list[dict]:
    queue = spool[name]
    found = []
    for filebase in queue.files:
        [record] = [one for one in queue.history(filebase) if one['event'] == 'dead-lettered']
        found.append(record)
    return found


def test_a_rejected_message_goes_to_the_queue_of_dead_letters_and_says_from_where_and_why(spool, clock):
    spool['in'].enqueue('permanent')
    work(spool, 'in', clock)
    [letter] = letters(spool, 'dead')
    assert (letter['queue'], letter['cause']) == ('in', 'rejected')
    assert 'no' in letter['reason']
    assert letter['time'] == pytest.approx(clock.time_ns() / 1e9, abs=1)
    assert spool['bad'].get_files('.psv') == []


def test_a_message_that_failed_too_often_is_told_from_one_that_was_rejected(spool, clock):
    spool['in'].enqueue('again and again')
    work(spool, 'in', clock)
    clock.advance(2)
    work(spool, 'in', clock)
    [letter] = letters(spool, 'dead')
    assert letter['cause'] == 'attempts'


def test_through_an_exchange_each_of_its_queues_gets_the_letter_with_its_history(spool, clock):
    spool['fan'].enqueue('permanent')
    work(spool, 'fan', clock)
    for queue in ('dead', 'audit'):
        [letter] = letters(spool, queue)
        assert letter['queue'] == 'fan'
        [filebase] = spool[queue].files
        assert [one['event'] for one in spool[queue].history(filebase)][:1] == ['failed']
        assert spool[queue].dequeue(filebase)[0] == 'permanent'
    assert spool['fan'].get_files() == spool['fan'].get_files('.bak') == []


def test_a_letter_that_no_exchange_routes_goes_to_bad(spool, clock):
    spool['gone'].enqueue('permanent')
    work(spool, 'gone', clock)
    assert len(spool['bad'].get_files('.psv')) == 1


def test_a_letter_for_a_queue_that_is_full_goes_to_bad(spool, clock):
    spool['tiny'].enqueue('there is only room for me')
    spool['full'].enqueue('permanent')
    work(spool, 'full', clock)
    assert len(spool['bad'].get_files('.psv')) == 1
    assert len(spool['tiny'].files) == 1


def test_a_file_that_cannot_be_read_goes_to_bad_and_not_to_a_queue(spool, clock, tmp_path):
    filebase = spool['in'].enqueue('whole')
    path = tmp_path / 'spool' / 'in' / f'{filebase}.pck'
    path.write_bytes(path.read_bytes()[:-1])
    assert spool['in'].take() is None
    assert spool['bad'].get_files('.psv') == [filebase]
    assert spool['dead'].files == []


def test_letters_that_go_round_in_circles_end_in_bad(spool, clock):
    spool['a'].enqueue('hot potato')
    for _ in range(40):
        clock.advance(2)
        assert spool['a'].take() is None
        clock.advance(2)
        assert spool['b'].take() is None
    [filebase] = spool['bad'].get_files('.psv')
    rounds = [one for one in spool['bad'].history(filebase) if one['event'] == 'dead-lettered']
    assert len(rounds) == 16


def test_a_ring_keeps_the_newest(spool):
    for number in range(5):
        spool['ring'].enqueue(number)
    assert [spool['ring'].peek(one).body for one in spool['ring'].files] == [b'3', b'4']
    assert spool['bad'].get_files('.psv') == []


def test_a_full_queue_can_send_its_oldest_to_the_dead_letters(spool):
    for number in range(3):
        spool['pushed'].enqueue(number)
    assert [spool['pushed'].peek(one).body for one in spool['pushed'].files] == [b'1', b'2']
    [letter] = letters(spool, 'dead')
    assert letter['cause'] == 'overflow'
