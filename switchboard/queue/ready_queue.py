"""The ready queue: which entry comes next, and when.

A :class:`ReadyQueue` is an ordered set of names.  It is filled by reading the directory or, where reading takes long, by the events that
tell of each name that comes and goes; its names are given out one after the other.

**Order.**  An entry is due when the time in its name has come.  Those that are due are given out first in, first out, and each level
of priority is worth some time of waiting.  When the machine's clock was set back, entries from before lie in the future without anybody
having asked for a delay; their files' modification times lie there too.  Of those, the wait that was asked for is kept, not the hour.

**Cost.**  The directory is read when the names that are due are used up or old, and not for each message.  However many entries there
are, only the first ones are kept in memory, of those that are due and of those that are to wait.  Reading a directory of a million
names takes a second of the processor, though all of them may be delayed until next week.  So when reading has taken long, or the
directory is large from many earlier entries, the names that it found
are kept and brought up to date, in one of two ways:

- the kernel tells the name of each entry that comes and goes (see ``wakeup``), from before the reading on.  In this mode the watch
  stays while the runner works: an event costs microseconds, a reading a second;
- where it does not, and where no event reported a change, the directory's modification time says that there was none.  It is believed
  only if it was some seconds old when the reading began, for two changes in one instant have the same time.

Both may be wrong where the kernel does not see what other machines do, so the directory is read again all the same, when
:data:`SHARE` times as long has passed as a reading takes: a hundredth of the time.

**Strict order.**  No entry of a key is given out while an earlier one of the same key waits, or any other is at work.  Without it,
entries of one key are in one slice and given out in order, but one that fails and waits lets the others pass.  With ``strict_order``
it holds them back: it keeps its name, and so its place, and its history says until when it waits.  Before an entry is given out, the
others of its key are looked for by name, so it holds for any number of processes, messages at work and batches.  Within a key the time
in the name counts and the priority does not; among the first ones of all keys, the priority counts as ever.  The price: the names of
all entries of the slice are kept in memory; and a message that fails stops its key (and the few others that share the first eight
digits of its digest) until it is done or preserved.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from threading import RLock
from zlib import crc32

from switchboard.clock import Backoff
from switchboard.message.journal import Record
from switchboard.message.naming import (
    CLAIMED,
    CLOCK_SLACK_NS,
    NS_PER_S,
    PRIORITY_STEP_NS,
    READY,
    format_when,
    is_filebase,
    parse_filebase,
    slice_digits_of,
    sort_key,
)
from switchboard.queue.entries_by_key import LOOK_ORDER, EntriesByKey
from switchboard.queue.listing import Listing, is_known_name
from switchboard.queue.smallest_names import SmallestNames
from switchboard.queue.wakeup import Wakeup

# Names kept from one reading, in 25 to 50 MB: of a million that wait, a reading takes seconds, and is shared by so many messages.
MAX_KEPT_NAMES = 200_000
# Future entries whose modification time is looked at in one reading: those that come first.
LOOKED_AT = 1000

# How long the names of a reading are good for: an entry with a higher priority may have come since.  A hundred times as long as it took, so that it
# costs nothing that could be measured, and within these limits; but a large directory takes long to read, and must not be read all the time.
READ_EVERY_NS = (NS_PER_S // 50, NS_PER_S)
READ_SELDOM, READ_SHARE = 100, 20

# A reading that takes longer is slow: some twenty thousand names.
SLOW_LISTING_NS = NS_PER_S // 50
# How many times as long as it took a slow reading is good for, if it is kept up to date.
SHARE = 100
# File systems date in steps of up to two seconds.
STAMP_STEP_NS = 3 * NS_PER_S

# An entry's time is taken when it is named, and it is seen when it is written and synced: mostly a moment later.
SETTLED_NS = NS_PER_S
# Many entries that are named in one instant have names a nanosecond apart, and so a little ahead of the clock.
SAME_INSTANT_NS = NS_PER_S // 1000

# How long an entry is deferred that another process has, or that another one of its key holds back: its producer lets go of it within
# microseconds, so the first wait is short; another runner keeps it, and so each wait is twice as long as the one before.
CONTENDED_S = (0.001, 1.0)
MAX_CONTENDED = 1000

# What the kernel dates files by; a test's clock is not the file system's.
_COARSE = getattr(time, 'CLOCK_REALTIME_COARSE', time.CLOCK_REALTIME)


class ReadyQueue:
    """The entries of one slice that are due, in order.  Threads may share it.

    :param strict: see the module.
    :param slow_listing_ns: see :data:`SLOW_LISTING_NS`.
    :param kept: how many names are kept of those that are due, and of those that are to wait; up to twice as many.
    """

    def __init__(
        self,
        names: Listing,
        *,
        priority_step_s: float = PRIORITY_STEP_NS / NS_PER_S,
        strict: bool = False,
        slow_listing_ns: int = SLOW_LISTING_NS,
        kept: int = MAX_KEPT_NAMES,
    ) -> None:
        self._lock = RLock()
        self._names = names
        self._clock = names.clock
        self._slow_listing_ns = slow_listing_ns
        self._kept = kept
        self.sort_key: Callable[[str], str] = partial(sort_key, step_ns=int(priority_step_s * NS_PER_S))
        self._keys = EntriesByKey(names) if strict else None
        self._events: Wakeup | None = None
        # The names to give out, the next one last, and until when they are good.  (All times here are the boot clock's, but for those
        # in names.)
        self._line: list[str] = []
        self._line_until_ns = 0
        # How often the directory was read, and whether the last reading gave out all that was there and due.
        self.readings = 0
        self._has_all = False
        # Until when entries are not given out though they are due, and for which other one of its key an entry waits.
        self._deferred: dict[str, int] = {}
        self._behind: dict[str, str] = {}
        # How long entries waited that another process had, and by key the first of them.
        self._waits: dict[str, Backoff] = {}
        self._first_of_key: dict[str, str] = {}
        # What the last reading found; brought up to date after a slow one.
        self._due = self._first_due(kept)
        self._future = SmallestNames(kept)
        self._is_slow = False
        self._may_read_at_once = not strict and slow_listing_ns >= SLOW_LISTING_NS
        self._read_at_ns = self._took_ns = 0
        self._mark: int | None = None
        self._stamp_ns: int | None = None
        # Future entries whose time in the name counts, and those that a turned clock has put there: since when these are due.
        self._delayed: set[str] = set()
        self._misdated: dict[str, int] = {}
        self._apart_ns = -(1 << 63)
        # When the next of the future entries is due: by the wall clock, and for the misdated ones by the boot clock.
        self._next_when_ns: int | None = None
        self._next_misdated_ns: int | None = None

    def _first_due(self, limit: int | None) -> SmallestNames:
        return SmallestNames(limit, self.sort_key, '+p')

    # For the consumer.

    def next(self, since: int | None = None) -> str | None:
        """:param since: :attr:`readings` when the caller began: what one since then has found, if that was all, is not looked for anew.
        :return: the filebase of the next entry; None if a directory that was just read has none.
        """
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if not self._line and self._has_all and since is not None and since < self.readings:
                return None
            if not self._line or now_ns >= self._line_until_ns:
                self._refill(now_ns)
            line = self._line
            # Said now: the last of `_first_of_key` may go below, and strict order stays.
            may_be_held_back = self._keys is not None or bool(self._first_of_key)
            while line:
                filebase = line.pop()
                if filebase in self._deferred or (may_be_held_back and self._is_held_back(filebase)):
                    continue
                return filebase
            return None

    @property
    def needs_listing(self) -> bool:
        """Would the next name have to be looked for in the directory?"""
        return not self._line

    def scan(self) -> bool:
        """Look anew: is there anything to give out?"""
        with self._lock:
            self._refill(self._clock.monotonic_ns())
            pickup = self._names.pickup
            return bool(self._line) or (pickup is not None and pickup.has_more())

    def wait_s(self) -> float | None:
        """:return: seconds until something that is there may be given out; None if there is no such thing."""
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            waits = [until_ns - now_ns for until_ns in self._deferred.values()]
            if self._next_misdated_ns is not None:
                waits.append(self._next_misdated_ns - now_ns)
            if self._next_when_ns is not None:
                waits.append(self._next_when_ns - self._clock.time_ns())
            pickup = self._names.pickup
            if pickup is not None and (wait_s := pickup.wait_s()) is not None:
                waits.append(int(wait_s * NS_PER_S))
            return max(0, min(waits)) / NS_PER_S if waits else None

    def defer(self, filebase: str, until_ns: int) -> None:
        """Do not give an entry out before a time, though it is due.

        :param until_ns: on the boot clock.
        """
        with self._lock:
            self._deferred[filebase] = until_ns

    def defer_contended(self, filebase: str) -> None:
        """Defer an entry that another process has, for a moment that doubles each time.

        Later entries of its key wait as well, or they would pass it, and the key be out of order.
        """
        with self._lock:
            self._defer_longer(filebase)
            if len(self._first_of_key) > MAX_CONTENDED:
                self._first_of_key.clear()  # most are gone: others have taken them
            self._first_of_key[slice_digits_of(filebase)] = filebase

    def note_taken(self, filebase: str) -> None:
        """Note that this process has claimed an entry."""
        if self._waits or self._keys is not None:
            with self._lock:
                self._waits.pop(filebase, None)
                if self._keys is not None:
                    self._keys.add(filebase, is_claimed=True)

    def is_first(self, filebase: str) -> bool:
        """Look anew: is there no other entry of its key that comes first, or is at work?  If there is one, this entry is deferred."""
        with self._lock:
            self._refill(self._clock.monotonic_ns())
            return not self._is_held_back(filebase)

    def watch(self, events: Wakeup) -> None:
        """Go by what the kernel tells of names, from now on, where reading takes long."""
        self._events = events

    # An entry that another one holds back.

    def _is_held_back(self, filebase: str) -> bool:
        """Does another entry of its key come first?  Then this one is deferred."""
        if self._first_of_key and (first := self._contended_before(filebase)) is not None:
            # Both are deferred until the same instant.  With a later instant of its own, an entry that has come
            # meanwhile would pass it as soon as the first is out of the way.
            self._deferred[filebase] = self._deferred.get(first, 0)
            return True
        if self._keys is None or (other := self._keys.blocking_entry(filebase)) is None:
            return False
        if other in self._deferred:
            self._deferred[filebase] = self._deferred[other]
        else:
            self._defer_longer(filebase)
        self._behind[filebase] = other
        return True

    def _contended_before(self, filebase: str) -> str | None:
        first = self._first_of_key.get(slice_digits_of(filebase))
        if first is None or self.sort_key(filebase) < self.sort_key(first):
            return None
        if first != filebase and self._names.has_entry(first, READY):
            return first
        del self._first_of_key[slice_digits_of(filebase)]
        return None

    def _defer_longer(self, filebase: str) -> None:
        if len(self._waits) > MAX_CONTENDED:
            self._waits.clear()
        wait_s = self._waits.setdefault(filebase, Backoff(*CONTENDED_S)).next()
        self._deferred[filebase] = self._clock.monotonic_ns() + int(wait_s * NS_PER_S)

    def _end_waits(self, now_ns: int) -> None:
        """Forget deferrals that are over, and those behind an entry that is out of the way."""
        for closed in self._events.closed_entries() if self._events is not None else ():
            if closed in self._waits:  # and it was not put off for another reason
                self._deferred.pop(closed, None)
        done = {
            other for other in set(self._behind.values()) if not self._names.has_entry(other, *LOOK_ORDER)
        }
        self._deferred = {
            name: until_ns
            for name, until_ns in self._deferred.items()
            if until_ns > now_ns and self._behind.get(name) not in done
        }
        if self._behind:
            self._behind = {name: other for name, other in self._behind.items() if name in self._deferred}

    # Filling.

    def _refill(self, now_ns: int) -> None:
        if self._deferred:
            self._end_waits(now_ns)
        due = self._look()
        pickup = self._names.pickup
        if pickup is not None and pickup.collect(self._names.foreign_mail):
            due = self._look()
        due.reverse()
        self._line = due
        took_ns, (soonest_ns, latest_ns) = self._clock.monotonic_ns() - now_ns, READ_EVERY_NS
        good_ns = took_ns * READ_SELDOM
        if good_ns < soonest_ns:
            good_ns = soonest_ns
        elif good_ns > latest_ns:
            good_ns = max(latest_ns, took_ns * READ_SHARE)
        self._line_until_ns = now_ns + good_ns

    def _look(self) -> list[str]:
        """:return: the first of the entries that are due and not deferred, in order: a new list."""
        if self._names.is_replaced(refresh=self._is_slow):
            self._is_slow = False
            if self._events is not None:
                self._events.rewatch()
        now_ns = self._now_ns()
        if self._is_slow and self._is_up_to_date(now_ns):
            found = self._known(now_ns)
            if (found or self._due.known_up_to is None) and (
                len(self._future) or self._future.known_up_to is None
            ):
                return found
        return self._read(now_ns)

    def _now_ns(self) -> int:
        """:return: the time up to which entries are due, by their names."""
        return self._clock.time_ns() + SAME_INSTANT_NS

    def _read(self, now_ns: int) -> list[str]:
        began_ns = self._clock.monotonic_ns()
        self._mark = self._events.start_recording() if self._events is not None else None
        self._stamp_ns = self._settled_stamp() if self._is_slow else None
        now = format_when(now_ns) + '~'
        parts = self._names.filebase_chunks(READY)
        self.readings += 1
        all_due = self._all_due_at_once(parts, now) if self._may_read_at_once else None
        self._has_all = all_due is not None
        if all_due is not None:
            self._note_all_due()
            return self._without_deferred(all_due)
        self._due, self._future = due, future = self._first_due(self._kept), SmallestNames(self._kept)
        for some in parts if self._keys is None else self._keys.record_reading(parts):
            _part(some, now, due, future)
        is_whole = self._names.is_whole
        if self._keys is not None and not (is_whole and self._names.folder.reads_every_name):
            # An entry that was renamed meanwhile can have been missed under both of its names.
            self._keys.record_second_reading(chain.from_iterable(self._names.filebase_chunks(READY)))
        self._sort_out_misdated(now_ns)
        self._took_ns = self._clock.monotonic_ns() - began_ns
        self._is_slow = self._took_ns >= self._slow_listing_ns or self._names.is_sparse
        if self._events is not None:
            self._events.record_names(self._is_slow)
        if self._is_slow:
            self._read_at_ns = self._clock.monotonic_ns()
            if self._is_up_to_date(now_ns):  # with what came and went meanwhile
                return self._known(now_ns)
        self._add_misdated()
        self._note_next()
        return self._not_deferred(due) if is_whole else self._stable_names(due, now_ns)

    def _all_due_at_once(self, parts: tuple[list[str]] | Iterator[list[str]], now: str) -> list[str] | None:
        """:return: names that were read with one call and are all due, in order: the usual case, in which nothing else needs to be looked at; else None."""
        names = self._names
        if not isinstance(parts, tuple) or not names.is_whole or names.is_sparse:
            return None
        (some,) = parts
        if some and max(some) > now:
            return None
        if len(some) > 1:
            some.sort(key=self.sort_key if '+p' in ''.join(some) else None)
        return some

    def _note_all_due(self) -> None:
        self._is_slow = False
        if self._events is not None:
            self._events.record_names(False)
        self._next_when_ns = self._next_misdated_ns = None
        if self._delayed or self._misdated:
            self._delayed, self._misdated = set(), {}

    def _without_deferred(self, names: list[str]) -> list[str]:
        if not self._deferred:
            return names
        self._deferred = {name: until_ns for name, until_ns in self._deferred.items() if name in names}
        return [name for name in names if name not in self._deferred]

    def _not_deferred(self, due: SmallestNames) -> list[str]:
        names = due.sorted()
        if not self._deferred:
            return names.copy()
        self._deferred = {
            name: until_ns for name, until_ns in self._deferred.items() if name in due or due.is_beyond(name)
        }
        return [name for name in names if name not in self._deferred]

    def _stable_names(self, due: SmallestNames, now_ns: int) -> list[str]:
        """Leave out, or look again for, what came while the directory was read.

        A reading that goes on while two entries are put can miss the first and see the second.  A seen entry may be given out
        when a later reading has seen all that was there before it: young entries wait while there are older ones, and
        where there are only young ones, the directory is read again.
        """
        young, newest = format_when(now_ns - SETTLED_NS), max(due, default='')
        found = self._not_deferred(due)
        if newest < young:
            if found or due.known_up_to is None:
                return found
            newest = young
        else:
            settled = [name for name in found if name < young]
            if settled and not self._is_urgent(found, young, settled):
                return settled
        again = self._due_until(newest, now_ns)
        return [name for name in again.sorted() if name not in self._deferred][: self._kept]

    def _is_urgent(self, found: list[str], young: str, settled: list[str]) -> bool:
        # A young entry with a priority may come before all others: then it must not wait for them.
        urgent = [one for one in found if one >= young and '+p' in one]
        return bool(urgent) and min(map(self.sort_key, urgent)) < self.sort_key(settled[0])

    def _due_until(self, newest: str, now_ns: int) -> SmallestNames:
        now, misdated = format_when(now_ns) + '~', set(self._misdated_due())
        found = self._first_due(None)
        for some in self._names.filebase_chunks(READY):
            found.extend([one for one in some if one <= newest and (one <= now or one in misdated)])
        return found

    # Entries that lie in the future, and a clock that was turned.

    def _sort_out_misdated(self, now_ns: int) -> None:
        """Take those out of the future ones that only a turned clock has put there."""
        boot_ns, future = self._clock.monotonic_ns(), self._future
        if now_ns - boot_ns < self._apart_ns - CLOCK_SLACK_NS:
            self._delayed.clear()  # the clock was set back since: their waits became longer than the requested ones
        self._apart_ns = now_ns - boot_ns
        if not len(future):
            if self._delayed or self._misdated:
                self._delayed, self._misdated = set(), {}
            return
        unknown = (
            name for name in future.sorted() if name not in self._delayed and name not in self._misdated
        )
        for filebase in list(islice(unknown, LOOKED_AT)):
            self._is_misdated(filebase, now_ns, boot_ns)
        there = set(future)
        self._delayed &= there
        self._misdated = {name: due_ns for name, due_ns in self._misdated.items() if name in there}
        for filebase in self._misdated:
            future.discard(filebase)

    def _is_misdated(self, filebase: str, now_ns: int, boot_ns: int) -> bool:
        wait_ns = self._names.requested_wait_ns(filebase, now_ns)
        if wait_ns is None:
            self._delayed.add(filebase)
            return False
        self._misdated[filebase] = boot_ns + wait_ns
        return True

    def _misdated_due(self) -> list[str]:
        if not self._misdated:
            return []
        now_ns = self._clock.monotonic_ns()
        return [filebase for filebase, due_ns in self._misdated.items() if due_ns <= now_ns]

    def _add_misdated(self) -> None:
        for filebase in self._misdated_due():
            self._due.add(filebase)

    def _note_next(self) -> None:
        name = parse_filebase(self._future.sorted()[0]) if len(self._future) else None
        self._next_when_ns = name.when_ns if name else None
        self._next_misdated_ns = None
        if self._misdated:
            now_ns = self._clock.monotonic_ns()
            self._next_misdated_ns = min(
                (due_ns for due_ns in self._misdated.values() if due_ns > now_ns), default=None
            )

    # What a slow reading found, brought up to date.

    def _known(self, now_ns: int) -> list[str]:
        for filebase in self._future.pop_before(format_when(now_ns) + '~'):
            self._due.add(filebase)
        self._add_misdated()
        self._note_next()
        for name in self._names.reported:
            self._due.discard(name.removesuffix(READY))
        return self._not_deferred(self._due)

    def _is_up_to_date(self, now_ns: int) -> bool:
        """Bring the names of the last reading up to date.

        :return: False if only another reading can.
        """
        age_ns = self._clock.monotonic_ns() - self._read_at_ns
        if age_ns > self._took_ns * SHARE or self._names.foreign_mail:
            return False
        if self._events is not None and self._mark is not None:
            changes = self._events.recorded_names(self._mark)
            if changes is not None:
                return all(self._apply(name, came, now_ns) for name, came in changes)
        mark = self._events.start_recording() if self._events is not None else None
        if self._stamp_ns is None or self._stamp_ns != self._names.modified_ns():
            return False
        self._mark = mark
        return True

    def _settled_stamp(self) -> int | None:
        """:return: when the directory was last changed; None if another change could have the same time."""
        coarse_ns, stamp_ns = time.clock_gettime_ns(_COARSE), self._names.modified_ns()
        return stamp_ns if stamp_ns is not None and coarse_ns - stamp_ns >= STAMP_STEP_NS else None

    def _apply(self, name: str, came: bool, now_ns: int) -> bool:
        """Note that a name came or went.

        :return: False if it may be none of an entry: a reading has to look what it is.
        """
        filebase, suffix = name[: -len(READY)], name[-len(READY) :]
        if not is_filebase(filebase):
            return not came or (is_known_name(name) and suffix != READY)
        if suffix != READY:
            if came and suffix == CLAIMED and self._keys is not None:
                self._keys.add(filebase, is_claimed=True)
            return not came or is_known_name(name)
        if not came:
            self._due.discard(filebase)
            self._future.discard(filebase)
            self._misdated.pop(filebase, None)
        elif self._names.slice.contains(filebase):
            if self._keys is not None:
                self._keys.add(filebase)
            if filebase <= format_when(now_ns) + '~':
                self._due.add(filebase)
            elif not self._is_misdated(filebase, now_ns, self._clock.monotonic_ns()):
                self._future.add(filebase)
        return True

    # All that is there, whether or not it was given out.

    def files(self, limit: int | None = None) -> list[str]:
        """Read the directory.

        :return: the entries that are due, or the first of them, in the order in which they are given out.
        """
        with self._lock:
            now_ns = self._now_ns()
            parts = self._names.filebase_chunks(READY)
            if (all_due := self._all_due_at_once(parts, format_when(now_ns) + '~')) is not None:
                return all_due[:limit]
            due = self._all_due(parts, now_ns, self._first_due(limit))
            newest = max(due, default='')
            if not self._names.is_whole and newest >= format_when(now_ns - SETTLED_NS) and limit is None:
                due = self._due_until(newest, now_ns)  # see `_stable_names`
            return due.sorted()[:limit]

    def oldest(self, number: int) -> list[str]:
        """:return: the first of the entries that are due by their age alone, without regard to priorities."""
        with self._lock:
            due = self._all_due(self._names.filebase_chunks(READY), self._now_ns(), SmallestNames(number))
            return due.sorted()[:number]

    def sample(self, number: int) -> list[str]:
        """:return: some of the entries that are due, picked by chance."""
        with self._lock:
            salt = random.getrandbits(32)
            picked = SmallestNames(number, lambda name: f'{crc32(name.encode("ascii"), salt):08x}')
            return self._all_due(self._names.filebase_chunks(READY), self._now_ns(), picked).sorted()[:number]

    def entries(self, suffix: str) -> list[str]:
        """:return: all entries in a state, due or not, in order."""
        with self._lock:
            return sorted(chain.from_iterable(self._names.filebase_chunks(suffix)), key=self.sort_key)

    def _all_due(self, parts: Iterable[list[str]], now_ns: int, due: SmallestNames) -> SmallestNames:
        now, future = format_when(now_ns) + '~', SmallestNames(self._kept)
        for some in parts:
            _part(some, now, due, future)
        if len(future):
            boot_ns = self._clock.monotonic_ns()
            for filebase in future.sorted()[:LOOKED_AT]:
                if filebase not in self._delayed and filebase not in self._misdated:
                    self._is_misdated(filebase, now_ns, boot_ns)
            due.extend([name for name in self._misdated_due() if name in future])
        return due


def _part(some: list[str], now: str, due: SmallestNames, future: SmallestNames) -> None:
    """Part entries into those whose time has come and the others."""
    if max(some, default='') > now:
        future.extend([filebase for filebase in some if filebase > now])
        some = [filebase for filebase in some if filebase <= now]
    due.extend(some)


def requested_wait(records: list[Record], now_ns: int) -> tuple[float, float]:
    """:return: until when an entry of strict order is to wait, as its history says, and how many seconds that are from now; two zeros if no wait was asked for.

    A record from the future was written before the clock was set back: the wait that was asked for is kept, not the hour.
    """
    for record in reversed(records):
        until, since = record.get('not_before'), record.get('time')
        if isinstance(until, int | float):
            wait_s = until - now_ns / NS_PER_S
            if isinstance(since, int | float) and since > (now_ns + CLOCK_SLACK_NS) / NS_PER_S:
                wait_s = until - since
            return until, max(0.0, wait_s)
        if record.get('event') == 'retried':
            break
    return 0.0, 0.0
