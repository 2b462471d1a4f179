"""Entries that are larger than there is memory for, or say that they are: they are counted, and end in the bad queue."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from switchboard import Switchboard
from switchboard.errors import CorruptEntryError, MessageTooLargeError
from switchboard.message.entry_header import pack_header
from switchboard.message.journal import MAX_JOURNAL_BYTES
from switchboard.message.metadata import FIXED_METADATA
from switchboard.message.naming import digest_of
from switchboard.message.serializers import LARGE_CHARACTERS, EncodedBody
from switchboard.options import QueueOptions
from switchboard.store.reading import peek
from tests.helpers.processes import in_new_program
from tests.unit.queue.test_recovery import die_with

# Each of them writes, reads and compares tens of megabytes.
pytestmark = pytest.mark.slow

LAZY = QueueOptions(durability='lazy')
MIB = 1024 * 1024


def make_sparse(queue: Switchboard, size: int, suffix: str = '.pck') -> str:
    """Leave a file of a few kilobytes whose header says more."""
    filebase = queue.enqueue(b'')
    path = Path(queue.queue_directory) / f'{filebase}.pck'
    header = pack_header('bytes', 2, size, digest_of(filebase), 0)
    with path.open('r+b') as stream:
        stream.write(header + b'{}' + b'x' * 8192)
        stream.truncate(len(header) + 2 + size)
    path.rename(path.with_suffix(suffix))
    return filebase


def with_little_memory(method: str, queue: Switchboard) -> Any:
    """Use a queue in a program that has room for no large entry."""
    return in_new_program(_limited, method, queue.name, queue.queue_directory)


def _limited(method: str, name: str, directory: str) -> Any:
    queue = Switchboard(name, directory, options=LAZY)
    with open('/proc/self/statm', encoding='ascii') as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 24 * MIB,) * 2)
    if method == 'recover':
        return queue.recover()
    return [one.msg for one in iter(queue.take, None)]


@pytest.mark.parametrize('size', [17 * MIB, 2 * 1024 * MIB])
class TestSparseFiles:
    def test_one_that_is_ready_goes_to_bad_and_the_next_is_taken(
        self, tmp_path: Path, queue: Switchboard, size: int
    ) -> None:
        hollow = make_sparse(queue, size)
        queue.enqueue('next')
        assert [one.msg for one in iter(queue.take, None)] == ['next']
        assert [path.stem for path in (tmp_path / 'bad').iterdir()] == [hollow]

    def test_one_that_is_claimed_is_recovered_without_being_read(self, queue: Switchboard, size: int) -> None:
        hollow = make_sparse(queue, size, '.bak')
        assert with_little_memory('recover', queue) == [hollow]
        assert queue.history(hollow)[-1]['event'] == 'recovered'


class TestHonestOnes:
    def test_deaths_are_counted_by_a_process_that_could_not_read_them(
        self, tmp_path: Path, queue: Switchboard
    ) -> None:
        large = queue.enqueue(b'x' * 40 * MIB)
        for death in range(3):
            die_with(queue, large)
            assert with_little_memory('recover', queue) == ([large] if death < 2 else [])
        [path] = (tmp_path / 'bad').iterdir()
        assert path.stem == large

    def test_one_that_does_not_fit_into_memory_goes_to_bad_and_the_next_is_taken(
        self, tmp_path: Path, queue: Switchboard
    ) -> None:
        queue.enqueue(b'x' * 40 * MIB)
        queue.enqueue('next')

        assert with_little_memory('take', queue) == ['next']
        assert len(list((tmp_path / 'bad').iterdir())) == 1


class TestTheQueuesLimit:
    def test_it_holds_for_what_was_put_there_otherwise(self, tmp_path: Path, queue: Switchboard) -> None:
        large, small = queue.enqueue(b'x' * 101), queue.enqueue(b'x' * 100)
        options = QueueOptions(durability='lazy', max_body_bytes=100)
        strict = Switchboard('in', tmp_path / 'in', options=options)
        assert [one.filebase for one in iter(strict.take, None)] == [small]
        assert [path.stem for path in (tmp_path / 'bad').iterdir()] == [large]
        with pytest.raises(MessageTooLargeError):
            strict.dequeue(queue.enqueue(b'x' * 101))


class TestLongHistories:
    def test_nothing_is_lost_of_one_that_is_longer_than_is_read(self, queue: Switchboard) -> None:
        filebase = queue.enqueue(b'x' * 12 * MIB)
        queue.dequeue(filebase)
        for number in range(10):
            queue.annotate(filebase, {'event': 'noted', 'number': number, 'text': 'x' * MIB})
        queue.release(filebase)
        size = (Path(queue.queue_directory) / f'{filebase}.pck').stat().st_size
        assert size > 12 * MIB + MAX_JOURNAL_BYTES
        queue.dequeue(filebase)
        assert queue.history(filebase)[-1]['number'] == 9
        queue.release(filebase, record={'event': 'released'})
        assert (Path(queue.queue_directory) / f'{filebase}.pck').stat().st_size > size
        assert queue.history(filebase)[-1]['event'] == 'released'

    def test_one_that_is_torn_as_well_is_not_written_to(self, queue: Switchboard) -> None:
        filebase = queue.enqueue(b'x' * 12 * MIB)
        queue.dequeue(filebase)
        for _ in range(9):
            queue.annotate(filebase, {'event': 'noted', 'text': 'x' * MIB})
        queue.release(filebase)
        path = Path(queue.queue_directory) / f'{filebase}.pck'
        os.truncate(path, path.stat().st_size - 1)
        size = path.stat().st_size
        queue.dequeue(filebase)
        queue.release(filebase, record={'event': 'released'})
        assert path.stat().st_size == size


def test_a_torn_entry_still_says_what_is_wrong(queue: Switchboard) -> None:
    filebase = queue.enqueue(b'x' * 20 * MIB)
    path = Path(queue.queue_directory) / f'{filebase}.pck'
    with path.open('r+b') as stream:
        stream.seek(MIB)
        stream.write(b'y')
    with pytest.raises(CorruptEntryError, match='torn'):
        queue.dequeue(filebase)


LARGE = 200 * MIB


def _most_memory_of(method: str, directory: str) -> float:
    """:return: how often the body fits into what was needed at most, beyond what the program needs anyway."""
    queue = Switchboard('in', directory, options=LAZY)
    filebase = next(iter(queue.files), '')
    queue.finish(queue.enqueue(b''))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if method == 'enqueue':
        body = b'x' * LARGE
        queue.enqueue(body)
    elif method == 'take':
        taken = queue.take()
        assert taken is not None
        assert len(taken.msg) == LARGE
    else:
        entry = peek(queue.folder, filebase, '.pck', MIB)
        assert entry is not None
        assert entry.damage is None
        assert (len(entry.body), entry.left_out_bytes) == (MIB, LARGE - MIB)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / LARGE


@pytest.mark.parametrize(('method', 'times'), [('enqueue', 1.1), ('take', 1.1), ('show', 0.1)])
def test_a_large_body_is_in_memory_once(
    tmp_path: Path, queue: Switchboard, method: str, times: float
) -> None:
    if method != 'enqueue':
        queue.enqueue(b'x' * LARGE)
    assert in_new_program(_most_memory_of, method, queue.queue_directory) <= times


def test_a_large_body_that_was_torn_is_found_out_by_who_reads_only_its_beginning(queue: Switchboard) -> None:
    filebase = queue.enqueue(b'x' * 17 * MIB)
    path = Path(queue.queue_directory) / f'{filebase}.pck'
    with path.open('r+b') as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b'y')
    entry = peek(queue.folder, filebase, '.pck', 1)
    assert entry is not None
    assert entry.damage is not None
    assert queue.take() is None
    assert (Path(queue.queue_directory).parent / 'bad' / f'{filebase}.psv').exists()


def _text_with_room_for_one(name: str, directory: str, size: int) -> tuple[bool, str]:
    """Put a large text, and take it, in a program that has no room for it twice."""
    queue = Switchboard(name, directory, options=LAZY)
    with open('/proc/self/statm', encoding='ascii') as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size * 7 // 4,) * 2)
    filebase = queue.enqueue('x' * size)
    taken = queue.take()
    assert taken is not None
    return taken.filebase == filebase, taken.msg[:3] + str(len(taken.msg))


# Python takes a hundred times as long for half a pair as for any other: of some in seven, each part's end still meets one somewhere.
CHARACTERS = ('é', '漢', '😀', '\ud800éééééé', '\r\n', '\0')


class TestLargeTexts:
    def test_one_is_put_and_taken_where_there_is_no_room_for_it_twice(self, queue: Switchboard) -> None:
        size = 64 * MIB
        taken = in_new_program(_text_with_room_for_one, queue.name, queue.queue_directory, size)
        assert taken == (True, f'xxx{size}')

    @pytest.mark.parametrize('character', CHARACTERS)
    @pytest.mark.in_turns('character', CHARACTERS, days=3)
    def test_each_character_comes_back_wherever_a_part_ends(self, queue: Switchboard, character: str) -> None:
        text = 'x' + character * (LARGE_CHARACTERS // len(character) + 5)
        filebase = queue.enqueue(text)
        assert queue.peek(filebase).body == text.encode('utf-8', 'surrogatepass')
        taken = queue.take()
        assert taken is not None
        assert taken.msg == text
        assert not queue.is_message_changed(filebase, taken.msg)
        assert queue.is_message_changed(filebase, text + 'y')
        queue.finish(filebase)

    def test_bytes_that_are_no_text_are_told_of_as_in_a_small_one(
        self, tmp_path: Path, queue: Switchboard
    ) -> None:
        filebase = queue.enqueue(EncodedBody('text', b'x' * 17 * MIB + b'\xff'))
        with pytest.raises(CorruptEntryError, match='text'):
            queue.dequeue(filebase)
        assert [path.stem for path in (tmp_path / 'bad').iterdir()] == [filebase]

    def test_a_torn_one_is_found_out(self, queue: Switchboard) -> None:
        filebase = queue.enqueue('x' * 17 * MIB)
        path = Path(queue.queue_directory) / f'{filebase}.pck'
        with path.open('r+b') as stream:
            stream.seek(MIB)
            stream.write(b'y')
        with pytest.raises(CorruptEntryError, match='torn'):
            queue.dequeue(filebase)

    def test_its_history_is_read_and_it_is_given_back(self, queue: Switchboard) -> None:
        text = 'x' * 17 * MIB
        filebase = queue.enqueue(text, colour='red')
        queue.dequeue(filebase)
        queue.release(filebase, record={'event': 'released', 'set': {'colour': 'blue'}})
        assert queue.dequeue(filebase) == (text, {**FIXED_METADATA, 'colour': 'blue'})
