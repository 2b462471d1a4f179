"""A runner, a producer and a Celery application, for the compose file."""

from __future__ import annotations

import sys
from typing import Any

from switchboard import Runner, Spool

PLACE = '/var/spool/switchboard'


class Orders(Runner):
    """Packs what was ordered."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        self.emit('packed', f'{msg["count"]} x {msg["item"]}', msgdata)


def produce(count: int) -> None:
    """Order something."""
    orders = Spool(PLACE)['orders']
    for number in range(count):
        orders.enqueue({'item': 'tea', 'count': number + 1})


if __name__ == '__main__':
    produce(int(sys.argv[1]))
