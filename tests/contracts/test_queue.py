"""The conformance suite, over every implementation that needs no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.store.disk import Disk
from switchboard.testing import MemorySwitchboard
from switchboard.testing.memory import MemoryStore
from tests.contracts.queue import *  # noqa: F403 - the tests that every queue must pass
from tests.contracts.queue import Backend
from tests.contracts.queue_life import *  # noqa: F403 - the tests that every queue must pass
from tests.contracts.queue_runner import *  # noqa: F403 - the tests that every queue must pass
from tests.helpers.accelerator import steps

if TYPE_CHECKING:
    from switchboard.queue_defaults import Durability


class Alone(Backend):
    """A directory without a spool."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def queue(self, name: str = 'in', *share: Any, **keys: Any) -> Any:
        return Switchboard(name, self.path / name, *share, **keys)

    def preserved(self) -> Any:
        return self.queue('bad')


class ReadSeldom(Alone):
    """A directory that is treated as one that takes long to read."""

    def queue(self, *args: Any, **keys: Any) -> Any:
        queue = super().queue(*args, **keys, slow_listing_ns=0)
        queue.sleeper = queue.make_wakeup()
        return queue


class InSpool(Backend):
    """A directory in a spool, with its spares."""

    durability: Durability = 'full'

    def __init__(self, path: Path) -> None:
        self.spool = Spool(path, self.durability)

    def queue(self, name: str = 'in', *share: Any, **keys: Any) -> Any:
        if not keys.keys() & {'options', 'clock'}:
            return self.spool.queue(name, *share, **keys)
        return Switchboard(
            name,
            self.spool.path(name),
            *share,
            disk=self.spool.disk,
            pool=self.spool.pool,
            bad=self.spool.path('bad'),
            **{'options': self.spool.queue_options(name), **keys},
        )

    def preserved(self) -> Any:
        return self.spool['bad']


class LazyInSpool(InSpool):
    durability = 'lazy'


class Accelerated(LazyInSpool):
    """The same, with several calls in one."""

    def __init__(self, path: Path) -> None:
        disk = Disk()
        disk.accelerator = steps()
        self.spool = Spool(path, self.durability, disk=disk)


class InMemory(Backend):
    def __init__(self, path: Path) -> None:
        self.store = MemoryStore()

    def queue(self, name: str = 'in', *share: Any, **keys: Any) -> Any:
        return MemorySwitchboard(name, *share, store=self.store, **keys)

    def preserved(self) -> Any:
        return self.queue('bad')


@pytest.fixture(params=[Alone, ReadSeldom, InSpool, LazyInSpool, Accelerated, InMemory])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    make: Callable[[Path], Backend] = request.param
    return make(tmp_path / 'spool')
