"""Exit statuses of ``switchboard``: their meanings, and which error ends in which one, in the only table of them.

They are those of ``sysexits.h``, because mail servers, cron jobs and shell scripts know them: 75 is "try again later"
everywhere.  An error becomes one line: the mistake, and what to do next.

``docs/reference/exit-codes.md`` shows this table, and a test compares the two.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from switchboard import errors
from switchboard.operating.text import system_advice, system_status, system_words


class Exit(enum.IntEnum):
    """An exit status; ``meaning`` is one line about it."""

    meaning: str

    def __new__(cls, status: int, meaning: str) -> Exit:
        member = int.__new__(cls, status)
        member._value_ = status
        member.meaning = meaning
        return member

    OK = 0, 'Done.'
    PARTIAL = (
        1,
        'Done in part: some entries, queues or runners went wrong, each with a line on standard error.',
    )
    USAGE = 2, 'Wrong use: an unknown option, a missing argument, a question that nobody could answer.'
    DATA = 65, 'The input or the entry cannot be used: torn, too large, of a kind that is not accepted.'
    NO_INPUT = 66, 'No such entry, queue, exchange, runner, spool or file; or the name fits several entries.'
    NO_ROUTE = 67, 'No binding takes the message; nothing was stored.'
    UNAVAILABLE = 69, 'No master is running, or it could not carry out the request.'
    SOFTWARE = 70, 'A mistake in this program.'
    CANNOT_CREATE = 73, 'A file or directory cannot be made.'
    IO = 74, 'The disk failed: written data may not be there.'
    TEMPORARY = (
        75,
        'Not now, try again: a full queue or disk, no memory, an entry at work, a second master, a time-out.',
    )
    NO_PERMISSION = 77, 'This user may not do that.'
    CONFIG = 78, 'The configuration cannot be used.'
    INTERRUPTED = 130, 'Ended by Ctrl-C, or a question was answered with no: nothing was done.'
    BROKEN_PIPE = 141, 'The reader of the output has gone.'


# The class, the status, and what to do next.  The first that fits counts, so a subclass stands above its parents.
_ERRORS: tuple[tuple[type[Exception], Exit, str], ...] = (
    (errors.ConfigErrors, Exit.CONFIG, ''),
    (errors.ConfigError, Exit.CONFIG, ''),
    (errors.UnknownQueueError, Exit.NO_INPUT, '`switchboard queues` lists them'),
    (
        errors.UnknownEntryError,
        Exit.NO_INPUT,
        'it may be done by now; `switchboard ls QUEUE` shows the entries',
    ),
    (errors.AmbiguousEntryError, Exit.NO_INPUT, 'give more of it'),
    (
        errors.LockTimeoutError,
        Exit.TEMPORARY,
        'look for a process that is stopped or hangs (`ps`, state T or D), then do it again',
    ),
    (errors.EntryTakenError, Exit.TEMPORARY, 'look again in a moment: `switchboard show ENTRY`'),
    (errors.ForeignFileError, Exit.DATA, 'it is no entry; move it out of the queue by hand'),
    (errors.CorruptEntryError, Exit.DATA, 'look at it with `show --raw`, remove it with `rm`'),
    (
        errors.ContentDisallowedError,
        Exit.DATA,
        "name the kind in `accept` of the queue's section, if you trust it",
    ),
    (errors.UnserializableError, Exit.DATA, ''),
    (
        errors.MessageTooLargeError,
        Exit.DATA,
        "sending it again is of no use; the limit stands in the queue's section",
    ),
    (
        errors.QueueFullError,
        Exit.TEMPORARY,
        'try again when there is room; `switchboard queues` shows how much waits',
    ),
    (errors.QueueDrainingError, Exit.TEMPORARY, 'try again later'),
    (errors.QueueInUseError, Exit.TEMPORARY, '`switchboard show QUEUE` shows its entries and consumers'),
    (errors.QueueMismatchError, Exit.DATA, '`switchboard show QUEUE` says how it is declared'),
    (errors.QueueLockedError, Exit.NO_PERMISSION, 'it goes when its owner does'),
    (errors.BrokerDownError, Exit.TEMPORARY, 'look whether the broker runs, and at its log'),
    (errors.DurabilityError, Exit.IO, 'look at the disk (`dmesg`), then do it again'),
    (errors.QueueError, Exit.UNAVAILABLE, ''),
    (errors.NoRouteError, Exit.NO_ROUTE, '`switchboard route EXCHANGE KEY` says why'),
    (errors.UnknownExchangeError, Exit.NO_INPUT, '`switchboard graph` shows those that are declared'),
    (errors.RouteError, Exit.DATA, ''),
    (errors.AlreadyRunningError, Exit.TEMPORARY, '`switchboard status` shows it, `switchboard stop` ends it'),
    (errors.NotRunningError, Exit.UNAVAILABLE, '`switchboard start` starts one'),
    (
        errors.NotRespondingError,
        Exit.TEMPORARY,
        'look at its state (`ps`): T is stopped, and `kill -CONT` lets it go on; `kill -KILL` ends it and its runners',
    ),
    (errors.ScoreboardError, Exit.UNAVAILABLE, ''),
    (errors.SwitchboardError, Exit.UNAVAILABLE, ''),
    (PermissionError, Exit.NO_PERMISSION, ''),
    (FileNotFoundError, Exit.NO_INPUT, ''),
    (NotADirectoryError, Exit.NO_INPUT, ''),
    (IsADirectoryError, Exit.NO_INPUT, ''),
    (FileExistsError, Exit.CANNOT_CREATE, ''),
    (TimeoutError, Exit.TEMPORARY, 'it goes on all the same; `switchboard status` shows how far it is'),
    (OSError, Exit.IO, ''),
    (
        MemoryError,
        Exit.TEMPORARY,
        'ask for less at once (`--limit`), or give it more (`ulimit -v`, `MemoryMax`)',
    ),
)

# These may come from what the kernel says with a number that has no class: its status and its advice are in `operating.text`.
_OF_THE_SYSTEM = (OSError, errors.DurabilityError, errors.MasterError)
# These only look.  All others do something, and once it is done, it is done: a closed standard output does not change their status.
READ_ONLY_VERBS = frozenset(
    'status top queues ls show trash tail shape check route graph sample version metrics'.split()
)


def exit_of(error: BaseException) -> Exit:
    """:return: the status that this error ends in."""
    if isinstance(error, _OF_THE_SYSTEM) and (status := system_status(error)) is not None:
        return next(each for each in Exit if each == status)  # a disk in good order may refuse it as well
    return next((status for kind, status, _ in _ERRORS if isinstance(error, kind)), Exit.SOFTWARE)


def exit_of_all(failed: Sequence[Exit], succeeded: int) -> Exit:
    """:return: the status of many acts.

    :param failed: the status that each failure would have had by itself.
    :param succeeded: how many did not.
    """
    if not failed:
        return Exit.OK
    return Exit.PARTIAL if succeeded or len(set(failed)) > 1 else failed[0]


def advice(error: BaseException) -> str:
    """:return: the advice what to do next, if there is any: first for trouble that the disk or the machine has."""
    return system_advice(error) or next((hint for kind, _, hint in _ERRORS if isinstance(error, kind)), '')


def error_lines(error: BaseException) -> list[str]:
    """:return: the error in words, with what to do next: one line, or one for each mistake of a configuration."""
    if isinstance(error, errors.ConfigErrors):
        return [str(each) for each in error.errors]
    if isinstance(error, OSError):
        text = system_words(error)
    elif isinstance(error, MemoryError):
        text = 'out of memory'
    else:
        text = str(error) or type(error).__name__
    text = '; '.join([text, *getattr(error, '__notes__', ())])
    hint = advice(error)
    return [f'{text}; {hint}' if hint else text]
