"""Asking the master for something that takes a while, with a line that shows how far it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switchboard.cli.progress import Progress
from switchboard.cli.snapshot import take_or_none
from switchboard.cli.wording import duration
from switchboard.master.control import ask
from switchboard.status.scoreboard import State

SHOW_EVERY_S = 0.1


def ask_and_show(
    directory: Path, request: Mapping[str, object], what: str, timeout_s: float | None = None
) -> dict[str, Any]:
    """Send a request to the master and wait for its reply.

    :param what: what is being done, in words.
    :raises NotRunningError: there is no master.
    :raises TimeoutError: it was not done in time; the master goes on with it all the same.
    """
    answer: dict[str, Any] = {}
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            answer.update(ask(directory, request, timeout_s))
        except BaseException as error:
            errors.append(error)

    started_s = time.monotonic()
    # A daemon thread, so that Ctrl-C ends the program and not only the waiting.
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    with Progress() as progress:
        while thread.is_alive():
            thread.join(SHOW_EVERY_S)
            progress.update(f'{what}, {duration(time.monotonic() - started_s)}{_how_far(directory)}')
    for error in errors:
        raise error
    return answer


def _how_far(directory: Path) -> str:
    snapshot = take_or_none(directory)
    if snapshot is None:
        return ''
    changing = [r.title for r in snapshot.records if r.state in (State.STARTING, State.STOPPING)]
    return f': {", ".join(changing[:3])}' if changing else ''
