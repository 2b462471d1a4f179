"""The conformance suite, over every implementation that needs no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite('tests.conformance', 'tests.conformance_life', 'tests.conformance_runner')

from switchboard import Spool, Switchboard  # noqa: E402  after the rewriting of assertions
from switchboard.options import Durability  # noqa: E402
from switchboard.testing import MemorySwitchboard  # noqa: E402
from switchboard.testing.store import Store  # noqa: E402
from tests.conformance import *  # noqa: E402, F403
from tests.conformance import Backend, _leave_out_what_cannot_be  # noqa: E402, F401
from tests.conformance_life import *  # noqa: E402, F403
from tests.conformance_runner import *  # noqa: E402, F403


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
        queue = super().queue(*args, **keys, dear_ns=0)
        queue.sleeper = queue.wakeup()
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
            pool=self.spool.spares,
            bad=self.spool.path('bad'),
            **{'options': self.spool.queue_options(name), **keys},
        )

    def preserved(self) -> Any:
        return self.spool['bad']


class LazyInSpool(InSpool):
    durability = 'lazy'


class InMemory(Backend):
    def __init__(self, path: Path) -> None:
        self.stores: dict[str, Store] = {}

    def queue(self, name: str = 'in', *share: Any, **keys: Any) -> Any:
        return MemorySwitchboard(
            name,
            *share,
            store=self.stores.setdefault(name, Store()),
            bad=self.stores.setdefault('bad', Store()),
            **keys,
        )

    def preserved(self) -> Any:
        return self.queue('bad')


@pytest.fixture(params=[Alone, ReadSeldom, InSpool, LazyInSpool, InMemory])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    make: Callable[[Path], Backend] = request.param
    return make(tmp_path / 'spool')
