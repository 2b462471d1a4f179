"""Whatever stands in a spool's directories: nothing is followed, nothing is waited for, nothing outside is touched."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from switchboard.errors import CorruptEntryError, ForeignFileError, QueueError
from switchboard.message.naming import CLAIMED, PRESERVED, READY
from switchboard.spool.spool import Spool
from switchboard.store.disk import FILE_MODE, Disk
from switchboard.store.folder import Folder

NAME = '1732242000.5+0123456789abcdef0123456789abcdef01234567'
OUTSIDE = b'not yours'

pytestmark = pytest.mark.timeout(300)  # what blocks, blocks for ever


def symbolic_link(path: Path) -> None:
    path.symlink_to(path.parents[2] / 'outside')


def dangling_link(path: Path) -> None:
    path.symlink_to('/nonexistent/file')


def link_to_a_directory(path: Path) -> None:
    path.symlink_to('/')


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(path.parent)  # the whole path may be longer than a socket's name
        server.bind(path.name)
        os.chdir(here)


def directory(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: endless, if it is read
    except PermissionError:
        pytest.skip('only root may make a device')


KINDS: list[Callable[[Path], None]] = [
    symbolic_link,
    dangling_link,
    link_to_a_directory,
    fifo,
    unix_socket,
    directory,
    device,
]
each_kind = pytest.mark.parametrize('make', KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A place with a spool in it, and a file outside of it that is the same afterwards."""
    outside = tmp_path / 'outside'
    outside.write_bytes(OUTSIDE)
    outside.chmod(0o600)
    yield tmp_path
    assert outside.read_bytes() == OUTSIDE
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert outside.stat().st_nlink == 1


@each_kind
@pytest.mark.parametrize('suffix', [READY, CLAIMED, '.tmp', '.eml', ''])
def test_in_a_queue_it_is_left_alone_and_the_others_go_on(
    home: Path, make: Callable[[Path], None], suffix: str
) -> None:
    spool = Spool(home / 'spool', 'lazy')
    queue = spool['in']
    make(home / 'spool' / 'in' / (NAME + suffix))
    queue.enqueue('a')
    queue.recover_backup_files()
    taken = queue.take()
    assert taken is not None
    assert taken.msg == 'a'
    queue.finish(taken.filebase)
    assert queue.take() is None
    assert os.path.lexists(home / 'spool' / 'in' / (NAME + suffix))


@each_kind
def test_asking_for_it_by_name_says_that_it_is_foreign(home: Path, make: Callable[[Path], None]) -> None:
    queue = Spool(home / 'spool', 'lazy')['in']
    make(home / 'spool' / 'in' / (NAME + READY))
    with pytest.raises(ForeignFileError):
        queue.dequeue(NAME)
    with pytest.raises(ForeignFileError):
        queue.finish(NAME)


@each_kind
def test_among_the_spares_it_is_never_written_to(home: Path, make: Callable[[Path], None]) -> None:
    spool = Spool(home / 'spool', 'lazy')
    for number in range(3):
        make(home / 'spool' / '.spare' / f'{number}')
    filebases = spool['in'].enqueue_many(['a', 'b', 'c'])
    assert [spool['in'].dequeue(filebase)[0] for filebase in filebases] == ['a', 'b', 'c']
    spool.pool.empty()


@each_kind
@pytest.mark.parametrize('name', ['x:commit', 'x:0:in:' + NAME, 'x:0:..:' + NAME, 'x', 'x:0:a:b:c'])
def test_in_the_stage_it_keeps_no_hand_off_from_being_finished(
    home: Path, make: Callable[[Path], None], name: str
) -> None:
    spool = Spool(home / 'spool', 'lazy')
    make(home / 'spool' / '.stage' / name)
    (home / 'spool' / '.stage' / 'y:commit').touch()
    spool['out']
    staged = spool['in'].prepare('a', {})
    os.rename(
        home / 'spool' / '.spare' / staged.draft.name,
        home / 'spool' / '.stage' / f'y:0:out:{staged.filebase}',
    )
    os.close(staged.draft.fd)
    spool.recover()
    assert spool['out'].files == [staged.filebase]
    assert sorted(os.listdir(home)) == ['outside', 'spool']


@each_kind
def test_in_the_bad_queue_it_is_in_nobodys_way(home: Path, make: Callable[[Path], None]) -> None:
    spool = Spool(home / 'spool', 'lazy')
    spool['bad']
    make(home / 'spool' / 'bad' / (NAME + PRESERVED))
    filebase = spool['in'].enqueue('a')
    spool['in'].finish(filebase, preserve=True)
    assert filebase in spool['bad'].get_files(PRESERVED)


def use_all_of(spool_directory: Path) -> None:
    """Put a message in once, take it in strict order, and hand it on to two queues."""
    spool = Spool(spool_directory)
    queue = spool.queue('in', max_messages=1000, strict_order=True)
    queue.enqueue('a message', dedupe_key=os.urandom(8).hex(), order_key='key')
    taken = queue.take()
    if taken is None:
        return
    transaction = spool.transaction(queue, taken.filebase)
    transaction.emit(spool['out'], 'on', {})
    transaction.emit(spool['more'], 'on', {})
    transaction.commit()
    spool.recover()


@pytest.mark.parametrize('name', ['.spare', '.stage', '.run', '.run/room', '.run/order', '.dedupe@in'])
def test_a_link_in_the_place_of_a_directory_of_ours_leads_nowhere(home: Path, name: str) -> None:
    """What lies where a member of the spool's group has let it lead would be written again, as spares are."""
    use_all_of(home / 'spool')
    others = home / 'others'
    others.mkdir()
    letters = [others / f'letter{number:02}' for number in range(20)]
    for letter in letters:
        letter.write_bytes(OUTSIDE)
    place = home / 'spool' / name
    place.rename(home / 'moved')
    place.symlink_to(others)
    with suppress(QueueError, OSError):  # it may refuse
        use_all_of(home / 'spool')
    assert sorted(others.iterdir()) == letters
    assert {letter.read_bytes() for letter in letters} == {OUTSIDE}


@pytest.mark.skipif(os.geteuid() != 0, reason='only root makes links of another user')
@pytest.mark.parametrize('name', ['in', 'out', 'bad'])
@pytest.mark.parametrize(('owner', 'is_followed'), [(0, True), (12345, False)])
def test_a_link_in_the_place_of_a_queue_counts_if_its_owner_does(
    home: Path, name: str, owner: int, is_followed: bool
) -> None:
    """A member of the group may put one there, but not have root, or the master, write where it leads."""
    use_all_of(home / 'spool')
    others = home / 'others'
    others.mkdir()
    place = home / 'spool' / name
    if place.exists():
        place.rename(home / 'moved')
    place.symlink_to(others)
    os.lchown(place, owner, owner)
    os.chown(home / 'spool', 12345, 12345)  # for root, the owner's word is not enough
    with suppress(QueueError, OSError):
        queue = Spool(home / 'spool', 'lazy')['out' if name == 'out' else 'in']
        filebase = queue.enqueue('x')
        if name == 'bad':
            queue.dequeue(filebase)
            queue.finish(filebase, preserve=True)
    assert bool(list(others.iterdir())) is is_followed


@pytest.mark.skipif(os.geteuid() != 0, reason='only root makes links of another user')
def test_a_member_follows_the_link_of_the_owner_of_the_directory_and_of_no_stranger(home: Path) -> None:
    class OfAMember(Disk):
        geteuid = staticmethod(lambda: 54321)

    spool, others = home / 'spool', home / 'others'
    spool.mkdir()
    others.mkdir()
    os.chown(spool, 12345, 12345)
    for owner, is_followed in ((0, True), (12345, True), (54321, True), (777, False)):
        (spool / 'in').symlink_to('../others')
        os.lchown(spool / 'in', owner, owner)
        folder = Folder(spool / 'in', OfAMember())
        if is_followed:
            folder.open()
        else:
            with pytest.raises(OSError, match='a link of the user 777'):
                folder.open()
        (spool / 'in').unlink()
    (spool / 'in').symlink_to('in')
    with pytest.raises(OSError, match='Too many levels'):
        Folder(spool / 'in', OfAMember()).open()


def test_a_staged_name_leads_out_of_no_directory(home: Path) -> None:
    spool = Spool(home / 'spool', 'lazy')
    stage = home / 'spool' / '.stage'
    for queue in ('..', '.', ''):
        (stage / f'x:0:{queue}:{NAME}').write_bytes(b'escape')
    (stage / 'x:commit').touch()
    spool.recover()
    assert list(home.rglob(f'*{NAME}{READY}')) == []


@pytest.mark.parametrize('suffix', [READY, CLAIMED])
@pytest.mark.parametrize(
    'start',
    [b'', b'switchboard/1 text 2 999999999999 ' + NAME[13:].encode() + b' 00000000\n{}'],
    ids=['', 'header'],
)
def test_a_file_of_a_terabyte_that_takes_no_place_takes_no_memory_either(
    home: Path, suffix: str, start: bytes
) -> None:
    spool = Spool(home / 'spool', 'lazy')
    queue = spool['in']
    path = home / 'spool' / 'in' / (NAME + suffix)
    with path.open('wb') as file:
        file.write(start)
        try:
            file.truncate(2**40)
        except OSError:
            pytest.skip('no such large files here')
    if suffix == READY:
        with pytest.raises(CorruptEntryError):
            queue.dequeue(NAME)
    else:
        queue.recover_backup_files()
        assert queue.take() is None
    assert spool['bad'].get_files(PRESERVED) == [NAME]
    assert spool['bad'].history(NAME)[-1]['cause'] == 'corrupt'
    assert (home / 'spool' / 'bad' / (NAME + PRESERVED)).stat().st_size > 2**40


# Links and other users' files.


def test_a_file_with_a_second_name_is_never_written_again(home: Path) -> None:
    spool = Spool(home / 'spool', 'lazy')
    queue = spool['in']
    filebase = queue.enqueue('a backup by hard links must not change')
    backup = home / 'backup'
    os.link(home / 'spool' / 'in' / (filebase + READY), backup)
    content = backup.read_bytes()
    queue.finish(filebase)
    for number in range(3):
        queue.enqueue(f'{number}' * 100)
    assert backup.read_bytes() == content


def test_a_file_that_others_may_read_is_private_before_a_message_is_written_into_it(home: Path) -> None:
    spool = Spool(home / 'spool', 'lazy')
    queue = spool['in']
    filebase = queue.enqueue('dropped by a script with a careless umask')
    path = home / 'spool' / 'in' / (filebase + READY)
    path.chmod(0o666)
    queue.finish(filebase)
    queue.enqueue('private')
    modes = {stat.S_IMODE(file.stat().st_mode) for file in (home / 'spool' / 'in').iterdir()}
    assert modes == {FILE_MODE}


def test_what_another_user_dropped_is_not_written_again_after_a_hand_off(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip('only root can make a file of another user')
    spool = Spool(home / 'spool', 'lazy')
    queue = spool['in']
    filebase = queue.enqueue('theirs')
    path = home / 'spool' / 'in' / (filebase + READY)
    os.chown(path, 65534, -1)
    with path.open('rb+') as still_open:
        queue.dequeue(filebase)
        transaction = spool.transaction(queue, filebase)
        transaction.emit(spool['out'], 'ours', {})
        transaction.commit()
        for number in range(3):
            spool['out'].enqueue(f'secret {number}')
        assert b'secret' not in still_open.read()


@pytest.mark.parametrize('umask', [0o000, 0o022, 0o077, 0o177])
def test_directories_are_0770_and_files_0660_whatever_the_umask_says(home: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        spool = Spool(home / 'spool', 'lazy')
        spool['in'].enqueue('a')
        spool['in'].finish(spool['in'].enqueue('b'), preserve=True)
    finally:
        os.umask(before)
    for path in (home / 'spool').rglob('*'):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o770 if path.is_dir() else 0o660), path
