"""Ages, sizes and counts as people read them, and text that is safe to show on a terminal."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchboard.drop_errors import DurabilityError

# Characters that could move the cursor, ring, recolour or reverse their neighbours: control characters but the newline and the tab,
# separators that break lines, marks that change the direction of writing, and surrogates, which no terminal takes.
_UNSAFE = re.compile(
    '[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]'
)
_LOOK_AT_THE_DISK = 'look at the disk (`dmesg`), then do it again'
_MAKE_ROOM = 'make room: `df -h` and `df -i` show the disks, `switchboard spares empty` frees the spare files'
_TOO_MANY_OPEN = 'let it have more files open (`ulimit -n`, or `LimitNOFILE` of its unit), then do it again'
_WHY_READ_ONLY = 'look whether it is mounted so, the kernel made it so after an error (`dmesg`), or this unit may not write (`ReadWritePaths`)'
# By the system's number, the exit status and the advice for trouble that is the disk's or the machine's: it would have met any other message as well.
_TROUBLE = {
    errno.EIO: (os.EX_IOERR, _LOOK_AT_THE_DISK),
    errno.EUCLEAN: (
        os.EX_IOERR,
        'the file system is damaged: look at the disk (`dmesg`), and have it checked (`fsck`)',
    ),
    errno.ENODEV: (os.EX_IOERR, _LOOK_AT_THE_DISK),
    errno.EROFS: (os.EX_CANTCREAT, _WHY_READ_ONLY),
    errno.ENOSPC: (os.EX_TEMPFAIL, _MAKE_ROOM),
    errno.EDQUOT: (os.EX_TEMPFAIL, _MAKE_ROOM),
    errno.ESTALE: (os.EX_IOERR, 'mount it anew, and look at the machine that it is on'),
    errno.EMFILE: (os.EX_TEMPFAIL, _TOO_MANY_OPEN),
    errno.ENFILE: (
        os.EX_TEMPFAIL,
        'let the machine have more files open (`sysctl fs.file-max`), then do it again',
    ),
    errno.ENOMEM: (
        os.EX_TEMPFAIL,
        'the machine has no memory for it: end something else, then do it again',
    ),
}
_UNITS = ((86400, 'd'), (3600, 'h'), (60, 'm'))


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f'\\x{code:02x}' if code < 256 else f'\\u{code:04x}'


def escape_terminal(text: str) -> str:
    """:return: the text with everything written out that would act on a terminal; newlines and tabs stay.

    >>> escape_terminal('red: \\x1b[31m')
    'red: \\\\x1b[31m'
    """
    return _UNSAFE.sub(_written_out, text)


def quoted(path: Path | str | None) -> str:
    """:return: a path as a shell wants it, in a command that a message names."""
    if re.fullmatch(r'[\w./-]+', str(path)):
        return str(path)
    from shlex import quote  # an empty list has a command in its advice, and few paths are of this kind

    return quote(str(path))


def system_advice(error: BaseException) -> str:
    """:return: the advice about trouble of the disk or the machine, which an error is or comes from; empty if it is neither's."""
    cause = _cause(error)
    if isinstance(cause, PermissionError) and isinstance(error, OSError | DurabilityError):
        return "run it as the spool's owner, or as a member of its group"
    return _TROUBLE[cause.errno or 0][1] if cause is not None and cause.errno in _TROUBLE else ''


def system_status(error: BaseException) -> int | None:
    """:return: the exit status for trouble of the disk or the machine, which an error is or comes from; None if it is neither's."""
    cause = _cause(error)
    if isinstance(cause, PermissionError):
        return os.EX_NOPERM
    return _TROUBLE[cause.errno or 0][0] if cause is not None and cause.errno in _TROUBLE else None


def _cause(error: BaseException) -> OSError | None:
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause if isinstance(cause, OSError) else None


def system_words(error: OSError) -> str:
    """:return: an error in the system's words, with the path that it is about."""
    place = f'{error.filename}: ' if isinstance(error.filename, str) else ''
    return place + (error.strerror or str(error) or type(error).__name__)


def one_line(text: str) -> str:
    """:return: the text fit for one line of a list."""
    return ' '.join(escape_terminal(text).split())


def body_text(body: bytes) -> str:
    """:return: bytes as text to look at: UTF-8 where they are, written out where they are not; line ends as newlines."""
    text = body.decode('utf-8', 'backslashreplace').replace('\r\n', '\n')
    return escape_terminal(text)


def duration(seconds: float) -> str:
    """:return: a duration with its two largest units.

    >>> [duration(s) for s in (0.25, 9.5, 75, 3 * 3600 + 60, 200_000)]
    ['0.2s', '9.5s', '1m15s', '3h1m', '2d7h']
    """
    if seconds < 10:
        return f'{max(0.0, seconds):.1f}s'
    left = int(seconds)
    parts = []
    for size, unit in _UNITS:
        if left >= size:
            parts.append(f'{left // size}{unit}')
            left %= size
        elif parts:
            parts.append(f'0{unit}')
    parts.append(f'{left}s')
    return ''.join(part for part in parts[:2] if not part.startswith('0'))


def bytes_text(count: int) -> str:
    """:return: a number of bytes in a sentence: ``79 bytes``, ``1.5K``."""
    short = size(count)
    return number(count, 'byte') if short == str(count) else short


def age(seconds: float) -> str:
    """:return: an age; for what lies ahead, ``in 5m``."""
    return duration(seconds) if seconds >= 0 else f'in {duration(-seconds)}'


def ago(seconds: float) -> str:
    """:return: when something happened; the clock may have been set back since.

    >>> ago(75), ago(-75)
    ('1m15s ago', "1m15s ahead of this machine's clock")
    """
    return (
        f'{duration(seconds)} ago' if seconds > -1 else f"{duration(-seconds)} ahead of this machine's clock"
    )


def size(count: int) -> str:
    """:return: a number of bytes, short.

    >>> [size(n) for n in (0, 999, 1536, 10 << 20)]
    ['0', '999', '1.5K', '10M']
    """
    amount = float(count)
    for unit in ('', 'K', 'M', 'G', 'T'):
        if amount < 1000 or unit == 'T':
            break
        amount /= 1024
    if not unit:
        return str(count)
    return f'{amount:.1f}{unit}' if amount < 9.95 else f'{amount:.0f}{unit}'


def intcomma(count: int) -> str:
    """:return: a count as people read it, on every page, in every table and sentence; programs are given plain numbers.

    >>> intcomma(1234567)
    '1,234,567'
    """
    return f'{count:,}'


def number(count: int, one: str, many: str = '') -> str:
    """:return: ``1 entry``, ``2,000 entries``."""
    return f'{intcomma(count)} {one if count == 1 else many or one + "s"}'


def local_time(seconds: float) -> str:
    """:return: a time in the machine's own zone, as people write it, and which zone that is: logs are in UTC."""
    return time.strftime('%Y-%m-%d %H:%M:%S %z', time.localtime(seconds))


def flag_lines(flagged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """:return: a line for each thing that an operator has said to a queue."""
    lines = []
    for flag, fields in flagged.items():
        since, reason = fields.get('since'), str(fields.get('reason') or '')
        when = f' since {local_time(since)}' if isinstance(since, int | float) and 0 <= since < 1e10 else ''
        by = f' by {one_line(str(fields["by"]))}' if fields.get('by') else ''
        lines.append(f'{flag}{when}{by}' + (f': {one_line(reason)}' if reason else ''))
    return lines


# A command in an advice; one that names an installation already, or shows a help, stays as it is.
_ADVISED = re.compile(r'`switchboard (?=([a-z]+))(?![a-z]+ --help)')
# A spool alone is not enough for these.
NEED_CONFIGURATION = frozenset('start check run master runner'.split())


def with_installation(text: str, config: Path | None, spool: Path | None) -> str:
    """Have the commands in a text reach the installation that this call has named: as they stand, they reach the default one.

    :param config: the file behind ``-C``, if there was one.
    :param spool: the directory behind ``-s``.
    """
    if config is None and spool is None:
        return text

    def fit(match: re.Match[str]) -> str:
        if config is not None:
            return f'`switchboard -C {quoted(config)} '
        if match[1] in NEED_CONFIGURATION:
            return '`switchboard -C FILE '
        return f'`switchboard -s {quoted(spool)} '

    return _ADVISED.sub(fit, text)
