"""A spool with a configuration, and the runners of its sections, for tests of the shipped runners."""

from __future__ import annotations

from email.message import Message
from pathlib import Path
from typing import Any, TypeVar

from switchboard import Runner, Spool
from switchboard.message.mail import mail_from_bytes
from switchboard.testing.clock import FakeClock
from tests.helpers.configurations import load

R = TypeVar('R', bound=Runner)


class Pipeline:
    """:param text: sections of runners and queues."""

    def __init__(self, directory: Path, text: str, exchanges: str | None = None) -> None:
        self.config = load(
            directory, text, exchanges, head='[switchboard]\nspool = spool\ndurability = lazy\n'
        )
        self.clock = FakeClock()
        self.spool = Spool.from_config(self.config, clock=self.clock)

    def runner(self, cls: type[R], name: str) -> R:
        """:return: the runner of a section."""
        return cls(self.spool, self.config.runners[name], clock=self.clock)

    def work(self, cls: type[Runner], name: str) -> None:
        """Let the runner of a section handle all that is due now."""
        self.clock.advance(0.001)  # messages of one moment have names a nanosecond apart
        self.runner(cls, name).run(until_empty=True)

    def waiting(self, queue: str) -> list[str]:
        """:return: the entries that a queue holds, due or not."""
        return self.spool[queue].get_files()

    def take(self, queue: str) -> tuple[Any, dict[str, Any]]:
        """Take the one entry that a queue holds."""
        [filebase] = self.waiting(queue)
        msg, msgdata = self.spool[queue].dequeue(filebase)
        self.spool[queue].finish(filebase)
        return msg, msgdata

    def history(self, queue: str, suffix: str = '.pck') -> list[Any]:
        """:return: the history of the one entry that a queue holds."""
        [filebase] = self.spool[queue].get_files(suffix)
        return list(self.spool[queue].history(filebase))

    def reason(self) -> str:
        """:return: why the one entry in bad is there."""
        return str(self.history('bad', '.psv')[-1]['reason'])


def mail(raw: bytes = b'Subject: hello\n\nworld\n') -> Message:
    return mail_from_bytes(raw)
