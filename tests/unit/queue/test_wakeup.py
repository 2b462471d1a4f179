"""What an idle runner sleeps on: it wakes for what it should, and hears nothing while it works."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard import Spool, Switchboard
from switchboard.message.naming import NS_PER_S, Slice, format_when
from switchboard.queue import wakeup as wakeup_module
from switchboard.queue.wakeup import MAX_CLOSED, Wakeup
from switchboard.testing import FakeClock
from tests.helpers.descriptors import Opened

LONG_S, NOT_AT_ALL_S = 30.0, 0.0


@pytest.fixture
def wakeup(tmp_path: Path) -> Iterator[Wakeup]:
    made = Wakeup(str(tmp_path))
    yield made
    made.close()


def rename_into(path: Path) -> None:
    (path.parent / 'elsewhere').touch()
    (path.parent / 'elsewhere').rename(path / 'name')


class TestEvents:
    def test_a_new_name_wakes(self, wakeup: Wakeup, tmp_path: Path) -> None:
        wakeup.arm()
        assert wakeup.is_watching
        rename_into(tmp_path)
        assert wakeup.wait(LONG_S)

    def test_a_file_that_was_written_wakes_when_it_is_closed_and_not_before(
        self, wakeup: Wakeup, tmp_path: Path
    ) -> None:
        wakeup.arm()
        with (tmp_path / 'mail.eml').open('w') as file:
            file.write('x')
            file.flush()
            assert not wakeup.wait(NOT_AT_ALL_S)
        assert wakeup.wait(LONG_S)

    def test_what_goes_does_not_wake(self, wakeup: Wakeup, tmp_path: Path) -> None:
        (tmp_path / 'name').touch()
        wakeup.arm()
        (tmp_path / 'name').unlink()
        assert not wakeup.wait(NOT_AT_ALL_S)

    def test_while_it_is_not_armed_nothing_is_heard(self, wakeup: Wakeup, tmp_path: Path) -> None:
        rename_into(tmp_path)
        assert not wakeup.is_watching
        assert not wakeup.wait(NOT_AT_ALL_S)
        wakeup.arm()
        rename_into(tmp_path)
        wakeup.disarm()
        assert not wakeup.wait(NOT_AT_ALL_S)

    def test_it_can_be_armed_again_and_again(self, wakeup: Wakeup, tmp_path: Path) -> None:
        for _ in range(3):
            wakeup.arm()
            wakeup.arm()
            rename_into(tmp_path)
            assert wakeup.wait(LONG_S)
            wakeup.disarm()
            wakeup.disarm()

    def test_a_directory_that_is_gone_leaves_the_timer(self, tmp_path: Path) -> None:
        (tmp_path / 'in').mkdir()
        wakeup = Wakeup(str(tmp_path / 'in'))
        (tmp_path / 'in').rmdir()
        wakeup.arm()
        assert not wakeup.is_watching
        assert not wakeup.wait(NOT_AT_ALL_S)
        wakeup.disarm()

    def test_a_link_made_in_a_maildir_wakes(self, tmp_path: Path) -> None:
        for name in ('in', 'new'):
            (tmp_path / name).mkdir()
        (tmp_path / 'file').touch()
        wakeup = Wakeup(str(tmp_path / 'in'), str(tmp_path / 'new'))
        wakeup.arm()
        assert wakeup.is_watching
        os.link(tmp_path / 'file', tmp_path / 'new' / 'mail')
        assert wakeup.wait(LONG_S)


class TestWords:
    def test_a_word_wakes_once(self, wakeup: Wakeup) -> None:
        wakeup.wake()
        wakeup.wake()
        assert wakeup.wait(LONG_S)
        assert not wakeup.wait(NOT_AT_ALL_S)

    def test_a_word_that_came_before_the_sleep_ends_it(self, wakeup: Wakeup) -> None:
        wakeup.wake()
        wakeup.arm()
        assert wakeup.wait(LONG_S)

    def test_more_words_than_the_pipe_holds_do_not_block(self, wakeup: Wakeup) -> None:
        for _ in range(70_000):
            wakeup.wake()
        assert wakeup.wait(NOT_AT_ALL_S)

    def test_a_signal_handler_may_say_it(self, wakeup: Wakeup) -> None:
        before = signal.signal(signal.SIGUSR1, lambda *_: wakeup.wake())
        try:
            threading.Timer(0, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert wakeup.wait(LONG_S)
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_without_a_directory_there_are_words_only(self) -> None:
        wakeup = Wakeup()
        wakeup.arm()
        assert not wakeup.is_watching
        wakeup.wake()
        assert wakeup.wait(None)


class TestDescriptors:
    def test_an_event_loop_may_watch_them_in_its_place(self, wakeup: Wakeup, tmp_path: Path) -> None:
        import select

        poll = select.poll()
        for descriptor in wakeup.descriptors():
            poll.register(descriptor, select.POLLIN)
        assert poll.poll(0) == []
        wakeup.arm()
        rename_into(tmp_path)
        assert len(poll.poll(LONG_S * 1000)) == 1
        wakeup.wake()
        assert len(poll.poll(LONG_S * 1000)) == 2
        wakeup.wait(0)
        wakeup.disarm()
        assert poll.poll(0) == []

    def test_they_are_given_back(self, tmp_path: Path) -> None:
        opened = Opened()
        wakeup = Wakeup(str(tmp_path))
        assert opened()
        wakeup.close()
        wakeup.close()
        assert opened() == []
        del wakeup


class TestEntriesThatAreBeingFlushed:
    """Seen by the rename, and to be had when the producer lets go."""

    NAME = f'{format_when(NS_PER_S)}+{"0" * 40}'

    def come(self, path: Path) -> int:
        """:return: the producer's descriptor."""
        draft = path.parent / 'draft'
        fd = os.open(draft, os.O_RDWR | os.O_CREAT)
        draft.rename(path / f'{self.NAME}.pck')
        return fd

    def test_it_wakes_when_the_producer_lets_go(
        self, wakeup: Wakeup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wakeup_module, 'HELD_S', LONG_S)
        wakeup.arm()
        fd = self.come(tmp_path)
        threading.Timer(0.001, os.close, (fd,)).start()
        assert wakeup.wait(LONG_S)
        assert wakeup.closed_entries() == [self.NAME]
        assert wakeup.closed_entries() == []

    def test_a_word_is_heard_meanwhile(
        self, wakeup: Wakeup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wakeup_module, 'HELD_S', LONG_S)
        wakeup.arm()
        fd = self.come(tmp_path)
        wakeup.wake()
        assert wakeup.wait(LONG_S)
        os.close(fd)

    @pytest.mark.parametrize('timeout_s', [NOT_AT_ALL_S, LONG_S, None])
    def test_it_is_waited_for_a_moment_and_no_longer(
        self, wakeup: Wakeup, tmp_path: Path, timeout_s: float | None
    ) -> None:
        wakeup.arm()
        fd = self.come(tmp_path)
        assert wakeup.wait(timeout_s)
        assert wakeup.closed_entries() == []
        assert not wakeup.wait(NOT_AT_ALL_S)
        os.close(fd)
        assert wakeup.wait(LONG_S)

    def test_who_listens_in_pieces_as_an_event_loop_does_learns_of_it_too(
        self, wakeup: Wakeup, tmp_path: Path
    ) -> None:
        wakeup.arm()
        os.close(self.come(tmp_path))
        assert wakeup.wait(NOT_AT_ALL_S)
        wakeup.wait(NOT_AT_ALL_S)
        assert wakeup.closed_entries() == [self.NAME]

    def test_of_those_that_nobody_asks_for_the_last_ones_are_kept(
        self, wakeup: Wakeup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = [f'{format_when(second * NS_PER_S)}+{"0" * 40}' for second in range(MAX_CLOSED + 1)]
        wakeup.arm()
        for name in names:
            (tmp_path / f'{name}.pck').touch()
        assert wakeup.wait(LONG_S)
        assert wakeup.closed_entries() == names[1:]

    def test_who_came_too_early_tries_again_at_once(self, tmp_path: Path) -> None:
        queue = Switchboard('in', tmp_path / 'in', clock=FakeClock())
        sleeper = queue.make_wakeup()
        filebase = queue.enqueue('a')
        path = tmp_path / 'in' / f'{filebase}.pck'
        producer, latecomer = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
        fcntl.flock(producer, fcntl.LOCK_EX)
        assert queue.take() is None
        sleeper.arm()
        # One that had opened the file as a spare lets go of it as well, and nobody looks in a circle for that.
        os.close(latecomer)
        assert sleeper.wait(LONG_S)
        assert queue.take() is None
        assert not queue.has_ready()
        os.close(producer)
        assert sleeper.wait(LONG_S)
        taken = queue.take()
        assert taken is not None
        assert taken.filebase == filebase
        sleeper.close()


class TestSlices:
    """The kernel wakes everybody; the name says whose it is."""

    MINE, OTHER = f'{format_when(NS_PER_S)}+{"0" * 40}', f'{format_when(NS_PER_S)}+{"f" * 40}'

    @pytest.fixture
    def first(self, tmp_path: Path) -> Iterator[Wakeup]:
        made = Wakeup(str(tmp_path), slice_=Slice(0, 2))
        made.arm()
        yield made
        made.close()

    def come(self, path: Path, name: str) -> None:
        (path.parent / name).touch()
        (path.parent / name).rename(path / name)

    @pytest.mark.parametrize('suffix', ['.pck', '.bak'])
    def test_an_entry_of_another_slice_wakes_nobody(self, first: Wakeup, tmp_path: Path, suffix: str) -> None:
        self.come(tmp_path, self.OTHER + suffix)
        assert not first.wait(NOT_AT_ALL_S)

    def test_an_entry_of_its_own_does(self, first: Wakeup, tmp_path: Path) -> None:
        self.come(tmp_path, self.MINE + '.pck')
        assert first.wait(LONG_S)

    def test_a_claim_of_somebody_else_does_not(self, first: Wakeup, tmp_path: Path) -> None:
        self.come(tmp_path, self.MINE + '.bak')
        assert not first.wait(NOT_AT_ALL_S)

    @pytest.mark.parametrize('name', ['mail.eml', '.wake', 'foreign.pck'])
    def test_what_is_no_entry_is_everybodys(self, first: Wakeup, tmp_path: Path, name: str) -> None:
        self.come(tmp_path, name)
        assert first.wait(LONG_S)

    @pytest.mark.parametrize('number', [1, 2, 500, 1500])
    @pytest.mark.parametrize(
        ('name', 'wakes'),
        [
            ('', False),
            (f'{MINE}.pck', True),
            (f'{MINE}+p3.pck', True),
            (f'{MINE}.bak', False),
            ('foreign.pck', True),
        ],
    )
    def test_one_among_many_of_other_slices_is_heard(
        self, first: Wakeup, tmp_path: Path, number: int, name: str, wakes: bool
    ) -> None:
        others = [f'{format_when(NS_PER_S + n)}+f{n:039x}.{"pck" if n % 3 else "bak"}' for n in range(number)]
        places = {0, number // 2, number} if name else {-1}
        for place in places:
            for turn, other in enumerate([*others, '']):
                if turn == place:
                    self.come(tmp_path, name)
                if other:
                    self.come(tmp_path, other)
            assert first.wait(NOT_AT_ALL_S) == wakes
            assert not first.wait(NOT_AT_ALL_S)

    def test_a_directory_that_went_away_among_many_entries_of_other_slices_is_heard_of(
        self, first: Wakeup, tmp_path: Path
    ) -> None:
        self.come(tmp_path, self.OTHER + '.pck')
        self.come(tmp_path, self.OTHER + '.bak')
        tmp_path.chmod(0o750)
        self.come(tmp_path, self.OTHER + '+p1.pck')
        assert first.wait(LONG_S)

    def test_what_comes_after_it_was_woken_in_vain_wakes_all_the_same(
        self, first: Wakeup, tmp_path: Path
    ) -> None:
        self.come(tmp_path, self.OTHER + '.pck')
        threading.Timer(0.001, self.come, (tmp_path, self.MINE + '.pck')).start()
        assert first.wait(LONG_S)

    def test_a_word_is_heard_while_it_does_not_listen(self, first: Wakeup, tmp_path: Path) -> None:
        self.come(tmp_path, self.OTHER + '.pck')
        threading.Timer(0.001, first.wake).start()
        assert first.wait(LONG_S)


def test_a_runner_of_another_slice_does_not_look_at_the_directory(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    slices = [spool.queue('in', index, 4) for index in range(4)]
    wakeups = [queue.make_wakeup() for queue in slices]
    for queue, wakeup in zip(slices, wakeups, strict=True):
        wakeup.arm()
        assert not queue.has_ready()
    filebase = spool['in'].enqueue('a')
    woken = [wakeup.wait(NOT_AT_ALL_S) for wakeup in wakeups]
    assert woken == [queue.slice.contains(filebase) for queue in slices]
    for wakeup in wakeups:
        wakeup.close()
    spool.close()
