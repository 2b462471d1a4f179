"""The scoreboard: one small file in which the master and its runners say what they are doing.

``status``, ``top``, the web page and the metrics read it, whether or not the master lives.  The master writes what it
knows of a slice (`SupervisorRecord`), the runner writes what it is at (`Slot`).  Each report is one ``pwrite`` of some hundred bytes, and
each look one ``pread``: less than a microsecond, and nothing that anybody does to the file ends a process.  A mapped file needs no system
call at all and was rejected, because a file that is cut short under a map kills all who look at it or write to it (SIGBUS).

Layout: one page of header, then three pages a slot.  The file is made with room for many slots, because slices may be added
while readers have it open, and its space is taken from the disk at once.

===========  ==========================================================================================
offset       content
===========  ==========================================================================================
0            magic (8), format version, page size, number of slots (4 each)
64, 128      how often slices have taken the place of others; odd while one is just doing so
1024, 2048   the master: process, state, start, last reload and its error
slot + 0     the master's record of the slice, two copies of 1024 bytes
slot + 2048  the work, two copies of 256 bytes: written by the runner at each message and heartbeat
slot + 2560  the last error, two copies of 768 bytes: written by the runner when something fails
slot + 4096  the measurements, two copies of 2048 bytes: written by the runner, seldom (see `measurements`)
slot + 8192  the measurements of the slices in whose place this one stands: written by the master
===========  ==========================================================================================

Each group has one writer and two copies (see `double_buffer`), so a reader always finds a whole one.  A file written anew and
renamed at each change was rejected because of its cost.

This module opens its file itself instead of going through `disk`: it holds no message, is made anew at each
start, and the fault tests of the store have nothing to find here.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

from switchboard.errors import ScoreboardError
from switchboard.status.alive import MASTER_FILE_MODE, is_locked
from switchboard.status.double_buffer import READ_TRIES, DoubleBuffer, TornError
from switchboard.status.measurements import Measurements, buffer, sum_of
from switchboard.status.record import MasterRecord, ProcessState, SliceRecord, SupervisorRecord

__all__ = [
    'OUTCOMES',
    'Counted',
    'MasterRecord',
    'NullSlot',
    'ProcessState',
    'Scoreboard',
    'SliceRecord',
    'Slot',
    'SupervisorRecord',
]

MAGIC = b'SWBOARD\n'
VERSION = 2
PAGE_BYTES = 4096
SLOT_BYTES = 3 * PAGE_BYTES
# Numbers for slices that are added while running.  The disk's room is taken when one is used.
DEFAULT_SLOTS = 256
# How old the measurements of a busy runner may be.
MEASUREMENTS_EVERY_NS = 1_000_000_000

HEADER = struct.Struct('<8sIII')
Counted = Literal['done', 'failed', 'retried', 'kept']
OUTCOMES = get_args(Counted)
_Found = TypeVar('_Found')

_STATES = tuple(ProcessState)
_CODES = {state: code for code, state in enumerate(_STATES)}

# pid, state, started, reloaded, ready; the last reload's error
_MASTER = DoubleBuffer('IBQQQ900s', 1024, 1024)
# name, slice, numslices, pid, state, started, restarts, next restart, inherited (4), reason
_SUPERVISOR_RECORD = DoubleBuffer('64sIIIBQIQ4Q512s', 0, 1024)
# pid, heartbeat, done, failed, retried, kept, current, since, deadline
_WORK = DoubleBuffer('IQQQQQ96sQQ', 2048, 256)
# when, whether it is fatal, text
_ERROR = DoubleBuffer('QB720s', 2560, 768)
_MEASUREMENTS = buffer(PAGE_BYTES)
_INHERITED = buffer(2 * PAGE_BYTES)
# How often slices have taken the place of others.
_CHANGES = DoubleBuffer('Q', 64, 64)

# How long a reader waits for a master that exchanges slices; that takes it some microseconds, or as long as the kernel lets others run first.
CHANGE_S = 2.0
CHANGE_LOOK_S = 0.001


def _cut(text: str, limit: int) -> bytes:
    return text.encode('utf-8', 'backslashreplace')[:limit]


def _text(raw: bytes) -> str:
    # A cut may have gone through the middle of a character.
    return raw.rstrip(b'\0').decode('utf-8', 'ignore')


class NullSlot:
    """The place of a runner that has no master: all it reports goes nowhere."""

    def heartbeat(self) -> None:
        """Say that the loop turns.  The first heartbeat says that this runner is ready."""

    def begin(self, filebase: str) -> None:
        """Say which entry is at work from now on."""

    def end(self, outcome: Counted, error: str = '') -> None:
        """Say what became of it.

        :param error: the name of the class of the error that ended it.
        """

    def measured(self, process_ns: int, wait_ns: int | None) -> None:
        """Say how long a message was at work and, if that is known, how long it had waited for it."""

    def recovered(self, count: int) -> None:
        """Say how many entries of dead owners were made ready again."""

    def flush(self) -> None:
        """Say that nothing more is to be said for a while."""

    def error(self, text: str) -> None:
        """Keep the text of the last thing that went wrong."""

    def fatal(self, text: str) -> None:
        """Say why this runner gives up for good."""


class Slot(NullSlot):
    """The runner's side of one slot; one process at a time may hold it, and one thread of it may write.

    :param time_limit_s: how long one message may take; the scoreboard shows the deadline that follows from it.
    :param on_ready: called once, at the first heartbeat.
    :param pid: the process that the record names; this one by default; 0 if the one that is to report will say so by `hold`.
    """

    def __init__(
        self,
        scoreboard: Scoreboard,
        index: int,
        *,
        time_limit_s: float | None = None,
        on_ready: Callable[[], object] | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        pid: int | None = None,
    ) -> None:
        self._descriptor = scoreboard.descriptor
        self._base = scoreboard.base(index)
        self._allowed_ns = int(time_limit_s * 1e9) if time_limit_s else 0
        self._on_ready = on_ready
        self._clock_ns = clock_ns
        try:
            before, error = scoreboard.read(self._base, _WORK, _ERROR)
        except ScoreboardError:
            before = error = None  # somebody has damaged it: counting begins anew
        self._number = before[0] if before else 0
        self._error_number = error[0] if error else 0
        # Counters go on where the process before this one left them: they count the slice, not the process.
        self.done, self.failed, self.retried, self.kept = before[3:7] if before else (0, 0, 0, 0)
        try:
            [counted] = scoreboard.read(self._base, _MEASUREMENTS)
        except ScoreboardError:
            counted = None
        self._measurements_number = counted[0] if counted else 0
        self.measurements = Measurements.of(counted[1:]) if counted else Measurements()
        self._measurements_ns = 0
        self._has_news = False
        if pid != 0:
            self.set_pid(pid)

    def set_pid(self, pid: int | None = None) -> None:
        """Say that a process reports here from now on: this one by default."""
        self._pid = pid or os.getpid()
        self._write(0)

    def heartbeat(self) -> None:
        now_ns = self._clock_ns()
        self._write(now_ns)
        self.flush()
        if self._on_ready is not None:
            on_ready, self._on_ready = self._on_ready, None
            on_ready()

    def begin(self, filebase: str) -> None:
        now_ns = self._clock_ns()
        self._write(now_ns, _cut(filebase, 96), now_ns, now_ns + self._allowed_ns if self._allowed_ns else 0)

    def end(self, outcome: Counted, error: str = '') -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)
        now_ns = self._clock_ns()
        self._write(now_ns)
        if outcome == 'failed':
            self.measurements.failed_by(error, time.time_ns())
            self._write_measurements(now_ns)
        elif self._has_news and now_ns - self._measurements_ns >= MEASUREMENTS_EVERY_NS:
            self._write_measurements(now_ns)

    def measured(self, process_ns: int, wait_ns: int | None) -> None:
        self.measurements.process.observe(process_ns)
        if wait_ns is not None:
            self.measurements.wait.observe(wait_ns)
        self._has_news = True

    def recovered(self, count: int) -> None:
        if count:
            self.measurements.recovered += count
            self._write_measurements(self._clock_ns())

    def flush(self) -> None:
        if self._has_news:
            self._write_measurements(self._clock_ns())

    def error(self, text: str) -> None:
        self._write_error(text, fatal=False)

    def fatal(self, text: str) -> None:
        self._write_error(text, fatal=True)

    def _write(self, now_ns: int, current: bytes = b'', since_ns: int = 0, deadline_ns: int = 0) -> None:
        self._number += 1
        counts = (self.done, self.failed, self.retried, self.kept)
        values = (self._pid, now_ns, *counts, current, since_ns, deadline_ns)
        _WORK.write(self._descriptor, self._base, self._number, *values)

    def _write_measurements(self, now_ns: int) -> None:
        self._measurements_number += 1
        self._measurements_ns = now_ns
        self._has_news = False
        _MEASUREMENTS.write(
            self._descriptor, self._base, self._measurements_number, *self.measurements.values()
        )

    def _write_error(self, text: str, *, fatal: bool) -> None:
        self._error_number += 1
        _ERROR.write(self._descriptor, self._base, self._error_number, time.time_ns(), fatal, _cut(text, 720))


class Scoreboard:
    """The open file.  Use `create` or `open`."""

    def __init__(self, path: Path, descriptor: int, slots: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.slots = slots
        # How often this process has written each group, by its place in the file.
        self._numbers: Counter[int] = Counter()
        # Slots whose room this process has taken.
        self._reserved: set[int] = set()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        slots: int = DEFAULT_SLOTS,
        *,
        used: int = 0,
        directory: int | None = None,
    ) -> Self:
        """Make a new, empty scoreboard in place of whatever was there; a reader of the old one keeps the old one.

        :param used: so many slots are about to be used: see :meth:`reserve`.
        :param directory: the descriptor of the directory in which it is made, if no link is to be followed on the way to it.
        """
        path = Path(path)
        name = str(path) if directory is None else path.name
        fresh = f'{name}.new'
        try:
            os.unlink(fresh, dir_fd=directory)
        except FileNotFoundError:
            pass
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, MASTER_FILE_MODE, dir_fd=directory)
        try:
            os.fchmod(descriptor, MASTER_FILE_MODE)
            made = cls(path, descriptor, slots)
            made.repair()
            for index in range(used):
                made.reserve(index)
            # The name appears when the header is whole, so no reader meets half a scoreboard.
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.close(descriptor)
            raise
        return made

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a scoreboard to read it.

        :raises ScoreboardError: there is none, or it is not whole, or of another version.
        """
        path = Path(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise ScoreboardError(
                f'cannot read {path}: {error.strerror}; has the master been started?'
            ) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ScoreboardError(f'{path} is not a scoreboard')
            slots = _check_header(os.pread(descriptor, HEADER.size, 0), status.st_size, path)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, slots)

    def repair(self) -> bool:
        """Give the file its size and its header, if somebody has cut it; the writer's part.

        :return: whether that was needed; its content is gone then.
        :raises OSError: the disk is full.
        """
        size = PAGE_BYTES + SLOT_BYTES * self.slots
        header = HEADER.pack(MAGIC, VERSION, PAGE_BYTES, self.slots)
        is_whole = os.fstat(self.descriptor).st_size >= size
        if is_whole and os.pread(self.descriptor, HEADER.size, 0) == header:
            return False
        os.posix_fallocate(self.descriptor, 0, PAGE_BYTES)
        os.ftruncate(self.descriptor, size)
        os.pwrite(self.descriptor, header, 0)
        reserved, self._reserved = self._reserved, set()
        for index in reserved:
            self.reserve(index)
        return True

    def reserve(self, index: int) -> None:
        """Take the disk's room for a slot, so that its runner can report whatever else the disk is filled with; the writer's part.

        The file is as long as all slots from the beginning, and takes no room for those that nobody uses.

        :raises OSError: the disk is full.
        """
        if index not in self._reserved:
            os.posix_fallocate(self.descriptor, self.base(index), SLOT_BYTES)
            self._reserved.add(index)

    def read(self, base: int, *groups: DoubleBuffer) -> list[tuple[Any, ...] | None]:
        """:return: these groups of one page, each whole.
        :raises ScoreboardError: somebody has damaged one of them.
        """
        first = min(each.offset for each in groups)
        length = max(each.offset + 2 * each.size for each in groups) - first
        for _ in range(READ_TRIES):
            page = bytes(first) + os.pread(self.descriptor, length, base + first)
            try:
                return [each.find(page) for each in groups]
            except TornError:
                continue
        raise ScoreboardError(f'the scoreboard is damaged at offset {base}; stop and start the master')

    def close(self) -> None:
        """Let the file go."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def base(self, index: int) -> int:
        """:return: where slot `index` begins."""
        if not 0 <= index < self.slots:
            raise ScoreboardError(f'the scoreboard has {self.slots} slots, there is no slot {index}')
        return PAGE_BYTES + SLOT_BYTES * index

    def records(self) -> list[SliceRecord]:
        """:return: all slots in use, by runner and slice.  Each group is a snapshot of one moment."""
        return self.read_unchanged(self.records_unchecked)

    def records_with_measurements(self) -> list[tuple[SliceRecord, Measurements]]:
        """:return: the same, and what each of them has measured."""
        return self.read_unchanged(
            lambda: [(each, self.measurements(each.index)) for each in self.records_unchecked()]
        )

    def records_unchecked(self) -> list[SliceRecord]:
        """:return: the records, though slices may be in the middle of an exchange."""
        found = (self.record(index) for index in range(self.slots) if not self._is_free(index))
        return sorted(
            (r for r in found if r is not None), key=lambda r: (r.runner, r.numslices, r.slice, r.index)
        )

    def _is_free(self, index: int) -> bool:
        """Tell the many places that no slice has from the few, at the cost of one short read: somebody may look at all of them all the time."""
        records = os.pread(
            self.descriptor, 2 * _SUPERVISOR_RECORD.size, self.base(index) + _SUPERVISOR_RECORD.offset
        )
        return not records.strip(b'\0')

    def read_unchanged(self, look: Callable[[], _Found]) -> _Found:
        """Look again if a slice has taken the place of another meanwhile: counters would be missing, or be there twice.

        A master that died while one did so has left it undone, and nobody will end it: what there is is shown then, at once.
        """
        until_s = time.monotonic() + CHANGE_S
        while True:
            before = self._changed()
            is_late = time.monotonic() >= until_s
            if before % 2 and not is_late and is_locked(self.path.parent):
                time.sleep(CHANGE_LOOK_S)
                continue
            found = look()
            if is_late or before % 2 or before == self._changed():
                return found

    def _changed(self) -> int:
        [found] = self.read(0, _CHANGES)
        return int(found[1]) if found is not None else 0

    @contextlib.contextmanager
    def replacing_slices(self) -> Iterator[None]:
        """Let slices take the place of others; readers meanwhile look again."""
        if self._numbers[_CHANGES.offset] % 2:
            yield  # several at once
            return
        self._change()
        try:
            yield
        finally:
            self._change()

    def _change(self) -> None:
        self._write(_CHANGES, 0, self._numbers[_CHANGES.offset] + 1)

    def _write(self, group: DoubleBuffer, base: int, *values: object) -> None:
        place = base + group.offset
        self._numbers[place] += 1
        group.write(self.descriptor, base, self._numbers[place], *values)

    def measurements(self, index: int) -> Measurements:
        """:return: the measurements of a slice, with those of slices that it replaces."""
        own, inherited = self.read(self.base(index), _MEASUREMENTS, _INHERITED)
        return sum_of(Measurements.of(each[1:]) for each in (own, inherited) if each is not None)

    def measurements_of(self, runner: str) -> Measurements:
        """:return: the measurements of all slices of a runner together."""
        return sum_of(
            self.measurements(each.index) for each in self.records_unchecked() if each.runner == runner
        )

    def write_inherited(self, index: int, measurements: Measurements) -> None:
        """Write the measurements of those in whose place a slice stands; the master's part."""
        self._write(_INHERITED, self.base(index), *measurements.values())

    def record(self, index: int) -> SliceRecord | None:
        """:return: the record of one slot, or nothing when it is free."""
        base = self.base(index)
        supervised, work, error = self.read(base, _SUPERVISOR_RECORD, _WORK, _ERROR)
        if supervised is None or not supervised[1][0]:
            return None
        _, runner, slice_index, count, pid, code, started_ns, restarts, next_ns, *inherited, reason = (
            supervised
        )
        state = _state(code)
        fields: dict[str, Any] = dict(zip(OUTCOMES, inherited, strict=True))
        if work is not None:
            _, writer, beat_ns, *counts, current, since_ns, deadline_ns = work
            for counter, count_here in zip(OUTCOMES, counts, strict=True):
                fields[counter] += count_here
            if writer == pid:  # what a process before this one was at is over
                fields.update(heartbeat_ns=beat_ns, current_since_ns=since_ns, deadline_ns=deadline_ns)
                fields['current'] = _text(current)
                if state is ProcessState.STARTING and beat_ns:
                    state = ProcessState.RUNNING
        if error is not None:
            fields.update(last_error_ns=error[1], fatal=bool(error[2]), last_error=_text(error[3]))
        name, why = _text(runner), _text(reason)
        times = started_ns, restarts, next_ns
        return SliceRecord(
            name, slice_index, count, pid, state, *times, why, tuple(inherited), index, **fields
        )

    def write_supervisor_record(self, index: int, record: SupervisorRecord) -> None:
        """Write the master's side of a slot."""
        values = (_cut(record.runner, 64), record.slice, record.numslices, record.pid, _CODES[record.state])
        times = (record.started_ns, record.restarts, record.next_restart_ns)
        reason = _cut(record.reason, 512)
        self._write(_SUPERVISOR_RECORD, self.base(index), *values, *times, *record.inherited, reason)

    def clear(self, index: int) -> None:
        """Free a slot.  Assumes that no runner holds it.

        :raises OSError: it is still shown, until somebody else uses it: the disk is broken, or is full and needs room to write over a block
            (Btrfs, ZFS).
        """
        try:
            os.pwrite(self.descriptor, bytes(SLOT_BYTES), self.base(index))
        except OSError:
            if not self._is_free(index):  # as one that a full disk never had room for
                raise

    def write_master_record(self, record: MasterRecord) -> None:
        """Write what the master says of itself."""
        times = (record.started_ns, record.reloaded_ns, record.ready_ns)
        error = _cut(record.reload_error, 900)
        self._write(_MASTER, 0, record.pid, _CODES[record.state], *times, error)

    def master(self) -> MasterRecord:
        """:return: the master's record.  Whether it lives, only its lock says."""
        [values] = self.read(0, _MASTER)
        if values is None:
            return MasterRecord()
        _, pid, code, started_ns, reloaded_ns, ready_ns, error = values
        return MasterRecord(pid, _state(code), started_ns, reloaded_ns, ready_ns, _text(error))


def _state(code: int) -> ProcessState:
    if code >= len(_STATES):
        raise ScoreboardError(
            f'the scoreboard is damaged: there is no state {code}; stop and start the master'
        )
    return _STATES[code]


def _check_header(header: bytes, size: int, path: Path) -> int:
    """:return: the number of slots."""
    if len(header) < HEADER.size:
        raise ScoreboardError(f'{path} is torn: it has {len(header)} bytes')
    magic, version, page_bytes, slots = HEADER.unpack(header)
    if magic != MAGIC:
        raise ScoreboardError(f'{path} is not a scoreboard')
    if (version, page_bytes) != (VERSION, PAGE_BYTES):
        raise ScoreboardError(
            f'{path} is of format {version}, this program reads format {VERSION}: restart the master'
        )
    if size < PAGE_BYTES + SLOT_BYTES * slots:
        raise ScoreboardError(f'{path} is torn: {size} bytes do not hold {slots} slots')
    return int(slots)
