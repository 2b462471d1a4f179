"""Mails a second through Postfix into a queue, by each door, beside the same Postfix filling a plain maildir.

::

    sudo .venv/bin/python -m tests.benchmarks.measures.mail_doors --mails 300 --turns 5

A mail counts from the moment that the first one of its turn is handed to Postfix until the last one of the turn is an entry on the
disk (``durability = full``), or a file of the plain maildir.  Postfix syncs each mail to its own queue before that, and does
so for all of them alike; so the ratio says what a door costs on top of what the mail server costs anyway.  The ways take
turns, and the median of the ratios counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool
from tests.helpers.ports import free_port
from tests.servers.mail.postfix import Postfix, postfix
from tests.servers.place import Place, place

CLIENTS = 10
PATIENCE_S = 300.0
MAIL = (
    b'Subject: measured\r\nFrom: ann@example.com\r\n\r\n' + b'x' * 70 + b'\r\n' + (b'y' * 70 + b'\r\n') * 40
)

PLAIN, MAILDIR, PIPE, LMTP = 'plain maildir', 'maildir door', 'pipe (bin/drop)', 'LMTP'
ADDRESSES = {
    PLAIN: 'plain@drop.example.com',
    MAILDIR: 'mail@drop.example.com',
    PIPE: 'x@lists.example.com',
    LMTP: 'y@archive.example.com',
}
CONFIGURATION = """
[runner.lmtp]
class = runners.lmtp:Lmtp
queue =
listen = 127.0.0.1:{port}
routing_key = in
[queue.in]
consumed_externally = yes
[queue.dropped]
consumed_externally = yes
maildir = yes
"""


def inject(server: Postfix, address: str, mails: int) -> None:
    """Hand mails in, by several clients at once."""

    def client(number: int) -> None:
        for _ in range(number, mails, CLIENTS):
            server.send('ann@example.com', address, content=MAIL)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()


class Doors:
    """The ways to measure, and where their mails arrive."""

    def __init__(self, somewhere: Place, spool: Spool) -> None:
        self._new = somewhere.spool_directory / 'plain' / 'new'
        self._in, self._dropped = spool['in'], spool['dropped']

    def arrived(self, way: str) -> Callable[[], int]:
        """:return: a function that counts."""
        if way == PLAIN:
            return self._count_plain
        if way == MAILDIR:
            return self._count_dropped
        return lambda: len(self._in.get_files())

    def _count_plain(self) -> int:
        return len(list(self._new.iterdir())) if self._new.exists() else 0

    def _count_dropped(self) -> int:
        self._dropped.has_ready()  # as a runner does before it sleeps: what was dropped is taken in
        return len(self._dropped.get_files())

    def clear(self) -> None:
        """Take everything out."""
        for path in self._new.iterdir() if self._new.exists() else ():
            path.unlink()
        for queue in (self._in, self._dropped):
            _empty(queue)


def _empty(queue: Switchboard) -> None:
    while (taken := queue.take()) is not None:
        queue.finish(taken.filebase)


def turn(server: Postfix, doors: Doors, way: str, mails: int) -> float:
    """:return: mails a second."""
    arrived = doors.arrived(way)
    began_s = time.monotonic()
    inject(server, ADDRESSES[way], mails)
    while arrived() < mails:
        if time.monotonic() - began_s > PATIENCE_S:
            raise TimeoutError(f'{way}: {arrived()} of {mails} have arrived\n{server.told()[-5000:]}')
        time.sleep(0.002)  # a watch would cost what is measured
    rate = mails / (time.monotonic() - began_s)
    doors.clear()
    return rate


def measure(mails: int, turns: int) -> dict[str, list[float]]:
    """:return: mails a second, by way and turn; the first turn, which warms up, is left out."""
    rates: dict[str, list[float]] = {way: [] for way in ADDRESSES}
    port = free_port()
    with place() as somewhere:
        spool = somewhere.configure(CONFIGURATION.format(port=port))
        doors = Doors(somewhere, spool)
        with somewhere.master(), postfix(somewhere, port) as server:
            mailboxes = Path(server.home / 'conf' / 'mailboxes')
            mailboxes.write_text(mailboxes.read_text() + 'plain@drop.example.com plain/\n')
            for number in range(turns + 1):
                for way in ADDRESSES:
                    rate = turn(server, doors, way, mails)
                    if number:
                        rates[way].append(rate)
    return rates


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--mails', type=int, default=200, help='in one turn (default: 200)')
    parser.add_argument('--turns', type=int, default=3, help='for each way (default: 3)')
    parser.add_argument('--json', action='store_true')
    options = parser.parse_args()
    rates = measure(options.mails, options.turns)
    for way, found in rates.items():
        ratio = statistics.median(rate / plain for rate, plain in zip(found, rates[PLAIN], strict=True))
        line = {
            'way': way,
            'mails_per_s': round(statistics.median(found), 1),
            'ratio_to_plain': round(ratio, 2),
        }
        if options.json:
            print(json.dumps(line))
        else:
            print(
                f'{way:16} {line["mails_per_s"]:8} mails/s   {line["ratio_to_plain"]:.2f} of a plain maildir'
            )


if __name__ == '__main__':
    main()
