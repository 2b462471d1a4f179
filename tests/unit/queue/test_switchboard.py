"""One queue directory: its public surface, what stands in it, and what is done with damage."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

import switchboard
from switchboard import Switchboard
from switchboard.errors import (
    ContentDisallowedError,
    CorruptEntryError,
    EntryTakenError,
    UnknownQueueError,
)
from switchboard.message.naming import with_when
from switchboard.options import QueueOptions
from tests.helpers.processes import NOBODY


def preserved(path: Path) -> dict[str, str]:
    """The entries of the bad queue, and why each is there."""
    bad = Switchboard('bad', path / 'bad')
    return {filebase: bad.history(filebase)[-1]['reason'] for filebase in bad.get_files('.psv')}


class TestPublicSurface:
    def test_the_package_gives_its_three_names_and_no_others(self) -> None:
        assert switchboard.Switchboard is Switchboard
        assert {'Switchboard', 'Spool', 'Runner'} <= set(dir(switchboard))
        with pytest.raises(AttributeError, match='nothing'):
            switchboard.nothing  # noqa: B018 - to ask for it is the test

    def test_a_queue_knows_its_name_and_its_directory(self, tmp_path: Path) -> None:
        queue = Switchboard('in', tmp_path / 'a' / '..' / 'in')
        assert (queue.name, queue.queue_directory) == ('in', str(tmp_path / 'in'))
        assert str(tmp_path / 'in') in repr(queue)

    def test_its_arguments_may_be_given_by_position_as_mailmans(self, tmp_path: Path) -> None:
        filebase = Switchboard('in', str(tmp_path / 'in')).enqueue('x')
        halves = [Switchboard('in', str(tmp_path / 'in'), index, 2, True).files for index in range(2)]
        assert sorted(halves) == [[], [filebase]]

    def test_a_name_that_a_queue_cannot_have_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownQueueError):
            Switchboard('../in', tmp_path / 'in')

    def test_a_directory_that_cannot_be_made_is_an_error_of_the_system(self, tmp_path: Path) -> None:
        (tmp_path / 'file').touch()
        with pytest.raises(NotADirectoryError):
            Switchboard('in', tmp_path / 'file' / 'in')


class TestDirectory:
    def test_it_and_its_files_are_for_owner_and_group_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o077)
        try:
            filebase = Switchboard('in', tmp_path / 'spool' / 'in').enqueue('x')
        finally:
            os.umask(before)
        path = tmp_path / 'spool' / 'in'
        assert stat.S_IMODE(path.stat().st_mode) == 0o770
        assert stat.S_IMODE((path / f'{filebase}.pck').stat().st_mode) == 0o660

    @pytest.mark.skipif(os.geteuid() != 0, reason='needs root, to give a directory to another group')
    def test_files_in_a_set_group_id_directory_belong_to_its_group(self, tmp_path: Path) -> None:
        os.chown(tmp_path, -1, NOBODY)
        tmp_path.chmod(0o2770)
        filebase = Switchboard('in', tmp_path / 'in').enqueue('x')
        assert (tmp_path / 'in' / f'{filebase}.pck').stat().st_gid == NOBODY
        assert stat.S_IMODE((tmp_path / 'in').stat().st_mode) == 0o2770

    def test_less_shows_a_mail(self, queue: Switchboard) -> None:
        filebase = queue.enqueue(b'Subject: hello\n\nworld\n', sender='a')
        content = (Path(queue.queue_directory) / f'{filebase}.pck').read_bytes()
        header, _, rest = content.partition(b'\n')
        assert header.startswith(b'switchboard/1 bytes 14 22 ')
        assert rest == b'{"sender":"a"}Subject: hello\n\nworld\n'


class TestBatch:
    def test_it_is_seen_when_the_block_ends(self, queue: Switchboard) -> None:
        with queue.batch():
            filebases = [queue.enqueue(number) for number in range(3)]
            assert queue.get_files() == []
            with queue.batch():  # joins the outer one
                filebases.append(queue.enqueue(3))
            assert queue.get_files() == []
        assert queue.files == filebases

    def test_a_block_that_raises_stores_nothing(self, queue: Switchboard) -> None:
        def fail() -> None:
            with queue.batch():
                queue.enqueue('x')
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert os.listdir(queue.queue_directory) == []
        queue.enqueue('and goes on')
        assert len(queue.files) == 1

    def test_a_long_one_needs_no_more_descriptors_than_a_short_one(self, queue: Switchboard) -> None:
        assert len(queue.enqueue_many(range(2000))) == len(queue.files) == 2000


class TestDamage:
    def corrupt(self, queue: Switchboard, change: Any) -> str:
        filebase = queue.enqueue('x' * 100, n=1)
        path = Path(queue.queue_directory) / f'{filebase}.pck'
        path.write_bytes(change(path.read_bytes()))
        return filebase

    @pytest.mark.parametrize(
        ('change', 'reason'),
        [
            (lambda content: content[:60], 'damaged header'),
            (lambda content: content[:-1], 'cut short'),
            (lambda content: content[:-1] + b'y', 'torn'),
            (lambda content: b'', 'no header'),
            (lambda content: b'\0' * len(content), 'no header'),
            (lambda content: content.replace(b'"n"', b'"m"'), 'torn'),
        ],
    )
    def test_a_torn_file_goes_to_bad_with_the_reason_and_the_next_one_is_taken(
        self, queue: Switchboard, tmp_path: Path, change: Any, reason: str
    ) -> None:
        filebase = self.corrupt(queue, change)
        good = queue.enqueue('good')
        taken = queue.take()
        assert taken is not None
        assert taken.filebase == good
        assert reason in preserved(tmp_path)[filebase]

    def test_a_file_under_anothers_name_goes_to_bad(self, queue: Switchboard, tmp_path: Path) -> None:
        one, other = queue.enqueue('one'), queue.enqueue('other')
        path = Path(queue.queue_directory)
        (path / f'{one}.pck').rename(path / 'aside')
        (path / f'{other}.pck').rename(path / f'{one}.pck')
        (path / 'aside').rename(path / f'{other}.pck')
        assert queue.take() is None
        assert [reason.partition(':')[0] for reason in preserved(tmp_path).values()] == [
            'stale or swapped'
        ] * 2

    def test_another_time_in_the_name_is_no_damage(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x')
        path = Path(queue.queue_directory)
        renamed = with_when(filebase, 5)
        (path / f'{filebase}.pck').rename(path / f'{renamed}.pck')
        assert queue.dequeue(renamed)[0] == 'x'

    def test_the_error_names_queue_and_entry(self, queue: Switchboard) -> None:
        filebase = self.corrupt(queue, lambda content: content[:-1])
        with pytest.raises(CorruptEntryError) as caught:
            queue.dequeue(filebase)
        assert (caught.value.queue, caught.value.filebase) == ('in', filebase)
        with pytest.raises(EntryTakenError):
            queue.dequeue(filebase)

    def test_a_kind_that_is_not_accepted_goes_to_bad_unread(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = queue.enqueue({'a': 1})
        picky = Switchboard('in', queue.queue_directory, options=QueueOptions(accept=('mail',)))
        with pytest.raises(ContentDisallowedError) as caught:
            picky.dequeue(filebase)
        assert caught.value.kind == 'json'
        assert preserved(tmp_path) == {filebase: "kind 'json' is not accepted here"}
