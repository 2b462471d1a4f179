"""Whatever is read from files, sockets and arguments: no error leaves a reader that is not in its contract, and no input costs more
than its length.

Each reader is given its own honest inputs, cut, changed and repeated, and any bytes at all.  Then it is given long runs of
what its grammar repeats: inputs that are four times as long may take nine times as long; what goes over the input twice for each byte
takes sixteen times.
"""

from __future__ import annotations

import ast
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.clock import SYSTEM_CLOCK
from switchboard.config.config import Config
from switchboard.config.exchangefile import read_exchanges
from switchboard.config.inifile import Problems
from switchboard.declared.declarations import Declarations
from switchboard.declared.exchangestore import DeclaredBinding, DeclaredExchange, Definitions
from switchboard.drop.once import dedupe_key
from switchboard.drop.request import Request as Arguments
from switchboard.drop.request import spool_value
from switchboard.errors import SwitchboardError
from switchboard.master.control import Request
from switchboard.message.delivery_headers import read_delivery_headers
from switchboard.message.entry import read_entry
from switchboard.message.journal import find_records, load_record, pack_record, parse_records
from switchboard.message.mail_envelope import MailEnvelope, split_from_line
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import SYSTEM_NAMER, check_queue_name, digest_of, parse
from switchboard.message.packing import Packer
from switchboard.message.serializers import Serializers
from switchboard.message.typed_json import load_json
from switchboard.operating.audit import recent
from switchboard.operating.entry_fields import describe_body
from switchboard.operating.selection import Criteria
from switchboard.operating.spool_view import flags_of
from switchboard.operating.text import flag_lines
from switchboard.options import QueueOptions
from switchboard.routing.bindings import Target
from switchboard.status.scoreboard import Scoreboard, SupervisorRecord
from switchboard.store.disk import Disk
from switchboard.store.flags import Flags
from switchboard.store.layout import ACTS, OPTIONS_COPY, RUN
from switchboard.store.published_options import MAGIC, find_published_options
from tests.properties.growth import is_linear

SERIALIZERS = Serializers()
_PACKED = Packer('in', QueueOptions(), SERIALIZERS, SYSTEM_NAMER).pack(
    {'a': [1, 'x']}, {'key': {'deep': [1.5, None]}}
)
FILEBASE, ENTRY = _PACKED.filebase, _PACKED.content
RECORD = pack_record({'event': 'failed', 'time': 1.5, 'not_before': 3}, digest_of(FILEBASE))
MAIL = (
    b'From x@y Thu Nov 26 10:00:00 2026\nReturn-Path: <a@b>\nEnvelope-To: <c@d>, "e, f"@g\nMessage-ID: <m@x>\n'
    b'Content-Type: multipart/mixed; boundary="B"\nSubject: =?utf-8?q?=C3=BC?=\n folded\n\n--B\n\nx\n--B--\n'
)


@dataclass(frozen=True)
class Reader:
    """:ivar read: raises what is in `errors`, or nothing."""

    name: str
    read: Callable[[bytes], object]
    honest: bytes
    units: tuple[bytes, ...]
    errors: tuple[type[Exception], ...] = (SwitchboardError,)

    def __str__(self) -> str:
        return self.name


READERS: list[Reader] = []


def reader(
    honest: bytes, *units: bytes, errors: tuple[type[Exception], ...] = (SwitchboardError,)
) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    def add(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
        READERS.append(Reader(read.__name__, read, honest, units, errors))
        return read

    return add


@contextmanager
def file_at(content: bytes, *path: str) -> Iterator[Path]:
    """A directory with one file in it."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory).joinpath(*path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        yield Path(directory)


def text_of(content: bytes) -> str:
    """As an argument comes from the operating system."""
    return os.fsdecode(content.replace(b'\0', b''))


JSON_UNITS = (b'[', b'{"a":', b'[],', b'"', b'\\', b'9', b' ', b'{"__type__":"tuple","__value__":[')


@reader(ENTRY + RECORD, RECORD, b'\n#', b'\n#9 00000000 ', *JSON_UNITS)
def entry(content: bytes) -> object:
    return read_entry(FILEBASE, content).load(SERIALIZERS)


@reader(RECORD * 2, RECORD, b'\n#', b'\n#9 00000000 {}')
def history(content: bytes) -> object:
    return parse_records(content, digest_of(FILEBASE)), find_records(content, digest_of(FILEBASE))


@reader(b'{"event":"failed","time":1.5}', *JSON_UNITS)
def record(content: bytes) -> object:
    return load_record(content)


@reader(b'{"key":{"__type__":"bytes","__value__":"AA=="}}', *JSON_UNITS)
def metadata(content: bytes) -> object:
    return load_metadata(content), load_json(content, 'body')


@reader(FILEBASE.encode(), b'0', b'+p1', b'.', b'a')
def name(content: bytes) -> object:
    parse(text_of(content))
    return check_queue_name(text_of(content))


def scoreboard_of_one() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        scoreboard = Scoreboard.create(f'{directory}/scoreboard', 2)
        scoreboard.post(0, SupervisorRecord('in', 0, 1))
        scoreboard.close()
        return Path(directory, 'scoreboard').read_bytes()


@reader(scoreboard_of_one(), b'\0', b'x' * 4096)
def scoreboard(content: bytes) -> object:
    with file_at(content, 'scoreboard') as directory:
        scoreboard = Scoreboard.open(directory / 'scoreboard')
        try:
            return scoreboard.records(), scoreboard.master()
        finally:
            scoreboard.close()


@reader(b'{"do":"scale","runner":"in","instances":3}', *JSON_UNITS)
def control_line(content: bytes) -> object:
    return Request.parse(content)


@reader(
    b'[switchboard]\nspool = s\n[queue.in]\nmax_body = 1K\n[runner.r]\nclass = null\nqueue = in\n',
    b'[queue.a]\n',
    b'a = b\n',
    b' x\n',
    b'[',
    b';',
    b'\r',
    b'[queue.*]\nttl=1s\n',
)
def configuration(content: bytes) -> object:
    with file_at(content, 'switchboard.cfg') as directory:
        return Config.load(directory / 'switchboard.cfg')


@reader(
    b'[exchange.x]\ntype = topic\nbindings =\n a.# -> q\n', b' a -> b\n', b'#.', b'*.', b'->', b' all: a=b'
)
def exchange_file(content: bytes) -> object:
    problems = Problems()
    return read_exchanges(content, 'exchange.cfg', problems)


@reader(b'[switchboard]\nspool = s ; x\n', b'spool\n', b' s\n', b'[switchboard]', b'\t;')
def spool_key_at_the_door(content: bytes) -> object:
    return spool_value(content)


@reader(
    Definitions({'x': DeclaredExchange('x', 'topic')}, [DeclaredBinding('x', Target('q'), 'a.#')]).dump(),
    *JSON_UNITS,
    errors=(ValueError,),
)
def declared_exchanges(content: bytes) -> object:
    return Definitions.load(content)


@reader(b'{"options":{"max_messages":1},"expires_s":5}', *JSON_UNITS)
def declaration(content: bytes) -> object:
    with file_at(content, 'declared', 'q') as run:
        return Declarations(str(run), Disk(), SYSTEM_CLOCK, SYSTEM_NAMER).get('q')


@reader(f'{MAGIC}\nq max_body_bytes=1\nend 1\n'.encode(), b'q a=b\n', b'%41;', b'q ', b' ')
def published_options(content: bytes) -> object:
    with file_at(content, RUN, OPTIONS_COPY) as spool:
        return find_published_options(str(spool), 'q', Disk())


@reader(b'{"since":1.5,"reason":"r"}', *JSON_UNITS)
def flag(content: bytes) -> object:
    with file_at(content, RUN, 'paused', 'q') as spool:
        flags = Flags(str(spool / RUN), Disk(), SYSTEM_CLOCK)
        return flags.read('paused', 'q'), flag_lines('q', flags_of(spool, 'q'))


@reader(b'{"time":1.5,"act":"rm"}\n', b'\n', b'{}\n', *JSON_UNITS)
def acts(content: bytes) -> object:
    with file_at(content, RUN, ACTS) as spool:
        return recent(spool)


@reader(
    MAIL, b'a: b\n', b' x\n', b'\r', b'a:' + b' ' * 1000 + b'\rx', b'"', b'<', b',', b'\n', b'From ', b'--B\n'
)
def maildir_file(content: bytes) -> object:
    split_from_line(content)
    found = read_delivery_headers(content)
    mail = SERIALIZERS.for_kind('mail')
    assert mail is not None
    message = mail.loads(content)
    message['X-Added'] = '1'
    mail.dumps(message)
    return found, dedupe_key('message-id', content, found), describe_body('mail', content)


@reader(b'{"headers":{"task":"t","argsrepr":"()"}}', b'"task"', *JSON_UNITS)
def described_task(content: bytes) -> object:
    return describe_body('json', content)


@reader(b'a@b', b'<', b'"', b'\xff', b',')
def environment_at_the_door(content: bytes) -> object:
    variables = dict.fromkeys((b'SENDER', b'RECIPIENT', b'LOCAL', b'HOST', b'EXTENSION'), content)
    return MailEnvelope().metadata(variables, content)


@reader(b'in\0-f\0a@b\0-m\0priority=3\0--\0c@d', b'-m\0a=b\0', b'-', b'\0', b'-r', b'-m\0delay=1e9', b'=')
def arguments_of_the_door(content: bytes) -> object:
    return Arguments([os.fsdecode(word) for word in content.split(b'\0')])


@reader(b'queue:bad error:Time* older:1d -kind:mail match:"a b"', b'a:b ', b'"', b'-', b'*', b'size:>1 ')
def selection(content: bytes) -> object:
    return Criteria.parse(text_of(content)).takes_queue('in')


def mutated(honest: bytes) -> st.SearchStrategy[bytes]:
    """The honest bytes with some cut out, doubled or changed."""
    places = st.integers(0, len(honest))

    def change(edits: list[tuple[int, int, bytes]]) -> bytes:
        content = honest
        for start, length, new in edits:
            content = content[:start] + new + content[start + length :]
        return content

    noise = st.sampled_from(
        [
            b'\0',
            b'\n',
            b'\xff',
            b'"',
            b'{',
            b'[',
            b'-1',
            b'1e999',
            b'NaN',
            b'9' * 400,
            b'null',
            b'{}',
            b'\xed\xa0\x80',
        ]
    )
    return st.lists(
        st.tuples(places, st.integers(0, 12), noise | st.binary(max_size=4)), min_size=1, max_size=4
    ).map(change)


@pytest.mark.parametrize('reader', READERS, ids=str)
def test_an_honest_input_is_read(reader: Reader) -> None:
    reader.read(reader.honest)


@pytest.mark.parametrize('reader', READERS, ids=str)
def test_no_error_that_is_not_in_its_contract_leaves_a_reader(reader: Reader) -> None:
    @given(st.binary(max_size=200) | mutated(reader.honest))
    def try_all(content: bytes) -> None:
        with suppress(*reader.errors):
            reader.read(content)

    try_all()


def read_or_refuse(reader: Reader, content: bytes) -> None:
    with suppress(*reader.errors):
        reader.read(content)


SHORT_BYTES, LONG_BYTES = 20_000, 80_000


@pytest.mark.figures
@pytest.mark.parametrize('reader', READERS, ids=str)
def test_no_input_costs_more_than_its_length(reader: Reader) -> None:
    for before in (b'', reader.honest):
        for unit in (*reader.units, reader.honest):
            texts = [before + unit * (size // len(unit) + 1) for size in (SHORT_BYTES, LONG_BYTES)]
            assert is_linear(*(partial(read_or_refuse, reader, text) for text in texts)), (
                before[:20],
                unit[:20],
            )


def test_the_unbounded_reader_of_json_reads_nothing_that_others_wrote() -> None:
    ours = {
        'switchboard/master/daemon.py',  # what this program's own child has said
        'switchboard/master/housekeeping.py',  # so has this
        'switchboard/master/control.py',  # the master's reply, over its own socket
        'switchboard/brokers/redis_driver.py',
        'switchboard/brokers/encode.py',  # what was written a line before
        'switchboard/kombu_transport/payload.py',
        'switchboard/declared/declarations.py',  # what was written in the same line
        'switchboard/web/entry_pages.py',  # so was this
        'switchboard/web/pages.py',
    }
    root = Path(__file__).parents[2]
    found = {
        str(path.relative_to(root))
        for top in ('switchboard', 'runners')
        for path in (root / top).rglob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ('load', 'loads')
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id.endswith('json')
    }
    assert found <= ours
