"""A Postfix of our own: its configuration is the one in ``etc/postfix``, its queue, ports and log lie in a test's directory."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S
from tests.servers.mail.mailserver import MailServer, wait_for_line
from tests.servers.place import ROOT, USER, Place, missing

POSTFIX = '/usr/sbin/postfix'

MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example.com
mydomain = example.com
mydestination = localhost, mx.example.com
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_recipient_restrictions = permit_mynetworks, reject
maillog_file = {home}/log
maillog_file_prefixes = {home}
alias_database =
biff = no
# Impatient, because a test waits.  The times of its files are whole seconds: with one second it may come back to a mail at once, find it
# still locked by the delivery that has just failed, and leave it for a minute.
queue_run_delay = 1s
minimal_backoff_time = 2s
maximal_backoff_time = 2s
transport_retry_time = 1s
disable_dns_lookups = yes
smtp_host_lookup = native
"""

# A mail that it left for a minute is among the new ones, and those it looks for when it is woken only.
MASTER = """
{port}    inet  n       -       n       -       -       smtpd
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       1       1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


class Postfix(MailServer):
    """A running Postfix."""

    def __init__(self, place: Place, lmtp_port: int) -> None:
        self.home = place.directory / 'postfix'
        self.port = free_port()
        self.log = self.home / 'log'
        self._configure(place, lmtp_port)

    def _configure(self, place: Place, lmtp_port: int) -> None:
        conf = self.home / 'conf'
        conf.mkdir(parents=True)
        (self.home / 'queue').mkdir()
        (self.home / 'data').mkdir()
        shutil.chown(self.home / 'data', 'postfix')
        user = pwd.getpwnam(USER)
        samples = {}
        for name in ('main.cf', 'master.cf', 'transport', 'mailboxes', 'aliases'):
            text = place.substitute((ROOT / 'etc' / 'postfix' / name).read_text())
            text = text.replace('/etc/postfix', str(conf)).replace(':8024', f':{lmtp_port}')
            text = text.replace('static:990', f'static:{user.pw_uid}', 1).replace(
                'static:990', f'static:{user.pw_gid}'
            )
            samples[name] = text
        samples['main.cf'] = MAIN.format(home=self.home) + samples['main.cf']
        samples['master.cf'] = MASTER.format(port=f'127.0.0.1:{self.port}') + samples['master.cf']
        for name, text in samples.items():
            (conf / name).write_text(text)

    def command(self, *arguments: str) -> str:
        """Run one of Postfix's own programs.

        :return: what it wrote.
        """
        program, *rest = arguments
        result = subprocess.run(
            [f'/usr/sbin/{program}', '-c', str(self.home / 'conf'), *rest],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert result.returncode == 0, f'{arguments}: {result.stdout}{result.stderr}{self.told()}'
        return result.stdout

    def told(self, log: Path | None = None) -> str:
        """:return: what a log says."""
        path = log or self.log
        return path.read_text(errors='replace') if path.exists() else ''

    def wait_for(self, pattern: str, log: Path | None = None) -> str:
        """Wait until a line of a log matches.

        :return: the line.
        """
        path = log or self.log
        return wait_for_line(lambda: self.told(path), pattern)

    def waiting(self) -> int:
        """:return: how many mails its own queue holds."""
        return sum(
            bool(re.fullmatch('[0-9A-F]{8,}|[0-9A-Za-z]{12,}', name))
            for directory in ('incoming', 'active', 'deferred', 'maildrop')
            for _, _, names in os.walk(self.home / 'queue' / directory)
            for name in names
        )


def need_postfix() -> None:
    """Skip a test where there is no Postfix, before it has started anything."""
    if not Path(POSTFIX).exists():
        missing('postfix (apt-get install postfix)')


@contextlib.contextmanager
def postfix(place: Place, lmtp_port: int = 1) -> Iterator[Postfix]:
    """Start a Postfix, and stop it."""
    need_postfix()
    server = Postfix(place, lmtp_port)
    server.command('postfix', 'start')
    try:
        yield server
    finally:
        server.command('postfix', 'stop')
