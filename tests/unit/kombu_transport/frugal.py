"""A program that opens and closes a hundred connections, one after the other or side by side, and counts its descriptors.

The kind of threads is its first argument: ``threads``, ``eventlet`` or ``gevent``.  The garbage collector is off: what a closed connection held must
be free at once.  With a third argument, no more descriptors than that can be had: then connections fail, half-way and while they are closed, and
nothing of them may stay either, when the collector has been called.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable
from typing import Any

WAYS = ('threads', 'eventlet', 'gevent')
CONNECTIONS, SIDE_BY_SIDE = 100, 10


def patched(way: str) -> Callable[[Callable[[int], None]], Any]:
    """Have the standard library replaced as such programs do, before anything else is imported.

    :return: what starts a thread of that kind, and gives back what waits for it.
    """
    if way == 'eventlet':
        import eventlet

        eventlet.monkey_patch()
    if way == 'gevent':
        from gevent import monkey

        monkey.patch_all()
    import threading

    def start(work: Callable[[int], None]) -> Any:
        thread = threading.Thread(target=work, args=(CONNECTIONS // SIDE_BY_SIDE,))
        thread.start()
        return thread.join

    return start


def main(way: str, directory: str, limit: str = '') -> None:
    """Print how many descriptors are open after the first and after the last of them."""
    start = patched(way)
    import threading
    import time

    import kombu
    from amqp.exceptions import ChannelError

    import switchboard.extra.kombu  # noqa: F401  makes the name known

    refused: list[Exception] = []

    def use(name: str) -> None:
        with kombu.Connection(f'switchboard://{directory}?durability=lazy') as connection:
            queue = kombu.Queue(name, exclusive=bool(limit))
            queue(connection.default_channel).declare()
            got: list[Any] = []
            with kombu.Consumer(
                connection, [queue], callbacks=[lambda body, message: (got.append(body), message.ack())]
            ):
                try:
                    connection.drain_events(timeout=0.01)  # sleeps
                except TimeoutError:
                    pass
                kombu.Producer(connection).publish('x', routing_key=name)
                while not got:
                    connection.drain_events(timeout=10)

    def use_many(count: int) -> None:
        for number in range(count):
            try:
                use(f'{threading.get_ident()}-{number}')
            except (OSError, kombu.exceptions.KombuError, ChannelError) as error:
                if not limit:
                    raise
                refused.append(error)

    def descriptors() -> int:
        time.sleep(0.05)  # gevent closes what it is told to close in a later round of its loop
        return len(os.listdir('/proc/self/fd'))

    gc.collect()
    gc.disable()
    use('queue0')
    before = descriptors()
    if limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
    for join in [start(use_many) for _ in range(SIDE_BY_SIDE)]:
        join()
    refused.clear()  # their tracebacks know what failed
    if limit:
        gc.collect()  # an error that was met while another one was handled may stand in a circle with its frames
    print(before, descriptors())


if __name__ == '__main__':
    main(*sys.argv[1:])
