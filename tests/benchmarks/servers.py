"""The servers that entrants need, as the tests start them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.brokers import ServerError, rabbitmq, redis

__all__ = ['ServerError', 'server']


@contextmanager
def server(needs: str, directory: Path) -> Iterator[dict[str, str]]:
    """Start what an entrant needs, if that is a server.

    :return: what its processes find in their environment.
    :raises ServerError: it is not installed, or does not come up.
    """
    starters = {
        'redis': lambda: redis(directory, appendfsync='everysec'),
        'redis-always': lambda: redis(directory, appendfsync='always'),
        'rabbitmq': lambda: rabbitmq(directory),
    }
    if needs not in starters:
        yield {}
        return
    directory.mkdir(parents=True, exist_ok=True)
    with starters[needs]() as broker:
        yield {'BENCH_URL': broker.url}
