"""Maildirs and plain files: what is taken in, when, and what is left alone."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from switchboard import Spool, Switchboard
from switchboard.message.mail_envelope import MAX_DROPPED_BYTES
from switchboard.message.naming import PRESERVED, digest_of
from switchboard.spool.pickup import SETTLED_NS
from switchboard.store.disk import Disk
from switchboard.testing.clock import FakeClock
from tests.helpers.configurations import load

MAIL = b'Subject: %s\n\nbody\n'


def spool_with(home: Path, options: str = 'maildir = yes', **keys: object) -> Spool:
    return Spool.from_config(load(home, f'[queue.in]\ndurability = lazy\n{options}\n'), **keys)


def subjects(queue: Switchboard) -> list[str]:
    found = []
    while (taken := queue.take()) is not None:
        found.append(taken.msg['subject'])
        queue.finish(taken.filebase)
    return found


def reasons(spool: Spool) -> list[str]:
    return [spool['bad'].history(name)[-1]['reason'] for name in spool['bad'].get_files(PRESERVED)]


def deliver(queue: Switchboard, name: str, content: bytes) -> Path:
    """As a mail server does: write to tmp, then move to new."""
    directory = Path(queue.queue_directory)
    (directory / 'tmp' / name).write_bytes(content)
    return (directory / 'tmp' / name).rename(directory / 'new' / name)


def test_a_mail_in_new_is_a_message(tmp_path: Path) -> None:
    queue = spool_with(tmp_path)['in']
    deliver(queue, '1700000000.M1P1.host', MAIL % b'hello')
    taken = queue.take()
    assert taken is not None
    assert bytes(taken.msg) == MAIL % b'hello'
    assert taken.msgdata == {
        'door': 'maildir',
        'file': '1700000000.M1P1.host',
        'version': 3,
        '_parsemsg': False,
    }
    assert os.listdir(tmp_path / 's' / 'in' / 'new') == []
    queue.finish(taken.filebase)
    assert queue.take() is None


def test_what_was_delivered_first_comes_first_whatever_its_name(tmp_path: Path) -> None:
    queue = spool_with(tmp_path)['in']
    for position, name in enumerate((b'b', b'c', b'a')):
        os.utime(deliver(queue, f'{name.decode()}.host', MAIL % name), (1000 + position, 1000 + position))
    assert subjects(queue) == ['b', 'c', 'a']


@pytest.mark.parametrize(
    'name',
    ['1700000000.M1P1.host:2,S', 'name with blanks', 'ümläut', os.fsdecode(b'\xff\xfe'), 'a\nb', 'x' * 255],
)
def test_odd_names_and_flags_are_no_obstacle(tmp_path: Path, name: str) -> None:
    queue = spool_with(tmp_path)['in']
    deliver(queue, name, MAIL % b'odd')
    taken = queue.take()
    assert taken is not None
    assert taken.msgdata['file'] == name


def test_a_link_that_a_server_has_not_yet_removed_does_not_matter(tmp_path: Path) -> None:
    queue = spool_with(tmp_path)['in']
    directory = tmp_path / 's' / 'in'
    (directory / 'tmp' / 'one').write_bytes(MAIL % b'linked')
    os.link(directory / 'tmp' / 'one', directory / 'new' / 'one')
    assert subjects(queue) == ['linked']
    assert (directory / 'tmp' / 'one').read_bytes() == MAIL % b'linked'


def test_what_is_no_regular_file_is_reported_once_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = spool_with(tmp_path)['in']
    directory = tmp_path / 's' / 'in'
    (tmp_path / 'elsewhere').write_bytes(MAIL % b'secret')
    (directory / 'directory.eml').mkdir()
    os.mkfifo(directory / 'fifo.eml')
    (directory / 'link.eml').symlink_to(tmp_path / 'elsewhere')
    os.mkfifo(directory / 'new' / 'fifo')
    (directory / 'new' / 'link').symlink_to(tmp_path / 'elsewhere')
    (directory / 'new' / '.hidden').write_bytes(MAIL % b'unfinished')
    with caplog.at_level(logging.WARNING):
        assert not queue.has_ready()
        assert not queue.has_ready()
    told = sorted(record.members['name'] for record in caplog.records)
    assert told == ['directory.eml', 'fifo.eml', 'link.eml']
    assert len(os.listdir(directory / 'new')) == 3


def test_the_envelope_on_top_of_the_mail_becomes_metadata(tmp_path: Path) -> None:
    queue = spool_with(tmp_path)['in']
    content = (
        b'Return-Path: <ann@example.com>\nX-Original-To: list@example.org\nDelivered-To: in@example.org\n'
        b'Received: from a by b\nDelivered-To: forged@example.net\nSubject: x\n\n'
    )
    deliver(queue, 'one', content)
    taken = queue.take()
    assert taken is not None
    assert taken.msgdata['sender'] == 'ann@example.com'
    assert taken.msgdata['recipients'] == ['list@example.org']
    assert bytes(taken.msg) == content


def test_a_plain_file_is_taken_as_it_is(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 's', 'lazy')
    queue = spool['in']
    content = b'From ann@example.com  Sun Nov 22\nSubject: \xff\n\nno end of line\r\0'
    (tmp_path / 'draft').write_bytes(content)
    os.rename(tmp_path / 'draft', tmp_path / 's' / 'in' / 'some name.eml')
    taken = queue.take()
    assert taken is not None
    assert queue.peek(taken.filebase).body == content
    assert taken.msgdata['door'] == 'file'
    assert 'sender' not in taken.msgdata


def test_a_file_is_taken_when_its_writer_has_closed_it_and_not_before(tmp_path: Path) -> None:
    queue = Spool(tmp_path / 's', 'lazy')['in']
    with open(tmp_path / 's' / 'in' / 'slow.eml', 'wb') as file:
        file.write(MAIL % b'half')
        file.flush()
        assert not queue.has_ready()
        assert queue.wait_s() is not None
        file.write(b'the rest\n')
    assert queue.has_ready()
    taken = queue.take()
    assert taken is not None
    assert bytes(taken.msg).endswith(b'the rest\n')


def test_an_empty_file_gets_time_to_grow_and_then_goes_to_bad(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = Spool(tmp_path / 's', 'lazy', clock=clock)
    queue = spool['in']
    empty = tmp_path / 's' / 'in' / 'empty.eml'
    empty.touch()
    os.utime(empty, ns=(clock.time_ns(), clock.time_ns()))
    assert not queue.has_ready()
    clock.advance(SETTLED_NS / 1e9 - 1)
    assert not queue.has_ready()
    wait_s = queue.wait_s()
    assert wait_s is not None
    assert 0.9 < wait_s <= 1.0
    clock.advance(1)
    assert not queue.has_ready()
    assert reasons(spool) == ['empty']
    assert queue.wait_s() is None


def test_what_cannot_be_an_entry_goes_to_bad_with_the_reason(tmp_path: Path) -> None:
    spool = spool_with(tmp_path, 'maildir = yes\nmax_body = 1K')
    queue = spool['in']
    deliver(queue, 'large', b'x' * 1025)
    deliver(queue, 'fine', MAIL % b'fine')
    assert subjects(queue) == ['fine']
    assert reasons(spool) == ['1025 bytes, and the queue takes 1024']
    [bad] = spool['bad'].get_files(PRESERVED)
    record = spool['bad'].history(bad)[-1]
    assert (record['file'], record['queue']) == ('large', 'in')
    assert (tmp_path / 's' / 'bad' / f'{bad}.psv').read_bytes().startswith(b'x' * 1025)


def test_where_a_queue_sets_no_limit_the_doors_have_one(tmp_path: Path) -> None:
    """A file may have any size without taking any room, and whoever reads it whole is killed for it."""
    spool = spool_with(tmp_path)
    queue = spool['in']
    with open(tmp_path / 's' / 'in' / 'new' / 'huge', 'wb') as stream:
        stream.truncate(MAX_DROPPED_BYTES + 1)
    deliver(queue, 'fine', MAIL % b'fine')
    assert subjects(queue) == ['fine']
    assert reasons(spool) == ['52428801 bytes, and the queue takes 52428800']


def test_a_queue_that_takes_no_mails_puts_them_into_bad(tmp_path: Path) -> None:
    spool = spool_with(tmp_path, 'accept = json')
    queue = spool['in']
    (tmp_path / 's' / 'in' / 'one.eml').write_bytes(MAIL % b'x')
    assert subjects(queue) == []
    assert reasons(spool) == ["kind 'mail' is not accepted here"]


def test_nothing_is_written_into_the_other_links_of_a_file(tmp_path: Path) -> None:
    spool = spool_with(tmp_path, 'max_body = 1K')
    queue = spool['in']
    (tmp_path / 'backup').write_bytes(b'x' * 2000)
    os.link(tmp_path / 'backup', tmp_path / 's' / 'in' / 'large.eml')
    assert subjects(queue) == []
    assert len(spool['bad'].get_files(PRESERVED)) == 1
    assert (tmp_path / 'backup').read_bytes() == b'x' * 2000


def test_a_full_queue_leaves_the_files_where_they_are(tmp_path: Path) -> None:
    queue = spool_with(tmp_path, 'maildir = yes\nmax_messages = 2')['in']
    for number in range(3):
        deliver(queue, str(number), MAIL % b'%d' % number)
    assert queue.has_ready()
    assert len(os.listdir(tmp_path / 's' / 'in' / 'new')) == 1
    taken = [queue.take(), queue.take()]
    for one in taken:
        assert one is not None
        queue.finish(one.filebase)
    assert subjects(queue) == ['2']


def test_a_draining_queue_leaves_the_files_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_with(tmp_path)
    queue = spool['in']
    spool.drain('in')
    deliver(queue, 'one', MAIL % b'one')
    with caplog.at_level(logging.INFO):
        assert subjects(queue) == []
    assert {(one.levelname, one.members['event']) for one in caplog.records} == {('INFO', 'not picked up')}
    spool.resume('in')
    assert subjects(queue) == ['one']


def test_a_mail_keeps_its_digest_each_time_it_is_looked_at(tmp_path: Path) -> None:
    spool = spool_with(tmp_path)
    queue = spool['in']
    path = deliver(queue, 'one', MAIL % b'one')
    os.link(path, tmp_path / 'kept')
    first = queue.take()
    assert first is not None
    os.rename(tmp_path / 'kept', path)
    second = queue.take()
    assert second is not None
    assert digest_of(second.filebase) == digest_of(first.filebase)
    assert second.filebase != first.filebase


def test_many_takers_get_each_mail_once(tmp_path: Path) -> None:
    config = load(tmp_path, '[queue.in]\ndurability = lazy\nmaildir = yes\n')
    queue = Spool.from_config(config)['in']
    wanted = sorted(f'mail {number}' for number in range(200))
    for subject in wanted:
        deliver(queue, subject, MAIL % subject.encode())
    found: list[str] = []

    def work() -> None:
        found.extend(subjects(Spool.from_config(config)['in']))

    takers = [threading.Thread(target=work) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    found += subjects(queue)
    assert sorted(found) == wanted


@pytest.mark.parametrize('how', ['link', 'rename', 'plain'])
def test_a_delivery_wakes_a_runner_that_sleeps(tmp_path: Path, how: str) -> None:
    queue = spool_with(tmp_path)['in']
    directory = tmp_path / 's' / 'in'
    source = directory / 'tmp' / 'one'
    source.write_bytes(MAIL % b'x')
    wakeup = queue.make_wakeup()
    wakeup.arm()
    assert wakeup.is_watching
    assert not wakeup.wait(0)
    if how == 'plain':
        (directory / 'one.eml').write_bytes(MAIL % b'x')
    else:
        getattr(os, how)(source, directory / 'new' / 'one')
    assert wakeup.wait(60)
    wakeup.disarm()
    wakeup.close()


def test_a_maildir_that_was_taken_away_comes_back(tmp_path: Path) -> None:
    queue = spool_with(tmp_path)['in']
    (tmp_path / 's' / 'in' / 'new').rmdir()
    assert not queue.has_ready()
    deliver(queue, 'one', MAIL % b'one')
    assert subjects(queue) == ['one']


def test_what_was_begun_and_abandoned_is_removed_after_36_hours(tmp_path: Path) -> None:
    clock = FakeClock()
    queue = spool_with(tmp_path, clock=clock)['in']
    # The second as a copy of a file store leaves it, whose process was killed.
    paths = [tmp_path / 's' / 'in' / 'tmp' / name for name in ('old', '.old')]
    for path in paths:
        path.touch()
    clock.advance(35 * 3600)
    queue.has_ready()
    assert [path.exists() for path in paths] == [True, True]
    clock.advance(2 * 3600)
    queue.has_ready()
    assert [path.exists() for path in paths] == [False, False]


def test_a_queue_may_refuse_plain_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = spool_with(tmp_path, 'accept_eml_files = no')['in']
    (tmp_path / 's' / 'in' / 'one.eml').write_bytes(MAIL % b'x')
    assert subjects(queue) == []
    assert 'ignored name=one.eml what="foreign file"' in caplog.text


def test_a_switchboard_without_a_spool_has_no_letterbox(tmp_path: Path) -> None:
    queue = Switchboard('in', tmp_path / 'in')
    (tmp_path / 'in' / 'one.eml').write_bytes(MAIL % b'x')
    assert subjects(queue) == []
    assert (tmp_path / 'in' / 'one.eml').exists()


def test_a_group_that_takes_long_is_committed_before_it_is_whole(tmp_path: Path) -> None:
    clock = FakeClock()

    class SlowDisk(Disk):
        def read_all(self, fd: int, size: int, offset: int = 0) -> bytes:
            content = super().read_all(fd, size, offset)
            if content.startswith(b'Subject:'):
                clock.advance(2)
            return content

    spool = spool_with(tmp_path, clock=clock, disk=SlowDisk())
    queue = spool['in']
    for number in range(3):
        deliver(queue, f'{number}.host', MAIL % b'slow')
    assert queue.pickup is not None
    assert [queue.pickup.collect([]) for _ in range(4)] == [1, 1, 1, 0]


class BadSectors(Disk):
    """Refuses to read some files."""

    def __init__(self) -> None:
        self.unreadable: set[int] = set()

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino in self.unreadable:
            raise OSError(errno.EIO, 'bad sector')
        return os.pread(fd, size, offset)


@pytest.mark.parametrize('door', ['maildir', 'eml'])
def test_files_that_the_disk_does_not_give_hold_no_others_back(tmp_path: Path, door: str) -> None:
    disk = BadSectors()
    queue = spool_with(tmp_path, disk=disk)['in']
    for number in range(10):
        subject = b'%d' % number
        if door == 'maildir':
            path = deliver(queue, f'{number}.host', MAIL % subject)
        else:
            path = Path(queue.queue_directory) / f'{number}.eml'
            path.write_bytes(MAIL % subject)
        os.utime(path, (1000 + number, 1000 + number))
        if number < 8:
            disk.unreadable.add(path.stat().st_ino)
    assert subjects(queue) == ['8', '9']
    disk.unreadable.clear()
    queue.has_ready()
    assert subjects(queue) == [str(number) for number in range(8)]
