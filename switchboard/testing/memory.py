"""Queues and spools for the tests of programs that use them: real ones, in a directory that goes with the last object that uses it.

Where the machine has a file system in memory (Linux: ``/dev/shm``) they are there, elsewhere among the temporary files::

    spool = MemorySpool()
    spool['in'].enqueue('hello')
    run_until_empty(Archive(spool, RunnerOptions(name='archive', class_path='', queue='in')))
    assert spool['out'].files

Rejected: an implementation that keeps entries in dictionaries (seven hundred lines, and each behaviour that it did not repeat was one that a
program's tests did not meet), a `Disk` in memory (locks, inodes, modes and events, written again).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import finalize

from switchboard.clock import SYSTEM_CLOCK, Clock
from switchboard.message.naming import NameGenerator
from switchboard.options import QueueOptions
from switchboard.queue.switchboard import Switchboard
from switchboard.spool.spool import Spool, as_config

if TYPE_CHECKING:
    from switchboard.config.config import Config
    from switchboard.config.queue_sections import QueueRule

SHARED_MEMORY = '/dev/shm'  # noqa: S108  a directory of its own is made there, by mkdtemp


class MemoryStore:
    """A directory in memory, to be shared by queues; removed with the last object that refers to it."""

    def __init__(self) -> None:
        place = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) else None
        self.directory = tempfile.mkdtemp(prefix='switchboard-', dir=place)
        finalize(self, _remove, self.directory, os.getpid())


def _remove(directory: str, made_by: int) -> None:
    if os.getpid() == made_by:  # a forked child that ends is not the last user
        shutil.rmtree(directory, ignore_errors=True)


class MemorySwitchboard(Switchboard):
    """One queue in memory.  See `Switchboard`.

    :param store: the place of its entries, to be shared with other objects (:attr:`store`); one of its own by default.
    """

    def __init__(
        self,
        name: str,
        slice: int | None = None,
        numslices: int = 1,
        recover: bool = False,
        *,
        options: QueueOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
        name_generator: NameGenerator | None = None,
        store: MemoryStore | None = None,
    ) -> None:
        self.store = store or MemoryStore()
        super().__init__(
            name,
            os.path.join(self.store.directory, name),
            slice,
            numslices,
            recover,
            options=options or QueueOptions(durability='lazy'),
            clock=clock,
            name_generator=name_generator,
        )


class MemorySpool(Spool):
    """All queues of one installation, in memory.  See `Spool`.

    :param config: names the queues and exchanges; without one, queues are made as they are named.
    :param options: of the queues that no configuration describes.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        options: QueueOptions | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.store = MemoryStore()
        super().__init__(
            self.store.directory,
            options=options or QueueOptions(durability='lazy'),
            config=config and _without_brokers(config),
            clock=clock,
        )

    @classmethod
    def from_config(cls, config: str | os.PathLike[str] | Config, **keys: Any) -> MemorySpool:
        """Make the queues and exchanges that a configuration describes; its ``spool`` and its brokers are not touched.

        :param config: the path of the file, or the configuration read from it.
        :raises ConfigError: the file cannot be used; the text says where and why.
        """
        return cls(as_config(config), **keys)


def _without_brokers(config: Config) -> Config:
    def near(rule: QueueRule) -> QueueRule:
        return replace(rule, values={**rule.values, 'url': None})

    rules = config.queues
    named = {name: near(rule) for name, rule in rules.named.items()}
    return replace(
        config,
        queues=rules._replace(
            default=rules.default._replace(url=None), globs=tuple(map(near, rules.globs)), named=named
        ),
    )
