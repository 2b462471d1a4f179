"""A line that says what is being waited for, where somebody looks; silence elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from switchboard.cli.terminal import Spinner


class Progress:
    """Shows a line on standard error while its block runs; nothing at all if that is no terminal.

    The line appears with the first `update`, so whatever is forked before that has no part in it.
    """

    def __init__(self) -> None:
        self._spinner: Spinner | None = None
        self.is_shown = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def update(self, text: str) -> None:
        """Say what is being waited for now."""
        if self.is_shown:
            if self._spinner is None:
                from switchboard.cli.terminal import Spinner

                self._spinner = Spinner()
            self._spinner.update(text)
