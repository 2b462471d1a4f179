"""``switchboard show``: one entry, or one queue, as far as it can be read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import click

from switchboard.cli.commands.ls import STYLES, age_text, state_text
from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.options import queues_option
from switchboard.cli.output import is_json, print_error, write_bytes, write_json, write_line
from switchboard.errors import CorruptEntryError, QueueError, UnknownEntryError
from switchboard.message.entry import Entry
from switchboard.message.journal import Record
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import NS_PER_S, is_on_hold
from switchboard.message.typed_json import parse_json, plain_json
from switchboard.operating.entry_fields import (
    HISTORY_ERRORS,
    LockHolders,
    body_fields,
    describe_body,
    entry_fields,
)
from switchboard.operating.spool_view import read_flags
from switchboard.operating.summary import EntrySummary, time_ns
from switchboard.operating.text import (
    body_text,
    escape_terminal,
    flag_lines,
    intcomma,
    local_time,
    number,
    one_line,
    size,
)
from switchboard.store.reading import peek

# Of a long body, the beginning says what it is.
SHOWN_BODY_BYTES = 16 * 1024
# Of a large body that is not shown whole: a mail's header is in it.
KEPT_BODY_BYTES = 1024 * 1024
# Fields of a record that are not shown as key=value.
_APART = frozenset(('event', 'time', 'traceback', 'message', 'error', 'before', 'after'))
# `click.echo` takes colours out again where no terminal is.
_bold = partial(click.style, bold=True)


@verb()
@click.argument('names', nargs=-1, required=True, metavar='ENTRY|QUEUE...')
@queues_option('Look in this queue only.')
@click.option('--raw', is_flag=True, help="Write the body's bytes as they are, and nothing else.")
@click.option('--headers', is_flag=True, help='No body; of a mail, its header only.')
@click.option(
    '--full',
    is_flag=True,
    help=f'All of the body, not the first {size(SHOWN_BODY_BYTES)}; of a queue, all options.',
)
@json_option
def show(
    installation: Installation,
    names: tuple[str, ...],
    queues: tuple[str, ...],
    raw: bool,
    headers: bool,
    full: bool,
) -> Exit:
    """Show entries: what the header says, metadata, history with tracebacks, body.  Or queues: their options and who set them,
    their consumers, how much is in them.

    ENTRY is the beginning of its name, or of the digest in it; QUEUE/ENTRY looks in one queue only.  Whatever could act on a
    terminal is written out, as \\x1b.  An entry that is torn is shown as far as it can be read.
    """
    known = installation.view.queue_names()
    failed = []
    for number_, name in enumerate(names):
        if number_ and not (raw or is_json()):
            write_line('')
        try:
            if name in known:
                _show_queue(installation, name, everything=full)
            else:
                _show_entry(installation, name, queues, raw=raw, headers=headers, full=full)
        except (QueueError, *HISTORY_ERRORS) as error:
            if len(names) == 1 and isinstance(error, QueueError):
                raise
            failed.append(exit_of(error) if isinstance(error, QueueError) else Exit.DATA)
            print_error(error, name)
    return exit_of_all(failed, len(names) - len(failed))


def _show_entry(
    installation: Installation, name: str, queues: Sequence[str], *, raw: bool, headers: bool, full: bool
) -> None:
    found = installation.view.find(name, queues)
    summary = found.look()
    kept_bytes = None if raw or full or is_json() else KEPT_BODY_BYTES
    whole = peek(found.folder, found.filebase, summary.suffix, kept_bytes) if summary is not None else None
    if summary is None or whole is None:
        raise UnknownEntryError(f'{found.queue}/{found.filebase} has gone on a moment ago')
    if raw:
        write_bytes(whole.body)
        return
    said = read_flags(installation.directory, summary.queue)
    if is_json():
        write_json({**_whole_fields(summary, whole, headers=headers), 'queue_flags': said})
    else:
        write_line('\n'.join(_lines(summary, whole, said, headers=headers, full=full)))


def _show_queue(installation: Installation, name: str, *, everything: bool) -> None:
    from switchboard.cli.commands.queues import count_one, queue_lines
    from switchboard.operating.queue_info import queue_info

    if is_json():
        write_json(queue_info(installation.view, name).all_fields(count_one(installation, name)))
        return
    first, *lines = queue_lines(installation, name, everything=everything)
    write_line('\n'.join([_bold(first), *lines]))


def _metadata(entry: Entry) -> dict[str, Any] | None:
    """:return: the metadata as a runner gets them; None if they cannot be read.  Nothing is unpickled."""
    try:
        return entry.apply_history(load_metadata(entry.metadata))
    except (CorruptEntryError, *HISTORY_ERRORS):
        return None


def _whole_fields(summary: EntrySummary, entry: Entry, *, headers: bool) -> dict[str, Any]:
    fields = entry_fields(summary, time.time_ns(), LockHolders())
    fields['damage'] = entry.damage.reason if entry.damage else None
    fields['metadata'] = plain_json(_metadata(entry))
    fields['history'] = plain_json(list(entry.records))
    return fields | body_fields(_mail_header(entry) if headers else entry.body)


def _mail_header(entry: Entry) -> bytes:
    """:return: the header of a mail; nothing of other kinds."""
    if entry.kind.partition('+')[0] != 'mail':
        return b''
    body = entry.body.replace(b'\r\n', b'\n')
    end = body.find(b'\n\n')
    return body if end < 0 else body[: end + 1]


def _lines(
    summary: EntrySummary, entry: Entry, said: dict[str, dict[str, Any]], *, headers: bool, full: bool
) -> Iterator[str]:
    now_ns = time.time_ns()
    state = click.style(state_text(summary, now_ns, LockHolders()), fg=STYLES[summary.state(now_ns)])
    yield _bold(f'{summary.queue}/{summary.filebase}')
    yield f'  state     {state}, {age_text(summary, now_ns).removeprefix("held ")}'
    for line in flag_lines(said):
        yield f'  queue     {escape_terminal(summary.queue)}: {line}'
    ready = (
        'when it is released'
        if is_on_hold(summary.filebase)
        else local_time(summary.due_ns(now_ns) / NS_PER_S)
    )
    yield f'  ready     {ready}' + (f', priority {summary.priority}' if summary.priority else '')
    yield f'  kind      {one_line(entry.kind)}'
    yield f'  size      {number(len(entry.body) + entry.left_out_bytes, "byte")}; {intcomma(summary.size_bytes)} in its file'
    for key, value in describe_body(entry.kind, entry.body).items():
        yield f'  {key:<9} {one_line(value)}'
    if summary.origin:
        yield f'  came from {one_line(summary.origin)}' + (
            f', sent back {summary.sent_back}x' if summary.sent_back else ''
        )
    if entry.damage is not None:
        yield f'  damage    {click.style(one_line(entry.damage.reason), fg="red")}'
    yield from _metadata_lines(entry)
    if entry.records:
        yield ''
        yield _bold('history')
        from switchboard.operating.editing import differences  # it can write, too, which few entries need

        before, edits = '', differences(entry)
        for place, record in enumerate(entry.records):
            yield from _record_lines(record, before)
            for line in edits.get(place, ()):
                colour = {'-': 'red', '+': 'green'}.get(line[:1])
                yield f'      {click.style(escape_terminal(line), fg=colour)}'
            before = f'{record.get("error")}: {record.get("message")}'
    yield from _body_lines(entry, headers=headers, full=full)


def _metadata_lines(entry: Entry) -> Iterator[str]:
    metadata = _metadata(entry)
    yield ''
    if metadata is None:
        yield _bold('metadata') + ' cannot be read:'
        yield '  ' + body_text(entry.metadata[:1000])
        return
    # What every entry has says nothing about this one.
    shown = {key: value for key, value in metadata.items() if key not in ('version', '_parsemsg')}
    yield _bold('metadata') + ('' if shown else ' none')
    width = max((len(one_line(key)) for key in shown), default=0)
    for key, value in shown.items():
        yield f'  {one_line(key):<{width}}  {escape_terminal(json.dumps(plain_json(value), ensure_ascii=False))}'


def _record_lines(record: Record, before: str) -> Iterator[str]:
    """:param before: the text of the error just above: the reason of a preserved entry is mostly the same."""
    when = record.get('time')
    stamp = local_time(float(when)) if when is not None and time_ns(when) is not None else '?'
    others = {key: value for key, value in record.items() if key not in _APART and value != before}
    pairs = ' '.join(f'{key}={_value(value)}' for key, value in others.items())
    event = one_line(str(record.get('event', '?')))
    error, message = record.get('error'), record.get('message')
    says = ': '.join(one_line(str(part)) for part in (error, message) if part)
    yield f'  {stamp}  {event:<9} {one_line(pairs)}'.rstrip()
    if says:
        yield f'      {click.style(says, fg="red")}'
    traceback = record.get('traceback')
    if isinstance(traceback, str):
        for line in traceback.rstrip('\n').split('\n'):
            yield f'      | {escape_terminal(line)}'


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(plain_json(value), ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if ' ' in text and isinstance(value, str) else text


def _body_lines(entry: Entry, *, headers: bool, full: bool) -> Iterator[str]:
    body = _mail_header(entry) if headers else entry.body
    if headers and not body:
        return
    yield ''
    cut = not full and len(body) > SHOWN_BODY_BYTES
    yield _bold('mail header' if headers else 'body')
    text = body_text(body[:SHOWN_BODY_BYTES] if cut else body)
    if entry.kind == 'json' and not cut:
        try:
            text = escape_terminal(json.dumps(parse_json(body, 'body')[0], indent=2, ensure_ascii=False))
        except CorruptEntryError:
            pass  # shown as it is
    for line in text.removesuffix('\n').split('\n') if text else ():
        yield f'  {line}'
    if cut:
        more = len(body) + entry.left_out_bytes - SHOWN_BODY_BYTES
        yield f'  ... {more} bytes more; --full shows them, --raw writes all bytes as they are'
