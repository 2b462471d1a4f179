"""A file with a second name, and one that another user may have open: neither is ours alone to write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import QueueError
from switchboard.handoff.moving import claim_ready_or_preserved, move, require_origin_queue, send_back
from switchboard.message.journal import pack_record
from switchboard.message.naming import digest_of
from switchboard.operating.summary import summarize
from switchboard.store.disk import Disk
from tests.helpers.processes import NOBODY, in_child


def backed_up(spool: Spool, filebase: str, suffix: str = '.pck') -> tuple[Path, bytes]:
    """:return: a second name of the entry's file, elsewhere, and what it holds."""
    backup = Path(spool.directory).parent / 'backup'
    os.link(spool.path('in', filebase + suffix), backup)
    return backup, backup.read_bytes()


class TestLinks:
    def test_a_backup_does_not_change_when_history_is_written(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        backup, before = backed_up(spool, filebase)
        spool['in'].dequeue(filebase)
        spool['in'].annotate(filebase, {'event': 'failed'})
        spool['in'].annotate(filebase, {'event': 'failed'})
        assert backup.read_bytes() == before
        assert [record['event'] for record in spool['in'].history(filebase)] == ['failed', 'failed']
        spool['in'].release(filebase)
        assert spool['in'].take().msg == 'x'
        spool['in'].finish(filebase, preserve=True)
        assert backup.read_bytes() == before
        assert spool['bad'].history(filebase)[-1]['event'] == 'preserved'

    def test_one_that_is_made_while_the_entry_is_at_work_neither(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        spool['in'].dequeue(filebase)
        backup, before = backed_up(spool, filebase, '.bak')
        spool['in'].annotate(filebase, {'event': 'failed'})
        spool['in'].finish(filebase)
        spool['in'].enqueue('another one')
        assert backup.read_bytes() == before

    def test_the_lock_goes_along_to_the_copy(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        backed_up(spool, filebase)
        spool['in'].dequeue(filebase)
        spool['in'].annotate(filebase, {'event': 'failed'})
        assert in_child(lambda: Spool(tmp_path / 'spool')['in'].recover()) == []

    @pytest.mark.parametrize('act', ['finish', 'preserve', 'hand off', 'release'])
    def test_one_entry_with_two_names_is_done_once(self, act: str, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        os.link(spool.path('in', f'{filebase}.pck'), spool.path('in', f'{filebase}.bak'))
        spool['in'].dequeue(filebase)
        assert os.listdir(spool.path('in')) == [f'{filebase}.bak']
        if act == 'hand off':
            transaction = spool.transaction(spool['in'], filebase)
            transaction.emit(spool['out'], 'y', {})
            transaction.commit()
        elif act == 'release':
            spool['in'].release(filebase)
            assert spool['in'].take() is not None
            spool['in'].finish(filebase)
        else:
            spool['in'].finish(filebase, preserve=act == 'preserve')
        assert os.listdir(spool.path('in')) == []

    def test_a_dead_owners_entry_with_both_names_is_ready_once(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        os.link(spool.path('in', f'{filebase}.pck'), spool.path('in', f'{filebase}.bak'))
        assert spool['in'].recover() == [filebase]
        assert os.listdir(spool.path('in')) == [f'{filebase}.pck']

    def test_a_crash_in_the_copy_leaves_what_recovery_removes(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        Path(spool.path('in', '.new-0123456789abcdef.tmp')).write_bytes(b'half')
        assert spool['in'].files == [filebase]
        spool['in'].recover()
        assert os.listdir(spool.path('in')) == [f'{filebase}.pck']

    def test_a_copy_of_holes_has_holes(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        os.truncate(spool.path('in', f'{filebase}.pck'), 100 << 20)
        claim = claim_ready_or_preserved(spool['in'], filebase)
        claim.replace_with_copy(sync=True)
        status = os.fstat(claim.fd)
        assert status.st_size == 100 << 20
        assert status.st_blocks * 512 < 4 << 20
        claim.close()

    def test_a_copy_of_zeros_that_were_written_is_no_hollow_one(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy')
        content = b'begin' + bytes(40 << 20) + b'end'
        filebase = spool['in'].enqueue(content)
        backed_up(spool, filebase)
        spool['in'].dequeue(filebase)
        spool['in'].annotate(filebase, {'event': 'failed'})
        spool['in'].release(filebase)
        assert spool['in'].take().msg == content


class NoRoom(Disk):
    is_full = False

    def write_all(self, fd: int, content: bytes | memoryview, offset: int = 0) -> None:
        if self.is_full and b'"event"' in bytes(content[:200]):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write_all(fd, content, offset)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can be somebody else')
class TestOwners:
    def dropped(self, spool: Spool) -> tuple[str, int]:
        """A file of another user, who keeps its descriptor."""
        filebase = spool['in'].enqueue('x')
        path = spool.path('in', f'{filebase}.pck')
        os.chown(path, NOBODY, NOBODY)
        return filebase, os.open(path, os.O_RDWR)

    def forge(self, fd: int, filebase: str) -> None:
        """What the other user does with it when it lies in the bad queue."""
        record = pack_record({'event': 'preserved', 'queue': 'payments', 'time': 9e9}, digest_of(filebase))
        os.pwrite(fd, record, os.fstat(fd).st_size)

    @pytest.mark.parametrize('way', ['preserve', 'move'])
    def test_what_lies_in_bad_cannot_be_written_by_who_dropped_it(self, way: str, open_path: Path) -> None:
        spool = Spool(open_path / 'spool', 'lazy')
        filebase, fd = self.dropped(spool)
        if way == 'preserve':
            spool['in'].finish(filebase, preserve=True)
        else:
            move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['bad'])
        self.forge(fd, filebase)
        os.close(fd)
        assert require_origin_queue(spool['bad'], filebase) == 'in'
        assert os.stat(spool.path('bad', f'{filebase}.psv')).st_uid == os.geteuid()
        send_back(spool['bad'], filebase, spool['in'])
        assert spool['in'].take().msg == 'x'

    @pytest.mark.parametrize('megabytes', [0, 9, 20])
    @pytest.mark.parametrize('way', ['preserve', 'move'])
    def test_what_was_written_into_it_before_says_nothing_about_where_it_goes(
        self, way: str, megabytes: int, open_path: Path
    ) -> None:
        spool = Spool(open_path / 'spool', 'lazy')
        filebase, fd = self.dropped(spool)
        record = {'event': 'preserved', 'queue': 'payments', 'time': 9e9, 'reason': 'x' * 60_000}
        packed = pack_record(record, digest_of(filebase))
        while os.fstat(fd).st_size < megabytes << 20:
            os.pwrite(fd, packed, os.fstat(fd).st_size)
        self.forge(fd, filebase)
        os.close(fd)
        if way == 'preserve':
            spool['in'].finish(filebase, preserve=True)
        else:
            move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['bad'])
        seen = summarize(spool['bad'].folder, 'bad', filebase)
        assert seen is not None
        assert (seen.retry_queue, require_origin_queue(spool['bad'], filebase)) == ('in', 'in')

    def test_while_nothing_can_be_added_to_it_no_copy_is_made_that_would_be_believed(
        self, open_path: Path
    ) -> None:
        disk = NoRoom()
        spool = Spool(open_path / 'spool', 'lazy', disk=disk)
        filebase, fd = self.dropped(spool)
        self.forge(fd, filebase)
        os.close(fd)
        claim = claim_ready_or_preserved(spool['in'], filebase)
        disk.is_full = True
        move(claim, spool['in'], spool['bad'])
        seen = summarize(spool['bad'].folder, 'bad', filebase)
        assert seen is not None
        assert seen.retry_queue is None

    def test_no_history_of_a_foreign_file_says_where_it_goes(self, open_path: Path) -> None:
        spool = Spool(open_path / 'spool', 'lazy')
        filebase = spool['payments'].enqueue('x')
        spool['payments'].finish(filebase, preserve=True)
        path = spool.path('bad', f'{filebase}.psv')
        assert require_origin_queue(spool['bad'], filebase) == 'payments'
        os.chown(path, NOBODY, NOBODY)
        with pytest.raises(QueueError, match='name a queue'):
            require_origin_queue(spool['bad'], filebase)
        seen = summarize(spool['bad'].folder, 'bad', filebase)
        assert seen is not None
        assert seen.retry_queue is None

    def test_the_spools_owner_is_believed(self, open_path: Path) -> None:
        spool = Spool(open_path / 'spool', 'lazy')
        filebase = spool['in'].enqueue('x')
        spool['in'].finish(filebase, preserve=True)
        for place in (spool.path('bad'), spool.path('bad', f'{filebase}.psv')):
            os.chown(place, NOBODY, NOBODY)
        assert require_origin_queue(spool['bad'], filebase) == 'in'

    def test_one_that_is_too_large_to_copy_is_preserved_all_the_same(
        self, open_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr('switchboard.store.claims.MAX_COPIED_BYTES', 10)
        spool = Spool(open_path / 'spool', 'lazy')
        filebase, fd = self.dropped(spool)
        os.close(fd)
        spool['in'].finish(filebase, preserve=True)
        assert spool['bad'].get_files('.psv') == [filebase]
        with pytest.raises(QueueError, match='name a queue'):
            require_origin_queue(spool['bad'], filebase)
