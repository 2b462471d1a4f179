"""A Mailman site of its own: its master and runners, a list with three members, and a server that takes what leaves it.

::

    python -m tests.mailman.site [--posts 500] [--kills 40] [--seed 1]

posts to the list by LMTP while the site's processes are killed at random and masters are started over each other with ``--force``, first with
Mailman's own queues and then with ours, and prints what became of the posts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psutil
from aiosmtpd.controller import Controller

from switchboard import Spool
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S, eventually
from tests.mailman.suite import CACHE, PLUGIN, VERSIONS, MailmanTree, beside_ours

LIST = 'list@example.com'
MEMBERS = ('anne@example.org', 'bart@example.org', 'cris@example.org')

# How Mailman's processes call themselves.
TITLE = 'mailman: '

# A master that is started over another, and the other's runners: never more of them at once.
GENERATIONS = 2

# After so many looks in a row that find no process of a site, there is none.
LOOKS_IN_VAIN = 5
# How many of those that are killed are masters, and how often a master is started over one that lives.
MASTERS_SHARE, FORCED_SHARE = 0.2, 0.1

_CONFIGURATION = """
[mailman]
layout: here
site_owner: owner@example.com
[paths.here]
var_dir: {var}
bin_dir: {bin}
[mta]
incoming: mailman.mta.null.NullMTA
lmtp_host: 127.0.0.1
lmtp_port: {lmtp}
smtp_host: 127.0.0.1
smtp_port: {smtp}
[runner.rest]
# It has no queue, and those of two masters would contend for one port.
start: no
[archiver.prototype]
enable: no
[archiver.mhonarc]
enable: no
[archiver.mail_archive]
enable: no
"""


class Sink:
    """An SMTP server that counts which post reached which member."""

    def __init__(self, port: int) -> None:
        self.reached: Counter[tuple[str, str]] = Counter()
        self._controller = Controller(self, hostname='127.0.0.1', port=port)
        self._controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        head = envelope.content.partition(b'\r\n\r\n')[0].lower()
        number = next(
            (line.split()[1].decode() for line in head.split(b'\r\n') if line.startswith(b'x-post:')), ''
        )
        for recipient in envelope.rcpt_tos:
            self.reached[number, recipient] += 1
        return '250 OK'

    def close(self) -> None:
        self._controller.stop()


class Site:
    """One installation of Mailman in a directory.

    :param with_plugin: its queues are ours.
    """

    def __init__(self, tree: MailmanTree, directory: Path, *, with_plugin: bool) -> None:
        self.directory = directory
        self.queues = directory / 'var' / 'queue'
        self.lmtp, smtp = free_port(), free_port()
        self._bin = tree.environment / 'bin'
        self._file = directory / 'mailman.cfg'
        text = _CONFIGURATION.format(var=directory / 'var', bin=self._bin, lmtp=self.lmtp, smtp=smtp)
        self._file.write_text(text + (PLUGIN if with_plugin else ''))
        self.sink = Sink(smtp)
        self._command('create', LIST)
        members = directory / 'members'
        members.write_text('\n'.join(MEMBERS) + '\n')
        self._command('addmembers', '-W', str(members), LIST)

    def _command(self, *words: str) -> str:
        """Run ``mailman``; its daemons keep what they inherit, so the output goes to a file."""
        with tempfile.TemporaryFile('w+') as output:
            command = [self._bin / 'mailman', '--run-as-root', '-C', self._file, *words]
            done = subprocess.run(
                command,
                env=beside_ours(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=120,
                check=False,
            )
            output.seek(0)
            said = output.read()
        if done.returncode:
            raise RuntimeError(f'mailman {words}: {said}')
        return said

    def start(self, *, force: bool = False) -> None:
        """Start a master.

        :param force: over one that may be there, as operators do who remove a lock that they take for stale.
        """
        if force:
            # A live master takes its lock again at once where it has not begun its work: then it is the one.
            for _ in range(20):
                for lock in (self.directory / 'var' / 'locks').glob('master.*'):
                    lock.unlink(missing_ok=True)
                with suppress(RuntimeError):  # it could not be started: once more
                    self._command('start', '--force')
                    return
        self._command('start')

    def unshunt(self) -> None:
        """Send back what Mailman has shunted, as an operator does."""
        self._command('unshunt')

    def end_oldest(self, kept: int) -> None:
        """End the masters and runners of all but the newest generations: each that is started over another brings a dozen processes."""
        sessions: dict[int, float] = {}
        for process in self.processes():
            with suppress(psutil.Error, OSError):  # it has ended
                session, begun = os.getsid(process.pid), process.create_time()
                sessions[session] = min(sessions.get(session, begun), begun)
        newest = sorted(sessions, key=sessions.__getitem__)[-kept:]
        for process in self.processes():
            with suppress(psutil.Error, OSError):  # it has ended
                if os.getsid(process.pid) not in newest:
                    process.kill()

    def wait_until_it_listens(self) -> None:
        eventually(self._listens, 'the LMTP runner listens', within_s=120)

    def _listens(self) -> bool:
        # Not yet.
        with suppress(OSError, smtplib.SMTPException), smtplib.LMTP('127.0.0.1', self.lmtp, timeout=5):
            return True
        return False

    def processes(self, program: str = '') -> list[psutil.Process]:
        """:return: the site's processes.

        :param program: ``master`` or ``runner``.
        """
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # it has ended
                words = process.cmdline()
                title = ' '.join(words)
                # A process that has begun its work has a title for its arguments; it is in the site's directory, or has log files there open.
                is_ours = str(self._file) in words or (
                    title.startswith(TITLE) and self._is_at_home(process.pid)
                )
                is_meant = not program or f'/{program} ' in title or title.startswith(TITLE + program)
                if is_ours and is_meant:
                    found.append(process)
        return found

    def _is_at_home(self, pid: int) -> bool:
        place = Path('/proc', str(pid))
        for link in (place / 'cwd', *(place / 'fd').iterdir()):
            with suppress(FileNotFoundError):  # closed since
                if os.readlink(link).startswith(f'{self.directory}/'):
                    return True
        return False

    def post(self, number: int) -> bool:
        """Hand one post over; False if the site did not take it."""
        msg = EmailMessage()
        msg['From'], msg['To'], msg['Subject'] = MEMBERS[number % 3], LIST, f'post {number}'
        msg['Message-ID'], msg['X-Post'] = f'<post-{number}@example.org>', str(number)
        msg.set_content(f'This is number {number}.\n')
        with (
            suppress(OSError, smtplib.SMTPException),  # not taken
            smtplib.LMTP('127.0.0.1', self.lmtp, timeout=20) as server,
        ):
            server.send_message(msg, MEMBERS[number % 3], [LIST])
            return True
        return False

    def reached(self, numbers: list[int]) -> int:
        """How many of these posts have reached every member."""
        return sum(all(self.sink.reached[str(number), each] for each in MEMBERS) for number in numbers)

    def reasons(self) -> list[str]:
        """:return: why there is what lies in ``bad`` and ``shunt`` of ours."""
        spool, found = Spool(self.queues), []
        for name, suffix in (('bad', '.psv'), ('bad', '.pck'), ('shunt', '.pck'), ('shunt', '.bak')):
            for filebase in spool[name].get_files(suffix):
                said = [each for each in spool[name].peek(filebase, suffix).records if each.get('reason')]
                found.append(f'{name}: {said[-1]["reason"] if said else "no reason"}')
        return found

    def waiting(self, *queues: str) -> int:
        """How many files lie in these queues, or in all but ``bad`` and ``shunt``."""
        names = queues or [
            each.name
            for each in self.queues.iterdir()
            if each.name[0] != '.' and each.name not in ('bad', 'shunt')
        ]
        return sum(
            len([file for file in (self.queues / name).iterdir() if file.suffix in ('.pck', '.bak', '.psv')])
            for name in names
        )

    def stop(self) -> None:
        """End every process of the site."""

        looks = 0

        def are_gone() -> bool:
            nonlocal looks
            found = self.processes()
            for process in found:
                with suppress(psutil.Error):  # it has ended
                    process.kill()
            looks = 0 if found else looks + 1
            # Those that a master was about to start are seen a moment later.
            return looks == LOOKS_IN_VAIN

        eventually(are_gone, 'all processes are gone', every=0.3, within_s=120)

    def close(self) -> None:
        self.stop()
        self.sink.close()


def storm(site: Site, posts: int, kills: int, seed: int) -> dict[str, int]:
    """Post while processes are killed; then let the site come to rest.

    :return: how many processes were killed and masters started over others, how many posts were taken, reached everybody and were lost, how
        many deliveries came twice, and what lies in bad and in shunt.
    """
    rng = random.Random(seed)
    done = Counter({'runners killed': 0, 'masters killed': 0, 'masters started over another': 0})
    site.start()
    site.wait_until_it_listens()
    taken = []
    every = max(1, posts // max(1, kills))
    for number in range(posts):
        if kills and number % every == every - 1:
            _kill(site, rng, done)
        # As a mail server does: what was not taken is offered again.
        eventually(
            lambda number=number: site.post(number), f'post {number} is taken', every=0.2, within_s=180
        )
        taken.append(number)
    site.stop()
    site.start(force=True)
    _settle(site, taken)
    # Two pipeline runners of two masters meet at one digest mailbox: Mailman shunts one's post, for an operator to send back.
    shunted = site.waiting('shunt')
    if shunted:
        site.unshunt()
        _settle(site, taken)
    reached = site.reached(taken)
    return {
        **done,
        'posts': len(taken),
        'shunted, and sent back by `mailman unshunt`': shunted,
        'reached everybody': reached,
        'lost': len(taken) - reached,
        'delivered again': sum(count - 1 for count in site.sink.reached.values()),
        'in bad': site.waiting('bad'),
        'in shunt': site.waiting('shunt'),
    }


def _kill(site: Site, rng: random.Random, done: Counter[str]) -> None:
    """One process dies; now and then it is the master, and the next is started over its runners, which go on."""
    masters = site.processes('master')
    runners = site.processes('runner')
    kind, victims = (
        ('masters killed', masters) if rng.random() < MASTERS_SHARE else ('runners killed', runners)
    )
    if victims:
        with suppress(psutil.Error):  # it has ended
            rng.choice(victims).send_signal(signal.SIGKILL)
            done[kind] += 1
    if not site.processes('master') or rng.random() < FORCED_SHARE:
        site.end_oldest(GENERATIONS - 1)
        done['masters started over another'] += bool(site.processes())
        site.start(force=True)


def _settle(site: Site, taken: list[int], patience_s: float = 240) -> None:
    last, since = -1, time.monotonic()
    while site.reached(taken) < len(taken) and time.monotonic() - since < patience_s:
        now = sum(site.sink.reached.values())
        if now != last:
            last, since, patience_s = now, time.monotonic(), PATIENCE_S
        time.sleep(0.5)  # deliveries of other processes, until none has come for long


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--version', default=VERSIONS[0])
    parser.add_argument('--posts', type=int, default=500)
    parser.add_argument('--kills', type=int, default=40)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--only', choices=('mailman', 'ours'), help='one of the two')
    parser.add_argument('--cache', type=Path, default=CACHE)
    options = parser.parse_args()
    tree = MailmanTree(options.version, options.cache)
    tree.prepare()
    for with_plugin in {'mailman': (False,), 'ours': (True,)}.get(options.only, (False, True)):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            site = Site(tree, Path(directory), with_plugin=with_plugin)
            try:
                begun = time.monotonic()
                outcome: dict[str, Any] = dict(storm(site, options.posts, options.kills, options.seed))
                outcome['seconds'] = round(time.monotonic() - begun, 1)
                if with_plugin:
                    outcome['reasons'] = site.reasons()
                print(json.dumps({'queues': 'ours' if with_plugin else "Mailman's", **outcome}), flush=True)
            finally:
                site.close()
    return 0


if __name__ == '__main__':
    sys.exit(main())
