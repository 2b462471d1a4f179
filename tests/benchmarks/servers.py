"""The servers that entrants need, as the tests start them, and the accelerator, as the tests build it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.accelerator import NotBuiltError, build
from tests.servers.brokers.broker import ServerError, rabbitmq, redis

__all__ = ['ServerError', 'server']


@contextmanager
def server(needs: str, directory: Path) -> Iterator[dict[str, str]]:
    """Start what an entrant needs, if that is a server; or build it.

    :return: what its processes find in their environment.
    :raises ServerError: it is not installed, or does not come up.
    """
    if needs == 'accelerator':
        directory.mkdir(parents=True, exist_ok=True)
        try:
            build(directory)
        except NotBuiltError as error:
            raise ServerError(str(error)) from error
        yield {'PYTHONPATH': str(directory)}
        return
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
