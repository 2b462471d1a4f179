"""An Exim of our own, unpacked beside the system: its Debian package and that of Postfix exclude each other.

Exim believes only in the configuration of the place that it was built for, and in a user of a certain name.  So it runs in a
mount namespace that has a copy of ``/etc`` of its own; the machine's is not touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S
from tests.servers.mail.mailserver import MailServer, wait_for_line
from tests.servers.place import ROOT, Place, missing

PACKAGE = 'exim4-daemon-light'
# What .ci/run has downloaded, so that the tests need no network.
PACKAGES = Path('/var/cache/switchboard-tests')
USER, UID = 'Debian-exim', 61234

CONFIGURATION = """
exim_path = {exim}
primary_hostname = mx.example.com
spool_directory = {home}/queue
log_file_path = {home}/log/%slog
pid_file_path = {home}/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
acl_smtp_rcpt = acl_rcpt
# None: `nobody` owns the spool here.
never_users =
host_lookup =
rfc1413_query_timeout = 0s
keep_environment =
tls_advertise_hosts =
timezone = UTC

begin acl

acl_rcpt:
  accept hosts = 127.0.0.1

begin routers

{routers}

begin transports

{transports}

begin retry

* * F,1h,1s
"""

ENTER = """
set -e
mount --bind "$1/etc" /etc
shift
exec "$@"
"""


class Exim(MailServer):
    """A running Exim."""

    def __init__(self, place: Place, package: Path) -> None:
        self.home = place.directory / 'exim'
        self.port = free_port()
        for name in ('queue', 'log'):
            (self.home / name).mkdir(parents=True)
            os.chown(self.home / name, UID, UID)
        subprocess.run(['dpkg', '-x', str(package), str(self.home / 'root')], check=True, timeout=PATIENCE_S)
        self.exim = self.home / 'root/usr/sbin/exim4'
        self.exim.chmod(0o4755)
        self._make_etc(place)
        self.log = self.home / 'log' / 'mainlog'

    def _make_etc(self, place: Place) -> None:
        etc = self.home / 'etc'
        etc.mkdir()
        for name in ('passwd', 'group', 'nsswitch.conf', 'hosts', 'resolv.conf', 'localtime'):
            if Path('/etc', name).exists():
                shutil.copy(Path('/etc', name), etc / name)
        with open(etc / 'passwd', 'a') as users, open(etc / 'group', 'a') as groups:
            users.write(f'{USER}:x:{UID}:{UID}::/nonexistent:/usr/sbin/nologin\n')
            groups.write(f'{USER}:x:{UID}:\n')
        for name in ('ld.so.cache', 'ld.so.conf', 'alternatives'):
            source = Path('/etc', name)
            if source.is_dir():
                shutil.copytree(source, etc / name, symlinks=True)
            elif source.exists():
                shutil.copy(source, etc / name)
        samples = {
            name: place.substitute((ROOT / 'etc' / 'exim' / name).read_text())
            for name in ('routers', 'transports')
        }
        (etc / 'exim4').mkdir()
        (etc / 'exim4' / 'exim4.conf').write_text(
            CONFIGURATION.format(exim=self.exim, home=self.home, port=self.port, **samples)
        )

    def command(self, *arguments: str) -> list[str]:
        """:return: what is to be run to have Exim see its own ``/etc``."""
        return ['unshare', '--mount', 'sh', '-c', ENTER, 'sh', str(self.home), str(self.exim), *arguments]

    def told(self) -> str:
        """:return: the log."""
        logs = (self.home / 'log').glob('*log')
        return '\n'.join(log.read_text(errors='replace') for log in logs)

    def wait_for(self, text: str) -> str:
        """Wait until a line of the log holds a text.

        :return: the line.
        """
        return wait_for_line(self.told, re.escape(text))


def find_package(directory: Path) -> Path:
    """:return: the Debian package, which is fetched if it is not there."""
    for found in (*PACKAGES.glob(f'{PACKAGE}_*.deb'), *directory.glob(f'{PACKAGE}_*.deb')):
        return found
    subprocess.run(
        ['apt-get', 'download', '-qq', '-o', 'APT::Sandbox::User=root', PACKAGE],
        cwd=directory,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    for found in directory.glob(f'{PACKAGE}_*.deb'):
        return found
    missing(f'the package {PACKAGE} (apt-get download {PACKAGE})')
    raise AssertionError


@contextlib.contextmanager
def exim(place: Place) -> Iterator[Exim]:
    """Start an Exim, and stop it."""
    server = Exim(place, find_package(place.directory))
    version = subprocess.run(
        server.command('-bV'), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if version.returncode != 0:
        missing(f'an Exim that runs, and mount namespaces: {version.stderr}')
    with open(server.home / 'output', 'ab') as output:
        process = subprocess.Popen(server.command('-bdf', '-q1s'), stdout=output, stderr=output)
    try:
        server.wait_for('daemon started')
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
