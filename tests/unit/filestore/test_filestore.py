"""The file store behaves as gocept.filestore's documentation shows: one test an example, and one for each error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from switchboard.filestore import FileStore
from tests.unit.filestore.filestores import put


def test_making_the_object_touches_nothing(tmp_path: Path) -> None:
    directory = tmp_path / 'store'
    directory.mkdir()
    FileStore(str(directory))
    assert os.listdir(directory) == []


def test_prepare_makes_the_three_directories(tmp_path: Path) -> None:
    directory = tmp_path / 'store'
    directory.mkdir()
    FileStore(str(directory)).prepare()
    assert sorted(os.listdir(directory)) == ['cur', 'new', 'tmp']


def test_prepare_again_changes_nothing(store: FileStore) -> None:
    path = put(store, 'kept')
    store.prepare()
    assert sorted(os.listdir(store.path)) == ['cur', 'new', 'tmp']
    assert store.list('new') == [path]


def test_prepare_makes_a_store_that_was_taken_away_again(store: FileStore) -> None:
    put(store, 'used-before')
    shutil.rmtree(store.path)
    store.prepare()
    assert sorted(os.listdir(store.path)) == ['cur', 'new', 'tmp']
    assert put(store, 'used-again') in store.list('new')


def test_create_opens_a_file_in_tmp_for_writing_text(store: FileStore) -> None:
    with store.create('a-file') as file:
        assert file.name == os.path.join(store.path, 'tmp', 'a-file')
        assert file.mode == 'w'


def test_list_gives_full_paths_that_can_be_opened(store: FileStore) -> None:
    with store.create('a-file') as file:
        file.write('words')
    (path,) = store.list('tmp')
    assert path == os.path.join(store.path, 'tmp', 'a-file')
    assert Path(path).read_text() == 'words'


def test_a_file_goes_from_tmp_to_new_to_cur_and_is_in_one_at_a_time(store: FileStore) -> None:
    put(store, 'a-file', directory='tmp')
    store.move('a-file', 'tmp', 'new')
    assert store.list('tmp') == []
    assert store.list('new') == [os.path.join(store.path, 'new', 'a-file')]
    store.move('a-file', 'new', 'cur')
    assert store.list('new') == []
    assert store.list('cur') == [os.path.join(store.path, 'cur', 'a-file')]


def test_a_copy_leaves_the_first_file_where_it_is(store: FileStore) -> None:
    put(store, 'a-file', 'words', directory='cur')
    store.copy('a-file', 'cur', 'tmp')
    assert store.list('cur') == [os.path.join(store.path, 'cur', 'a-file')]
    assert store.list('tmp') == [os.path.join(store.path, 'tmp', 'a-file')]
    assert Path(store.list('tmp')[0]).read_text() == 'words'


def test_a_removed_file_is_gone(store: FileStore) -> None:
    put(store, 'a-file', directory='cur')
    store.remove('a-file', 'cur')
    assert store.list('cur') == []


def test_paths_as_list_gives_them_are_taken_for_names(store: FileStore) -> None:
    path = put(store, 'a-file')
    store.copy(path, 'new', 'tmp')
    store.move(path, 'new', 'cur')
    store.remove(os.path.join(store.path, 'cur', 'a-file'), 'cur')
    assert [store.list(directory) for directory in ('new', 'cur')] == [[], []]
    assert len(store.list('tmp')) == 1


def test_creating_a_name_again_empties_the_file_and_appending_does_not(store: FileStore) -> None:
    put(store, 'a-file', 'first', directory='tmp')
    with store.create('a-file', 'a') as file:
        file.write(' and more')
    assert Path(store.list('tmp')[0]).read_text() == 'first and more'
    store.create('a-file').close()
    assert Path(store.list('tmp')[0]).read_text() == ''


def test_create_takes_any_mode_of_open(store: FileStore) -> None:
    with store.create('a-file', 'xb') as file:
        file.write(b'\0\xff')
    assert Path(store.list('tmp')[0]).read_bytes() == b'\0\xff'
    with pytest.raises(FileExistsError):
        store.create('a-file', 'x')


def test_a_move_replaces_a_file_of_that_name(store: FileStore) -> None:
    put(store, 'a-file', 'old')
    put(store, 'a-file', 'new')
    assert Path(store.list('new')[0]).read_text() == 'new'


@pytest.mark.parametrize('verb', ['move', 'copy', 'remove'])
def test_a_file_that_is_not_there_is_an_error(store: FileStore, verb: str) -> None:
    places = ('new',) if verb == 'remove' else ('new', 'cur')
    with pytest.raises(FileNotFoundError):
        getattr(store, verb)('no-such-file', *places)
    assert os.listdir(os.path.join(store.path, 'tmp')) == []


def test_a_store_that_was_not_prepared_is_an_error(tmp_path: Path) -> None:
    store = FileStore(tmp_path / 'store')
    with pytest.raises(FileNotFoundError):
        store.create('a-file')
    with pytest.raises(FileNotFoundError):
        store.list('new')


def test_a_file_cannot_be_copied_to_itself(store: FileStore) -> None:
    path = put(store, 'a-file', 'words')
    with pytest.raises(FileExistsError):
        store.copy('a-file', 'new', 'new')
    assert Path(path).read_text() == 'words'
