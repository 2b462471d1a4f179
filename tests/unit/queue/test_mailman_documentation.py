"""A program written for Mailman's switchboard works here with its imports changed.

The calls are those of the tour of the switchboard in Mailman's public documentation, in that order, in one process; what is
around them is ours.
"""

from __future__ import annotations

import doctest
import os
from collections import Counter
from email import message_from_string
from pathlib import Path

import pytest

from switchboard import Switchboard

MAIL = """\
From: aperson@example.com
To: _xtest@example.com

A test message.
"""


@pytest.fixture
def queue_directory(tmp_path: Path) -> str:
    return str(tmp_path / 'queue' / 'test')


def count(directory: str) -> dict[str, int]:
    """How many files there are of each extension: people look into the directory, and so does the tour."""
    return dict(Counter(os.path.splitext(name)[1] for name in os.listdir(directory)))


def test_the_tour_of_enqueue_dequeue_finish_iterate_and_recover(queue_directory: str) -> None:
    msg = message_from_string(MAIL)
    switchboard = Switchboard('test', queue_directory)
    assert switchboard.name == 'test'
    assert switchboard.queue_directory == queue_directory

    # Into the queue and out of it.
    filebase = switchboard.enqueue(msg)
    assert count(queue_directory) == {'.pck': 1}
    msg, msgdata = switchboard.dequeue(filebase)
    assert msg.as_string() == MAIL
    assert msgdata == {'_parsemsg': False, 'version': 3}
    assert count(queue_directory) == {'.bak': 1}
    switchboard.finish(filebase)
    assert count(queue_directory) == {}

    # Metadata by mapping and by keyword; the keyword wins.
    filebase = switchboard.enqueue(msg, {'foo': 1}, bar=2)
    msg, msgdata = switchboard.dequeue(filebase)
    switchboard.finish(filebase)
    assert msgdata == {'_parsemsg': False, 'bar': 2, 'foo': 1, 'version': 3}
    filebase = switchboard.enqueue(msg, {'foo': 1}, foo=2)
    msg, msgdata = switchboard.dequeue(filebase)
    switchboard.finish(filebase)
    assert msgdata == {'_parsemsg': False, 'foo': 2, 'version': 3}

    # Two ways to go over what is there.
    filebases = sorted(switchboard.enqueue(msg, foo=number) for number in (1, 2, 3))
    assert sorted(switchboard.files) == filebases
    assert count(queue_directory) == {'.pck': 3}
    for filebase in switchboard.get_files():
        msg, msgdata = switchboard.dequeue(filebase)
    assert sorted(switchboard.get_files('.bak')) == filebases
    assert count(queue_directory) == {'.bak': 3}
    for filebase in switchboard.get_files('.bak'):
        switchboard.finish(filebase)
    assert count(queue_directory) == {}

    # What was dequeued and not finished is recovered, by a new object or by a call; the third time is the last.
    for number in (1, 2, 3):
        switchboard.enqueue(msg, foo=number)

    def dequeue_all() -> None:
        for filebase in switchboard.files:
            switchboard.dequeue(filebase)
        assert count(queue_directory) == {'.bak': 3}

    dequeue_all()
    Switchboard('test', queue_directory, recover=True)
    assert count(queue_directory) == {'.pck': 3}
    dequeue_all()
    assert switchboard.recover_backup_files() is None
    assert count(queue_directory) == {'.pck': 3}
    dequeue_all()
    switchboard.recover_backup_files()
    assert count(queue_directory) == {}

    # Mailman's queues are siblings, and so is the bad one here.
    bad = Switchboard('bad', os.path.join(os.path.dirname(queue_directory), 'bad'))
    assert count(bad.queue_directory) == {'.psv': 3}
    for name in os.listdir(bad.queue_directory):
        os.remove(os.path.join(bad.queue_directory, name))
    assert count(bad.queue_directory) == {}


def test_calls_that_print_nothing_in_a_doctest_of_mailmans_print_nothing_here(queue_directory: str) -> None:
    source = """
    >>> from switchboard import Switchboard
    >>> queue = Switchboard('test', queue_directory)
    >>> filebase = queue.enqueue('x')
    >>> _ = queue.dequeue(filebase)
    >>> queue.recover_backup_files()
    >>> _ = queue.dequeue(filebase)
    >>> queue.finish(filebase)
    >>> filebase = queue.enqueue('x')
    >>> queue.finish(filebase, preserve=True)
    >>> queue.files
    []
    """
    tour = doctest.DocTestParser().get_doctest(source, {'queue_directory': queue_directory}, 'tour', None, 0)
    results = doctest.DocTestRunner(verbose=False).run(tour)
    assert (results.failed, results.attempted) == (0, 10)


def test_a_slice_is_given_as_mailmans_runners_give_it(queue_directory: str) -> None:
    filebases = sorted(Switchboard('test', queue_directory).enqueue('x') for _ in range(16))
    slices = [Switchboard('test', queue_directory, index, 4, True) for index in range(4)]
    assert sorted(filebase for queue in slices for filebase in queue.files) == filebases
