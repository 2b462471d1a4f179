"""The servers of Debian's packages, on free ports of this machine, each with a directory of its own and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# RabbitMQ takes its time, and more so on a busy machine.
START_TIMEOUT_S = 90.0
RABBITMQ = Path('/usr/lib/rabbitmq/bin/rabbitmq-server')


class ServerError(Exception):
    """A server is not installed, or does not come up."""


def free_port() -> int:
    """:return: a port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_s:
        if process.poll() is not None:
            break
        with suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=1):
            return
        time.sleep(0.1)
    raise ServerError(f'{process.args!r} does not answer: {log.read_text(errors="replace")[-1000:]}')


@contextmanager
def _running(
    arguments: list[str], port: int, directory: Path, environment: dict[str, str] | None = None
) -> Iterator[None]:
    log = directory / 'server.log'
    with log.open('wb') as output:
        process = subprocess.Popen(
            arguments,
            cwd=directory,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for_port(port, process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def redis(directory: Path, *, appendfsync: str) -> Iterator[str]:
    """Yield the address of a Redis that writes an append-only file.

    :param appendfsync: everysec or always.
    """
    program = shutil.which('redis-server')
    if program is None:
        raise ServerError('redis-server is not installed: apt-get install redis-server')
    port = free_port()
    options = {
        'port': port,
        'bind': '127.0.0.1',
        'dir': directory,
        'appendonly': 'yes',
        'appendfsync': appendfsync,
        'save': '',
        'daemonize': 'no',
    }
    arguments = [program, *(str(word) for key, value in options.items() for word in (f'--{key}', value))]
    with _running(arguments, port, directory):
        yield f'redis://127.0.0.1:{port}/0'


@contextmanager
def rabbitmq(directory: Path) -> Iterator[str]:
    """Yield the address of a RabbitMQ with Debian's defaults; its port mapper is its own as well."""
    if not RABBITMQ.exists() or shutil.which('epmd') is None:
        raise ServerError('rabbitmq-server is not installed: apt-get install rabbitmq-server')
    port, distribution, mapper = free_port(), free_port(), free_port()
    environment = {
        'HOME': str(directory),
        'RABBITMQ_HOME': str(directory),
        'RABBITMQ_NODENAME': f'bench{port}@localhost',
        'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
        'RABBITMQ_NODE_PORT': str(port),
        'RABBITMQ_DIST_PORT': str(distribution),
        'ERL_EPMD_PORT': str(mapper),
        'ERL_EPMD_ADDRESS': '127.0.0.1',
        'RABBITMQ_MNESIA_BASE': str(directory / 'mnesia'),
        'RABBITMQ_LOG_BASE': str(directory / 'log'),
        'RABBITMQ_CONF_ENV_FILE': str(directory / 'none'),
        'RABBITMQ_CONFIG_FILE': str(directory / 'none'),
        'RABBITMQ_ENABLED_PLUGINS_FILE': str(directory / 'plugins'),
        'RABBITMQ_PID_FILE': str(directory / 'pid'),
    }
    try:
        with _running([str(RABBITMQ)], port, directory, environment):
            yield f'amqp://guest:guest@127.0.0.1:{port}//'
    finally:
        subprocess.run(
            ['epmd', '-port', str(mapper), '-kill'],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


@contextmanager
def server(needs: str, directory: Path) -> Iterator[dict[str, str]]:
    """Start what an entrant needs, if that is a server.

    :return: what its processes find in their environment.
    """
    starters: dict[str, Callable[[Path], object]] = {
        'redis': lambda place: redis(place, appendfsync='everysec'),
        'redis-always': lambda place: redis(place, appendfsync='always'),
        'rabbitmq': rabbitmq,
    }
    if needs not in starters:
        yield {}
        return
    directory.mkdir(parents=True, exist_ok=True)
    with starters[needs](directory) as url:  # type: ignore[attr-defined]
        yield {'BENCH_URL': url}
