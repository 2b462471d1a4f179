"""Many messages stored at once: what becomes of each, and of those whose keys were seen."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import QueueFullError, UnknownQueueError
from switchboard.handoff.publish_many import COMMITTED_AT_ONCE, Publication
from switchboard.store.disk import Disk
from switchboard.testing import FakeClock, FaultyDisk

RECORD = {'event': 'elsewhere', 'time': '2026-11-22T05:00:00Z'}


def keyed(text: str, key: str, *queues: str) -> Publication:
    return Publication(text, {'dedupe_key': key}, queues or ('in',))


def messages(spool: Spool, queue: str = 'in') -> list[Any]:
    return [spool[queue].dequeue(one)[0] for one in spool[queue].get_files()]


def test_a_publication_brings_its_history_along(spool: Spool) -> None:
    spool.publish_many(
        [
            Publication('plain', {}, ('in',), (RECORD,)),
            Publication('copies', {}, ('a', 'b'), (RECORD,)),
            keyed('keyed', 'k', 'c')._replace(records=(RECORD, RECORD)),
        ]
    )
    for queue, number in (('in', 1), ('a', 1), ('b', 1), ('c', 2)):
        [filebase] = spool[queue].get_files()
        spool[queue].dequeue(filebase)
        assert spool[queue].history(filebase) == [RECORD] * number


def test_of_equal_keys_the_first_is_stored_and_all_are_told_where_it_is(spool: Spool) -> None:
    [before] = spool.publish_many([keyed('before', 'a')])
    outcomes = spool.publish_many([keyed('again', 'a'), keyed('new', 'b'), keyed('new too', 'b')])
    assert outcomes[0] == before
    assert outcomes[1] == outcomes[2]
    assert messages(spool) == ['before', 'new']


def test_a_key_that_one_queue_has_seen_is_new_to_another(spool: Spool) -> None:
    spool.publish_many([keyed('one', 'k', 'a')])
    spool.publish_many([keyed('one', 'k', 'a', 'b')])
    assert messages(spool, 'a') == messages(spool, 'b') == ['one']


def test_keys_are_the_same_whether_one_message_is_enqueued_or_many(spool: Spool) -> None:
    first = spool['in'].enqueue('one', dedupe_key='k')
    assert spool.publish_many([keyed('one', 'k')]) == [{'in': first}]
    [stored] = spool.publish_many([keyed('two', 'l')])
    assert {'in': spool['in'].enqueue('two', dedupe_key='l')} == stored


def test_what_is_refused_is_told_and_its_key_stays_free(spool: Spool) -> None:
    outcomes = spool.publish_many(
        [keyed('no queue', 'a', 'in', 'no/queue'), keyed(object(), 'b'), keyed('good', 'c')]
    )
    assert isinstance(outcomes[0], UnknownQueueError)
    assert isinstance(outcomes[1], TypeError)
    assert messages(spool) == ['good']
    spool.publish_many([keyed('now', 'a'), keyed('now too', 'b')])
    assert messages(spool) == ['now', 'now too']


def test_more_than_one_step_holds_are_all_stored(spool: Spool) -> None:
    number = COMMITTED_AT_ONCE * 2 + 3
    assert len(spool.publish_many([keyed(str(n), str(n)) for n in range(number)])) == number
    assert len(spool['in'].files) == number


@pytest.mark.slow
@pytest.mark.parametrize('error', [errno.ENOSPC, errno.EIO])
def test_whichever_call_fails_all_that_are_not_stored_are_told_so(tmp_path: Path, error: int) -> None:
    fail_at, failed = 1, True
    while failed:
        directory = tmp_path / str(fail_at)
        for queue in ('in', 'b'):
            Spool(directory)[queue]
        disk = FaultyDisk(fail_at=fail_at, error=error)
        try:
            spool = Spool(directory, disk=disk)
            outcomes = spool.publish_many([keyed('one', '1'), keyed('two', '2', 'in', 'b')])
        except OSError:
            outcomes = []  # the spool could not be opened
        failed = bool(disk.failed_call)
        after = Spool(directory)
        after.stage.recover()
        stored = messages(after) + messages(after, 'b')
        for outcome, texts in zip(outcomes, (['one'], ['two', 'two']), strict=False):
            if isinstance(outcome, dict):
                assert stored.count(texts[0]) == len(texts), f'call {fail_at}'
        again = after.publish_many([keyed('one', '1'), keyed('two', '2', 'in', 'b')])
        assert all(isinstance(outcome, dict) for outcome in again), f'call {fail_at}'
        assert len(after['in'].get_files('.bak')) + len(after['in'].get_files()) == 2, f'call {fail_at}'
        fail_at += 1
    assert fail_at > 20


class DiesAtRename(Disk):
    """Ends its process before the n-th rename."""

    def __init__(self, number: int) -> None:
        self.left = number

    def rename(self, *args: Any, **keys: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os._exit(9)
        super().rename(*args, **keys)


def test_a_crash_at_any_rename_leaves_each_key_with_its_message_or_free(tmp_path: Path) -> None:
    publications = [keyed('one', '1'), keyed('two', '2', 'in', 'b')]
    for number in range(1, 40):
        directory = tmp_path / str(number)
        child = os.fork()
        if child == 0:
            Spool(directory, disk=DiesAtRename(number)).publish_many(publications)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        spool = Spool(directory)
        spool.publish_many(publications)
        assert sorted(messages(spool)) == ['one', 'two']
        assert messages(spool, 'b') == ['two']
        if status == 0:
            break
    assert number > 10


def test_producers_with_the_same_keys_in_another_order_do_not_wait_for_each_other_for_ever(
    tmp_path: Path,
) -> None:
    children = []
    for turn in range(3):
        child = os.fork()
        if child == 0:
            spool = Spool(tmp_path, 'lazy')
            for start in range(10):
                publications = [keyed(f'{start} {n}', f'{start} {n}', 'b', 'a') for n in range(20)]
                spool.publish_many(publications[::-1] if turn % 2 else publications)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert len(Spool(tmp_path)['a'].files) == len(Spool(tmp_path)['b'].files) == 200


def test_a_full_queue_refuses_some_and_takes_the_others(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[queue.small]\nmax_messages = 1\n[queue.in]\n')
    spool = Spool.from_config(config)
    outcomes = spool.publish_many([keyed('a', 'a', 'small'), keyed('b', 'b', 'in', 'small'), keyed('c', 'c')])
    assert [type(outcome) for outcome in outcomes] == [dict, QueueFullError, dict]
    assert (messages(spool, 'small'), messages(spool)) == (['a'], ['c'])


@pytest.mark.parametrize('key', [None, 'k'])
def test_what_was_stored_beside_something_refused_is_not_counted_twice(
    tmp_path: Path, key: str | None
) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[queue.in]\nmax_messages = 2\n')
    spool = Spool.from_config(config, clock=FakeClock())
    gc.disable()  # which may come late
    try:
        for turn in range(3):
            publications = [
                Publication('x', {'dedupe_key': f'{key}{turn}{n}'} if key else {}, ('in',)) for n in range(3)
            ]
            outcomes = spool.publish_many(publications)
            assert [type(one) for one in outcomes] == [dict, dict, QueueFullError]
            for taken in iter(spool['in'].take, None):
                spool['in'].finish(taken.filebase)
    finally:
        gc.enable()
