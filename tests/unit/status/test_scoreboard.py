"""The scoreboard: what one process writes, another reads whole, whoever dies in between."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.errors import ScoreboardError
from switchboard.status.scoreboard import (
    PAGE_BYTES,
    SLOT_BYTES,
    MasterRecord,
    NullSlot,
    ProcessState,
    Scoreboard,
    Slot,
    SupervisorRecord,
)
from tests.helpers.processes import largest_file

ENTRY = '1700000000.000001+' + 'ab' * 20


@pytest.fixture
def scoreboard(tmp_path: Path) -> Iterator[Scoreboard]:
    scoreboard = Scoreboard.create(tmp_path / 'scoreboard', 4)
    yield scoreboard
    scoreboard.close()


def reading(path: Path) -> contextlib.closing[Scoreboard]:
    return contextlib.closing(Scoreboard.open(path))


def posted(scoreboard: Scoreboard, **fields: object) -> SupervisorRecord:
    record = SupervisorRecord('in', slice=0, numslices=2, pid=os.getpid(), started_ns=5, **fields)
    scoreboard.write_supervisor_record(0, record)
    return record


def test_a_new_scoreboard_has_no_records_and_a_blank_master(scoreboard: Scoreboard) -> None:
    assert scoreboard.records() == []
    assert scoreboard.master() == MasterRecord()


def test_the_disks_room_is_taken_for_slots_that_are_used(tmp_path: Path) -> None:
    scoreboard = Scoreboard.create(tmp_path / 'scoreboard', 256, used=2)
    size = PAGE_BYTES + 256 * SLOT_BYTES
    assert scoreboard.path.stat().st_size == size
    assert scoreboard.path.stat().st_blocks * 512 == PAGE_BYTES + 2 * SLOT_BYTES
    scoreboard.reserve(7)
    scoreboard.reserve(7)
    assert scoreboard.path.stat().st_blocks * 512 == PAGE_BYTES + 3 * SLOT_BYTES
    os.truncate(scoreboard.path, 0)
    assert scoreboard.repair()
    assert scoreboard.path.stat().st_size == size
    assert scoreboard.path.stat().st_blocks * 512 == PAGE_BYTES + 3 * SLOT_BYTES
    assert scoreboard.records() == []
    scoreboard.close()


def test_what_the_master_posts_is_read_through_another_descriptor(scoreboard: Scoreboard) -> None:
    posted(scoreboard, restarts=3, state=ProcessState.BACKOFF, reason='exit 1', next_restart_ns=9)
    with reading(scoreboard.path) as reader:
        [record] = reader.records()
    assert (record.runner, record.slice, record.numslices, record.pid) == ('in', 0, 2, os.getpid())
    assert (record.state, record.restarts, record.reason) == (ProcessState.BACKOFF, 3, 'exit 1')
    assert (record.started_ns, record.next_restart_ns) == (5, 9)
    assert record.title == 'in 1/2'


def test_a_slice_is_running_from_its_first_heartbeat_on_and_says_so_once(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    told: list[str] = []
    slot = Slot(scoreboard, 0, on_ready=lambda: told.append('ready'))
    assert scoreboard.records()[0].state is ProcessState.STARTING
    slot.heartbeat()
    slot.heartbeat()
    assert scoreboard.records()[0].state is ProcessState.RUNNING
    assert told == ['ready']


def test_a_slot_made_for_another_process_says_nothing_until_that_one_holds_it(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    before = Slot(scoreboard, 0)
    before.heartbeat()
    before.end('done')
    slot = Slot(scoreboard, 0, pid=0)
    assert scoreboard.records()[0].state is ProcessState.RUNNING
    slot.set_pid()
    record = scoreboard.records()[0]
    assert (record.state, record.done) == (ProcessState.STARTING, 1)


def test_the_entry_at_work_shows_since_when_and_until_when(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    slot = Slot(scoreboard, 0, time_limit_s=2, clock_ns=lambda: 1_000)
    slot.begin(ENTRY)
    record = scoreboard.records()[0]
    assert (record.current, record.current_since_ns, record.deadline_ns) == (ENTRY, 1_000, 2_000_001_000)
    slot.end('done')
    record = scoreboard.records()[0]
    assert (record.current, record.current_since_ns, record.deadline_ns, record.done) == ('', 0, 0, 1)


def test_each_outcome_has_its_counter(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    slot = Slot(scoreboard, 0)
    for outcome, times in (('done', 1), ('failed', 2), ('retried', 3), ('kept', 4)):
        for _ in range(times):
            slot.begin(ENTRY)
            slot.end(outcome)
    record = scoreboard.records()[0]
    assert (record.done, record.failed, record.retried, record.kept) == (1, 2, 3, 4)


def test_the_next_process_counts_on_but_does_not_inherit_the_heartbeat(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    slot = Slot(scoreboard, 0)
    slot.begin(ENTRY)
    slot.end('done')
    scoreboard.write_supervisor_record(0, SupervisorRecord('in', pid=os.getpid() + 1))
    record = scoreboard.records()[0]
    assert (record.done, record.heartbeat_ns, record.state) == (1, 0, ProcessState.STARTING)
    again = Slot(scoreboard, 0)
    again.begin(ENTRY)
    again.end('done')
    assert scoreboard.records()[0].done == 2


def test_a_slice_that_stands_in_the_place_of_others_carries_their_counters_on(scoreboard: Scoreboard) -> None:
    scoreboard.write_supervisor_record(0, SupervisorRecord('in', inherited=(10, 20, 30, 40)))
    assert scoreboard.records()[0].counters == (10, 20, 30, 40)
    slot = Slot(scoreboard, 0)
    slot.begin(ENTRY)
    slot.end('failed')
    assert scoreboard.records()[0].counters == (10, 21, 30, 40)


def test_a_long_error_is_cut_between_characters(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    Slot(scoreboard, 0).error('ü' * 1000)
    text = scoreboard.records()[0].last_error
    assert text == 'ü' * 360
    Slot(scoreboard, 0).fatal('x' + 'ü' * 1000)
    record = scoreboard.records()[0]
    assert record.last_error == 'x' + 'ü' * 359
    assert record.fatal


def test_a_writer_killed_in_the_middle_of_a_copy_leaves_the_one_before_it(scoreboard: Scoreboard) -> None:
    posted(scoreboard, reason='first')
    posted(scoreboard, reason='second')
    for copy in range(2):
        whole = scoreboard.path.read_bytes()
        os.pwrite(scoreboard.descriptor, os.urandom(192), PAGE_BYTES + copy * 1024 + 8)
        assert scoreboard.records()[0].reason in ('first', 'second')
        os.pwrite(scoreboard.descriptor, whole, 0)


def test_a_scoreboard_damaged_beyond_that_is_an_error_and_not_a_wrong_answer(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    posted(scoreboard)
    for start in (PAGE_BYTES + 8, PAGE_BYTES + 1024 + 8):
        [byte] = os.pread(scoreboard.descriptor, 1, start)
        os.pwrite(scoreboard.descriptor, bytes([byte ^ 1]), start)
    with pytest.raises(ScoreboardError, match='damaged'):
        scoreboard.records()


def test_readers_never_see_a_torn_record_while_another_process_writes(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    child = os.fork()
    if child == 0:
        try:
            slot = Slot(scoreboard, 0, pid=os.getppid())
            while True:
                slot.begin('a' * 96)
                slot.end('done')
                slot.error('b' * 700)
        finally:
            os._exit(1)
    try:
        seen: set[int] = set()
        while len(seen) < 50:
            record = scoreboard.records()[0]
            assert record.current in ('', 'a' * 96)
            assert record.last_error in ('', 'b' * 700)
            seen.add(record.done)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_freed_slot_is_gone_and_can_be_used_again(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    Slot(scoreboard, 0).end('failed')
    scoreboard.clear(0)
    assert scoreboard.records() == []
    scoreboard.write_supervisor_record(0, SupervisorRecord('out'))
    assert [(record.runner, record.failed) for record in scoreboard.records()] == [('out', 0)]


def test_a_slot_that_the_disk_does_not_free_is_an_error_and_one_that_never_had_room_is_free(
    scoreboard: Scoreboard,
) -> None:
    posted(scoreboard)
    with largest_file(PAGE_BYTES):
        scoreboard.clear(1)
        with pytest.raises(OSError, match='File too large'):
            scoreboard.clear(0)
    assert [record.runner for record in scoreboard.records()] == ['in']


def test_records_come_by_runner_and_slice_wherever_they_lie(scoreboard: Scoreboard) -> None:
    for index, (runner, part) in enumerate([('out', 0), ('in', 1), ('in', 0)]):
        scoreboard.write_supervisor_record(index, SupervisorRecord(runner, part, 2))
    assert [record.title for record in scoreboard.records()] == ['in 1/2', 'in 2/2', 'out 1/2']


def test_the_master_tells_its_state_and_its_last_reload_error(scoreboard: Scoreboard) -> None:
    record = MasterRecord(
        12, ProcessState.RUNNING, 1, 2, 3, 'switchboard.cfg:3 [queue.in] ttl: not a duration'
    )
    scoreboard.write_master_record(record)
    with reading(scoreboard.path) as reader:
        assert reader.master() == record


def test_a_slot_that_is_not_there_is_an_error(scoreboard: Scoreboard) -> None:
    with pytest.raises(ScoreboardError, match='4 slots'):
        scoreboard.write_supervisor_record(4, SupervisorRecord('in'))


def test_creating_a_scoreboard_does_not_disturb_readers_of_the_old_one(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    with reading(scoreboard.path) as reader:
        Scoreboard.create(scoreboard.path, 4).close()
        assert len(reader.records()) == 1
    with reading(scoreboard.path) as reader:
        assert reader.records() == []


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'torn'),
        (b'SWBOARD\n', 'torn'),
        (b'#!/bin/sh\n' + bytes(100), 'is not a scoreboard'),
        (b'SWBOARD\n' + (9).to_bytes(4, 'little') + bytes(100), 'format 9'),
    ],
)
def test_a_file_that_is_no_scoreboard_of_ours_says_so(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / 'scoreboard'
    path.write_bytes(content)
    with pytest.raises(ScoreboardError, match=reason):
        Scoreboard.open(path)


def test_a_scoreboard_cut_short_says_so(scoreboard: Scoreboard) -> None:
    os.truncate(scoreboard.path, PAGE_BYTES * 2)
    with pytest.raises(ScoreboardError, match='do not hold 4 slots'):
        Scoreboard.open(scoreboard.path)


def test_a_scoreboard_that_is_cut_short_ends_neither_its_readers_nor_its_writers(
    scoreboard: Scoreboard,
) -> None:
    posted(scoreboard, reason='before')
    slot = Slot(scoreboard, 0)
    with reading(scoreboard.path) as reader:
        os.truncate(scoreboard.path, 0)
        assert reader.records() == []
        assert reader.master() == MasterRecord()
        slot.begin(ENTRY)
        slot.error('x')
        posted(scoreboard, reason='after')
        assert scoreboard.repair()  # the writers have made it long enough for themselves only
        with reading(scoreboard.path) as again:
            assert again.slots == 4
        assert [each.current for each in reader.records()] == [ENTRY]


def test_a_scoreboard_that_is_cut_short_is_made_whole_again(scoreboard: Scoreboard) -> None:
    posted(scoreboard)
    assert not scoreboard.repair()
    os.truncate(scoreboard.path, 100)
    assert scoreboard.repair()
    assert not scoreboard.repair()
    with reading(scoreboard.path) as reader:
        assert reader.records() == []
        posted(scoreboard)
        assert [each.title for each in reader.records()] == ['in 1/2']


@pytest.mark.parametrize('length', range(0, PAGE_BYTES * 2, 97))
def test_whatever_length_it_is_cut_to_a_reader_has_an_answer_or_an_error_of_ours(
    scoreboard: Scoreboard, length: int
) -> None:
    posted(scoreboard)
    with reading(scoreboard.path) as reader:
        os.truncate(scoreboard.path, length)
        with contextlib.suppress(ScoreboardError):
            assert len(reader.records()) <= 1


@pytest.mark.parametrize('kind', ['link', 'fifo', 'directory'])
def test_what_is_no_plain_file_is_not_opened_as_a_scoreboard(
    scoreboard: Scoreboard, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / 'other'
    {
        'link': lambda: path.symlink_to(scoreboard.path),
        'fifo': lambda: os.mkfifo(path),
        'directory': path.mkdir,
    }[kind]()
    with pytest.raises(ScoreboardError):
        Scoreboard.open(path)


def test_a_missing_scoreboard_asks_whether_a_master_was_started(tmp_path: Path) -> None:
    with pytest.raises(ScoreboardError, match='has the master been started'):
        Scoreboard.open(tmp_path / 'scoreboard')


def test_a_runner_without_a_master_reports_to_nobody() -> None:
    slot = NullSlot()
    slot.heartbeat()
    slot.begin(ENTRY)
    slot.end('done')
    slot.error('x')
    slot.fatal('y')


def test_places_that_no_slice_has_cost_a_reader_one_short_read(
    scoreboard: Scoreboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever looks all the time, as an exporter does, is not to take a processor for it: of 256 places four are used.
    scoreboard.write_supervisor_record(3, SupervisorRecord('in', 0, 1, 7, ProcessState.RUNNING))
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(descriptor, length, offset)

    monkeypatch.setattr(os, 'pread', counted)
    assert [each.index for each in scoreboard.records()] == [3]
    assert len(read) <= scoreboard.slots + 3
    assert max(sorted(read)[: scoreboard.slots]) <= 2048
