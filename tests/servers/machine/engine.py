"""Podman with images and containers of its own, below one directory; in a namespace of its own where it cannot work as the machine is set up."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.waiting import PATIENCE_S
from tests.servers.machine import image

# The engine wants the kernel's second kind of control groups alone, and a machine may mount both.
OWN_CGROUPS = 'umount -lR /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; echo ready; exec cat'


class Engine:
    """One engine.

    :param home: of its images.
    :param run: for what it needs while it runs: a path of at most fifty characters.
    :param prefix: what stands before each of its commands.
    :param run_options: of each container.
    :param build_options: of each image that is built.
    """

    def __init__(
        self,
        home: Path,
        run: Path,
        prefix: tuple[str, ...] = (),
        run_options: tuple[str, ...] = (),
        build_options: tuple[str, ...] = ('--network=none',),
    ) -> None:
        places = ('--root', str(home / 'storage'), '--runroot', str(run))
        self._command = (*prefix, 'podman', *places, '--cgroup-manager', 'cgroupfs')
        self.run_options = ('--network=none', *run_options)
        self.build_options = ('--format', 'docker', *build_options)

    def ask(self, *words: str | Path, input: str = '') -> subprocess.CompletedProcess[str]:
        """:return: what a command of the engine did."""
        return subprocess.run(
            [*self._command, *map(str, words)],
            input=input,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 3,
            check=False,
        )

    def do(self, *words: str | Path, input: str = '') -> str:
        """:return: the standard output of a command that has to succeed."""
        done = self.ask(*words, input=input)
        assert done.returncode == 0, f'{words}: {done.returncode}\n{done.stdout}{done.stderr}'
        return done.stdout

    def import_base(self, name: str, packages: tuple[str, ...] = ()) -> None:
        """Make an image of this machine's packages."""
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                [*self._command, 'import', '-', name], stdin=subprocess.PIPE, stdout=said, stderr=said
            ) as importing,
        ):
            assert importing.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it says why
                image.write(importing.stdin, packages)
            with contextlib.suppress(BrokenPipeError):
                importing.stdin.close()
            importing.wait(PATIENCE_S)
            said.seek(0)
            assert importing.returncode == 0, said.read()

    def works(self, name: str) -> bool:
        """:return: whether a container of an image runs."""
        return self.ask('run', '--rm', *self.run_options, name, 'true').returncode == 0

    def write_program(self, path: Path) -> Path:
        """Write a program that is this engine for others, such as for a compose program.

        :return: the path.
        """
        path.write_text(f'#!/bin/sh\nexec {shlex.join(self._command)} "$@"\n')
        path.chmod(0o755)
        return path

    def log(self, name: str) -> str:
        """:return: all that a container has written."""
        done = self.ask('logs', name)
        return done.stdout + done.stderr


@contextlib.contextmanager
def engine(home: Path, name: str, packages: tuple[str, ...] = ()) -> Iterator[Engine]:
    """Yield an engine that has an image of this machine's packages; nothing of it is left afterwards.

    :param name: of the image.
    """
    if shutil.which('podman') is None or shutil.which('dpkg') is None:
        pytest.skip('needs podman and dpkg')
    try:
        image.closure((*image.PACKAGES, *packages))
    except KeyError as error:
        pytest.skip(f'needs the package {error.args[0]}')
    holder = None
    run = Path(tempfile.mkdtemp(prefix='podman-', dir='/tmp'))
    made = Engine(home, run)
    try:
        made.import_base(name, packages)
        if not made.works(name):
            holder = subprocess.Popen(
                ['unshare', '--mount', 'sh', '-c', OWN_CGROUPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert holder.stdout is not None
            if holder.stdout.readline() != b'ready\n':
                pytest.skip('podman cannot run a container here')
            made = Engine(
                home,
                run,
                ('nsenter', '--mount', '--target', str(holder.pid)),
                # The engine would ask for more than this process may have.
                ('--cgroups=disabled', '--ulimit=nofile=1024:4096', '--ulimit=nproc=1024:1024'),
                ('--isolation=chroot',),
            )
            if not made.works(name):
                pytest.skip('podman cannot run a container here')
        yield made
    finally:
        made.ask('rm', '--all', '--force', '--time', '0')
        made.ask('volume', 'rm', '--all', '--force')
        made.ask('rmi', '--all', '--force')
        if holder is not None:
            holder.kill()
            holder.communicate()
        # The engine leaves it mounted over itself, and nobody could remove it.
        subprocess.run(['umount', '--lazy', home / 'storage' / 'overlay'], capture_output=True)
        shutil.rmtree(run, ignore_errors=True)
