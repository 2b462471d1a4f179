"""How much is in a queue, wherever it is: a directory is walked over, a broker is asked."""

from __future__ import annotations

from typing import Any

from switchboard.cli.installation import Installation
from switchboard.cli.tables import say
from switchboard.errors import BrokerDownError
from switchboard.operating.census import Census, count

# What cannot be told.
UNKNOWN = -1


def census_of(installation: Installation, name: str, *, sizes: bool = True) -> Census:
    """Count what is in a queue.  Of a queue on a broker, what is ready is all that the broker tells.

    :return: with `UNKNOWN` waiting if the broker is away, which is said on standard error.
    """
    if not installation.is_remote(name):
        return count(installation.folder(name), name, sizes=sizes)
    board: Any = installation.spool()[name]
    try:
        waiting = board.count()
    except BrokerDownError as error:
        say(f'switchboard: {error}')
        waiting = UNKNOWN
    finally:
        board.close()
    return Census(name, waiting=waiting)
