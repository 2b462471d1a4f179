"""Counting again and again: a queue that stands still is not walked over a second time, and one that moves always is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.operating import grouping, queue_counts
from switchboard.operating.grouping import NONE, FailureSummaryCache
from switchboard.operating.queue_counts import RACY_NS, CountCache, QueueCounts, directory_stamp
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from tests.helpers.commands import fail


def folder_of(spool: Spool, queue: str) -> Folder:
    return Folder(spool.path(queue), Disk())


def settle(spool: Spool, queue: str, seconds: float = 10) -> None:
    """Make it so long ago that the directory was changed."""
    then_ns = time.time_ns() - int(seconds * 1e9)
    os.utime(spool.path(queue), ns=(then_ns, then_ns))


def watched(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[object]:
    """:return: a list that grows with each call of a function."""
    calls: list[object] = []
    real: Callable[..., object] = getattr(module, name)

    def call(*arguments: Any, **keys: Any) -> object:
        calls.append(arguments)
        return real(*arguments, **keys)

    monkeypatch.setattr(module, name, call)
    return calls


def test_a_directory_that_has_just_changed_has_no_stamp(spool: Spool) -> None:
    spool['in'].enqueue('x')
    folder = folder_of(spool, 'in')
    changed_ns = os.stat(folder.path).st_mtime_ns
    assert directory_stamp(folder, changed_ns + RACY_NS - 1) is None
    assert directory_stamp(folder, changed_ns + RACY_NS) is not None
    assert directory_stamp(folder_of(spool, 'none'), time.time_ns()) is None


def test_what_stands_still_is_counted_once_and_what_moves_each_time(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, counts = spool['in'], CountCache()
    names = [queue.enqueue(number) for number in range(3)]
    settle(spool, 'in')
    calls = watched(monkeypatch, queue_counts, 'count')

    def look(**keys: Any) -> QueueCounts:
        return counts.count(folder_of(spool, 'in'), 'in', **keys)

    assert look().waiting == look().waiting == look(sizes=False).waiting == 3
    assert len(calls) == 1
    queue.dequeue(names[0])
    settle(spool, 'in')
    assert (look().waiting, look().claimed) == (2, 1)
    assert len(calls) == 2
    queue.finish(names[0])
    # Just now: whether it has changed once more cannot be told.
    assert look().entries == look().entries == 2
    assert len(calls) == 4


def test_a_delayed_entry_that_is_due_is_counted_anew(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    queue.dequeue(filebase)
    queue.release(filebase, delay_s=30)
    settle(spool, 'in', 100)
    counts = CountCache()
    assert counts.count(folder_of(spool, 'in'), 'in').delayed == 1
    now_ns = time.time_ns() + 60 * 10**9
    monkeypatch.setattr(time, 'time_ns', lambda: now_ns)
    assert counts.count(folder_of(spool, 'in'), 'in').waiting == 1


def test_files_that_nobody_has_taken_in_are_counted_though_the_directory_stands_still(spool: Spool) -> None:
    queue, counts = spool.declare('dropped', options={'maildir': True}), CountCache()
    queue.enqueue('an entry')
    mails = Path(spool.path('dropped'), 'new')
    mails.joinpath('1.a').write_text('Subject: hello\n\n')
    mails.joinpath('.hidden').touch()
    Path(spool.path('dropped'), 'plain.eml').write_text('Subject: hello\n\n')

    def look() -> QueueCounts:
        for place in ('dropped', 'dropped/new'):
            then_ns = time.time_ns() - 10 * 10**9 + len(os.listdir(mails)) * 10**8
            os.utime(Path(spool.directory, place), ns=(then_ns, then_ns))
        return counts.count(folder_of(spool, 'dropped'), 'dropped')

    assert (look().waiting, look().dropped, look().foreign) == (1, 2, 0)
    mails.joinpath('2.b').write_text('Subject: hello\n\n')
    assert look().dropped == 3
    while queue.take() is not None:
        pass
    assert (look().claimed, look().dropped) == (4, 0)


def test_a_plain_file_in_bad_is_a_name_that_is_no_entry(spool: Spool) -> None:
    bad = spool['bad'].queue_directory
    Path(bad, 'plain.eml').touch()
    counts = queue_counts.count(Folder(bad, Disk()), 'bad')
    assert (counts.dropped, counts.foreign) == (0, 1)


def test_a_count_that_had_no_time_is_not_kept(spool: Spool) -> None:
    for number in range(3):
        spool['in'].enqueue(number)
    settle(spool, 'in')
    counts = CountCache()
    assert counts.count(folder_of(spool, 'in'), 'in', until_ns=0).is_truncated
    assert counts.count(folder_of(spool, 'in'), 'in').waiting == 3


def test_failure_summaries_open_each_file_once_and_those_that_have_changed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [fail(spool, 'out', number, 'TimeoutError', 'no answer') for number in range(3)]
    settle(spool, 'bad')
    failures = FailureSummaryCache('bad', 100)
    opened, walked = (
        watched(monkeypatch, grouping, 'summarize'),
        watched(monkeypatch, grouping, 'walk_entries'),
    )

    def look() -> list[str]:
        return sorted(failure.error for failure in failures.read(folder_of(spool, 'bad')))

    assert look() == look() == ['TimeoutError'] * 3
    assert (len(opened), len(walked)) == (3, 1)
    fail(spool, 'out', 'x', 'Other')
    assert look() == ['Other'] + ['TimeoutError'] * 3
    assert len(opened) == 4
    os.unlink(spool.path('bad', f'{first[0]}.psv'))
    assert look() == ['Other'] + ['TimeoutError'] * 2
    assert len(opened) == 4
    # A file of the same name that says something else by now.
    path = Path(spool.path('bad', f'{first[1]}.psv'))
    path.write_bytes(b'nonsense')
    os.utime(path, ns=(1, 1))
    assert look() == [NONE, 'Other', 'TimeoutError']


def test_failure_summaries_that_there_was_no_time_for_are_read_the_next_time(spool: Spool) -> None:
    for number in range(5):
        fail(spool, 'out', number)
    settle(spool, 'bad')
    failures = FailureSummaryCache('bad', 100)
    answers = iter([False, False, True])
    assert len(failures.read(folder_of(spool, 'bad'), lambda: next(answers))) == 2
    assert len(failures.read(folder_of(spool, 'bad'))) == 5
    assert len(FailureSummaryCache('bad', 3).read(folder_of(spool, 'bad'))) == 3
    assert FailureSummaryCache('none', 3).read(folder_of(spool, 'none')) == []
