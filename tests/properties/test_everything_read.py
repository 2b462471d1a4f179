"""Whatever is read from files, sockets and arguments: no error leaves a reader that is not in its contract, and no input costs more
than its length.

Each reader is given its own honest inputs, cut, changed and repeated, and any bytes at all.  Then it is given long runs of
what its grammar repeats: inputs that are four times as long may take nine times as long; what goes over the input twice for each byte
takes sixteen times.
"""

from __future__ import annotations

import ast
import base64
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from amqp.exceptions import InvalidPath, PreconditionFailed
from hypothesis import given
from hypothesis import strategies as st

from switchboard.brokers.decode import entry_of
from switchboard.brokers.delivery_counts import DEATHS, DeliveryCounts
from switchboard.brokers.message import HISTORY_HEADER, KIND_HEADER, METADATA_HEADER, Delivery
from switchboard.brokers.url import read_broker_url
from switchboard.cli.commands.enqueue import _chunks
from switchboard.cli.options import read_pairs
from switchboard.clock import SYSTEM_CLOCK
from switchboard.config.config import Config
from switchboard.config.exchangefile import read_exchanges
from switchboard.config.inifile import Problems
from switchboard.declared.declarations import Declarations
from switchboard.declared.exchangestore import DeclaredBinding, DeclaredExchange, Definitions
from switchboard.drop.dedupe import make_dedupe_key
from switchboard.drop.request import DropRequest, spool_value
from switchboard.errors import SwitchboardError
from switchboard.kombu_transport.address import read_address as read_kombu_address
from switchboard.kombu_transport.arguments import DELIVERY_LIMIT, queue_keys
from switchboard.kombu_transport.payload import pack, unpack, wait_s
from switchboard.master.child import MARK_VARIABLE
from switchboard.master.control import ControlRequest
from switchboard.master.orphans import read_mark
from switchboard.master.service_manager import ServiceManager
from switchboard.message.delivery_headers import read_delivery_headers
from switchboard.message.entry import Entry, read_entry
from switchboard.message.journal import find_records, load_record, pack_record, parse_records
from switchboard.message.mail_envelope import read_envelope, split_from_line
from switchboard.message.metadata import load_metadata
from switchboard.message.naming import SYSTEM_NAME_GENERATOR, check_queue_name, digest_of, parse_filebase
from switchboard.message.packing import Packer
from switchboard.message.serializers import Serializers
from switchboard.message.typed_json import _READERS, load_json
from switchboard.metrics.listener import read_host_port
from switchboard.operating.audit import recent_acts
from switchboard.operating.entry_fields import describe_body, entry_fields
from switchboard.operating.health import flag_alarms
from switchboard.operating.holding import hold, release
from switchboard.operating.janitor import remove_old_preserved
from switchboard.operating.selection import Selection
from switchboard.operating.spool_view import read_flags
from switchboard.operating.summary import summarize
from switchboard.options import QueueOptions
from switchboard.queue.expiry_clock import ExpiryClock
from switchboard.routing.bindings import Target
from switchboard.spool.spool import Spool
from switchboard.status.scoreboard import Scoreboard, SupervisorRecord
from switchboard.store.disk import Disk
from switchboard.store.flags import Flags
from switchboard.store.folder import Folder
from switchboard.store.layout import ACTS, CLOCK, PUBLISHED_OPTIONS, RUN, UNUSED_SPARES
from switchboard.store.limits import SharedCount, _sealed, evicted
from switchboard.store.pool import FilePool
from switchboard.store.published_options import MAGIC, read_published_options
from switchboard.trace_context import parse_context
from switchboard.web.forms import Form
from switchboard.web.identity import Identity, UnknownUserError
from switchboard.web.server import systemd_socket
from switchboard.web.settings import DeskSettings, read_users
from tests.properties.growth import is_linear

SERIALIZERS = Serializers()
_PACKED = Packer('in', QueueOptions(), SERIALIZERS, SYSTEM_NAME_GENERATOR).pack(
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
    parse_filebase(text_of(content))
    return check_queue_name(text_of(content))


def scoreboard_of_one() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        scoreboard = Scoreboard.create(f'{directory}/scoreboard', 2)
        scoreboard.write_supervisor_record(0, SupervisorRecord('in', 0, 1))
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
    return ControlRequest.parse(content)


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
        return Declarations(str(run), Disk(), SYSTEM_CLOCK, SYSTEM_NAME_GENERATOR).get('q')


@reader(f'{MAGIC}\nq max_body_bytes=1\nend 1\n'.encode(), b'q a=b\n', b'%41;', b'q ', b' ')
def published_options(content: bytes) -> object:
    with file_at(content, RUN, PUBLISHED_OPTIONS) as spool:
        return read_published_options(str(spool), 'q', Disk())


@reader(b'{"since":1.5,"reason":"r"}', *JSON_UNITS)
def flag(content: bytes) -> object:
    with file_at(content, RUN, 'paused', 'q') as spool:
        flags = Flags(str(spool / RUN), Disk(), SYSTEM_CLOCK)
        return flags.read('paused', 'q'), flag_alarms('q', read_flags(spool, 'q'))


@reader(b'{"time":1.5,"act":"rm"}\n', b'\n', b'{}\n', *JSON_UNITS)
def acts(content: bytes) -> object:
    with file_at(content, RUN, ACTS) as spool:
        return recent_acts(spool)


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
    return found, make_dedupe_key('message-id', content, found), describe_body('mail', content)


@reader(b'{"headers":{"task":"t","argsrepr":"()"}}', b'"task"', *JSON_UNITS)
def described_task(content: bytes) -> object:
    return describe_body('json', content)


@reader(b'a@b', b'<', b'"', b'\xff', b',')
def environment_at_the_door(content: bytes) -> object:
    variables = dict.fromkeys((b'SENDER', b'RECIPIENT', b'LOCAL', b'HOST', b'EXTENSION'), content)
    return read_envelope(variables, content)


@reader(b'in\0-f\0a@b\0-m\0priority=3\0--\0c@d', b'-m\0a=b\0', b'-', b'\0', b'-r', b'-m\0delay=1e9', b'=')
def arguments_of_the_door(content: bytes) -> object:
    return DropRequest([os.fsdecode(word) for word in content.split(b'\0')])


@reader(b'queue:bad error:Time* older:1d -kind:mail match:"a b"', b'a:b ', b'"', b'-', b'*', b'size:>1 ')
def selection(content: bytes) -> object:
    return Selection.parse(text_of(content)).may_match_queue('in')


@contextmanager
def run_directory(content: bytes, name: str) -> Iterator[Folder]:
    """The directory of the state of running programs, with one file in it."""
    with file_at(content, RUN, name) as spool:
        folder = Folder(str(spool / RUN), Disk())
        try:
            yield folder
        finally:
            folder.close()


@reader(b'5 100', b'9', b' ', b'-')
def note_of_the_spares(content: bytes) -> object:
    with run_directory(content, UNUSED_SPARES) as run:
        return FilePool.unused(run, SYSTEM_CLOCK.boottime_ns())


@reader(f'{SYSTEM_CLOCK.boot_id()} 1 1 0 0'.encode(), b'9', b' 1', b' -')
def note_of_the_clocks(content: bytes) -> object:
    with run_directory(content, CLOCK) as run:
        return ExpiryClock(SYSTEM_CLOCK, run).time_ns()


@reader(_sealed(b''.join(b'%20d' % number for number in (1, 2, 3, 4, 5))), b'9', b' ', b'-')
def count_of_a_queue(content: bytes) -> object:
    with run_directory(content, 'q') as run, SharedCount(run, 'q') as count:
        return count.messages, evicted(run, 'q')


@reader(b'a:12345678\n# x\n', b'a:12345678\n', b'\n', b'#', b':', b'a')
def users_of_the_desk(content: bytes) -> object:
    with file_at(content, 'users') as directory:
        os.chmod(directory / 'users', 0o640)
        return read_users(directory / 'users')


DESK = Identity(DeskSettings(users={'ann': '12345678'}))


@reader(
    b'Basic ' + base64.b64encode(b'ann:12345678'), b'A', b' ', b'=', b'Basic ', errors=(UnknownUserError,)
)
def authorization_at_the_desk(content: bytes) -> object:
    text = content.decode('latin-1')
    return DESK.is_token(text, DESK.of({}, lambda _name: text))


@reader(b'q=queue%3Abad&page=3&id=a&id=b', b'a=b&', b'%', b'&', b';', b'+', b'%ff')
def form_of_the_desk(content: bytes) -> object:
    form = Form.parse(content.decode('latin-1'))
    return form.text('q'), form.number('page', 1, 1, 9), form.all('id', 5), form.has('id')


@reader(b'127.0.0.1:9736', b'9', b':', b'[', errors=(ValueError,))
def address_to_listen_at(content: bytes) -> object:
    return read_host_port(text_of(content))


@reader(b'30000000', b'9', b'/', b'@', b'\xc2\xb2', b'\xd9\xa3')
def environment_of_a_service_manager(content: bytes) -> object:
    text = text_of(content)
    ServiceManager({'NOTIFY_SOCKET': text, 'WATCHDOG_PID': text}).ready(text)
    return ServiceManager({'NOTIFY_SOCKET': '/nowhere', 'WATCHDOG_USEC': text, 'WATCHDOG_PID': ''})


@reader(b'00-' + b'1' * 32 + b'-' + b'2' * 16 + b'-01', b'0', b'-', b'a=b,')
def context_of_a_trace(content: bytes) -> object:
    text = text_of(content)
    return parse_context({'traceparent': text, 'tracestate': text})


@reader(b'{"msg": {"a": 1}, "metadata": {"priority": 3}}\n', b'\n', *JSON_UNITS)
def json_lines(content: bytes) -> object:
    return list(_chunks(io.BytesIO(content), 'json'))


@reader(b'key:=[1]', b'=', b':', *JSON_UNITS, errors=(SwitchboardError, click.ClickException))
def pairs_of_an_option(content: bytes) -> object:
    return read_pairs([text_of(content)])


@reader(b'"2026-11-29T10:00:00+00:00"', *JSON_UNITS)
def typed_values(content: bytes) -> object:
    for tag in _READERS:
        with suppress(SwitchboardError):  # refused, as it should be
            load_json(b'{"__type__":"%s","__value__":%s}' % (tag.encode(), content), 'body')
    return load_json(content, 'body')


@reader(b'[{"event":"failed","time":1.5}]', b'gzip', *JSON_UNITS)
def message_of_a_broker(content: bytes) -> object:
    text = content.decode('latin-1')
    for headers in (
        {'compression': text},
        {KIND_HEADER: 'json', METADATA_HEADER: text, HISTORY_HEADER: text},
        {KIND_HEADER: text},
        {'x': text},
    ):
        for properties in ({'content_type': text, 'content_encoding': 'utf-16'}, {'content_encoding': text}):
            entry = entry_of(Delivery('in', content, headers, properties))
            with suppress(SwitchboardError):  # refused, as it should be
                entry.load(SERIALIZERS)
    return None


@reader(
    b'amqps://u:p@h:5671//?heartbeat=5s&slices=3&ssl_check_hostname=no;h2',
    b'&slices=9',
    b';h',
    b'9',
    b'%',
    b'/',
    b'[',
    b'@',
)
def url_of_a_broker(content: bytes) -> object:
    url = read_broker_url(text_of(content))
    return url.password_warning('runner.x'), url


@reader(
    b'switchboard:///s?create=yes&poll_interval=5s&recovery_interval=1',
    b'&poll_interval=9',
    b'9',
    b'%',
    b'/',
    b'[',
    b'?',
    errors=(InvalidPath,),
)
def url_of_a_spool(content: bytes) -> object:
    text = text_of(content)
    client = SimpleNamespace(hostname=text, virtual_host=text, transport_options={'reply_to': text})
    with suppress(InvalidPath):
        read_kombu_address(SimpleNamespace(hostname='', virtual_host=text, transport_options={}))
    return read_kombu_address(client)


@reader(
    b'{"priority":3,"expiration":"100","x-expires":5,"eta":"2026-11-29T10:00:00+00:00"}',
    *JSON_UNITS,
    errors=(SwitchboardError, PreconditionFailed),
)
def arguments_of_a_task(content: bytes) -> object:
    given = load_json(content, 'body')
    if not isinstance(given, dict):
        return None
    wait_s(given)
    for value in given.values():
        wait_s({'eta': value})
        pack({'body': b'x', 'properties': {'priority': value}, 'headers': {}}, 'e', 'k', delayed=True)
        for key in ('x-message-ttl', 'x-max-length', 'x-max-length-bytes', DELIVERY_LIMIT, 'x-expires'):
            with suppress(PreconditionFailed):
                queue_keys({key: value}, durable=True, directory=str)
    return given


@reader(b'2 01764400000\n', b'9', b' ', b'\xb2')
def count_of_deliveries(content: bytes) -> object:
    digest = digest_of(FILEBASE)
    with run_directory(content, f'{digest}{DEATHS}') as run:
        counts = DeliveryCounts(run, Disk(), SYSTEM_CLOCK)
        try:
            return counts.deaths(digest), counts.collect_dead_holders()
        finally:
            counts.close()


@reader(f'{FILEBASE} 1764400000000000000'.encode(), b'9', b' ', b'\xb2')
def marker_of_a_key(content: bytes) -> object:
    with file_at(b'', 'empty') as directory, closing(Spool(directory, durability='lazy')) as spool:
        queue = spool.queue('in', dedupe_window_s=60)
        queue.enqueue('x', dedupe_key='k')
        [marker] = directory.glob('.dedupe@in/*.pck')
        marker.write_bytes(content)
        return spool.dedupe_keys(queue).find(marker.stem)


def variants(content: bytes) -> list[dict[str, object]]:
    """The record in `content`, and the same with each of its values in turn of each other type; none if it is no record."""
    record = load_record(content)
    if record is None:
        return []
    odd = (None, True, 1.5, 'x', [1], {'a': [1]})
    made = [{**record, key: value} for key in record for value in odd] if len(record) < 8 else []
    return [dict(record), *made]


@reader(b'{"event":"dead-lettered","time":1.5,"queue":"in","cause":"expired","to":"out"}', *JSON_UNITS)
def record_of_a_delivery(content: bytes) -> object:
    made = []
    for record in variants(content):
        written = pack_record(record, digest_of(FILEBASE)) + RECORD
        records, _ = parse_records(written, digest_of(FILEBASE))
        for body in (b'"x"', b'{"body":"x","properties":{},"headers":{}}'):
            entry = Entry(FILEBASE, 'json', b'{}', body, records)
            made.append(unpack(load_json(body, 'body'), {}, entry, 1, 'in'))
    return made


@reader(b'{"when":"1764400000.5"}', *JSON_UNITS)
def record_of_a_held_entry(content: bytes) -> object:
    with file_at(b'', 'empty') as directory, closing(Spool(directory, durability='lazy')) as spool:
        queue = spool['in']
        released = []
        for record in ({}, *variants(content)):
            held = hold(queue, queue.enqueue('x'))
            with open(directory / 'in' / f'{held}.pck', 'ab') as file:
                file.write(pack_record({**record, 'event': 'held'}, digest_of(held)))
            released.append(release(queue, held))
        return released


@reader(b'{"event":"removed","time":1.5,"queue":"in","by":"ann"}', *JSON_UNITS)
def record_in_the_trash(content: bytes) -> object:
    fields = load_record(content)
    if fields is None:
        return None
    written = ENTRY + pack_record(dict(fields), digest_of(FILEBASE))
    with file_at(written, 'trash', f'{FILEBASE}.psv') as spool:
        folder = Folder(str(spool / 'trash'), Disk())
        try:
            summary = summarize(folder, 'trash', FILEBASE)
            assert summary is not None
            remaining = remove_old_at(spool)
            return entry_fields(summary, 0, {}), summary.removed_from, summary.retry_queue, remaining
        finally:
            folder.close()


def remove_old_at(spool: Path) -> int:
    with closing(Spool(spool, durability='lazy')) as opened:
        return remove_old_preserved(opened['trash'], 60)


@reader(b'1', b'9', b' ', b'\xc2\xb2')
def environment_of_an_activated_desk(content: bytes) -> object:
    text = text_of(content)
    systemd_socket({'LISTEN_PID': text, 'LISTEN_FDS': '1', 'LISTEN_FDNAMES': text})
    # One would be taken over: the third descriptor of this process.
    many = '2' if text == '1' else text
    return systemd_socket({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': many}) if text != '1' else None


@reader(
    f'{MARK_VARIABLE}=7 /var/spool/x\0PATH=/bin\0'.encode(),
    b'9',
    b' ',
    b'\0',
    f'{MARK_VARIABLE}=9\0'.encode(),
)
def environment_of_a_process(content: bytes) -> object:
    return read_mark(content)


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


@pytest.mark.slow
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
        'switchboard/daemonize.py',  # what this program's own child has said
        'switchboard/master/housekeeping.py',  # so has this
        'switchboard/master/control.py',  # the master's reply, over its own socket
        'switchboard/brokers/redis/payload.py',
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
        if '.load' in (source := path.read_text())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ('load', 'loads')
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id.endswith('json')
    }
    assert found <= ours
