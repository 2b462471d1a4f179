"""What an idle runner sleeps on: a new name in its queue's directory, a timer, or a word from a signal handler.

inotify tells of new names at once, but a busy runner would get an event for each of its own renames.  So the watch is
set when the runner has found nothing to do, the directory is looked at once more (something may have come between), and
the watch is removed when it wakes.  Where there is no inotify, or a file system sends no events (NFS), the timer is
all there is; it runs always.

Of a directory that takes long to read, names are of more worth than the quiet: then the watch stays, and all that comes and goes
is told by name (see ``ready_queue``).
"""

from __future__ import annotations

import os
import select

try:
    from inotify_simple import INotify, flags  # type: ignore[import-untyped]
except ImportError:  # not Linux
    INotify = None
else:
    # As plain numbers: the library's flags are objects, and to combine two of them runs a page of Python.
    # Never CREATE: what is being created is not finished.
    ARRIVALS = int(flags.MOVED_TO | flags.CLOSE_WRITE | flags.ONLYDIR)
    # But in a maildir: some mail servers link a finished file into it.
    LINKS = int(flags.CREATE)
    DEPARTURES = int(flags.MOVED_FROM | flags.DELETE)
    # The directory itself was renamed away: names come elsewhere from now on.
    MOVED = int(flags.MOVE_SELF)
    LOSSES = int(flags.Q_OVERFLOW | flags.UNMOUNT)
    IGNORED = int(flags.IGNORED)

# Without events, how long a message may lie before it is seen.
POLL_S = 1.0
# The kernel counts milliseconds in 31 bits.  An entry may be delayed for longer.
LONGEST_S = 1_000_000.0
# Names that are kept for who asks for them; more are as dear as reading the directory.
MAX_NAMES = 50_000


class Wakeup:
    """Sleeps until something happens.

    :param directory: whose new names wake; None for a runner without a queue.
    :param maildir_new: a directory whose names are finished files from their first moment, as those of a maildir's ``new``
        are, and may come as links.
    """

    def __init__(self, directory: str | None = None, maildir_new: str | None = None) -> None:
        self.directory = directory
        self.maildir_new = maildir_new
        self._inotify: INotify | None = None
        self._watch: int | None = None
        self._watch_of_new: int | None = None
        # Are names wanted, and does the watch that is set tell them?
        self._follows = self._tells = False
        self._names: list[tuple[str, bool]] = []
        self._are_lost = False
        self._others: tuple[int, ...] = ()
        self._poll = select.poll()
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._read_end, select.POLLIN)
        if INotify is not None and directory is not None:
            try:
                self._inotify = INotify(nonblocking=True)
                self._poll.register(self._inotify.fileno(), select.POLLIN)
            except OSError:  # the limit of inotify instances of this user
                self._inotify = None

    @property
    def watches(self) -> bool:
        """Will the kernel tell of new names?  If not, only the timer does."""
        return self._watch is not None and (self.maildir_new is None or self._watch_of_new is not None)

    def arm(self) -> None:
        """Watch the directory from now on.  Look at it once more afterwards, before sleeping."""
        if self._inotify is None or self._watch is not None:
            return
        self._tells = self._follows
        self._watch = self._add_watch(self.directory, ARRIVALS | MOVED | (DEPARTURES if self._tells else 0))
        if self.maildir_new is not None:
            self._watch_of_new = self._add_watch(self.maildir_new, ARRIVALS | LINKS)

    def _add_watch(self, directory: str | None, mask: int) -> int | None:
        assert self._inotify is not None
        try:
            watch: int = self._inotify.add_watch(directory, mask)
        except OSError:  # the limit of watches, or the directory is gone: the timer remains
            return None
        return watch

    def disarm(self) -> None:
        """Stop watching, and forget what came; where names are wanted, go on."""
        if self._inotify is not None and not (self._follows and self._tells):
            self._remove_watches()

    def _remove_watches(self) -> None:
        assert self._inotify is not None
        for watch in (self._watch, self._watch_of_new):
            if watch is not None:
                try:
                    self._inotify.rm_watch(watch)
                except OSError:
                    pass  # the directory went away, and the watch with it
        if self._watch is not None or self._watch_of_new is not None:
            self._inotify.read(timeout=0)
        self._watch = self._watch_of_new = None

    # See `Events`.

    def follow(self, wanted: bool) -> None:
        """Say whether it is of interest which names come and go."""
        self._follows = wanted

    def renew(self) -> None:
        """Watch the directory that stands at this path by now."""
        if self._inotify is not None and self._watch is not None:
            self._remove_watches()
            self.arm()

    def mark(self) -> int | None:
        """Begin to tell names, from now on.

        :return: what to give to :meth:`since`; None if nothing will be told.
        """
        if self._inotify is None or not self._follows:
            return None
        if not self._tells:
            self._remove_watches()
        self.arm()
        self._collect()
        self._names.clear()
        self._are_lost = False
        return self._watch

    def since(self, mark: int) -> list[tuple[str, bool]] | None:
        """:return: the names since the mark, or since they were last asked for, each with whether it came; None if not all
        of them are known.
        """
        if self._inotify is None or self._watch != mark:
            return None
        self._collect()
        if self._are_lost:
            return None
        names, self._names = self._names, []
        return names

    def _collect(self) -> None:
        assert self._inotify is not None
        for event in self._inotify.read(timeout=0):
            if event.mask & (LOSSES | MOVED) or (event.mask & IGNORED and event.wd == self._watch):
                self._are_lost = True
            elif event.wd == self._watch:
                self._names.append((event.name, not event.mask & DEPARTURES))
        if len(self._names) > MAX_NAMES:
            self._are_lost = True
            self._names.clear()

    def wait(self, timeout_s: float | None) -> bool:
        """Sleep until a new name, :meth:`wake`, or the end of the time.

        :return: False if the time ran out.
        """
        # Rounded up: waking a moment too early would mean a round for nothing.
        events = self._poll.poll(None if timeout_s is None else int(min(timeout_s, LONGEST_S) * 1000) + 1)
        for fd, _ in events:
            if fd == self._read_end:
                os.read(self._read_end, 4096)
            elif self._tells:
                self._collect()
        return bool(events)

    def watch_also(self, *descriptors: int) -> None:
        """End the sleep when one of these is readable, too; they take the place of those that were given before."""
        if descriptors == self._others:
            return
        for descriptor in self._others:
            self._poll.unregister(descriptor)
        for descriptor in descriptors:
            self._poll.register(descriptor, select.POLLIN)
        self._others = descriptors

    def descriptors(self) -> list[int]:
        """:return: what an event loop has to watch in place of :meth:`wait`; call ``wait(0)`` when one is readable."""
        inotify = [self._inotify.fileno()] if self._inotify is not None else []
        return [self._read_end, *inotify, *self._others]

    def wake(self) -> None:
        """End the sleep, or the next one.  Safe to call from a signal handler."""
        try:
            os.write(self._write_end, b'!')
        except BlockingIOError:
            pass  # it has been told often enough

    def close(self) -> None:
        """Give the descriptors back."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        for end in (self._read_end, self._write_end):
            if end >= 0:
                os.close(end)
        self._read_end = self._write_end = -1

    def __del__(self) -> None:
        self.close()
