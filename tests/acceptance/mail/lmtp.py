"""An LMTP runner in a thread of the test, and clients for it."""

from __future__ import annotations

import smtplib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from switchboard.config.config import Config
from switchboard.runners.lmtp import Lmtp
from switchboard.spool.spool import Spool
from switchboard.store.disk import Disk
from switchboard.testing.signals import Signal
from tests.helpers.waiting import PATIENCE_S

EXCHANGES = """
[exchange.mail]
type = topic
bindings =
    lists.#     -> lists
    both.#      -> lists, archive
    archive.#   -> archive
    full.#      -> full
    small.#     -> small
"""
QUEUES = '\n'.join(f'[queue.{name}]\nexternal = yes' for name in ('lists', 'archive'))


class Listening(Lmtp):
    """Says when it listens."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.listens = Signal()

    async def setup(self) -> None:  # a coroutine, as that of its base
        await super().setup()
        self.listens.set()


def configure(home: Path, *, settings: str = '', queues: str = '', runner: str = '') -> Config:
    (home / 'exchange.cfg').write_text(EXCHANGES)
    (home / 'switchboard.cfg').write_text(
        f'[switchboard]\nspool = spool\n{settings}\n'
        f'[runner.lmtp]\nclass = runners.lmtp:Lmtp\nqueue =\nlisten = {home}/lmtp\nexchange = mail\n{runner}\n'
        f'{QUEUES}\n[queue.full]\nexternal = yes\nmax_messages = 1\n[queue.small]\nexternal = yes\nmax_body = 100\n{queues}\n'
    )
    return Config.load(home / 'switchboard.cfg')


@contextmanager
def listening(config: Config, disk: Disk | None = None) -> Iterator[Listening]:
    """Yield a runner that listens; stop it at the end."""
    runner = Listening(Spool.from_config(config, disk=disk), config.runners['lmtp'])
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        runner.listens.wait_or_timeout()
        yield runner
    finally:
        runner.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


class Client(smtplib.LMTP):
    """A client that returns what is said for each recipient."""

    def __init__(self, place: str | Path) -> None:
        super().__init__(str(place), timeout=PATIENCE_S)
        code, answer = self.ehlo('client.example')
        assert code == 250, answer

    def deliver(self, content: bytes, *recipients: str, sender: str = 'ann@example.com') -> dict[str, int]:
        """:return: the code for each recipient, of RCPT or, if that is 250, of the mail."""
        assert self.mail(sender)[0] == 250
        codes = {address: self.rcpt(address)[0] for address in recipients}
        accepted = [address for address, code in codes.items() if code == 250]
        if accepted:
            code, _ = self.data(content)
            codes[accepted[0]] = code
            for address in accepted[1:]:
                codes[address] = self.getreply()[0]
        else:
            self.rset()
        return codes
