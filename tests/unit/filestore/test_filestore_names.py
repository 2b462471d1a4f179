"""What the file store does better than its model: order, names that are sure, names that are unique, foreign files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from zope.interface.verify import verifyObject

from switchboard.clock import Clock
from switchboard.filestore import FileStore
from switchboard.interfaces import IFileStore
from tests.unit.filestore.filestores import put


class StoppedClock(Clock):
    """Tells the time that it is told."""

    now_ns = 1_700_000_000_000_000_000

    def time_ns(self) -> int:
        return self.now_ns


def test_list_is_sorted_by_name(store: FileStore) -> None:
    names = ['10', '9', 'b', 'a', 'C', 'é']
    for name in names:
        put(store, name)
    assert [os.path.basename(path) for path in store.list('new')] == sorted(names)


def test_list_shows_regular_files_only(store: FileStore) -> None:
    path = Path(put(store, 'a-file'))
    os.mkfifo(path.with_name('fifo'))
    path.with_name('directory').mkdir()
    path.with_name('symlink').symlink_to(path)
    path.with_name('.unfinished').touch()
    assert store.list('new') == [str(path)]


@pytest.mark.parametrize('name', ['', '.', '..', '.hidden', 'a/b', '/etc/passwd', '../new/a', 'a\0b', 'a/'])
def test_create_refuses_what_is_no_plain_name(store: FileStore, name: str) -> None:
    with pytest.raises(ValueError, match='plain file name'):
        store.create(name)


@pytest.mark.parametrize('name', ['', '.', '..', 'a/..', 'new/', 'new/.hidden', 'a\0b'])
@pytest.mark.parametrize('verb', ['move', 'copy', 'remove'])
def test_a_path_without_a_plain_name_at_its_end_is_refused(store: FileStore, verb: str, name: str) -> None:
    places = ('new',) if verb == 'remove' else ('new', 'cur')
    with pytest.raises(ValueError, match='plain file name'):
        getattr(store, verb)(name, *places)


def test_a_path_that_leads_elsewhere_means_the_name_at_its_end(store: FileStore, tmp_path: Path) -> None:
    outside = tmp_path / 'outside'
    outside.touch()
    with pytest.raises(FileNotFoundError):
        store.remove(str(outside), 'new')
    assert outside.exists()


@pytest.mark.parametrize('directory', ['', '.', '..', 'old', '../store/new', 'new/'])
def test_only_three_directories_are_known(store: FileStore, directory: str) -> None:
    put(store, 'a-file')
    for call in (
        lambda: store.list(directory),
        lambda: store.move('a-file', directory, 'cur'),
        lambda: store.move('a-file', 'new', directory),
        lambda: store.copy('a-file', 'new', directory),
        lambda: store.remove('a-file', directory),
    ):
        with pytest.raises(FileNotFoundError, match='no such directory'):
            call()
    assert len(store.list('new')) == 1


def test_directories_above_the_store_are_made_too(tmp_path: Path) -> None:
    FileStore(tmp_path / 'deep' / 'down').prepare()
    assert (tmp_path / 'deep' / 'down' / 'cur').is_dir()


@pytest.mark.parametrize('taken', ['store', 'store/new'])
def test_prepare_says_that_a_name_is_taken_by_a_file(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).touch()
    with pytest.raises(NotADirectoryError):
        FileStore(tmp_path / 'store').prepare()


@pytest.mark.parametrize('umask', [0o022, 0o077, 0o007])
def test_the_umask_says_who_may_read_as_for_every_file_that_a_program_makes(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        store = FileStore(tmp_path / 'deep' / 'store')
        store.prepare()
        file = Path(put(store, 'a-file'))
        store.copy('a-file', 'new', 'cur')
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert Path(store.path, 'cur', 'a-file').stat().st_mode & 0o777 == 0o666 & ~umask
    for directory in (store.path, *(os.path.join(store.path, name) for name in store.sub_dirs)):
        assert os.stat(directory).st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_a_shared_store_is_the_groups_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = FileStore(tmp_path / 'store', shared=True)
        store.prepare()
    finally:
        os.umask(before)
    assert Path(store.path, 'new').stat().st_mode & 0o777 == 0o770


def test_it_has_the_calls_of_its_model_by_the_same_names(store: FileStore) -> None:
    assert verifyObject(IFileStore, store)
    assert store.sub_dirs == ('tmp', 'new', 'cur')
    put(store, 'a-file')
    store.move(filename='a-file', source='new', destination='cur')
    store.remove(filename='a-file', source='cur')
    assert store.list(section='cur') == []


class WithFailures(FileStore):
    sub_dirs = (*FileStore.sub_dirs, 'failed')


def test_a_subclass_may_have_more_directories(tmp_path: Path) -> None:
    store = WithFailures(tmp_path / 'store')
    store.prepare()
    put(store, 'a-file')
    store.move('a-file', 'new', 'failed')
    assert store.list('failed') == [f'{store.path}/failed/a-file']
    with pytest.raises(FileNotFoundError, match='failed'):
        store.list('nowhere')


def test_text_is_utf_8_unless_another_encoding_is_asked_for(store: FileStore) -> None:
    with store.create('a') as first, store.create('b', encoding='latin-1') as second:
        first.write('ü')
        second.write('ü')
    assert [Path(path).read_bytes() for path in store.list('tmp')] == [b'\xc3\xbc', b'\xfc']


def test_unique_names_sort_in_the_order_of_creation_whatever_the_clock_does(tmp_path: Path) -> None:
    clock = StoppedClock()
    store = FileStore(tmp_path, clock=clock)
    store.prepare()
    made = []
    for turn in range(20):
        clock.now_ns -= 3_600_000_000_000 * (turn == 10)
        with store.create() as file:
            made.append(file.name)
    assert store.list('tmp') == made
    assert len(set(made)) == 20


def test_threads_never_get_the_same_unique_name(store: FileStore) -> None:
    def create_some() -> None:
        for _ in range(20):
            store.create().close()

    threads = [threading.Thread(target=create_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list('tmp')) == 80


def test_two_stores_in_one_process_never_make_the_same_unique_name(tmp_path: Path) -> None:
    stores = [FileStore(tmp_path, clock=StoppedClock()) for _ in range(2)]
    stores[0].prepare()
    for store in stores:
        store.create().close()
    assert len(stores[0].list('tmp')) == 2


def test_a_unique_file_is_moved_by_the_name_of_its_object(store: FileStore) -> None:
    with store.create(mode='wb') as file:
        file.write(b'words')
    store.move(file.name, 'tmp', 'new')
    assert [os.path.basename(path) for path in store.list('new')] == [os.path.basename(file.name)]
