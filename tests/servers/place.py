"""A place on the disk where mail servers, which run as other users, may deliver; and what may be missing on a machine."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from switchboard.spool.spool import Spool
from tests.acceptance.forked import Forked
from tests.helpers.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
# Who delivers: mail servers refuse to do it as root.
USER = 'nobody'
READY_LINE = re.compile(rb' master\[\d+\] ready ')


def missing(what: str) -> None:
    """Skip a test for what this machine has not got.

    :param what: ends the sentence that begins with "needs".
    """
    import pytest  # the benchmarks start servers too, and have no pytest

    pytest.skip(f'needs {what}')


def _can_be_read_by_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


class Place:
    """A directory that every user may enter, with a spool that `USER` may write to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o755)
        self.config = directory / 'switchboard.cfg'
        self.spool_directory = directory / 'spool'
        self.checkout = self._checkout()
        self.make_spool()

    def make_spool(self) -> None:
        """Make the spool's directory as ``etc/tmpfiles.d`` does: what is made below belongs to the group."""
        self.spool_directory.mkdir(exist_ok=True)
        os.chown(self.spool_directory, -1, grp.getgrnam('nogroup').gr_gid)
        self.spool_directory.chmod(0o2770)

    def _checkout(self) -> Path:
        """:return: this checkout, or a copy of what bin/drop needs, if others may not read it, or a mail server's list of words not hold it."""
        if _can_be_read_by_all(ROOT) and not re.search(r'\s', str(ROOT)):
            return ROOT
        copy = self.directory / 'checkout'
        for name in ('bin', 'switchboard'):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__'))
        return copy

    def configure(self, text: str, exchanges: str = '') -> Spool:
        """Write the configuration.

        :return: its spool, whose directories are there now.
        """
        (self.directory / 'exchange.cfg').write_text(exchanges)
        self.config.write_text(f'[switchboard]\nspool = spool\n{text}')
        spool = Spool.from_config(self.config)
        for name in spool.queue_names():
            spool[name]
        return spool

    def substitute(self, text: str) -> str:
        """Put this place into a sample configuration instead of the places of an installed system."""
        for old, new in (
            ('/opt/switchboard', str(self.checkout)),
            ('/etc/switchboard/switchboard.cfg', str(self.config)),
            ('/var/spool/switchboard', str(self.spool_directory)),
            ('/run/switchboard', str(self.directory)),
            ('user = switchboard', f'user = {USER}'),
            ('user=switchboard', f'user={USER}'),
            ('default_privs = switchboard', f'default_privs = {USER}'),
        ):
            text = text.replace(old, new)
        return text

    def runner(self, name: str) -> list[str]:
        """:return: the command of one runner process without a master."""
        code = 'from switchboard.master.programs import runner; runner()'
        return [sys.executable, '-c', code, '-C', str(self.config), name]

    @contextlib.contextmanager
    def master(self) -> Iterator[Forked]:
        """Run a master until the end of the block, which begins when all its runners are ready."""
        path = self.directory / 'master.log'
        with open(path, 'ab') as log:
            begin = log.tell()
            process = Forked('master', '-C', str(self.config), stdout=log.fileno(), stderr=log.fileno())
        try:
            eventually(
                lambda: READY_LINE.search(path.read_bytes()[begin:]) or process.poll() is not None,
                lambda: f'ready: {path.read_text()}',
            )
            yield process
        finally:
            process.terminate()
            assert process.wait(120) == 0, path.read_text()


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Yield a place, and remove it."""
    if os.geteuid() != 0:
        missing('to be root, because a mail server is started')
    directory = Path(tempfile.mkdtemp(prefix='switchboard-', dir='/var/tmp'))
    umask = os.umask(0o022)  # what is made here is for others
    try:
        yield Place(directory)
    finally:
        os.umask(umask)
        shutil.rmtree(directory)


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Callable[[], None]]:
    """Mount a small disk on `path`.

    :return: a function that fills it.
    """
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={size},mode=2770,gid=nogroup', 'small', str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        missing(f'to mount a small disk: {mounted.stderr.decode()}')

    def fill() -> None:
        with open(path / 'filler', 'wb', buffering=0) as filler, contextlib.suppress(OSError):  # it is full
            while True:
                filler.write(b'x' * 4096)

    try:
        yield fill
    finally:
        subprocess.run(['umount', '-l', str(path)], check=True)
