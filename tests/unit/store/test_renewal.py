"""A fresh directory takes the place of an empty one that was large, and whoever has the old one open goes on in the new one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.drop.program import Drop
from switchboard.drop.request import DropRequest
from switchboard.errors import UnknownQueueError
from switchboard.handoff.moving import move, send_back
from switchboard.queue.wakeup import Wakeup
from switchboard.store.claims import claim_of
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.kernel import CONTENT_ONLY
from switchboard.store.layout import DRAFT_PREFIX
from switchboard.store.pool import FilePool
from switchboard.store.renewal import BYTES_A_NAME, RENEWED_FROM_BYTES, is_sparse, renew
from switchboard.testing import FakeClock
from tests.large_directories import GrowingDisk, grow_and_renew


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[Folder]:
    """A directory that was large once, and is empty."""
    disk = GrowingDisk()
    folder = Folder(tmp_path / 'in', disk)
    folder.make()
    disk.grow(folder)
    yield folder
    folder.close()


# What is renewed.


def test_a_fresh_directory_takes_the_place_of_one_that_was_large(grown: Folder, tmp_path: Path) -> None:
    before, fd = grown.key, grown.fd
    assert renew(grown)
    assert grown.key != before
    assert grown.fd == fd
    assert grown.key[1] == os.stat(tmp_path / 'in').st_ino
    assert os.listdir(tmp_path) == ['in']
    assert not renew(grown)


def test_the_new_one_is_like_the_old_one(grown: Folder, tmp_path: Path) -> None:
    os.chmod(grown.path, 0o2750)
    if os.geteuid() == 0:
        os.chown(grown.path, 1234, 4321)
        os.chmod(grown.path, 0o2750)
    try:
        os.setxattr(grown.path, 'user.note', b'ours')
    except OSError:
        pytest.skip('no extended attributes here')
    before = os.stat(grown.path)
    assert renew(grown)
    after = os.stat(grown.path)
    assert stat.S_IMODE(after.st_mode) == 0o2750
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert os.getxattr(grown.path, 'user.note') == b'ours'


def is_put_into(folder: Folder) -> None:
    Path(folder.path, 'x.pck').touch()


def is_deleted(folder: Folder) -> None:
    folder.mark_deleted()


def is_a_link(folder: Folder) -> None:
    os.rename(folder.path, folder.path + '.elsewhere')
    os.symlink(folder.path + '.elsewhere', folder.path)


def has_the_above_forbidden(folder: Folder) -> None:
    folder.disk.mkdir = _refuse


def has_no_order(folder: Folder) -> None:
    folder.disk.fsync_scope = lambda fd: CONTENT_ONLY


def cannot_be_copied(folder: Folder) -> None:
    folder.disk.copy_attributes = lambda source, target: False


def _refuse(*arguments: Any) -> None:
    raise PermissionError(13, 'refused')


@pytest.mark.parametrize(
    'spoil',
    [is_put_into, is_deleted, is_a_link, has_the_above_forbidden, has_no_order, cannot_be_copied],
    ids=lambda each: each.__name__.replace('_', ' '),
)
def test_a_directory_stays_that(spoil: Callable[[Folder], None], grown: Folder, tmp_path: Path) -> None:
    spoil(grown)
    before = os.stat(grown.path).st_ino
    assert not renew(grown)
    assert os.stat(grown.path).st_ino == before
    assert [name for name in os.listdir(tmp_path) if name.startswith(DRAFT_PREFIX)] == []


def test_a_small_directory_is_left_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / 'in', GrowingDisk())
    folder.make()
    assert not renew(folder)


def test_what_comes_between_the_look_and_the_rename_keeps_the_directory(grown: Folder) -> None:
    disk = grown.disk
    rename = disk.rename

    def late(source: str, target: str, **keys: Any) -> None:
        is_put_into(grown)
        rename(source, target, **keys)

    disk.rename = late
    assert not renew(grown)
    assert os.listdir(grown.path) == ['x.pck']


def test_a_large_directory_with_a_handful_of_names_is_sparse_and_one_that_is_full_is_not() -> None:
    assert is_sparse(RENEWED_FROM_BYTES, 0)
    assert not is_sparse(RENEWED_FROM_BYTES - 1, 0)
    assert is_sparse(RENEWED_FROM_BYTES + 10 * BYTES_A_NAME, 10)
    assert not is_sparse(RENEWED_FROM_BYTES + 10 * BYTES_A_NAME, 11)


# By whom.


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / 'spool', 'lazy', disk=GrowingDisk())
    yield made
    made.close()


def grow(spool: Spool, folder: Folder) -> int:
    assert isinstance(spool.disk, GrowingDisk)
    spool.disk.grow(folder)
    return os.stat(folder.path).st_ino


def test_who_has_emptied_a_queue_renews_it(growing: Spool) -> None:
    queue = growing['in']
    queue.enqueue('a')
    before = grow(growing, queue.folder)
    taken = queue.take()
    assert taken is not None
    assert queue.take() is None
    assert os.stat(queue.folder.path).st_ino == before  # what is being worked on keeps it
    queue.finish(taken.filebase)
    assert queue.take() is None
    assert os.stat(queue.folder.path).st_ino != before


@pytest.mark.parametrize('by', ['take', 'files'])
def test_who_finishes_the_last_entry_renews_it_without_ever_seeing_it_empty(growing: Spool, by: str) -> None:
    queue = growing['in']
    before = grow(growing, queue.folder)
    filebases = [queue.enqueue('a'), queue.enqueue('b')]
    if by == 'files':
        assert queue.files == filebases
        for filebase in filebases:
            queue.dequeue(filebase)
    else:
        for _ in filebases:
            assert queue.take() is not None
    queue.finish(filebases[0])
    assert os.stat(queue.folder.path).st_ino == before
    queue.finish(filebases[1])
    assert os.stat(queue.folder.path).st_ino != before
    queue.enqueue('c')
    taken = queue.take()
    assert taken is not None
    assert taken.msg == 'c'


def test_what_could_not_be_renewed_is_tried_again_the_seldomer_the_longer(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = Spool(tmp_path / 'spool', 'lazy', disk=GrowingDisk(), clock=clock)
    queue = spool['in']
    tries: list[int] = []
    scan = queue.folder.disk.copy_attributes

    def refuse(source: int, target: int) -> bool:
        tries.append(clock.monotonic_ns())
        return False

    queue.folder.disk.copy_attributes = refuse
    before = grow(spool, queue.folder)
    for _ in range(200):
        queue.enqueue('a')
        taken = queue.take()
        assert taken is not None
        queue.finish(taken.filebase)
        clock.advance(1.0)
    waits = [later - sooner for sooner, later in pairwise(tries)]
    assert waits == sorted(waits)
    assert len(tries) < 20
    queue.folder.disk.copy_attributes = scan
    clock.advance(120.0)
    assert queue.take() is None
    assert os.stat(queue.folder.path).st_ino != before
    spool.close()


def test_a_queue_that_is_being_deleted_is_not_made_anew(growing: Spool) -> None:
    queue = growing['in']
    before = grow(growing, queue.folder)
    with growing.declared.records.lock():
        assert queue.take() is None
    assert os.stat(queue.folder.path).st_ino == before


@pytest.mark.parametrize('place', ['.spare', '.stage', 'bad'])
def test_the_janitor_renews_what_all_share(growing: Spool, place: str) -> None:
    before = grow(
        growing, growing['bad'].folder if place == 'bad' else Folder(growing.path(place), growing.disk)
    )
    growing.renew_empty_directories()
    assert os.stat(growing.path(place)).st_ino != before


def test_the_janitor_renews_where_owners_and_consumers_were(growing: Spool) -> None:
    growing.declare('in')
    growing.declared.new_owner().close()
    growing.register_consumer('in').close()
    places = [Folder(growing.path('.run', name), growing.disk) for name in ('owners', 'consumers/in')]
    before = [grow(growing, place) for place in places]
    growing.renew_empty_directories()
    assert all(os.stat(place.path).st_ino != old for place, old in zip(places, before, strict=True))
    ticket = growing.register_consumer('in')
    assert growing.consumer_count('in') == 1
    ticket.close()


def test_who_looks_for_spares_in_vain_renews_their_directory(growing: Spool) -> None:
    before = grow(growing, growing.pool.folder)
    growing['in'].enqueue('a')
    assert os.stat(growing.path('.spare')).st_ino != before


def test_recovery_of_an_empty_stage_renews_it(growing: Spool) -> None:
    before = grow(growing, growing.stage.folder)
    growing.recover()
    assert os.stat(growing.path('.stage')).st_ino != before


def test_a_maildir_is_renewed(tmp_path: Path) -> None:
    (tmp_path / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = spool\n[queue.letters]\nmaildir = yes\n'
    )
    spool = Spool.from_config(tmp_path / 'switchboard.cfg', disk=GrowingDisk())
    queue = spool['letters']
    assert queue.pickup is not None
    new = Path(str(queue.pickup.maildir_new))
    before = grow(spool, Folder(new, spool.disk))
    assert queue.take() is None
    assert new.stat().st_ino != before
    (new.parent / 'tmp' / 'mail').write_text('Subject: a\n\n')
    (new.parent / 'tmp' / 'mail').rename(new / 'mail')
    assert queue.take() is not None
    spool.close()


def test_the_janitor_takes_away_what_a_death_has_left(spool: Spool) -> None:
    os.mkdir(spool.path(DRAFT_PREFIX + '0123'))
    spool.renew_empty_directories()
    assert not os.path.exists(spool.path(DRAFT_PREFIX + '0123'))


# Who has the old one open.


def test_a_producer_goes_on(spool: Spool) -> None:
    producer = spool['in']
    grow_and_renew(producer.folder)
    filebase = producer.enqueue('a')
    assert os.listdir(producer.folder.path) == [f'{filebase}.pck']


def test_a_batch_that_was_begun_before_goes_on(spool: Spool) -> None:
    producer = spool['in']
    with producer.batch() as batch:
        batch.enqueue('a')
        grow_and_renew(producer.folder)
        batch.enqueue('b')
    assert [producer.peek(filebase).body for filebase in producer.files] == [b'a', b'b']


@pytest.mark.parametrize('durability', ['full', 'lazy'])
def test_a_producer_finds_a_renewed_pool_of_files(tmp_path: Path, durability: Any) -> None:
    spool = Spool(tmp_path / 'spool', durability)
    queue = spool['in']
    grow_and_renew(spool.pool.folder)
    queue.finish(queue.enqueue('a'))
    assert len(os.listdir(spool.pool.folder.path)) == 1
    spool.close()


def test_what_is_finished_goes_into_a_renewed_pool_of_files(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('a')
    queue.dequeue(filebase)
    assert os.listdir(spool.pool.folder.path) == []
    grow_and_renew(spool.pool.folder)
    queue.finish(filebase)
    assert len(os.listdir(spool.pool.folder.path)) == 1
    assert queue.enqueue('b') in queue.files


@pytest.mark.parametrize(
    'look',
    [
        lambda queue, filebase: queue.files,
        lambda queue, filebase: [queue.take().filebase],
        lambda queue, filebase: [filebase] * (queue.dequeue(filebase)[0] == 'a'),
        lambda queue, filebase: [filebase] * (queue.peek(filebase).body == b'a'),
        lambda queue, filebase: [filebase] * queue.folder.has(filebase + '.pck'),
        lambda queue, filebase: [filebase] * bool(queue.has_ready()),
        lambda queue, filebase: queue.get_files('.pck'),
        lambda queue, filebase: [name[:-4] for name in queue.folder.names()],
    ],
    ids=['files', 'take', 'dequeue', 'peek', 'has', 'ready', 'get_files', 'names'],
)
def test_a_consumer_finds_what_others_put_into_the_new_one(spool: Spool, look: Callable[..., Any]) -> None:
    consumer = spool.queue('in')
    grow_and_renew(consumer.folder)
    filebase = spool.queue('in').enqueue('a')
    assert look(consumer, filebase) == [filebase]


def test_a_claim_is_known_to_every_object_of_the_process(spool: Spool) -> None:
    one, another = spool.queue('in'), spool.queue('in')
    grow_and_renew(one.folder)
    taken = one.dequeue(filebase := one.enqueue('a'))
    assert taken[0] == 'a'
    assert claim_of(another.folder, filebase) is not None
    another.finish(filebase)
    assert one.files == []


@pytest.mark.parametrize('renewed', ['.stage', 'out', '.spare'])
@pytest.mark.parametrize('moment', ['before it is emitted', 'before it is committed'])
def test_a_hand_off_goes_on(spool: Spool, renewed: str, moment: str) -> None:
    queue, out = spool['in'], spool['out']
    filebase = queue.enqueue('a')
    queue.dequeue(filebase)
    transaction = spool.transaction(queue, filebase)
    folder = Folder(spool.path(renewed), Disk())
    if moment == 'before it is emitted':
        grow_and_renew(folder)
    transaction.emit(out, 'b', {})
    if moment == 'before it is committed' and not folder.names():
        grow_and_renew(folder)
    transaction.commit()
    assert [out.peek(each).body for each in out.files] == [b'b']
    assert queue.get_files('.bak') == []


def test_what_cannot_be_processed_goes_into_a_renewed_bad_queue(spool: Spool) -> None:
    queue, bad = spool['in'], spool['bad']
    filebase = queue.enqueue('a')
    queue.dequeue(filebase)
    grow_and_renew(bad.folder)
    queue.finish(filebase, preserve=True)
    assert bad.get_files('.psv') == [filebase]
    grow_and_renew(queue.folder)
    send_back(bad, filebase, queue)
    assert len(queue.files) == 1


def test_a_moved_entry_arrives(spool: Spool) -> None:
    queue, out = spool['in'], spool['out']
    filebase = queue.enqueue('a')
    queue.dequeue(filebase)
    grow_and_renew(out.folder)
    move(queue.claim_of(filebase), queue, out)
    assert out.files == [filebase]


def test_the_door_goes_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool')
    queue = spool['in']
    drop = Drop(DropRequest(['in']), str(tmp_path / 'spool'), Disk())
    drop.check()
    drop.body = memoryview(b'Subject: a\n\n')
    drop.write_metadata({})
    grow_and_renew(queue.folder)
    grow_and_renew(spool.pool.folder)
    drop.store(lambda: None)
    assert queue.files == [drop.filebase]
    spool.close()


def test_a_sleeper_is_woken_and_then_sleeps_on_the_new_one(spool: Spool) -> None:
    queue = spool['in']
    wakeup = Wakeup(queue.queue_directory)
    wakeup.arm()
    if not wakeup.is_watching:
        pytest.skip('no events here')
    grow_and_renew(queue.folder)
    assert wakeup.wait(30)
    assert not wakeup.is_watching
    wakeup.arm()
    assert not queue.has_ready()
    spool.queue('in').enqueue('a')
    assert wakeup.wait(30)
    wakeup.close()


def test_the_spool_keeps_the_object_of_a_renewed_queue(spool: Spool) -> None:
    queue = spool['in']
    grow_and_renew(queue.folder)
    assert spool['in'] is queue


@pytest.mark.parametrize('if_empty', [True, False])
def test_a_deleted_queue_is_not_followed_to_the_next_of_its_name(spool: Spool, *, if_empty: bool) -> None:
    spool.declare('in')
    producer = spool.queue('in')
    spool.delete('in', if_empty=if_empty)
    spool.declare('in', options={'max_messages': 1})
    with pytest.raises(UnknownQueueError):
        producer.enqueue('a')
    assert spool['in'].files == []


def test_files_that_were_open_for_the_next_messages_are_still_good(spool: Spool) -> None:
    queue = spool['in']
    queue.finish(queue.enqueue('a'))
    assert not renew(spool.pool.folder)  # they keep it
    queue.enqueue('b')
    grow_and_renew(spool.pool.folder)
    pool = FilePool(Folder(spool.path('.spare'), Disk()))
    draft = pool.acquire()
    grow_again = Folder(spool.path('.spare'), GrowingDisk())
    assert not renew(grow_again)
    pool.discard(draft)
    pool.close()
