"""A durable message queue for one machine, without a broker, and the processes that work it.

This package has four names of its own: `Switchboard` (one queue), `Spool` (the directory of all queues of an
installation), `Runner` (the loop that works a queue) and `AsyncRunner` (the same, for many messages at once).

They are looked up when they are first asked for (PEP 562).  Importing them here would be shorter, and was
rejected: ``switchboard.drop`` is started once for each mail that a mail server delivers and must not pay for the modules
that it does not use.
"""

from __future__ import annotations

# Type checkers know this name.  The module `typing` takes longer to load than all that `drop` needs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.queue.switchboard import Switchboard
    from switchboard.runner.asyncrunner import AsyncRunner
    from switchboard.runner.runner import Runner
    from switchboard.spool.spool import Spool

__version__ = '0.1.0'
__all__ = ['AsyncRunner', 'Runner', 'Spool', 'Switchboard']

_HOMES = {
    'switchboard.runner.asyncrunner': 'AsyncRunner',
    'switchboard.runner.runner': 'Runner',
    'switchboard.spool.spool': 'Spool',
    'switchboard.queue.switchboard': 'Switchboard',
}


def __getattr__(name: str) -> object:
    from switchboard.lazy import lazy  # here, because `drop` asks for none of them

    return lazy(__name__, _HOMES)(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
