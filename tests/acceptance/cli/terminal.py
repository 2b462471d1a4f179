"""The command line as a process: in a pipe, or on a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from subprocess import PIPE

from tests.acceptance.forked import Forked
from tests.helpers.waiting import PATIENCE_S

PROGRAM = [sys.executable, '-c', 'from switchboard.cli import main; main()']
# Colours and movements of the cursor.
ESCAPES = re.compile(r'\x1b\[[0-9;?]*[A-Za-z]')


def environment(**more: str) -> dict[str, str]:
    """:return: an environment that has no say in widths and colours."""
    dropped = ('COLUMNS', 'LINES', 'NO_COLOR', 'FORCE_COLOR', 'SWITCHBOARD_CONFIG')
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**kept, 'TERM': 'xterm-256color', **more}


def program(
    *words: str | Path, input: bytes = b'', stdout: int = PIPE, stderr: int = PIPE
) -> subprocess.CompletedProcess[str]:
    """Run it, with its imports done (see `tests.acceptance.forked`).

    :param input: as much as a pipe holds.
    :param stdout: a descriptor, or `CLOSED`; in a pipe, it comes back from here.
    """
    (stdin, input_end), (out_end, out), (err_end, err) = (os.pipe2(os.O_CLOEXEC) for _ in range(3))
    os.write(input_end, input)
    os.close(input_end)
    ran = Forked(
        'main',
        *map(str, words),
        stdin=stdin,
        stdout=out if stdout == PIPE else stdout,
        stderr=err if stderr == PIPE else stderr,
        environment=environment(),
    )
    for descriptor in (stdin, out, err):
        os.close(descriptor)
    said = _read_all(out_end, err_end)
    return subprocess.CompletedProcess(ran.args, ran.wait(PATIENCE_S), *said)


def _read_all(*descriptors: int) -> list[str]:
    said = dict.fromkeys(descriptors, b'')
    ahead = set(descriptors)
    while ahead:
        ready, _, _ = select.select(ahead, [], [], PATIENCE_S)
        assert ready, f'nothing more is said after {said}'
        for descriptor in ready:
            chunk = os.read(descriptor, 65536)
            said[descriptor] += chunk
            if not chunk:
                ahead.remove(descriptor)
                os.close(descriptor)
    return [text.decode(errors='surrogateescape') for text in said.values()]


class Terminal:
    """The program on a terminal of its own.

    :param columns: how wide the terminal is.
    """

    def __init__(self, *words: str | Path, columns: int = 100) -> None:
        self.shown = ''
        self._raw = b''
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is its, too
        )
        os.close(slave)

    def read_until(self, text: str) -> str:
        """Wait until the terminal shows `text`.

        :return: all that it has shown.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert self._read(give_up_s - time.monotonic()), f'{text!r} is not in {self.shown!r}'
        return self.shown

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        """Wait for its end.

        :return: the exit status.
        """
        give_up_s = time.monotonic() + PATIENCE_S
        while self._read(give_up_s - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout_s))
        assert ready, f'nothing more is shown after {self.shown!r}'
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # the last process has closed the terminal
            return False
        # All of it anew: a read may end in the middle of a letter, a line's end or an escape.
        self._raw += chunk
        self.shown = ESCAPES.sub('', self._raw.decode(errors='ignore')).replace('\r\n', '\n')
        return bool(chunk)

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
