"""Programs that have been imported already: masters, runners and the command line, each forked from one process that has done nothing else.

To import a master takes ten times as long as to start Python, and some hundred tests start one; the verbs of the command line, five times.  What is
forked is what ``python -c 'from switchboard.master.programs import master; master()'`` is at the call: a process of its own, with its arguments,
environment, directory, umask and standard streams.  It ends as Python ends, and takes nothing apart: to take apart what it shares with the process
that it was forked from would copy all of that, which were three quarters of what a short program costs.  That the programs start from nothing, and
end so, is seen by the tests of an installed wheel, of the documentation and of the service managers; what is small or quick is measured there too
(``Installation.start(fresh=True)``).

::

    python -m tests.acceptance.forked DESCRIPTOR MODULE...

waits at a socket for what it is to fork, says its number and later how it ended, and ends with the process at the other end.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NoReturn, TextIO

from tests.helpers.processes import ends

REQUEST_MAX_BYTES = 1 << 20
# In the place of a descriptor: the stream is closed.  `subprocess` has numbers of its own for what may stand there, from -1 to -3.
CLOSED = -4
# The module whose function of that name a program is.
PROGRAMS = {
    'master': 'switchboard.master.programs',
    'runner': 'switchboard.master.programs',
    'main': 'switchboard.cli',
}


class Forked:
    """A program that runs; what `subprocess.Popen` has of one.

    :param program: one of `PROGRAMS`.
    :param stderr: a descriptor for its standard error; without one, it can be read here.
    :param environment: that of this process, if nothing is said.
    :param imported: modules that it would import by itself.
    """

    def __init__(
        self,
        program: str,
        *arguments: str,
        stdin: int = 0,
        stdout: int,
        stderr: int | None = None,
        environment: Mapping[str, str] = os.environ,
        imported: tuple[str, ...] = (),
    ) -> None:
        self.args = [program, *arguments]
        self.returncode: int | None = None
        self.stderr = None
        writing = None
        if stderr is None:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            self.stderr = open(reading, 'rb', buffering=0)  # noqa: SIM115 - who has it closes it
        self._told, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        umask = os.umask(0o022)
        os.umask(umask)
        streams = {0: stdin, 1: stdout, 2: stderr if writing is None else writing}
        streams = {number: descriptor for number, descriptor in streams.items() if descriptor != CLOSED}
        request = {
            'args': self.args,
            'environment': dict(environment),
            'directory': os.getcwd(),
            'umask': umask,
            'streams': list(streams),
        }
        with theirs:
            server = _server(os.getpid(), PROGRAMS[program], *imported)
            socket.send_fds(server, [json.dumps(request).encode()], [theirs.fileno(), *streams.values()])
        if writing is not None:
            os.close(writing)
        self.pid = int(self._told.recv(100))

    def wait(self, timeout: float | None = None) -> int:
        """:return: how it ended, as of `subprocess.Popen`."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._told.recv(100))
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        if self.returncode is None and ends(self.pid, 0):
            self.wait()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _server(_pid: int, *modules: str) -> socket.socket:
    """:return: the end of the socket at which this process asks; a child of it has one of its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, '-m', 'tests.acceptance.forked', str(theirs.fileno()), *modules]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def serve(asked: socket.socket, module: str, *imported: str) -> None:
    """Fork what is asked for, until nobody can ask any more; in what is forked this raises `SystemExit`."""
    from setproctitle import getproctitle

    programs = importlib.import_module(module)
    if module == 'switchboard.cli':
        _import_the_verbs()
    for each in imported:
        importlib.import_module(each)
    gc.freeze()  # what is forked need not look through what is here: to look is to write, and so to copy
    getproctitle()  # takes the room for titles, while the environment is where it was
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([asked, reading], [], [])
        if reading in ready:
            os.read(reading, 4096)
            _tell_of_the_ended(running)
        if asked not in ready:
            continue
        content, descriptors, _, _ = socket.recv_fds(asked, REQUEST_MAX_BYTES, 4)
        if not content:
            return
        teller, *streams = descriptors
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for told in running.values():
                told.close()
            for descriptor in (asked.detach(), reading, writing, teller):
                os.close(descriptor)
            _become(programs, json.loads(content), streams)
        for descriptor in streams:
            os.close(descriptor)
        running[pid] = socket.socket(fileno=teller)
        running[pid].send(f'{pid}\n'.encode())


def _import_the_verbs() -> None:
    from switchboard.cli.app import VERBS

    for name in {name for name, _ in VERBS.values()}:
        importlib.import_module(f'switchboard.cli.commands.{name}')
    importlib.import_module('switchboard.spool.spool')


def _tell_of_the_ended(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as told, suppress(BrokenPipeError):
            told.send(f'{os.waitstatus_to_exitcode(status)}\n'.encode())


def _become(programs: Any, request: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be a process that has just begun, at the call of its program."""
    for number, descriptor in zip(request['streams'], streams, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in {0, 1, 2}.difference(request['streams']):
        os.close(number)
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        setattr(sys, name, _stream(number) if number in request['streams'] else None)
    os.environ.clear()
    os.environ.update(request['environment'])
    os.chdir(request['directory'])
    os.umask(request['umask'])
    program, *arguments = request['args']
    sys.argv[:] = ['-c', *arguments]
    sys.path[0] = ''
    try:
        getattr(programs, program)()
    except SystemExit as leaving:
        _leave(leaving.code)
        raise
    raise AssertionError('a program ends by itself')


def _leave(code: object) -> None:
    """End as Python ends, but where it has something to say: then this returns."""
    if not isinstance(code, int | None):
        return
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # Python meets it again, and says so
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit((code or 0) & 0xFF)


def _stream(descriptor: int) -> TextIO:
    """:return: what Python makes of one of the standard streams."""
    if descriptor == 2:
        return open(2, 'w', 1, errors='backslashreplace', closefd=False)
    return open(descriptor, 'w' if descriptor else 'r', closefd=False)


if __name__ == '__main__':
    serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
