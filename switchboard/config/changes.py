"""What is different between two configurations, so that a reload restarts only what changed.

A pure comparison: it decides nothing about order or timing.  A runner counts as changed when its own section does, or the
options of the queue that it works on, for it holds both for life.  Where only ``instances`` differs it is ``scaled``
instead: its slices can be changed while they run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from switchboard.config.config import Config

T = TypeVar('T')


@dataclass(frozen=True, slots=True)
class Changes:
    """Names, in the order of the new file; what is gone comes last.

    ``added``, ``removed``, ``changed`` and ``scaled`` are runners and exclude each other.  ``queues`` and ``exchanges``
    came, went, or have other options.  ``master`` are keys that hold only from the next start of the master; ``spool`` among
    them means another installation.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    master: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in dataclasses.fields(self))

    def __str__(self) -> str:
        parts = [
            f'{label} {", ".join(names)}'
            for label, names in (
                ('added runners', self.added),
                ('removed runners', self.removed),
                ('changed runners', self.changed),
                ('scaled runners', self.scaled),
                ('changed queues', self.queues),
                ('changed exchanges', self.exchanges),
                ('for the next start:', self.master),
            )
            if names
        ]
        return '; '.join(parts) or 'nothing changed'


def changes(old: Config, new: Config) -> Changes:
    """Compare two configurations."""
    queues = _different(
        {name: old.queue_options(name) for name in old.queue_names()},
        {name: new.queue_options(name) for name in new.queue_names()},
    )
    stayed = [name for name in new.runners if name in old.runners]
    changed, scaled = [], []
    for name in stayed:
        before, after = old.runners[name], new.runners[name]
        if before.queue in queues or dataclasses.replace(before, instances=after.instances) != after:
            changed.append(name)
        elif before.instances != after.instances:
            scaled.append(name)
    return Changes(
        added=_without(new.runners, old.runners),
        removed=_without(old.runners, new.runners),
        changed=tuple(changed),
        scaled=tuple(scaled),
        queues=queues,
        exchanges=_different(old.exchanges.exchanges, new.exchanges.exchanges),
        master=_master(old, new),
    )


def _master(old: Config, new: Config) -> tuple[str, ...]:
    # Runners inherit `restart`, so a change of it is theirs and holds at once; the rest is the process's own.
    fields = [field.name for field in dataclasses.fields(old.master) if field.name != 'restart']
    found = [name for name in fields if getattr(old.master, name) != getattr(new.master, name)]
    return ('spool', *found) if old.spool != new.spool else tuple(found)


def _without(names: Iterable[str], others: Mapping[str, T]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _different(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[str, ...]:
    differing = [name for name in new if name not in old or old[name] != new[name]]
    return (*differing, *_without(old, new))
