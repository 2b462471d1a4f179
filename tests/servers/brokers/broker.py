"""Redis and RabbitMQ of Debian's packages, on free ports of this machine, each with a directory of its own and nothing left behind.

A test may stop one, kill it and start it again: the port and the data stay the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.servers.certificates import Authority
from tests.servers.place import missing

# RabbitMQ takes its time, and more so on a busy machine.
START_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
RABBITMQ = Path('/usr/lib/rabbitmq/bin/rabbitmq-server')
RABBITMQ_TLS = """
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {authority.certificate}
ssl_options.certfile = {own.certificate}
ssl_options.keyfile = {own.key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
"""


class ServerError(Exception):
    """A server does not come up."""


class NotInstalledError(ServerError):
    """A server is not installed."""


class Broker:
    """A server that may be stopped and started again.

    :param url: where clients find it.
    :param question: what to ask it, if it takes connections before it is ready.
    :param answer: what it then says when it is.
    """

    def __init__(
        self,
        url: str,
        arguments: Sequence[str],
        port: int,
        directory: Path,
        environment: Mapping[str, str],
        question: bytes = b'',
        answer: bytes = b'',
    ) -> None:
        self.url = url
        self.port = port
        self.directory = directory
        self._arguments = list(arguments)
        # What its tools need to find it.
        self.environment = dict(environment)
        self._environment = {**os.environ, **environment}
        self._question, self._answer = question, answer
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f'Broker({self.url!r})'

    @property
    def is_running(self) -> bool:
        """Was it started, and has it not ended?"""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return when it answers.

        :raises ServerError: it does not.
        """
        assert not self.is_running
        log = self.directory / 'server.log'
        with log.open('ab') as output:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(
            lambda: not self.is_running or self._answers(),
            lambda: f'answering: {self._arguments!r}',
            every=0.1,
            within_s=START_TIMEOUT_S,
        )
        if not self.is_running:
            raise ServerError(f'{self._arguments!r} has ended: {log.read_text(errors="replace")[-1000:]}')

    def _listens(self) -> bool:
        try:
            socket.create_connection(('127.0.0.1', self.port), timeout=5).close()
        except ConnectionError:
            return False
        except OSError:
            pass  # too busy to answer, so it is there
        return True

    def _answers(self) -> bool:
        try:
            with socket.create_connection(('127.0.0.1', self.port), timeout=5) as probe:
                probe.sendall(self._question)
                return not self._question or probe.recv(100) == self._answer
        except OSError:
            return False

    def stop(self) -> None:
        """Ask it to end, and return when it has."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self) -> None:
        """``kill -9`` of it and all it has started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # What it has started ends after it, and is taken for the next one as long as it listens.
        eventually(lambda: not self._listens(), lambda: f'port {self.port} free')

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Connections stay open, and nobody answers."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGCONT)


@contextmanager
def _running(broker: Broker) -> Iterator[Broker]:
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def started(server: AbstractContextManager[Broker]) -> Iterator[Broker]:
    """What a fixture yields from: a server, or what is to be done where it is not installed."""
    try:
        with server as broker:
            yield broker
    except NotInstalledError as error:
        missing(str(error))


@contextmanager
def redis(
    directory: Path, *, appendfsync: str = 'everysec', authority: Authority | None = None
) -> Iterator[Broker]:
    """Start a Redis that writes an append-only file.

    :param appendfsync: everysec or always.
    :param authority: who signs its certificate, and must have signed those of its clients; without one, there is no TLS.
    """
    program = shutil.which('redis-server')
    if program is None:
        raise NotInstalledError('redis-server (apt-get install redis-server)')
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
    url = f'redis://127.0.0.1:{port}/0'
    if authority is not None:
        tls_port, own = free_port(), authority.sign('server')
        options |= {
            'tls-port': tls_port,
            'tls-cert-file': own.certificate,
            'tls-key-file': own.key,
            'tls-ca-cert-file': authority.own.certificate,
            'tls-auth-clients': 'yes',
        }
        url = f'rediss://localhost:{tls_port}/0'
    arguments = [program, *(str(word) for key, value in options.items() for word in (f'--{key}', value))]
    # While it reads its file it says that it is loading.
    with _running(Broker(url, arguments, port, directory, {}, b'PING\r\n', b'+PONG\r\n')) as broker:
        yield broker


@contextmanager
def rabbitmq(directory: Path, *, authority: Authority | None = None) -> Iterator[Broker]:
    """Start a RabbitMQ with Debian's defaults; its port mapper is its own as well.

    :param authority: as with Redis.
    """
    if not RABBITMQ.exists() or shutil.which('epmd') is None:
        raise NotInstalledError('rabbitmq-server (apt-get install rabbitmq-server)')
    port, distribution, mapper = free_port(), free_port(), free_port()
    environment = {
        'HOME': str(directory),
        'RABBITMQ_HOME': str(directory),
        'RABBITMQ_NODENAME': f'rabbit{port}@localhost',
        'RABBITMQ_NODE_IP_ADDRESS': '127.0.0.1',
        'RABBITMQ_NODE_PORT': str(port),
        'RABBITMQ_DIST_PORT': str(distribution),
        'ERL_EPMD_PORT': str(mapper),
        'ERL_EPMD_ADDRESS': '127.0.0.1',
        'RABBITMQ_MNESIA_BASE': str(directory / 'mnesia'),
        'RABBITMQ_LOG_BASE': str(directory / 'log'),
        'RABBITMQ_CONF_ENV_FILE': str(directory / 'none'),
        'RABBITMQ_CONFIG_FILE': str(directory / 'rabbitmq.conf'),
        'RABBITMQ_ENABLED_PLUGINS_FILE': str(directory / 'plugins'),
        'RABBITMQ_PID_FILE': str(directory / 'pid'),
        # What was delayed and then refused by a full queue is offered to it again each second, and not each three minutes; and its threads sleep
        # while they wait, for what they spin is the tests' time.
        'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS': '-rabbit dead_letter_worker_publisher_confirm_timeout 1000 '
        '+sbwt none +sbwtdcpu none +sbwtdio none',
    }
    url = f'amqp://guest:guest@127.0.0.1:{port}//'
    settings = ''
    if authority is not None:
        port, own = free_port(), authority.sign('server')
        url = f'amqps://guest:guest@localhost:{port}//'
        settings = RABBITMQ_TLS.format(port=port, authority=authority.own, own=own)
    (directory / 'rabbitmq.conf').write_text(settings)
    broker = Broker(url, [str(RABBITMQ)], port, directory, environment)
    try:
        with _running(broker):
            yield broker
    finally:
        subprocess.run(
            ['epmd', '-port', str(mapper), '-kill'],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
