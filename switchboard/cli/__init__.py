"""``switchboard``, the operator's program: one verb for each thing that an operator does.  It shows and asks, and decides nothing.

In reading order: app (the verbs, imported when they are used, and how an error of theirs ends the process), context (which installation), completion (names for the
shell), options, output (lines, JSON, progress), tables, exits (from errors to statuses); then ``commands``.

Here is where the installed programs begin.  They load the rest of themselves only when they have seen to it that a Ctrl-C meanwhile says nothing.

It imports master, operating and below, and its ``commands`` by name.  No room imports it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence
    from typing import NoReturn
else:
    import _signal  # it is there in every interpreter, and `signal` has to be loaded


def main(args: Sequence[str] | None = None) -> NoReturn:
    """``switchboard``: run one verb and end the process with its status."""
    end_on_interrupt()
    from switchboard.cli.app import run

    run(args)


def master(prog_name: str | None = None) -> None:
    """``switchboard-master`` and ``bin/master``: a stop that is requested while it starts is obeyed at once, and all is well."""
    import os

    for stop in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(stop, lambda _signum, _frame: os._exit(os.EX_OK))
    from switchboard.master.programs import master as program

    program(prog_name=prog_name)


def runner(prog_name: str | None = None) -> None:
    """``switchboard-runner`` and ``bin/runner``."""
    end_on_interrupt()
    from switchboard.master.programs import runner as program

    program(prog_name=prog_name)


def end_on_interrupt() -> None:
    """Let Ctrl-C end this process as it ends any program, and not by an error wherever the interpreter is, with a traceback.

    A program that was started with the signal ignored, as a script starts one by ``&``, goes on ignoring it.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
