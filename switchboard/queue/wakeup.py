"""The sleep of an idle runner: until a new name in its queue's directory, a timer, or a word from a signal handler.

The watch is set when the runner has found nothing to do, the directory is looked at once more (something may have come between), and
the watch is removed when it wakes (see `switchboard.queue.watch`).

For large directories the watch stays armed, and its events replace a rescan: they say which names came and went (see ``ready_queue``).

**Many sleepers.**  The kernel wakes everybody who watches a directory, whatever the name.  But the name says whose it is: the slice is in
the digest.  So a runner of another slice goes on sleeping, without looking at the directory; and after it was woken in vain it does not
listen for a :data:`DEAF_SHARE` th of the time for which nothing of its own has come, :data:`MIN_DEAF_S` at least and :data:`MAX_DEAF_S` at
most.  What came meanwhile is looked through at once, without reading each event.  So a slice for which messages come all the time notices each
within a moment, and a crowd of idle ones beside it costs next to nothing.

**Entries that are being flushed.**  An entry is seen by its new name and can be had when its producer lets go of it, one flush later.  The kernel
tells of both, so a sleeper waits for the second, :data:`HELD_S` at most; one that had come too early notices it as well, and tries again at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache

from switchboard.message.naming import CLAIMED, READY, Slice, is_filebase, other_slices_pattern
from switchboard.queue.watch import (
    ARRIVALS,
    CLOSED,
    CREATIONS,
    DEPARTURES,
    IGNORED,
    LOSSES,
    MOVED,
    RENEWED,
    DirectoryWatch,
    arrival_matcher,
    wait_readable,
)

# Names that are kept until somebody asks for them; more are as dear as reading the directory.
MAX_NAMES = 50_000
# Of the entries that were closed, so many are kept; one that is forgotten is noticed by a timer.
MAX_CLOSED = 1000
# See the module.
DEAF_SHARE = 20
MIN_DEAF_S, MAX_DEAF_S = 0.001, 0.02
# How long an entry that has come is given until its producer lets go of it: some flushes.  A file that is renamed by a program
# which has not got it open is noticed so much later.
HELD_S = 0.005


def other_slices_arrivals(slice_: Slice) -> Callable[[bytes], object]:
    """:return: a function that says whether some events are all of other slices.  Made before a fork, it is there in each child."""
    return _arrivals(f'{other_slices_pattern(slice_)}(?:\\{READY}|\\{CLAIMED})')


# As many as there are slices at work: a forked process finds its own here.
_arrivals = lru_cache(maxsize=512)(arrival_matcher)


class Wakeup:
    """Sleeps until something happens.

    :param directory: the directory whose new names wake; None for a runner without a queue.
    :param maildir_new: a directory whose names are finished files from their first moment, as those of a maildir's ``new``
        are, and may come as links.
    :param slice_: the slice whose entries wake; entries of other slices do not.
    """

    def __init__(
        self, directory: str | None = None, maildir_new: str | None = None, slice_: Slice | None = None
    ) -> None:
        self.directory = directory
        self.maildir_new = maildir_new
        self._slice = slice_ or Slice()
        # Says of many events at once that all are of other slices.
        self._is_ignorable: Callable[[bytes], object] | None = None
        if directory is not None and maildir_new is None and self._slice.count > 1:
            self._is_ignorable = other_slices_arrivals(self._slice)
        # Has an entry come that its producer may still have locked, to flush it?
        self._held = False
        # Entries that a process has closed.
        self._closed: deque[str] = deque(maxlen=MAX_CLOSED)
        # When something came that was worth waking for.
        self._woke_s = 0.0
        # Are names wanted, and does the watch that is set tell them?
        self._records = self._tells = False
        self._names: list[tuple[str, bool]] = []
        self._are_lost = False
        self._others: tuple[int, ...] = ()
        self._watch = DirectoryWatch()
        if directory is not None:
            self._watch.open()  # at once, because an event loop asks for the descriptors once

    @property
    def is_watching(self) -> bool:
        """Will the kernel tell of new names?  If not, only the timer does."""
        return self._is_armed and (
            self.maildir_new is None or self._watch.watch_number(self.maildir_new) is not None
        )

    @property
    def _is_armed(self) -> bool:
        return self._watch.watch_number(self.directory) is not None

    def arm(self) -> None:
        """Watch the directory from now on.  Look at it once more afterwards, before sleeping."""
        if self.directory is None:
            return
        if not self._is_armed:
            self._tells = self._records
            self._watch.watch(self.directory, ARRIVALS | MOVED | (DEPARTURES if self._tells else 0))
        if self.maildir_new is not None:
            self._watch.watch(self.maildir_new, ARRIVALS | CREATIONS)

    def disarm(self) -> None:
        """Stop watching, and forget what came; where names are wanted, go on."""
        if not (self._records and self._tells):
            self._remove_watches()

    def _remove_watches(self) -> None:
        was_armed = self._is_armed or self._watch.watch_number(self.maildir_new) is not None
        self._watch.unwatch_all()
        if was_armed:
            self._watch.events()

    # The names that came and went, for the ready queue.

    def record_names(self, wanted: bool) -> None:
        """Say whether it is of interest which names come and go."""
        self._records = wanted

    def rewatch(self) -> None:
        """Watch the directory that stands at this path by now."""
        if self._is_armed:
            self._remove_watches()
            self.arm()

    def start_recording(self) -> int | None:
        """Begin to tell names, from now on.

        :return: the mark for :meth:`recorded_names`; None if no events will come.
        """
        if self.directory is None or not self._records:
            return None
        if not self._tells:
            self._remove_watches()
        self.arm()
        self._collect()
        self._names.clear()
        self._are_lost = False
        return self._watch.watch_number(self.directory)

    def recorded_names(self, mark: int) -> list[tuple[str, bool]] | None:
        """:return: the names since the mark, or since they were last asked for, each with whether it came; None if not all
        of them are known.
        """
        if self._watch.watch_number(self.directory) != mark:
            return None
        self._collect()
        if self._are_lost:
            return None
        names, self._names = self._names, []
        return names

    def closed_entries(self) -> list[str]:
        """:return: entries that a process has closed, mostly their producer, who has let go of them; each once.

        It may also be one that had opened the file as a spare, and came too late.
        """
        closed = list(self._closed)
        self._closed.clear()
        return closed

    def _collect(self) -> bool:
        """:return: whether something came that is worth waking for."""
        is_news = False
        for directory, name, mask in self._watch.events(None if self._tells else self._is_ignorable):
            if mask & (LOSSES | MOVED | RENEWED) or (mask & IGNORED and directory == self.directory):
                self._are_lost = is_news = True
            elif directory != self.directory:
                is_news = True
            elif self._is_mine(name):
                came = not mask & DEPARTURES
                if came and name.endswith(READY):
                    if mask & CLOSED:
                        is_news = True
                        self._closed.append(name[: -len(READY)])
                    else:
                        self._held = True
                else:
                    is_news |= came and not name.endswith(CLAIMED)
                if self._tells:
                    self._names.append((name, came))
        if len(self._names) > MAX_NAMES:
            self._are_lost = is_news = True
            self._names.clear()
        return is_news

    def _is_mine(self, name: str) -> bool:
        """Does a name concern this slice?  A name that is no entry's concerns all of them."""
        filebase = name[: -len(READY)]
        return self._slice.count == 1 or not is_filebase(filebase) or self._slice.contains(filebase)

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until a new name, :meth:`wake`, or the end of the time.

        :return: False if the time ran out.
        """
        now_s = time.monotonic()
        ends_s = None if timeout_s is None else now_s + timeout_s
        deaf_s = 0.0
        self._held = False
        while True:
            left_s = None if ends_s is None else max(0.0, ends_s - now_s)
            if deaf_s:
                words = [self._watch.pipe.fileno(), *self._others]
                ready = wait_readable(words, deaf_s if left_s is None else min(deaf_s, left_s))
                deaf_s = 0.0
            elif not (ready := wait_readable(self.descriptors(), left_s)):
                return False
            now_s = time.monotonic()
            if self._is_woken(ready):
                self._woke_s = now_s
                return True
            if self._held:
                held_s = HELD_S if left_s is None else min(HELD_S, left_s)
                self._await_release(now_s + held_s)
                self._woke_s = now_s
                return True
            if ready:
                deaf_s = max(MIN_DEAF_S, min(MAX_DEAF_S, (now_s - self._woke_s) / DEAF_SHARE))

    def _await_release(self, until_s: float) -> None:
        """Wait until a producer lets go of an entry that has come, or something else happens."""
        while (left_s := until_s - time.monotonic()) > 0:
            if self._is_woken(wait_readable(self.descriptors(), left_s)):
                break
        self._held = False

    def _is_woken(self, ready: list[int]) -> bool:
        is_woken = False
        for fd in ready:
            if fd == self._watch.pipe.fileno():
                self._watch.pipe.empty()
                is_woken = True
            elif fd in self._others:
                is_woken = True
            else:
                is_woken |= self._collect()
        return is_woken

    def watch_also(self, *descriptors: int) -> None:
        """End the sleep when one of these is readable, too; they take the place of those that were given before."""
        self._others = descriptors

    def descriptors(self) -> list[int]:
        """:return: the descriptors that an event loop watches in place of :meth:`wait`; call ``wait(0)`` when one is readable: it says whether that is worth waking for."""
        return [*self._watch.descriptors(), *self._others]

    def wake(self) -> None:
        """End the sleep, or the next one.  Safe to call from a signal handler."""
        self._watch.wake()

    def close(self) -> None:
        """Give the descriptors back."""
        self._watch.close()
