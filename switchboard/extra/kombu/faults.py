"""Our errors as those that programs written for kombu catch: AMQP's, with its codes.

kombu tries an operation again after a *recoverable connection error*, with a new connection.  So only what another try may mend is
one: a disk that refused.  A full queue is not: trying again at once, as kombu does, would only keep it full.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from amqp.exceptions import (
    AMQPError,
    ChannelError,
    ContentTooLarge,
    IrrecoverableChannelError,
    NotFound,
    PreconditionFailed,
    RecoverableConnectionError,
    ResourceLocked,
)

from switchboard import errors


class QueueFull(IrrecoverableChannelError):
    """There is no room in the queue, or on the disk; or the queue is being drained.  Nothing was stored."""

    code = 506


class SpoolMissing(RecoverableConnectionError):
    """The directory is not there: perhaps not yet mounted, or another one of a list is."""

    code = 402


class DiskFault(RecoverableConnectionError):
    """The disk refused to write, sync, rename or read.  Nothing was stored, or the message is where it was."""

    code = 541


# The first that fits counts.
_TABLE: tuple[tuple[type[Exception], type[AMQPError]], ...] = (
    (errors.UnknownQueueError, NotFound),
    (errors.UnknownExchangeError, NotFound),
    (errors.QueueLockedError, ResourceLocked),
    (errors.QueueMismatchError, PreconditionFailed),
    (errors.QueueInUseError, PreconditionFailed),
    (errors.MessageTooLargeError, ContentTooLarge),
    (errors.QueueFullError, QueueFull),
    (errors.QueuePausedError, QueueFull),
    (errors.ContentDisallowedError, PreconditionFailed),
    (errors.UnserializableError, PreconditionFailed),
    (errors.DurabilityError, DiskFault),
    (errors.RouteError, PreconditionFailed),
    (errors.SwitchboardError, ChannelError),
    (OSError, DiskFault),
)


@contextmanager
def amqp_errors(method: str) -> Iterator[None]:
    """Raise AMQP's errors for ours.

    :param method: AMQP's name of what is being done.
    """
    try:
        yield
    except TimeoutError:
        raise  # `socket.timeout`, which says that nothing came
    except (errors.SwitchboardError, OSError) as error:
        found = next(theirs for ours, theirs in _TABLE if isinstance(error, ours))
        raise found(f'{found.__name__}: {error}', method_name=method, reply_code=found.code) from error
