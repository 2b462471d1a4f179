"""What sleeps: a pipe to oneself, and a watch on directories."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from inotify_simple import INotify

from switchboard.queue import watch as watch_module
from switchboard.queue.watch import (
    ARRIVALS,
    CLOSED,
    CREATIONS,
    IGNORED,
    RENAMES,
    DirectoryWatch,
    SelfPipe,
    arrival_matcher,
    wait_readable,
)
from tests.helpers.descriptors import Opened
from tests.helpers.processes import in_child, is_asleep
from tests.helpers.waiting import eventually

LONG_S = 60
NUMBERS = 'CLOSE_WRITE MOVED_FROM MOVED_TO CREATE DELETE MOVE_SELF UNMOUNT Q_OVERFLOW IGNORED ONLYDIR'.split()


@pytest.fixture
def watch():
    watch = DirectoryWatch()
    yield watch
    watch.close()


class TestSelfPipe:
    def test_is_readable_until_it_is_emptied(self):
        pipe = SelfPipe()
        assert wait_readable([pipe.fileno()], 0) == []
        pipe.wake()
        pipe.wake()
        assert wait_readable([pipe.fileno()], LONG_S) == [pipe.fileno()]
        assert pipe.empty() == b'!!'
        assert pipe.empty() == b''
        assert wait_readable([pipe.fileno()], 0) == []

    def test_one_call_empties_a_full_one(self):
        pipe = SelfPipe()
        for _ in range(70_000):
            pipe.wake()
        pipe.empty()
        assert wait_readable([pipe.fileno()], 0) == []

    def test_may_be_closed_twice(self):
        pipe = SelfPipe()
        pipe.close()
        pipe.close()
        assert pipe.fileno() == -1


def test_a_signal_that_interrupts_no_sleep_is_heard_in_one_without_an_end():
    def sleep() -> bool:
        pipe, main, is_deaf = SelfPipe(), threading.get_native_id(), threading.Event()

        def interrupt() -> None:
            is_deaf.wait()
            # Its handler runs in this thread, as it runs before a sleep: the kernel wakes nobody.
            eventually(lambda: is_asleep(main), 'asleep')
            os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=interrupt).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            is_deaf.set()
            wait_readable([pipe.fileno()], None)
        except KeyboardInterrupt:
            return True
        return False

    assert in_child(sleep)


def test_the_numbers_are_those_of_the_kernel():
    flags = pytest.importorskip('inotify_simple').flags
    assert {name: getattr(watch_module, f'_{name}') for name in NUMBERS} == {
        name: int(getattr(flags, name)) for name in NUMBERS
    }


class TestDirectoryWatch:
    def test_says_which_name_came_into_which_directory(self, watch, tmp_path: Path):
        for name in ('one', 'other'):
            (tmp_path / name).mkdir()
            assert watch.watch(str(tmp_path / name), ARRIVALS)
        assert not watch.wait(0)
        (tmp_path / 'other' / 'x').touch()
        assert watch.wait(LONG_S)
        assert watch.events() == [(str(tmp_path / 'other'), 'x', CLOSED)]
        assert not watch.wait(0)

    def test_follows_these_and_no_others(self, watch, tmp_path: Path):
        one, other = tmp_path / 'one', tmp_path / 'other'
        one.mkdir()
        other.mkdir()
        assert watch.watch_only({str(one)}, RENAMES)
        assert watch.watch_only({str(other)}, RENAMES)
        os.rename(one, other / 'one')
        assert [event[:2] for event in watch.events()] == [(str(other), 'one')]
        assert watch.watch_only(set(), RENAMES)
        assert watch.watch_number(str(other)) is None

    def test_a_directory_that_is_deleted_and_made_again_can_be_watched_again(self, watch, tmp_path: Path):
        folder = str(tmp_path / 'queue')
        os.mkdir(folder)
        watch.watch(folder, RENAMES)
        number = watch.watch_number(folder)
        os.rmdir(folder)
        assert watch.wait(LONG_S)
        assert [event[2] & IGNORED for event in watch.events()] == [IGNORED]
        os.mkdir(folder)
        assert watch.watch_number(folder) is None
        assert watch.watch(folder, RENAMES)
        assert watch.watch_number(folder) != number

    def test_leaves_out_what_is_dull_if_all_of_it_is(self, watch, tmp_path: Path):
        is_ignorable = arrival_matcher('[a-z]+')
        watch.watch(str(tmp_path), ARRIVALS)
        (tmp_path / 'abc').touch()
        (tmp_path / 'abc').rename(tmp_path / 'abcdefghijklmnopqrstuvwxyz')
        assert watch.events(is_ignorable) == []
        assert not watch.wait(0)
        (tmp_path / 'abc').touch()
        (tmp_path / 'abc1').touch()
        assert [name for _, name, _ in watch.events(is_ignorable)] == ['abc', 'abc1']
        (tmp_path / 'abd').touch()
        tmp_path.chmod(0o750)
        assert [name for _, name, _ in watch.events(is_ignorable)] == ['abd', '']

    def test_a_directory_that_is_not_there_leaves_the_timer(self, watch, tmp_path: Path):
        assert not watch.watch(str(tmp_path / 'none'), RENAMES)
        assert not watch.watch_only({str(tmp_path / 'none')}, RENAMES)

    def test_a_word_wakes_until_it_is_cleared(self, watch):
        watch.clear_wakes()
        watch.wake()
        assert watch.wait(None)
        watch.clear_wakes()
        assert not watch.wait(0)

    def test_opens_nothing_of_inotify_before_the_first_watch(self, watch, tmp_path: Path):
        assert len(watch.descriptors()) == 1
        watch.watch(str(tmp_path), CREATIONS)
        assert len(watch.descriptors()) == 2

    def test_a_closed_one_ends_every_sleep_and_watches_nothing(self, watch, tmp_path: Path):
        watch.close()
        watch.wake()
        watch.clear_wakes()
        assert watch.wait(LONG_S)
        assert not watch.watch(str(tmp_path), RENAMES)


def test_its_descriptor_is_closed_by_the_watch_and_not_by_the_librarys_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a circle of rubbish any object may go first, and a file that goes without having been closed is a warning.
    made = []

    class Made(INotify):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(watch_module, 'load_inotify', lambda: Made)
    for library_goes_first in (False, True):
        opened = Opened()
        watch = DirectoryWatch()
        watch.watch(str(tmp_path), RENAMES)
        assert not made[-1].closefd
        assert opened().count('anon_inode:inotify') == 1
        if library_goes_first:
            made[-1].close()
        watch.__del__()
        assert made[-1].closed
        assert 'anon_inode:inotify' not in opened()
