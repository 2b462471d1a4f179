"""``edit``: change a message in an editor, or key by key.

The editor gets one text: the metadata as JSON, a line, and the body as it is.  A body that is no UTF-8 text is not shown, and not
changed; ``--body`` takes one from a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click

from switchboard.cli.context import Installation, json_report_option, verb
from switchboard.cli.exits import Exit, exit_of
from switchboard.cli.options import pairs_callback, queues_option, read_metadata, reason_option
from switchboard.cli.output import print_error, print_note, report
from switchboard.errors import CorruptEntryError, SwitchboardError, UnserializableError
from switchboard.message.typed_json import load_json, tagged
from switchboard.operating.audit import note_act
from switchboard.operating.editing import Editing

# Between metadata and body; what stands behind it on the line is for people.
RULE = '======== body'
# An editor has this long to end by itself, and to keep its text.
EDITOR_ENDS_S = 10.0


class EditorError(click.ClickException):
    """The editor did not do its work, so there is nothing to store."""

    exit_code = Exit.UNAVAILABLE


def to_text(metadata: dict[str, Any], kind: str, body: bytes) -> str:
    """:return: the text for an editor."""
    head = json.dumps(tagged(metadata, 'metadata'), indent=2, ensure_ascii=False)
    try:
        shown = body.decode('utf-8')
    except UnicodeDecodeError:
        return f'{head}\n'
    return f'{head}\n{RULE} ({kind})\n{shown}'


def from_text(text: str, had_body: bytes) -> tuple[dict[str, Any], bytes | None]:
    """Read what came out of an editor.

    :return: the metadata, and the body; None if there was none to change.
    :raises ValueError: it is not of that form any more.
    """
    head, rule, rest = text.partition(f'\n{RULE}')
    try:
        metadata = load_json(head.encode('utf-8', 'surrogateescape'), 'metadata', unique=True)
    except CorruptEntryError as error:
        raise ValueError(str(error)) from error
    if not isinstance(metadata, dict):
        raise ValueError('the metadata are no JSON object')
    if not rule:
        return metadata, None
    body = rest.partition('\n')[2].encode('utf-8', 'surrogateescape')
    # Most editors end the last line, whether it was ended or not.
    if body.endswith(b'\n') and not had_body.endswith(b'\n'):
        body = body[:-1]
    return metadata, body


def text_from_editor(text: str) -> str:
    """:return: the text after the user's editor."""
    command = os.environ.get('VISUAL') or os.environ.get('EDITOR') or 'vi'
    directory = Path(tempfile.mkdtemp(prefix='switchboard-edit-'))
    path, given = directory / 'message.txt', text.encode('utf-8', 'surrogateescape')
    is_kept = False
    try:
        path.write_bytes(given)
        try:
            status = _run([*shlex.split(command), str(path)])
        except (OSError, ValueError) as error:
            reason = getattr(error, 'strerror', None) or error
            raise EditorError(f'{command} cannot be run: {reason}: nothing was changed') from error
        if status:
            raise EditorError(f'{command} ended with status {status}: nothing was changed')
        return path.read_bytes().decode('utf-8', 'surrogateescape')
    except _Terminated as by:
        # The terminal is gone, say.  Something was written, or the editor has left a file to recover it from.
        if list(directory.iterdir()) != [path] or path.read_bytes() != given:
            is_kept = True
            print_note(f'ended by {by.signal.name}; the text that you wrote is kept in {directory}')
        raise SystemExit(128 + by.signal) from None
    finally:
        if not is_kept:
            shutil.rmtree(directory, ignore_errors=True)


class _Terminated(BaseException):
    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)


def _run(words: Sequence[str]) -> int:
    """Run an editor, and end it with this process.

    :return: its exit status.
    """
    early: list[int] = []
    waits = False

    def end(number: int, _frame: FrameType | None) -> None:
        if waits:
            raise _Terminated(number)
        early.append(number)  # no editor yet that could be ended

    with _caught(end), subprocess.Popen(words) as editor:
        try:
            waits = True
            if early:
                raise _Terminated(early[0])
            return editor.wait()
        except BaseException as error:
            waits = False
            if isinstance(error, _Terminated):
                editor.send_signal(error.signal)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    editor.wait(EDITOR_ENDS_S)
            editor.kill()
            raise


@contextlib.contextmanager
def _caught(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    # One that is ignored, by nohup say, stays so.
    numbers = [each for each in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(each) is signal.SIG_DFL]
    for each in numbers:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)


def _by_editor(editing: Editing) -> tuple[dict[str, Any], bytes | None] | None:
    """:return: the metadata and the body; None if nothing was changed."""
    before = text = to_text(editing.metadata, editing.entry.kind, editing.entry.body)
    while True:
        text = text_from_editor(text)
        if text == before:
            return None
        try:
            metadata, body = from_text(text, editing.entry.body)
            editing.check(metadata, body)
            return metadata, body
        except (ValueError, UnserializableError) as error:
            print_note(f'it cannot be stored so: {error}')
            asks = sys.stdin.isatty()
            if not asks or not click.confirm('Edit again?', default=True, err=True):
                _keep(text.encode('utf-8', 'surrogateescape'), 'text')
                raise (click.Abort if asks else click.exceptions.Exit(Exit.DATA)) from error


@verb()
@click.argument('entry', metavar='ENTRY')
@click.option(
    '--set',
    'changes',
    multiple=True,
    metavar='KEY=VALUE',
    callback=pairs_callback,
    help='Set this in the metadata; KEY:=JSON for other than text.',
)
@click.option('--unset', 'unset', multiple=True, metavar='KEY', help='Take this out of the metadata.')
@click.option('--body', type=click.File('rb'), help='Take the body from this file; - is standard input.')
@click.option('--undo', is_flag=True, help='Undo the last edit of the entry.')
@click.option('--to', metavar='QUEUE', help='Send it there.')
@queues_option('Look in this queue only.')
@reason_option
@json_report_option
def edit(
    installation: Installation,
    entry: str,
    changes: dict[str, Any],
    unset: tuple[str, ...],
    body: Any,
    undo: bool,
    to: str | None,
    queues: tuple[str, ...],
    reason: str,
) -> None:
    """Change a message: with options, what they say; without, in the editor that $VISUAL or $EDITOR names.

    One of a working queue stays in its place.  One of the bad queue goes back to where it came from, ready at once, with its
    failures forgiven.  The history says which parts were changed and keeps the old ones, for --undo.  While it is edited nobody else takes it; if you leave the text as it was,
    nothing happens.

    \b
    switchboard edit 1795317402.6748
    switchboard edit 1795317402.6748 --set priority:=9 --unset expires
    switchboard edit 1795317402.6748 --undo
    """
    found = installation.view.find(entry, queues)
    spool = installation.spool()
    operator = installation.operator(reason)
    if undo and (changes or unset or body is not None):
        raise click.UsageError('--undo goes without --set, --unset and --body')
    with Editing(spool, found.queue, found.filebase, to, operator) as editing:
        new_body: bytes | None
        if undo:
            metadata, new_body = editing.before_last()
        elif changes or unset or body is not None:
            metadata = {**editing.metadata, **read_metadata(changes)}
            for key in unset:
                metadata.pop(key, None)
            new_body = None if body is None else body.read()
        else:
            made = _by_editor(editing)
            if made is None:
                print_note('nothing was changed')
                return
            metadata, new_body = made
        try:
            queue, filebase = editing.store(metadata, new_body, undoes=undo)
        except SwitchboardError as error:
            if new_body is not None and body is None and not undo:
                print_error(error)
                _keep(new_body, 'body')
                raise click.exceptions.Exit(exit_of(error)) from error
            raise
    note_act(installation.directory, operator, 'edit', found.queue, found.filebase, f'{queue}/{filebase}')
    fields = {'entry': found.filebase, 'from': found.queue, 'queue': queue, 'filebase': filebase}
    report(f'{found.queue}/{found.filebase} -> {queue}/{filebase}', **fields)


def _keep(written: bytes, what: str) -> None:
    """Keep what somebody has typed, where there was no room for it, or a slip in it."""
    with tempfile.NamedTemporaryFile(prefix='switchboard-edit-', delete=False) as stream:
        stream.write(written)
    print_note(f'the {what} that you wrote is kept in {stream.name}')
