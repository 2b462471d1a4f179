"""What the tests ask of a mail server, whichever it is."""

from __future__ import annotations

import re
import smtplib
import time
from collections.abc import Callable
from pathlib import Path

from switchboard.queue.wakeup import Wakeup
from tests.servers.mail.arrivals import PATIENCE_S


class MailServer:
    """A mail server that takes mails at a port of this machine."""

    port: int

    def send(self, sender: str, *recipients: str, content: bytes) -> None:
        """Hand a mail in, as a client does."""
        with smtplib.SMTP(
            '127.0.0.1', self.port, local_hostname='client.example', timeout=PATIENCE_S
        ) as client:
            client.sendmail(sender, recipients, content)


def wait_for_line(directory: Path, told: Callable[[], str], pattern: str) -> str:
    """Wait until a line of a log matches.

    :param directory: where the log is.
    :param told: reads it.
    :return: the line.
    """
    give_up_s = time.monotonic() + PATIENCE_S
    watch = Wakeup(str(directory))
    try:
        while True:
            text = told()
            for line in text.splitlines():
                if re.search(pattern, line):
                    return line
            assert time.monotonic() < give_up_s, f'no line with {pattern!r} in:\n{text}'
            watch.wait(0.05)  # no event tells of a line in an open file
    finally:
        watch.close()
