"""One tree of errors, so that one ``except SwitchboardError`` catches all that this package raises on purpose.

Every error carries what it is about as fields, not only as text: the command line turns the fields into one line that
says what to do next, and programs can act on them without parsing a sentence.
"""

from __future__ import annotations

from switchboard.drop_errors import ConfigError as ConfigError
from switchboard.drop_errors import ContentDisallowedError as ContentDisallowedError
from switchboard.drop_errors import DurabilityError as DurabilityError
from switchboard.drop_errors import LockTimeoutError as LockTimeoutError
from switchboard.drop_errors import MessageTooLargeError as MessageTooLargeError
from switchboard.drop_errors import QueueDrainingError as QueueDrainingError
from switchboard.drop_errors import QueueError as QueueError
from switchboard.drop_errors import QueueFullError as QueueFullError
from switchboard.drop_errors import SwitchboardError as SwitchboardError
from switchboard.drop_errors import UnknownQueueError as UnknownQueueError

for _each in [each for each in globals().values() if isinstance(each, type)]:
    _each.__module__ = __name__  # where programs find them
del _each

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Sequence


class ConfigErrors(ConfigError):
    """All the errors of one configuration at once, in the order of their lines; and its warnings."""

    def __init__(self, errors: Sequence[ConfigError], *, warnings: Sequence[ConfigError] = ()) -> None:
        self.errors = tuple(errors)
        self.warnings = tuple(warnings)
        first = self.errors[0]
        super().__init__(first.reason, file=first.file, line=first.line, section=first.section, key=first.key)

    def __str__(self) -> str:
        return '\n'.join(str(error) for error in self.errors)


class CorruptEntryError(QueueError):
    """The file is torn, stale or swapped, or its content cannot be read as its kind."""

    def __init__(
        self, reason: str, *, offset: int = 0, queue: str | None = None, filebase: str | None = None
    ) -> None:
        self.offset = offset
        super().__init__(reason, queue=queue, filebase=filebase)


class EntryTakenError(QueueError):
    """Not now: another process holds the entry, or it is gone.  Never a sign of damage."""


class UnknownEntryError(QueueError):
    """No queue that was looked into has such an entry."""


class AmbiguousEntryError(QueueError):
    """Several entries begin so; ``candidates`` are some of them, and ``more`` says that there are others."""

    def __init__(self, beginning: str, candidates: Sequence[str], *, more: bool = False) -> None:
        self.candidates = tuple(candidates)
        self.more = more
        several = 'many entries, for example' if more else 'several entries:'
        super().__init__(f'{beginning!r} fits {several} {", ".join(self.candidates)}')


class SelectionError(SwitchboardError):
    """A selection of entries cannot be read, or asks for what no entry can have."""


class SelectionGrewError(SwitchboardError):
    """More entries fit than were counted; ``expected`` were, ``found`` are."""

    def __init__(self, expected: int, found: int) -> None:
        self.expected = expected
        self.found = found
        super().__init__(f'{found:,} entries fit now, and {expected:,} were counted: nothing was done')


class NotListableError(QueueError):
    """The queue is on a broker, where looking is taking: its messages can be counted, not listed."""


class ForeignFileError(QueueError):
    """The name leads to something that is no entry: a directory, a fifo, a symbolic link, a name of another grammar."""


class UnserializableError(QueueError, TypeError):
    """No serializer holds this value; the text names the key or the type at fault."""


class EntryExpiredError(QueueError):
    """The entry's time to live is over; it went to the dead letters."""


class ReplyTimeoutError(QueueError, TimeoutError):
    """The answer to a request has not come in time; it may still come."""


class OutputsNeverFitError(MessageTooLargeError):
    """The outputs of one message can never be stored together, however empty their queues are."""


class QueueMismatchError(QueueError):
    """The queue is there already, with other options than the declared ones; nothing was changed."""


class QueueLockedError(QueueError):
    """The queue belongs to another owner alone."""


class QueueInUseError(QueueError):
    """The queue has consumers or messages, and was not deleted."""


class BrokerDownError(DurabilityError):
    """The broker is away, refuses us, or did not answer in time: send it again, after ``retry_after_s`` seconds."""

    def __init__(self, reason: str, *, step: str, retry_after_s: float = 0.0) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason, step=step)


class RouteError(SwitchboardError):
    """A message cannot be routed."""


class NoRouteError(RouteError):
    """No binding matched, and the exchange has no alternate; nothing was stored."""

    def __init__(self, exchange: str, routing_key: str) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        super().__init__(f'exchange {exchange!r} has no route for key {routing_key!r}')


class UnknownExchangeError(RouteError):
    """No exchange of this name is declared."""

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        super().__init__(f'there is no exchange {exchange!r}')


class ExchangeMismatchError(RouteError):
    """The exchange is there already, and is another one than the declared one; nothing was changed."""


class ExchangeInUseError(RouteError):
    """The exchange has bindings, or the configuration declares it; it was not deleted."""


class RouteLoopError(RouteError):
    """Exchanges are bound in a circle; ``cycle`` names them in order."""

    def __init__(self, cycle: Sequence[str]) -> None:
        self.cycle = tuple(cycle)
        super().__init__('exchanges are bound in a circle: ' + ' -> '.join(self.cycle))


class RunnerError(SwitchboardError):
    """Raised by ``dispose`` to decide the fate of its message."""

    def __init__(self, reason: str = '') -> None:
        self.reason = reason
        super().__init__(reason)


class TemporaryFailure(RunnerError):
    """Try this message again, after ``retry_after_s`` seconds or as the queue's retry policy says."""

    def __init__(self, reason: str = '', *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class PermanentFailure(RunnerError):
    """Trying this message again is of no use: it goes to bad at once."""


class DestinationDown(RunnerError):
    """Not this message is at fault: no message can be handled now.  It stays as it is, and the runner waits before the next.

    ``affects_every_message`` is False in a class of errors about one message alone: it waits, and the others get their turn.
    """

    affects_every_message = True


class DisposeResultError(RunnerError):
    """``dispose`` returned something that is neither ``None`` or ``False`` (done) nor ``True`` (keep)."""

    def __init__(self, result: object) -> None:
        self.type_name = type(result).__name__
        hint = ''
        if hasattr(result, '__await__'):
            hint = '; to await something, make the class an AsyncRunner'
        elif hasattr(result, '__next__') or hasattr(result, '__anext__'):
            hint = '; nothing runs what it yields'
        super().__init__(
            f'dispose returned an object of type {self.type_name}: return None or False when the message is done, '
            f'True to keep it{hint}'
        )


class MasterError(SwitchboardError):
    """Something about the supervising process."""


class AlreadyRunningError(MasterError):
    """Another master holds this spool; ``pid`` is its process, when it is known."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        super().__init__(f'a master is already running{f" (pid {pid})" if pid else ""}')


class NotRunningError(MasterError):
    """No master holds this spool."""


class NotRespondingError(MasterError):
    """The master lives and answers no request: it is stopped, or hangs; ``pid`` is its process, when it is known."""

    def __init__(self, pid: int | None) -> None:
        self.pid = pid
        super().__init__(
            f'the master{f" (pid {pid})" if pid else ""} does not answer: it is stopped, or hangs'
        )


class ScoreboardError(MasterError):
    """The status scoreboard is missing, torn, or of another format."""


# The names before.
QueuePausedError = QueueDrainingError
NoAnswerError = NotRespondingError
ResultError = DisposeResultError
