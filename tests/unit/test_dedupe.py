"""The same message only once: exact across processes and crashes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard import Spool, Switchboard
from switchboard.disk import Disk
from switchboard.errors import QueueError, QueueFullError
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def spool(tmp_path: Path, clock: FakeClock) -> Spool:
    return Spool(tmp_path, 'lazy', clock=clock)


def test_a_second_message_with_the_same_key_is_not_stored(spool):
    first = spool['in'].enqueue('one', dedupe_key='key')
    assert spool['in'].enqueue('two', dedupe_key='key') == first
    assert [spool['in'].dequeue(one)[0] for one in spool['in'].files] == ['one']


def test_a_key_stays_taken_after_its_message_is_finished(spool):
    first = spool['in'].enqueue('one', dedupe_key='key')
    spool['in'].dequeue(first)
    spool['in'].finish(first)
    assert spool['in'].enqueue('two', dedupe_key='key') == first
    assert spool['in'].get_files() == []


def test_other_keys_and_other_queues_are_other_messages(spool):
    spool['in'].enqueue('one', dedupe_key='key')
    spool['in'].enqueue('two', dedupe_key='another')
    spool['out'].enqueue('three', dedupe_key='key')
    assert len(spool['in'].files) == 2
    assert len(spool['out'].files) == 1


def test_a_key_is_free_again_when_the_window_is_over(spool, clock):
    first = spool['in'].enqueue('one', dedupe_key='key')
    clock.advance(86_399)
    assert spool['in'].enqueue('two', dedupe_key='key') == first
    clock.advance(2)
    assert spool['in'].enqueue('three', dedupe_key='key') != first


def test_many_producers_at_once_store_each_key_once(tmp_path):
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            queue = Spool(tmp_path, 'lazy')['in']
            for number in range(50):
                queue.enqueue(os.getpid(), dedupe_key=f'key {number}')
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert len(Spool(tmp_path)['in'].files) == 50


class DiesAtRename(Disk):
    """Ends its process before the n-th rename."""

    def __init__(self, number: int) -> None:
        self.left = number

    def rename(self, *args, **keys):
        self.left -= 1
        if self.left == 0:
            os._exit(9)
        os.rename(*args, **keys)


def test_a_producer_that_dies_at_any_rename_has_stored_the_message_with_its_key_or_neither(tmp_path):
    died = 0
    for number in range(1, 20):
        home = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            Spool(home, 'lazy', disk=DiesAtRename(number))['in'].enqueue('first', dedupe_key='key')
            os._exit(0)
        died += os.waitpid(child, 0)[1] != 0
        spool = Spool(home, 'lazy')
        spool['in'].enqueue('second', dedupe_key='key')
        spool['in'].enqueue('third', dedupe_key='key')
        assert len(spool['in'].files) == 1, f'died at rename {number}'
    assert died >= 4


class Full(Disk):
    """Has no room for what is longer than a header."""

    def pwrite(self, fd, content, offset):
        raise OSError(28, 'No space left on device')


def test_a_message_that_could_not_be_stored_leaves_its_key_free(tmp_path):
    with pytest.raises(QueueFullError):
        Spool(tmp_path, 'lazy', disk=Full())['in'].enqueue('one', dedupe_key='key')
    spool = Spool(tmp_path, 'lazy')
    spool['in'].enqueue('two', dedupe_key='key')
    assert [spool['in'].dequeue(one)[0] for one in spool['in'].files] == ['two']


def test_a_damaged_marker_lets_the_message_in(spool, tmp_path):
    spool['in'].enqueue('one', dedupe_key='key')
    [marker] = (tmp_path / '.dedupe@in').glob('*.pck')
    marker.write_bytes(b'\xff\x00')
    spool['in'].enqueue('two', dedupe_key='key')
    assert len(spool['in'].files) == 2


def test_through_exchanges_each_queue_is_asked_for_itself(spool):
    assert spool.publish('one', routing_key='in', dedupe_key='key') == spool.publish(
        'two', routing_key='in', dedupe_key='key'
    )


def test_a_queue_without_a_spool_does_not_pretend(tmp_path):
    board = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'))
    with pytest.raises(QueueError, match='Spool'):
        board.enqueue('one', dedupe_key='key')
    assert board.get_files() == []


def test_the_directories_of_markers_are_no_queues(spool):
    spool['in'].enqueue('one', dedupe_key='key')
    assert spool.queue_names() == ['bad', 'in']
