"""Lines and JSON for people and programs, standard streams that take them, and the lines about errors and progress."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeGuard

import click

from switchboard.cli.exits import READ_ONLY_VERBS, Exit, error_lines, exit_of
from switchboard.operating.text import escape_terminal, one_line

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

STANDARD_OUTPUT = 'standard output'


def write_json(value: Any) -> None:
    """Write one line of JSON.  ASCII only, so that no message can play tricks on a terminal with it."""
    import json

    write_line(json.dumps(value, separators=(', ', ': '), default=str))


def make_streams_safe() -> None:
    """Make sure that the standard streams take every text, and that no file is opened in the place of one that is closed.

    A closed standard output becomes one that cannot be written to, so that lost output is noticed like on a full disk.
    """
    for descriptor, name, flags in (
        (0, 'stdin', os.O_WRONLY),
        (1, 'stdout', os.O_RDONLY),
        (2, 'stderr', os.O_RDWR),
    ):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free
            mode = 'r' if descriptor == 0 else 'w'
            setattr(sys, name, open(descriptor, mode, encoding='utf-8', closefd=False))  # noqa: SIM115 - it stays open, as the stream that it replaces
        stream = getattr(sys, name)
        stream.reconfigure(errors='surrogateescape' if descriptor == 0 else 'backslashreplace')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = io.TextIOWrapper(
            _Output(io.FileIO(1, 'wb', closefd=False)),
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            line_buffering=sys.stdout.line_buffering,
        )


class _Output(io.BufferedWriter):
    """Standard output, whose errors name it, whatever has written to it.

    The file itself is Python's own: a Ctrl-C that came after a line was written, and before its buffer had noted that, had it written twice.
    """

    # Where all is well, neither method looks up a name of this module: the interpreter flushes once more at its end, when those are gone.

    def write(self, content: ReadableBuffer) -> int:
        try:
            return super().write(content)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise


def write_line(text: object = '', *, nl: bool = True) -> None:
    """Write a line to standard output.

    When a verb that changes something cannot write, it goes on all the same: what it has begun is more than a list.
    """
    try:
        click.echo(text, nl=nl)
    except OSError as error:
        if not _changes():
            raise
        output_failed(error, Exit.OK, changes=True, as_json=is_json())


def write_bytes(content: bytes) -> None:
    """Write bytes to standard output as they are."""
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _changes() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and getattr(context.obj, 'verb', '') not in READ_ONLY_VERBS


def is_output_error(error: BaseException) -> TypeGuard[OSError]:
    """Could standard output not be written to, or has its reader gone?"""
    return isinstance(error, OSError) and (
        isinstance(error, BrokenPipeError) or error.filename == STANDARD_OUTPUT
    )


def output_failed(error: OSError, status: int, *, changes: bool, as_json: bool = False) -> int:
    """Say that standard output cannot be written to, once, and write no more to it.

    :param changes: whether something was done, which is what the status tells then.
    :return: the exit status.
    """
    is_gone = isinstance(error, BrokenPipeError)
    _discard_unwritten(sys.stdout, 1)
    if changes:
        if not is_gone:
            print_note(f'it is done, but the result cannot be printed: standard output: {error.strerror}')
        return status
    if is_gone:
        return Exit.BROKEN_PIPE
    write_error(error, exit_of(error), [f'{STANDARD_OUTPUT}: {error.strerror}'], as_json=as_json)
    return exit_of(error)


def discard_unwritten_errors() -> None:
    """Forget what standard error did not take; else the interpreter tries once more at its end, and that becomes the exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        _discard_unwritten(sys.stderr, 2)


def _discard_unwritten(stream: TextIO, descriptor: int) -> None:
    """Let the rest of a stream's buffer go nowhere: flushing it at the end would fail."""
    with contextlib.suppress(OSError, ValueError):  # it was closed, or there is no descriptor left
        if stream.fileno() == descriptor:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, descriptor)
            os.close(sink)


def report(text: str, /, **fields: Any) -> None:
    """Write the result: a line for people, or with ``--json`` an object for programs."""
    if is_json():
        write_json(fields)
    else:
        write_line(text)


def print_note(text: str) -> None:
    """Write a line for people to standard error, where it does not get into what a program reads.  Nothing in it acts on a terminal."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # where both go into one file, the note stands behind earlier results
    with contextlib.suppress(OSError):
        click.echo(f'switchboard: {escape_terminal(with_installation(text))}', err=True)


def with_installation(text: str) -> str:
    """:return: the text, with commands that reach the installation which this call has named."""
    context = click.get_current_context(silent=True)
    fit = getattr(context.obj, 'with_installation', None) if context is not None else None
    return text if fit is None else fit(text)


def is_json() -> bool:
    """:return: whether the verb that runs was asked for JSON."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(getattr(context.obj, 'as_json', False))


def print_error(error: Exception, subject: str = '') -> None:
    """Print an error to standard error, and what to do next.

    :param subject: its subject, for errors that do not name it.
    """
    write_error(error, exit_of(error), error_lines(error), subject, as_json=is_json())


def write_error(
    error: BaseException, status: int, lines: Sequence[str], subject: str = '', *, as_json: bool
) -> None:
    """Write an error to standard error: a line for people, or an object for programs."""
    for line in lines:
        text = line if subject in line else f'{subject}: {line}'
        if as_json:
            import json

            fields = {'error': with_installation(text), 'class': type(error).__name__, 'exit': int(status)}
            with contextlib.suppress(OSError):  # the status says it as well
                click.echo(json.dumps(fields), err=True)
        else:
            print_note(text)


# How often the condition is looked at; where no line can change, how often a new one is written.
LOOK_EVERY_S = 0.1
TELL_EVERY_S = 10.0


def is_terminal() -> bool:
    """:return: whether people look at standard output."""
    return sys.stdout.isatty()


def console(*, stderr: bool = False) -> Console:
    """:return: the terminal; nothing in a text is markup or gets colours by what it looks like."""
    from rich.console import Console  # takes 40 ms, for people only

    return Console(
        file=sys.stderr if stderr else sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=False
    )


class Progress:
    """Shows a line on standard error while its block runs, with something that turns in front of it; nothing at all if that is no terminal.

    It has no thread: what waits calls `update` now and then, and may fork while the line is shown.  The line appears with the first `update`, so
    whatever is forked before that has no part in it.
    """

    def __init__(self) -> None:
        self._shown: tuple[Spinner, Live] | None = None
        self._is_terminal = sys.stderr.isatty()
        self._told_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown is not None:
            self._shown[1].stop()

    def update(self, text: str) -> None:
        """Show the condition that is waited for now."""
        if not self._is_terminal:
            return
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        if self._shown is None:
            spinner = Spinner('dots')
            self._shown = (
                spinner,
                Live(
                    spinner,
                    console=console(stderr=True),
                    auto_refresh=False,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                ),
            )
        spinner, live = self._shown
        spinner.update(text=Text(one_line(text), no_wrap=True, overflow='ellipsis'))
        live.start()
        live.refresh()

    def update_or_print(self, text: str) -> None:
        """Show the same where it may take long: where no line can change, it is a new one now and then."""
        if self._is_terminal:
            self.update(text)
        elif time.monotonic() - self._told_s >= TELL_EVERY_S:
            self._told_s = time.monotonic()
            print_note(text)
