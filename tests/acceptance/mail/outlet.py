"""A queue, the SMTP runner that works it, and what became of its mails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from switchboard.message.naming import PRESERVED
from switchboard.options import QueueOptions, RetryPolicy, RunnerOptions
from switchboard.runners.smtp import Smtp
from switchboard.spool.spool import Spool
from switchboard.testing import FakeClock
from tests.acceptance.mail.smtp_server import Server

RAW = b'Subject: hello\n\n.world\n'
ANN, BOB, CID = 'ann@example.com', 'bob@example.org', 'cid@example.org'


class Outlet:
    """A queue, its runner, and the server that it delivers to."""

    def __init__(self, home: Path, server: Server, clock: FakeClock | None = None, **settings: str) -> None:
        keys: dict[str, Any] = {'clock': clock} if clock else {}
        queue_options = QueueOptions(durability='lazy', retry=RetryPolicy(10, 10, 1, 0), max_retry_time_s=100)
        self.spool = Spool(home / 'spool', options=queue_options, **keys)
        settings = {'host': '127.0.0.1', 'port': str(server.port), 'hostname': 'client.example', **settings}
        options = RunnerOptions('out', 'runners.smtp:Smtp', 'out', settings=settings)
        self.runner = Smtp(self.spool, options, **keys)
        self.queue = self.spool['out']

    def put(self, *recipients: str, msg: Any = RAW, sender: str = ANN, **metadata: Any) -> str:
        return self.queue.enqueue(msg, sender=sender, recipients=list(recipients), **metadata)

    def work(self) -> None:
        """One pass."""
        self.runner.run(until_empty=True)

    def bad(self) -> list[tuple[list[str], str]]:
        """:return: the recipients and the reason of each mail in the bad queue."""
        found = []
        for filebase in self.spool['bad'].get_files(PRESERVED):
            entry = self.spool['bad'].peek(filebase)
            _, metadata = entry.load(self.queue.serializers)
            found.append((metadata['recipients'], entry.records[-1]['reason']))
        return found
