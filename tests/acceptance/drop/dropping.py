"""``bin/drop`` as a mail server starts it, for tests."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

from switchboard import Spool
from tests.helpers.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
DROP = ROOT / 'bin' / 'drop'
RAW = b'From anna@example.org Sun Nov 22 03:00:00 2026\nSubject: x\n\n8-bit \xff, NUL \0, bare CR \r, no end'
BODY = RAW.partition(b'\n')[2]
NOBODY = 65534

Result = subprocess.CompletedProcess[bytes]


class Door:
    """A spool, and the program that drops into it.

    :param program: another copy of it.
    """

    def __init__(self, home: Path, program: Path = DROP) -> None:
        self.spool = home / 'spool'
        self.program = program
        self.shell: list[str] = []
        (self.spool / 'in').mkdir(parents=True)
        self.environment = {'PATH': '/usr/bin:/bin', 'SWITCHBOARD_SPOOL': str(self.spool)}
        if program is DROP:
            self.environment['SWITCHBOARD_VENV'] = str(Path(sys.executable).parent.parent)

    def start(self, *arguments: str, **keys: Any) -> subprocess.Popen[bytes]:
        """Start it with a pipe as its standard input."""
        keys = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **keys}
        environment = {**self.environment, **keys.pop('env', {})}
        return subprocess.Popen([*self.shell, self.program, 'in', *arguments], env=environment, **keys)

    def drop(self, raw: bytes = RAW, *arguments: str, **keys: Any) -> Result:
        """Drop a message and wait for the answer."""
        with self.start(*arguments, **keys) as process:
            out, err = process.communicate(raw)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def entries(self) -> list[Path]:
        """:return: the files of the queue, each of which is whole."""
        queue = Spool(self.spool)['in']
        for filebase in queue.get_files():
            assert queue.peek(filebase).damage is None
        return sorted((self.spool / 'in').iterdir())

    def stored(self) -> bytes:
        """:return: the body of the one entry that there is."""
        [path] = self.entries()
        return Spool(self.spool)['in'].peek(path.stem).body


def refused(result: Result, because: str = '') -> bool:
    """Does it defer, with one short line that mail servers understand?"""
    assert result.returncode == 75, result
    assert not result.stdout
    assert result.stderr.startswith(b'4.3.0 '), result
    assert result.stderr.endswith(b'\n')
    assert result.stderr.count(b'\n') == 1
    assert len(result.stderr) < 400
    assert because in result.stderr.decode(), result
    return True


def wait_until_read(writing: int) -> None:
    """Wait until the reader of a pipe has taken all that was written; pipes give no event for that."""

    def is_read() -> bool:
        return not struct.unpack('i', fcntl.ioctl(writing, termios.FIONREAD, b'\0' * 4))[0]

    eventually(is_read, 'read', every=0.001)
