"""The errors that `drop` may meet: those of `errors` that it loads, which hands all of them on.

`drop` is started for each mail, and to make a class takes it as long as to write an entry of the directory: it makes no others.
"""

from __future__ import annotations


class SwitchboardError(Exception):
    """Any error of this package."""


class ConfigError(SwitchboardError):
    """A configuration that cannot be used: where it is wrong, and how."""

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        line: int | None = None,
        section: str | None = None,
        key: str | None = None,
    ) -> None:
        self.reason = reason
        self.file = file
        self.line = line
        self.section = section
        self.key = key
        super().__init__(reason)

    def fields(self) -> dict[str, str | int | None]:
        """:return: the mistake for programs."""
        place = {'file': self.file, 'line': self.line, 'section': self.section, 'key': self.key}
        return {**place, 'reason': self.reason}

    def __str__(self) -> str:
        place = self.file or ''
        if self.line is not None:
            place += f':{self.line}'
        if self.section is not None:
            place += f' [{self.section}]'
        if self.key is not None:
            place += f' {self.key}'
        return f'{place.strip()}: {self.reason}' if place.strip() else self.reason


class QueueError(SwitchboardError):
    """Something about one queue, or one entry of it."""

    def __init__(self, reason: str, *, queue: str | None = None, filebase: str | None = None) -> None:
        self.reason = reason
        self.queue = queue
        self.filebase = filebase
        super().__init__(reason)

    def __str__(self) -> str:
        subject = '/'.join(part for part in (self.queue, self.filebase) if part)
        return f'{subject}: {self.reason}' if subject else self.reason


class UnknownQueueError(QueueError):
    """No such queue is declared, or the name is not one that a queue may have."""


class ContentDisallowedError(QueueError):
    """The entry is of a kind that its queue does not accept.  It was not read."""

    def __init__(self, kind: str, *, queue: str | None = None, filebase: str | None = None) -> None:
        self.kind = kind
        super().__init__(f'kind {kind!r} is not accepted here', queue=queue, filebase=filebase)


class QueueFullError(QueueError):
    """A limit of the queue or the disk's reserve is reached; nothing was stored.

    ``is_disk_full`` says that it is the disk, or whatever else holds all queues: another queue would not have fared better.
    """

    def __init__(self, reason: str, *, queue: str | None = None, is_disk_full: bool = False) -> None:
        self.is_disk_full = is_disk_full
        super().__init__(reason, queue=queue)


class MessageTooLargeError(QueueError):
    """The message is larger than the queue takes; nothing was stored, and sending it again is of no use."""


class QueueDrainingError(QueueError):
    """The queue takes nothing in for now; nothing was stored."""


class DurabilityError(QueueError):
    """A write, sync or rename failed: the message counts as not stored; send it again."""

    def __init__(
        self, reason: str, *, step: str, queue: str | None = None, filebase: str | None = None
    ) -> None:
        self.step = step
        super().__init__(f'{step}: {reason}', queue=queue, filebase=filebase)


class LockTimeoutError(DurabilityError):
    """Another process has held a lock for longer than any healthy one does: it is stopped, or its disk is.  Try again later."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, step='lock')
