"""Runners for the tests of the runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from switchboard import Runner
from switchboard.options import RunnerOptions
from switchboard.status.scoreboard import NullSlot

Dispose = Callable[[Any, Any, Any], object]


class Recorder(Runner):
    """Writes down what it is given, and then does what the test says."""

    def __init__(self, *args: Any, then: Dispose | None = None, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.seen: list[tuple[Any, dict[str, Any]]] = []
        self.then = then

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        self.seen.append((msg, msgdata))
        return self.then(self, msg, msgdata) if self.then else None


R = TypeVar('R', bound=Recorder)


def make_runner(
    spool: Any,
    dispose: Dispose | None = None,
    *,
    cls: type[Any] = Recorder,
    slice: int | None = None,
    numslices: int = 1,
    slot: NullSlot | None = None,
    **options: Any,
) -> Any:
    """:return: a runner for the queue ``in``."""
    runner_options = RunnerOptions(name='r', class_path='', queue='in', **options)
    return cls(spool, runner_options, then=dispose, slice=slice, numslices=numslices, slot=slot)


def preserved(spool: Any) -> dict[str, str]:
    """The entries of the bad queue, and why each is there."""
    bad = spool['bad']
    return {filebase: bad.history(filebase)[-1]['reason'] for filebase in bad.get_files('.psv')}


class RecordingSlot(NullSlot):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def heartbeat(self) -> None:
        self.calls.append('heartbeat')

    def begin(self, filebase: str) -> None:
        self.calls.append('begin')

    def end(self, outcome: Any, error: str = '') -> None:
        self.calls.append(outcome)

    def error(self, text: str) -> None:
        self.calls.append(f'error {text}')
