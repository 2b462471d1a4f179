"""``switchboard enqueue``: messages from files, standard input or JSON lines, into a queue or through an exchange.

Messages read in one go are stored with one flush to the disk.  Names are printed when the messages are stored, never before.
"""

from __future__ import annotations

import base64
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.exits import Exit, error_lines, exit_of, exit_of_all
from switchboard.cli.options import DURATION, pairs_callback, read_metadata
from switchboard.cli.output import print_note, report
from switchboard.errors import (
    CorruptEntryError,
    DurabilityError,
    QueueDrainingError,
    QueueError,
    QueueFullError,
    SwitchboardError,
    UnserializableError,
)
from switchboard.message.metadata import find_mistake
from switchboard.message.naming import HIGHEST_PRIORITY
from switchboard.message.typed_json import load_json
from switchboard.operating.text import intcomma, number
from switchboard.store.publishing import BATCH_LIMIT

if TYPE_CHECKING:
    from switchboard.spool.spool import Spool

KINDS = ('mail', 'bytes', 'text', 'json')
_MEMBERS = frozenset(('msg', 'metadata', 'kind'))
_KIND_OF_ENDING = {'.eml': 'mail', '.txt': 'text', '.json': 'json'}


def make_message(content: bytes, kind: str) -> Any:
    """Make a message of a file's content.

    :raises UnserializableError: the content is not of that kind.
    """
    if kind == 'mail':
        from switchboard.message.mail import mail_from_bytes

        return mail_from_bytes(content)
    try:
        if kind == 'text':
            return content.decode('utf-8')
        return load_json(content, 'json', unique=True) if kind == 'json' else content
    except (ValueError, CorruptEntryError) as error:
        raise UnserializableError(f'this is no {kind}: {str(error).removeprefix("json: ")}') from error


def _of_line(line: bytes, kind: str) -> tuple[Any, dict[str, Any]]:
    """Read one line of ``--json-lines``."""
    try:
        fields = load_json(line, 'line', unique=True)
    except CorruptEntryError as error:
        raise UnserializableError(f'no JSON: {error}') from error
    if not isinstance(fields, dict) or 'msg' not in fields:
        raise UnserializableError('not an object with a member "msg"')
    if unknown := sorted(fields.keys() - _MEMBERS):
        raise UnserializableError(
            f'unknown members: {", ".join(unknown)}; keys of the message go into "metadata"'
        )
    msg, metadata, kind = fields['msg'], fields.get('metadata', {}), str(fields.get('kind', kind))
    if not isinstance(metadata, dict):
        raise UnserializableError('"metadata" is not an object')
    if wrong := find_mistake(metadata):
        raise UnserializableError(f'"metadata": {wrong}')
    if kind not in KINDS:
        raise UnserializableError(f'"kind" is none of {", ".join(KINDS)}')
    if kind == 'json':
        return msg, metadata
    if not isinstance(msg, str):
        raise UnserializableError(f'"msg" must be a string for the kind {kind}')
    try:
        content = base64.b64decode(msg, validate=True) if kind == 'bytes' else msg.encode('utf-8')
    except UnicodeEncodeError as error:
        reason = (
            f'"msg" of the kind {kind} has half a surrogate pair at {error.start}, which no text may have'
        )
        raise UnserializableError(reason) from error
    except ValueError as error:
        raise UnserializableError(f'"msg" of the kind bytes must be base64: {error}') from error
    return make_message(content, kind), metadata


@dataclass
class Sender:
    """Puts messages where they are to go, and keeps count of what went wrong."""

    spool: Spool
    queue: str
    exchange: str
    routing_key: str
    keys: dict[str, Any]
    quiet: bool
    stored: int = 0
    failed: list[Exit] = field(default_factory=list)
    stopped: bool = False

    def send(self, messages: Iterable[tuple[str, Any]]) -> None:
        """Store some messages with one flush, then print their names.

        :param messages: the name of each for errors, and the message with its metadata, or the mistake in it.
        :raises QueueError: the flush failed: none of these was stored.
        """
        filebases: list[dict[str, str]] = []
        queue = self.spool[self.queue] if self.queue else None
        batch: AbstractContextManager[object] = queue.batch() if queue is not None else nullcontext()
        with batch:
            for name, message in messages:
                try:
                    if isinstance(message, Exception):
                        raise message
                    msg, metadata = message
                    filebases.append(self._put(msg, {**metadata, **self.keys}))
                except (QueueFullError, QueueDrainingError, DurabilityError) as error:
                    # The next one would meet the same; those accepted before it are stored.
                    self._fail(name, error)
                    self.stopped = True
                    break
                except (SwitchboardError, OSError) as error:
                    self._fail(name, error)
                except (ValueError, TypeError, OverflowError, RecursionError) as error:
                    # Whatever a message has in it that cannot be stored is that message's.
                    self._fail(name, UnserializableError(f'{type(error).__name__}: {error}'))
        self.stored += len(filebases)
        if not self.quiet:
            for by_queue in filebases:
                self._print(by_queue)

    def _put(self, msg: Any, metadata: dict[str, Any]) -> dict[str, str]:
        if self.queue:
            return {self.queue: self.spool[self.queue].enqueue(msg, metadata)}
        return self.spool.publish(msg, metadata, exchange=self.exchange, routing_key=self.routing_key)

    def _fail(self, name: str, error: SwitchboardError | OSError) -> None:
        self.failed.append(exit_of(error))
        for line in error_lines(error):
            # An error of the system names the file already.
            print_note(f'{name}: {line.removeprefix(f"{name}: ")}')

    def _print(self, by_queue: dict[str, str]) -> None:
        for queue, filebase in by_queue.items():
            report(filebase if self.queue else f'{queue}/{filebase}', queue=queue, filebase=filebase)


class _WarningPrinter(logging.Handler):
    """Says what the queue has to warn of: that something older was dropped to make room, for one."""

    def emit(self, record: logging.LogRecord) -> None:
        print_note(record.getMessage())


@contextmanager
def _printing_warnings() -> Iterator[None]:
    logger, printer = logging.getLogger('switchboard.queue'), _WarningPrinter(logging.WARNING)
    logger.addHandler(printer)
    try:
        yield
    finally:
        logger.removeHandler(printer)


def _chunks(lines: Iterable[bytes], kind: str) -> Iterator[list[tuple[str, Any]]]:
    chunk: list[tuple[str, Any]] = []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            chunk.append((f'line {line_number}', _of_line(line, kind)))
        except UnserializableError as error:
            chunk.append((f'line {line_number}', error))
        if len(chunk) == BATCH_LIMIT:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _read(name: str) -> bytes:
    if name == '-':
        if sys.stdin.isatty():
            print_note('reading the message from the terminal; Ctrl-D ends it')
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        reason = 'there is no such file; the text of a message is read from standard input: echo TEXT | switchboard enqueue QUEUE'
        raise FileNotFoundError(error.errno, reason) from error


def _messages(files: Iterable[str], kind: str | None) -> Iterator[tuple[str, Any]]:
    for name in files:
        place = 'standard input' if name == '-' else name
        try:
            ending = Path(name).suffix.lower()
            yield place, (make_message(_read(name), kind or _KIND_OF_ENDING.get(ending, 'bytes')), {})
        except (UnserializableError, OSError) as error:
            yield place, error


@verb()
@click.argument('names', nargs=-1, metavar='QUEUE [FILE|-]...')
@click.option(
    '--kind', type=click.Choice(KINDS), help="Default: by the file's ending (.eml .txt .json), else bytes."
)
@click.option(
    '-m',
    '--set',
    '--metadata',
    'metadata',
    multiple=True,
    metavar='KEY=VALUE',
    callback=pairs_callback,
    help='Set this in the metadata; KEY:=JSON for other than text.',
)
@click.option('--delay', type=DURATION, help='Ready only after this time: 15m, 2d.')
@click.option('--ttl', type=DURATION, help='Too old this long after it is ready; then a dead letter.')
@click.option('--priority', type=click.IntRange(0, HIGHEST_PRIORITY), metavar='N', help='9 goes first.')
@click.option('--order-key', metavar='KEY', help='Messages of one key stay in order.')
@click.option(
    '--dedupe-key', metavar='KEY', help='Not stored if a message with this key was, within the window.'
)
@click.option('--exchange', metavar='EXCHANGE', help='Publish to this exchange instead of a queue.')
@click.option('--routing-key', default='', metavar='KEY', help='The key by which the exchange routes.')
@click.option('--json-lines', is_flag=True, help='Read {"msg": ..., "metadata": {...}}, one a line.')
@click.option('--quiet', is_flag=True, help='Print errors only.')
@json_option
def enqueue(
    installation: Installation,
    names: tuple[str, ...],
    kind: str | None,
    metadata: dict[str, Any],
    exchange: str | None,
    routing_key: str,
    json_lines: bool,
    quiet: bool,
    **options: Any,
) -> Exit:
    """Put messages into a queue, or publish them.

    Each FILE is one message; without one, or with -, standard input is.  Prints the name of each new entry, once it is
    stored.  With --exchange there is no QUEUE.

    \b
    switchboard enqueue in letter.eml other.eml
    echo hello | switchboard enqueue in --kind text -m from=me -m urgent:=true
    switchboard enqueue --exchange mail --routing-key lists.dogs.post letter.eml
    jq -c '{msg: ., metadata: {source: "import"}}' *.json | switchboard enqueue in --json-lines

    With --json-lines a line may have a "kind" of its own; of mails and texts "msg" is the text, of bytes it is base64.
    A line that cannot be used is reported, and the others are stored: the exit status is then 1.
    """
    if exchange is None and not names:
        raise click.UsageError('name a queue, or an exchange with --exchange')
    if exchange is None and routing_key:
        raise click.UsageError('--routing-key goes with --exchange')
    queue, files = ('', names) if exchange is not None else (names[0], names[1:])
    # Of the metadata, by their names: delay, ttl, priority, order_key, dedupe_key.
    keys = read_metadata(metadata) | {key: value for key, value in options.items() if value is not None}
    click.get_current_context().with_resource(_printing_warnings())
    # A spool that is only named may be a slip of the pen; that of a configuration is meant.
    spool = installation.spool(make=installation.named_spool is None)
    sender = Sender(spool, queue, exchange or '', routing_key, keys, quiet=quiet)
    files = files or ('-',)
    if not json_lines:
        sender.send(_messages(files, kind))
    for name in files if json_lines else ():
        with nullcontext(sys.stdin.buffer) if name == '-' else Path(name).open('rb') as lines:
            for chunk in _chunks(lines, kind or 'json'):
                _send_chunk(sender, chunk)
                if sender.stopped:
                    break
    if sender.failed and sender.stored:
        print_note(f'{number(sender.stored, "message")} stored, {intcomma(len(sender.failed))} not')
    return exit_of_all(sender.failed, sender.stored)


def _send_chunk(sender: Sender, chunk: list[tuple[str, Any]]) -> None:
    try:
        sender.send(chunk)
    except QueueError as error:
        first, last = chunk[0][0], chunk[-1][0]
        error.add_note(
            f'from {first} to {last} nothing was stored; {number(sender.stored, "message")} before that are'
        )
        raise
