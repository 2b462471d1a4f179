"""What an operator of a RabbitMQ does: its settings while it runs, and what he sees there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers.brokers.broker import RABBITMQ, Broker


def ctl(server: Broker, *words: str) -> str:
    """:return: what ``rabbitmqctl`` says."""
    done = subprocess.run(
        [str(RABBITMQ.with_name('rabbitmqctl')), '--quiet', *words],
        env={**os.environ, **server.environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@contextmanager
def setting(server: Broker, **values: int) -> Iterator[None]:
    """Have settings other than they were, for what connects, or is made, from now on."""
    # One call for all of them: each starts a virtual machine.
    ctl(
        server,
        'eval',
        ', '.join(
            f'application:set_env(rabbit, before_{key}, application:get_env(rabbit, {key}, none)),'
            f' application:set_env(rabbit, {key}, {value})'
            for key, value in values.items()
        )
        + '.',
    )
    try:
        yield
    finally:
        ctl(
            server,
            'eval',
            ', '.join(
                f'case application:get_env(rabbit, before_{key}, none) of'
                f' none -> application:unset_env(rabbit, {key});'
                f' Before{number} -> application:set_env(rabbit, {key}, Before{number}) end'
                for number, key in enumerate(values)
            )
            + '.',
        )


def channels(server: Broker) -> int:
    """:return: how many channels are open, of all connections."""
    return len(ctl(server, 'list_channels', 'pid').splitlines())


def queues(server: Broker, prefix: str) -> list[str]:
    """:return: the queues whose names begin so."""
    return sorted(name for name in ctl(server, 'list_queues', 'name').splitlines() if name.startswith(prefix))
