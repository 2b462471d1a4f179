"""Our errors as those that programs written for kombu catch: AMQP's, with its codes.

kombu tries an operation again after a *recoverable connection error*, with a new connection.  So only what another try may mend is
one: a disk that refused.  A full queue is not: trying again at once, as kombu does, would only keep it full.
"""

from __future__ import annotations

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
    """The spool's directory is not there: it may be mounted later, and another one of a list of URLs may be there."""

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
    (errors.QueueDrainingError, QueueFull),
    (errors.ContentDisallowedError, PreconditionFailed),
    (errors.UnserializableError, PreconditionFailed),
    (errors.DurabilityError, DiskFault),
    (errors.RouteError, PreconditionFailed),
    (errors.SwitchboardError, ChannelError),
    (OSError, DiskFault),
)


class amqp_errors:  # noqa: N801  to be read as what it does
    """Raise AMQP's errors for ours, out of a ``with``.  A class, because a generator takes four times as long, six times a message.

    :param method: AMQP's name of the call.
    """

    __slots__ = ('_method',)

    # Has the disk refused something since it was last seen to take something?  To open a spool that is there needs no writing, and
    # kombu, which waits between attempts to connect, does not wait between a new connection and the next refusal.
    doubts_disk = False

    def __init__(self, method: str) -> None:
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        # A `TimeoutError` is `socket.timeout`, which says that nothing came.
        if not isinstance(error, errors.SwitchboardError | OSError) or isinstance(error, TimeoutError):
            return
        found = next(theirs for ours, theirs in _TABLE if isinstance(error, ours))
        if found is DiskFault:
            amqp_errors.doubts_disk = True
        raise found(f'{found.__name__}: {error}', method_name=self._method, reply_code=found.code) from error
