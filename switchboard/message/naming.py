"""The grammar of names: names of queues and entries, the slice of an entry, and its place in the order.

An entry is called ``<when>+<digest>``, with ``+p<priority>`` behind it where it has one::

    1732242000.123456789+5f0c1e2b9a3d7c41f0e2b6a85d93c4170000000000000007
    |-- when ----------| |-- digest: 40 hex digits ---------------------|

``when`` is the time from which the entry is ready, in seconds since the epoch: ten digits, a point, one to nine digits.
Names sort as text in the order of ``when``, so a listing that is sorted is FIFO, and nobody opens a file to know
the order.  The first eight digits of the digest choose the slice: they come from the order key, or else from content and rest.  The rest
is a random number of the process and a count, so that two entries never share a name, not even when the clock is set back.

Rejected: floating-point times (``repr`` differs in length and loses the last digits), hashing the time into the slice
(one key could then never stay in one slice), slice counts that are powers of two only.
"""

from __future__ import annotations

import itertools
import os
from zlib import crc32

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.drop_errors import UnknownQueueError

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

READY, CLAIMED, PRESERVED, UNFINISHED = '.pck', '.bak', '.psv', '.tmp'
# No entry yet: a mail that another program has put into a queue.
PLAIN_SUFFIX = '.eml'

NS_PER_S = 1_000_000_000
DIGEST_DIGITS = 40
SLICE_DIGITS = 8
UNIQUE_DIGITS = DIGEST_DIGITS - SLICE_DIGITS
SLICE_BITS = SLICE_DIGITS * 4
HIGHEST_PRIORITY = 9

# A clock that differs by less is nobody's business: the entry waits that long.
CLOCK_SLACK_NS = NS_PER_S

# Names from this time on, in the year 2286, are those of entries that an operator holds: they are due when he says so.
ON_HOLD_PREFIX = '9999'
ON_HOLD_NS = 9_999_000_000 * NS_PER_S
# A hundred years: longer than anybody waits, and names have room for that time.
LONGEST_DELAY_S = 100 * 365 * 86400.0

# 100 characters keep a staged name (transaction, queue and filebase in one) below the 255 bytes of a directory entry.
MAX_QUEUE_NAME = 100
_FIRST = frozenset('abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@+,~%')
_REST = _FIRST | frozenset('.-')
_HEX = frozenset('0123456789abcdef')
# The file system's own, in the directory where it is mounted, which may be a spool: root's, and no queue.
LOST_AND_FOUND = 'lost+found'


def is_queue_name(name: str) -> bool:
    """:return: whether a queue may be called so; a directory in a spool that may not is somebody else's."""
    if not name or len(name) > MAX_QUEUE_NAME or name[0] not in _FIRST or name == LOST_AND_FOUND:
        return False
    return _REST.issuperset(name)


def check_queue_name(name: str) -> str:
    """Return `name` if a queue may be called so.

    :raises UnknownQueueError: it is empty, longer than 100 characters, starts with a point or a hyphen, holds a
        character other than letters, digits and ``. _ - @ + , ~ %``, or is the file system's ``lost+found``.
    """
    if not is_queue_name(name):
        raise UnknownQueueError(
            f'{name!r} cannot be a queue name: use 1 to {MAX_QUEUE_NAME} letters, digits and . _ - @ + , ~ %, '
            f'not starting with a point or a hyphen, and not {LOST_AND_FOUND}'
        )
    return name


class EntryName:
    """An entry's name, taken apart."""

    # Neither a NamedTuple nor a dataclass: loading `typing` or `dataclasses` would take `drop` longer than
    # all of its work.
    __slots__ = ('digest', 'priority', 'when_ns')

    def __init__(self, when_ns: int, digest: str, priority: int = 0) -> None:
        self.when_ns = when_ns
        self.digest = digest
        self.priority = priority


def format_when(when_ns: int) -> str:
    """Write a time as names hold it: ten digits of seconds, a point, nine of nanoseconds."""
    return f'{when_ns // NS_PER_S:010d}.{when_ns % NS_PER_S:09d}'


def make_filebase(when_ns: int, digest: str, priority: int = 0) -> str:
    """:return: the filebase that says this."""
    digits = f'{when_ns:019d}'
    if priority:
        return f'{digits[:10]}.{digits[10:]}+{digest}+p{priority}'
    return f'{digits[:10]}.{digits[10:]}+{digest}'


def parse_filebase(filebase: str) -> EntryName | None:
    """Take a name apart.

    :return: None if `filebase` is not of the grammar.  Foreign names are no error: directories hold all kinds of things.
    """
    when, plus, rest = filebase.partition('+')
    digest, mark, priority = rest.partition('+p')
    seconds, point, fraction = when.partition('.')
    if (
        not plus
        or not point
        or len(seconds) != 10
        or not 1 <= len(fraction) <= 9
        or not (when.isascii() and seconds.isdigit() and fraction.isdigit())
        or len(digest) != DIGEST_DIGITS
        or not _HEX.issuperset(digest)
    ):
        return None
    if mark and (len(priority) != 1 or priority not in '123456789'):
        return None
    return EntryName(
        int(seconds) * NS_PER_S + int(fraction.ljust(9, '0')), digest, int(priority) if mark else 0
    )


_matchers: list[Callable[[str], object]] = []


def is_filebase(text: str) -> bool:
    """The same question as :func:`parse_filebase`, without the parts; four times as fast."""
    return (_matchers[0] if _matchers else _matcher())(text) is not None


def _matcher() -> Callable[[str], object]:
    import re  # here, because `drop` makes names and never reads them, and starts faster without

    _matchers.append(re.compile(_filebase_pattern()).fullmatch)
    return _matchers[0]


def _filebase_pattern(slice_digits: str = '[0-9a-f]{8}') -> str:
    return rf'[0-9]{{10}}\.[0-9]{{1,9}}\+(?:{slice_digits})[0-9a-f]{{32}}(?:\+p[1-9])?'


def digest_of(filebase: str) -> str:
    """:return: the digest of a name that is known to be of the grammar: the entry's identity for life."""
    start = filebase.index('+') + 1
    return filebase[start : start + DIGEST_DIGITS]


def slice_digits_of(filebase: str) -> str:
    """:return: the digits that entries with the same order key have in common."""
    start = filebase.index('+') + 1
    return filebase[start : start + SLICE_DIGITS]


def with_when(filebase: str, when_ns: int) -> str:
    """:return: the same entry's name with another time: its digest, slice and priority stay."""
    return format_when(when_ns) + filebase[filebase.index('+') :]


def one_ns_later(filebase: str) -> str:
    """:return: the same entry's name a nanosecond later."""
    when_s, _, fraction = filebase.partition('+')[0].partition('.')
    return with_when(filebase, int(when_s) * NS_PER_S + int(fraction.ljust(9, '0')) + 1)


def requested_wait_ns(when_ns: int, modified_ns: int, now_ns: int) -> int | None:
    """Tell an entry that a turned clock has put into the future from one that is to wait until then.

    A file from the future was written before the clock was set back.  The time from then to the one in its name is the wait
    that was asked for; mostly there is none.

    :param when_ns: the time in its name, which is in the future.
    :param modified_ns: its file's modification time.
    :return: that wait; None if no clock was turned: then the time in the name counts.
    """
    if modified_ns <= now_ns + CLOCK_SLACK_NS:
        return None
    wait_ns = when_ns - modified_ns
    return wait_ns if wait_ns > CLOCK_SLACK_NS else 0


def due_ns(when_ns: int, modified_ns: int, now_ns: int) -> int:
    """Say when an entry is given out, for a process that does not wait for it: the one answer of all lists, tables and metrics.

    After a clock was set back, the beginning of the wait is not known; so the whole wait counts, from now on.

    :param when_ns: the time in its name.
    :param modified_ns: its file's modification time.
    """
    if when_ns <= now_ns:
        return when_ns
    wait_ns = requested_wait_ns(when_ns, modified_ns, now_ns)
    return when_ns if wait_ns is None else now_ns + wait_ns


def when_ns_of(filebase: str) -> int:
    """:return: from when on an entry is ready, or was, by its name; 0 if it is none."""
    name = parse_filebase(filebase)
    return name.when_ns if name else 0


def on_hold_name(filebase: str) -> str:
    """:return: the name that an entry has while an operator holds it; the end of its time stays, to tell it from others."""
    return ON_HOLD_PREFIX + filebase[len(ON_HOLD_PREFIX) :]


def is_on_hold(filebase: str) -> bool:
    """Does an operator hold the entry of this name?"""
    return filebase.startswith(ON_HOLD_PREFIX)


def slice_digits_without_key(checksum: int, unique: str) -> str:
    """Choose the slice of an entry without an order key.

    Equal messages are as many as others, and one slice must not get all of them: so the unique part counts as well as the content.

    :param unique: the rest of its digest.
    :return: the first digits of its digest.
    """
    return f'{crc32(unique.encode("ascii"), checksum):0{SLICE_DIGITS}x}'


def key_digest(key: object) -> str:
    """:return: 40 hex digits that stand for a key."""
    import hashlib  # here, because it brings a megabyte of OpenSSL with it, and few queues have keys

    return hashlib.sha1(str(key).encode('utf-8', 'surrogatepass'), usedforsecurity=False).hexdigest()


def slice_digits(key: object) -> str:
    """:return: the digits that put all entries with this order key into one slice."""
    return key_digest(key)[:SLICE_DIGITS]


def order_key_of(metadata: Mapping[str, object], option: str | None) -> object:
    """:return: the order key of a message: its own ``order_key``, or else the value of the key that its queue names; None without one.

    :param option: the queue's ``order_key``.
    """
    key = metadata.get('order_key')
    return metadata.get(option) if key is None and option is not None else key


class Slice:
    """The share of the digest space that one of ``count`` runner processes works on.

    The space is cut into `count` ranges by integer arithmetic, so that any count is possible and each entry is in
    exactly one slice.
    """

    __slots__ = ('count', 'index')

    def __init__(self, index: int = 0, count: int = 1) -> None:
        self.index = index
        self.count = count

    def contains(self, filebase: str) -> bool:
        """Assumes that `filebase` is of the grammar."""
        if self.count == 1:
            return True
        start = filebase.index('+') + 1
        return (int(filebase[start : start + SLICE_DIGITS], 16) * self.count) >> SLICE_BITS == self.index

    def digits(self) -> tuple[str, str]:
        """:return: the first and the last of the slice's digits."""
        first, after = (-(-(number << SLICE_BITS) // self.count) for number in (self.index, self.index + 1))
        return f'{first:0{SLICE_DIGITS}x}', f'{after - 1:0{SLICE_DIGITS}x}'


def join_names(names: Iterable[str]) -> str:
    """:return: many names in one text, for a :class:`FilebaseFinder`; no name holds a slash."""
    return '/' + '/'.join(names) + '/'


# Those of each slice, by its digits and by suffix: one process makes them for all that it forks.
_finders: dict[tuple[str, str], dict[str, Callable[[str], list[str]]]] = {}


class FilebaseFinder:
    """Finds the entries of one slice among the names of a directory.

    All names are looked through at once, in one text: to ask of each whether it is an entry's, and whose, takes fifteen times as long, and each
    slice of a queue reads the names of all of them.
    """

    def __init__(self, slice_: Slice) -> None:
        self._digits = slice_.digits()
        self._by_suffix = _finders.setdefault(self._digits, {})

    def filebases(self, joined: str, suffix: str) -> list[str]:
        """:return: the filebases of the slice's entries that have a suffix, in the order of the names."""
        find = self._by_suffix.get(suffix)
        if find is None:
            pattern = _filebase_pattern(_between(*self._digits))
            find = self._finds(suffix, rf'/({pattern})\{suffix}(?=/)')
        return find(joined)

    def others(self, joined: str) -> list[str]:
        """:return: the names that are no entry's, of whichever slice, in whichever state."""
        find = self._by_suffix.get('')
        if find is None:
            known = '|'.join('\\' + suffix for suffix in (READY, CLAIMED, PRESERVED, UNFINISHED))
            find = self._finds('', rf'/(?!{_filebase_pattern()}(?:{known})/)([^/]+)(?=/)')
        return find(joined)

    def _finds(self, suffix: str, pattern: str) -> Callable[[str], list[str]]:
        import re  # see `is_filebase`

        find = self._by_suffix[suffix] = re.compile(pattern).findall
        return find


def other_slices_pattern(slice_: Slice) -> str:
    """:return: a pattern for the filebases that another slice holds."""
    return rf'(?![0-9.]+\+{_between(*slice_.digits())}){_filebase_pattern()}'


def _between(first: str, last: str) -> str:
    """:return: a pattern for all hexadecimal numbers from one to another, of as many digits."""
    if first == '0' * len(first) and last == 'f' * len(last):
        return f'[0-9a-f]{{{len(first)}}}' if first else ''
    low, high, left = first[0], last[0], len(first) - 1
    if low == high:
        return low + _between(first[1:], last[1:])
    ends = []
    if first[1:] != '0' * left:
        ends.append(low + _between(first[1:], 'f' * left))
        low = f'{int(low, 16) + 1:x}'
    if last[1:] != 'f' * left:
        ends.append(high + _between('0' * left, last[1:]))
        high = f'{int(high, 16) - 1:x}'
    digits = ''.join(f'{number:x}' for number in range(int(low, 16), int(high, 16) + 1))
    if digits:
        ends.insert(0, f'[{digits}]' + _between('0' * left, 'f' * left))
    return '(?:' + '|'.join(ends) + ')'


def make_slice(index: int | None, count: int) -> Slice:
    """Check the slice that somebody asks for; without an index, it is all of the space.

    Of one slice, any index is that slice, as in Mailman, whose programs name it 1.

    :raises ValueError: a count below one, or an index outside it.
    """
    if count == 1:
        return Slice()
    if count < 1 or not 0 <= (index or 0) < count:
        raise ValueError(f'slice {index} of {count}: give a count of at least 1 and 0 <= slice < count')
    return Slice() if index is None else Slice(index, count)


class NameGenerator:
    """Gives out names: each one later than the one before, and none twice.

    When the clock is set back, names go on from where they were, a nanosecond apart, so that FIFO order holds within
    the process.  Such a name lies in the future; the file's modification time then says that this was no wish for
    a delay.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self._last_ns = 0

    def next_when_ns(self) -> int:
        """:return: a time later than each that was returned before."""
        return self.next_when_ns_from(self.clock.time_ns())

    def next_when_ns_from(self, now_ns: int) -> int:
        """:return: the time `now_ns`, or a later one: later than each that was returned before."""
        if now_ns <= self._last_ns:
            now_ns = self._last_ns + 1
        self._last_ns = now_ns
        return now_ns

    def unique_digits(self) -> str:
        """:return: the part of a digest behind the eight digits that choose the slice: unique for ever."""
        return f'{_process}{next(_count):016x}'

    def digest(self, prefix: str) -> str:
        """:return: a digest that starts with the eight hex digits `prefix` and is unique for ever."""
        return prefix + self.unique_digits()


# A random number of this process, and how many names it has given out.
_process, _count = os.urandom(8).hex(), itertools.count(1)


def reset_process_number() -> None:
    """Take another number for this process: after a fork both would count on from the same one."""
    global _process, _count
    _process, _count = os.urandom(8).hex(), itertools.count(1)


os.register_at_fork(after_in_child=reset_process_number)

SYSTEM_NAME_GENERATOR = NameGenerator()


# What one level of priority is worth, if the queue does not say.
PRIORITY_STEP_NS = 60 * NS_PER_S


def sort_key(filebase: str, step_ns: int = PRIORITY_STEP_NS) -> str:
    """The key by which entries are sorted: FIFO, and each level of priority is worth `step_ns` of waiting.

    So a high priority goes before what came up to a few minutes earlier, and nothing is put off for ever.
    """
    if filebase[-3:-1] != '+p':
        return filebase
    name = parse_filebase(filebase)
    return with_when(filebase, max(0, name.when_ns - name.priority * step_ns)) if name else filebase
