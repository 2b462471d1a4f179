"""What is told of an entry without reading its body, and that it is the same as reading all of it tells."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.operating.grouping import NONE, FailureSummaryCache
from switchboard.operating.summary import FIRST_READ_BYTES, EntrySummary, summarize
from switchboard.queue.switchboard import Switchboard
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.reading import peek
from tests.helpers.commands import fail


def look(queue: Switchboard, filebase: str, suffix: str | None = None) -> EntrySummary:
    seen = summarize(queue.folder, queue.name, filebase, suffix)
    assert seen is not None
    return seen


@pytest.mark.parametrize('body_bytes', [0, 10, FIRST_READ_BYTES - 150, FIRST_READ_BYTES, 1_000_000])
@pytest.mark.parametrize('metadata_bytes', [0, 20_000])
def test_a_glance_tells_the_same_as_the_whole_file(
    spool: Spool, body_bytes: int, metadata_bytes: int
) -> None:
    queue = spool['in']
    filebase = queue.enqueue(b'x' * body_bytes, note='y' * metadata_bytes)
    queue.dequeue(filebase)
    queue.annotate(filebase, {'event': 'failed', 'error': 'ValueError', 'message': 'z' * 5000})
    seen, whole = look(queue, filebase), peek(queue.folder, filebase, '.bak')
    assert whole is not None
    assert (seen.kind, seen.body_bytes, seen.damage) == (whole.kind, body_bytes, '')
    assert (seen.entry.metadata, seen.entry.records) == (whole.metadata, whole.records)
    assert seen.entry.body == b''
    assert seen.last_error == ('ValueError', 'z' * 5000)


def test_a_body_is_not_read(spool: Spool) -> None:
    class Counting(Disk):
        read = 0

        def read_all(self, fd: int, size: int, offset: int = 0) -> bytes:
            Counting.read += size
            return super().read_all(fd, size, offset)

    queue = spool['in']
    filebase = queue.enqueue(b'x' * 5_000_000)
    queue.folder.disk = Counting()
    assert look(queue, filebase).body_bytes == 5_000_000
    assert Counting.read <= FIRST_READ_BYTES


def test_an_entry_is_found_under_the_name_it_has_by_now(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    queue.dequeue(filebase)
    assert look(queue, filebase, '.pck').suffix == '.bak'
    queue.finish(filebase)
    assert summarize(queue.folder, 'in', filebase, '.pck') is None


@pytest.mark.parametrize(
    ('content', 'damage'),
    [
        (b'', 'no header'),
        (b'nonsense', 'no header'),
        (b'\n' * 100, 'no header'),
        (b'switchboard/1 text 2 5 ' + b'a' * 40 + b' 00000000\n{}', 'stale or swapped'),
        (b'x' * 3_000_000, 'no header'),
    ],
)
def test_what_is_wrong_with_a_file_is_told(spool: Spool, content: bytes, damage: str) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    Path(spool.path('in', filebase + '.pck')).write_bytes(content)
    seen = look(queue, filebase)
    assert seen.damage.startswith(damage)
    assert seen.size_bytes == len(content)
    assert seen.metadata() == {'version': 3, '_parsemsg': False}


def test_the_history_of_a_file_without_a_header_is_found(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    Path(spool.path('in', filebase + '.pck')).write_bytes(b'From somebody\n' * 200_000)
    queue.finish(filebase, preserve=True, reason='no entry')
    seen = look(spool['bad'], filebase)
    assert [record['event'] for record in seen.entry.records] == ['preserved']
    assert seen.origin == 'in'


def test_what_may_not_be_opened_is_damage_and_no_error(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    path = Path(spool.path('in', filebase + '.pck'))
    path.unlink()
    path.symlink_to('/etc/passwd')
    assert 'cannot be opened' in look(queue, filebase).damage
    path.unlink()
    os.mkfifo(path)
    assert look(queue, filebase).damage


def test_counts_begin_anew_when_an_entry_is_sent_back(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    queue.dequeue(filebase)
    for event in ('failed', 'deferred', 'recovered'):
        queue.annotate(filebase, {'event': event, 'error': 'OldError', 'message': 'old'})
    seen = look(queue, filebase)
    assert (seen.attempts, seen.recoveries, seen.sent_back) == (2, 1, 0)
    queue.annotate(filebase, {'event': 'retried'})
    queue.annotate(filebase, {'event': 'failed', 'error': 'NewError', 'message': 'new'})
    seen = look(queue, filebase)
    assert (seen.attempts, seen.recoveries, seen.sent_back, seen.last_error) == (1, 0, 1, ('NewError', 'new'))


def test_where_no_error_was_raised_the_cause_says_what_went_wrong(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    for _ in range(3):
        queue.dequeue(filebase)
        queue.recover_backup_files()
    seen = look(spool['bad'], filebase)
    assert seen.last_error[0] == seen.cause == 'recoveries'
    other = fail(spool, 'in', 'y', 'TimeoutError', 'no answer')
    seen = look(spool['bad'], other)
    assert (seen.last_error, seen.cause) == (('TimeoutError', 'no answer'), 'rejected')


@pytest.mark.parametrize('event', ['edited', 'held', 'let go', 'retried', 'restored', 'moved'])
def test_the_reason_of_what_an_operator_did_is_no_error(spool: Spool, event: str) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    queue.dequeue(filebase)
    queue.annotate(filebase, {'event': event, 'reason': 'the price was too low', 'by': 'ann', 'to': 'in'})
    assert look(queue, filebase).last_error == ('', '')


def test_the_reason_of_a_move_to_the_bad_queue_is_the_last_error(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    queue.dequeue(filebase)
    queue.annotate(filebase, {'event': 'moved', 'reason': 'spam', 'by': 'ann', 'to': 'bad'})
    assert look(queue, filebase).last_error == ('rejected', 'spam')


def test_the_age_of_a_preserved_entry_counts_from_when_it_was_preserved(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x', not_before=1_000_000_000)
    queue.finish(filebase, preserve=True)
    seen = look(spool['bad'], filebase)
    assert 0 <= seen.age_s(spool.clock.time_ns()) < 60


class RefusingDisk(Disk):
    """Does not give the entries of the bad queue: neither their content nor what the directory knows of them."""

    def __init__(self, error: int) -> None:
        super().__init__()
        self.error = error

    def _refuse(self, path: object) -> None:
        if self.error and str(path).endswith('.psv'):
            raise OSError(self.error, os.strerror(self.error), path)

    def open(self, path: Any, *arguments: Any, **keys: Any) -> int:
        self._refuse(path)
        return super().open(path, *arguments, **keys)

    def stat(self, path: Any, **keys: Any) -> os.stat_result:
        self._refuse(path)
        return super().stat(path, **keys)


@pytest.mark.parametrize('number', [errno.EIO, errno.ESTALE, errno.EUCLEAN, errno.EACCES])
def test_an_entry_that_the_disk_does_not_give_is_not_taken_for_gone(spool: Spool, number: int) -> None:
    filebase = fail(spool, 'out', 'x')
    folder = Folder(spool.path('bad'), RefusingDisk(number))
    listed = summarize(folder, 'bad', filebase, '.psv')
    assert listed is not None
    assert listed.damage == f'cannot be opened: {os.strerror(number)}'
    assert not listed.is_read
    # Of a name that no list has shown, nobody can say whether it is there.
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        summarize(folder, 'bad', filebase)


def test_a_directory_that_cannot_be_read_is_no_empty_one(spool: Spool, tmp_path: Path) -> None:
    filebase = fail(spool, 'out', 'x')
    (tmp_path / 'circle').symlink_to('circle')
    with pytest.raises(OSError, match='Too many levels'):
        summarize(Folder(tmp_path / 'circle', Disk()), 'bad', filebase)
    assert summarize(Folder(tmp_path / 'none', Disk()), 'bad', filebase) is None


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_process_lacks_is_no_damage_of_an_entry(spool: Spool, number: int) -> None:
    filebase = fail(spool, 'out', 'x')
    with pytest.raises(OSError, match=os.strerror(number)):
        summarize(Folder(spool.path('bad'), RefusingDisk(number)), 'bad', filebase, '.psv')


def test_the_cause_of_an_entry_that_the_disk_did_not_give_is_read_when_it_gives_it(spool: Spool) -> None:
    fail(spool, 'out', 'x', 'TimeoutError')
    disk = RefusingDisk(errno.EIO)
    folder, failures = Folder(spool.path('bad'), disk), FailureSummaryCache('bad', 100)
    os.utime(spool.path('bad'), ns=(1, 1))
    assert [failure.error for failure in failures.read(folder)] == [NONE]
    disk.error = 0
    assert [failure.error for failure in failures.read(folder)] == ['TimeoutError']
