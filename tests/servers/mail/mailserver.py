"""What the tests ask of a mail server, whichever it is."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Callable

from tests.helpers.waiting import PATIENCE_S, eventually


class MailServer:
    """A mail server that takes mails at a port of this machine."""

    port: int

    def send(self, sender: str, *recipients: str, content: bytes) -> None:
        """Hand a mail in, as a client does."""
        with smtplib.SMTP(
            '127.0.0.1', self.port, local_hostname='client.example', timeout=PATIENCE_S
        ) as client:
            client.sendmail(sender, recipients, content)


def wait_for_line(told: Callable[[], str], pattern: str) -> str:
    """Wait until a line of a log matches.

    :param told: reads it.
    :return: the line.
    """

    def found() -> str:
        return next((line for line in told().splitlines() if re.search(pattern, line)), '')

    return eventually(found, lambda: f'there: a line with {pattern!r} in:\n{told()}', every=0.05)
