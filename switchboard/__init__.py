"""A durable message queue for one machine, without a broker, and the processes that work it.

This package has three names of its own: `Switchboard` (one queue), `Spool` (the directory of all queues of an
installation) and `Runner` (the loop that works a queue).

The three names are looked up when they are first asked for (PEP 562).  Importing them here would be shorter, and was
rejected: ``switchboard.drop`` is started once for each mail that a mail server delivers and must not pay for the modules
that it does not use.
"""

from __future__ import annotations

# Type checkers know this name.  The module `typing` takes longer to load than all that the door needs.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.runner import Runner
    from switchboard.spool import Spool
    from switchboard.switchboard import Switchboard

__version__ = '0.1.0'
__all__ = ['Runner', 'Spool', 'Switchboard']

_HOMES = {
    'Runner': 'switchboard.runner',
    'Spool': 'switchboard.spool',
    'Switchboard': 'switchboard.switchboard',
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
