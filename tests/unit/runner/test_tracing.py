"""Traces: the context rides with the message and is nobody's to change; each attempt is a span that leads back to it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

# Not in `bin/constraints --lowest`, which installs what users do.
pytest.importorskip('opentelemetry.sdk')

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from switchboard import Spool, trace_context
from switchboard.errors import PermanentFailure, QueueError
from switchboard.operating.acts import ChosenEntry, Move, OperatorSession, Retry, apply
from switchboard.operating.audit import Operator
from switchboard.operating.spool_view import SpoolView
from switchboard.options import QueueOptions, RetryPolicy, RunnerOptions
from switchboard.runner.runner import Runner
from switchboard.runner.tracing import Tracing
from tests.helpers.processes import in_new_program

PARENT = '00-' + 'ab' * 16 + '-' + 'cd' * 8 + '-01'


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def work(spool: Spool, provider: TracerProvider, dispose: Any, tracing: Any = 'link') -> None:
    class Works(Runner):
        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
            return dispose(self, msg, msgdata)

        def _trace(self) -> None:
            self._settler.tracing = Tracing(self.options, '1/1', provider)

    options = RunnerOptions('works', 'x:Works', queue='in', tracing=tracing)
    Works(spool, options).run(until_empty=True)


def spans(exporter: InMemorySpanExporter, word: str = 'process') -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name.startswith(f'{word} ')]


def context_of(spool: Spool, name: str) -> dict[str, Any]:
    queue = spool[name]
    _, msgdata = queue.dequeue(queue.files[0])
    return msgdata


def test_what_is_put_in_while_a_span_is_open_carries_it(tmp_path: Path, provider: TracerProvider) -> None:
    spool = Spool(tmp_path)
    with provider.get_tracer('t').start_as_current_span('outer') as outer:
        spool['in'].enqueue('x')
    found = trace_context.parse_context(context_of(spool, 'in'))
    assert found is not None
    assert found[:2] == (outer.get_span_context().trace_id, outer.get_span_context().span_id)


def test_without_a_span_nothing_is_carried_and_what_a_producer_says_stays(
    tmp_path: Path, provider: TracerProvider
) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x')
    assert trace_context.PARENT not in context_of(spool, 'in')
    with provider.get_tracer('t').start_as_current_span('outer'):
        spool['out'].enqueue('x', traceparent=PARENT)
    assert context_of(spool, 'out')[trace_context.PARENT] == PARENT


@pytest.mark.parametrize(
    'text',
    [
        None,
        7,
        '',
        PARENT.upper(),
        PARENT[:-1],
        PARENT + '0',
        PARENT + '\n',
        'ff' + PARENT[2:],
        '00-' + '0' * 32 + PARENT[35:],
    ],
)
def test_what_is_no_context_is_none(text: Any) -> None:
    assert trace_context.parse_context({'traceparent': text}) is None


def test_a_state_that_is_too_long_is_left_out() -> None:
    assert trace_context.parse_context({'traceparent': PARENT, 'tracestate': 'a=' + 'b' * 510}) is not None
    found = trace_context.parse_context({'traceparent': PARENT, 'tracestate': 'a=' + 'b' * 511})
    assert found is not None
    assert found[3] == ''


def test_a_message_is_a_span_of_a_trace_of_its_own_linked_to_where_it_was_put_in(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    spool = Spool(tmp_path)
    filebase = spool['in'].enqueue('x', traceparent=PARENT, tracestate='a=b')
    work(spool, provider, lambda runner, msg, msgdata: None)
    [received] = spans(exporter, 'receive')
    assert (received.name, received.kind, received.parent) == ('receive in', SpanKind.CLIENT, None)
    assert [link.context.trace_id for link in received.links] == [int('ab' * 16, 16)]
    assert (received.attributes or {})['messaging.operation.type'] == 'receive'
    [span] = spans(exporter)
    assert (span.name, span.kind, span.parent) == (
        'process in',
        SpanKind.CONSUMER,
        received.get_span_context(),
    )
    assert received.start_time <= received.end_time <= span.start_time
    [link] = span.links
    assert f'{link.context.trace_id:032x}' == 'ab' * 16
    assert link.context.trace_state.to_header() == 'a=b'
    assert dict(span.attributes or {}) == {
        'messaging.system': 'switchboard',
        'messaging.operation.name': 'process',
        'messaging.operation.type': 'process',
        'messaging.destination.name': 'in',
        'messaging.destination.partition.id': '1/1',
        'messaging.message.id': filebase.split('+')[1],
        'messaging.consumer.group.name': 'works',
        'switchboard.attempt': 1,
        'switchboard.outcome': 'done',
    }


def test_it_is_a_child_of_that_where_this_is_wanted_and_linked_too(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x', traceparent=PARENT)
    work(spool, provider, lambda runner, msg, msgdata: None, 'parent')
    [span] = spans(exporter)
    assert span.parent is not None
    assert f'{span.parent.span_id:016x}' == 'cd' * 8
    assert len(span.links) == 1


def test_a_second_attempt_is_linked_to_the_first(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    spool = Spool(
        tmp_path / 'spool', 'lazy', options=QueueOptions(max_attempts=2, retry=RetryPolicy(0, 0, 0))
    )
    spool['in'].enqueue('x', traceparent=PARENT)
    errors = [ValueError('secret')]

    def dispose(runner: Runner, msg: Any, msgdata: Any) -> None:
        if errors:
            raise errors.pop()

    work(spool, provider, dispose)
    first, second = spans(exporter)
    attributes = first.attributes or {}
    assert (attributes['error.type'], attributes['switchboard.outcome']) == ('ValueError', 'retried')
    assert 'secret' not in str(first.to_json())
    assert (second.attributes or {})['switchboard.attempt'] == 2
    assert [link.context.span_id for link in second.links] == [
        int('cd' * 8, 16),
        first.get_span_context().span_id,
    ]


def test_the_context_survives_hand_off_and_the_bad_queue_and_is_found_by_what_is_put_in_meanwhile(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('forward', traceparent=PARENT)
    spool['in'].enqueue('emit', traceparent=PARENT)
    spool['in'].enqueue('fail', traceparent=PARENT)

    def dispose(runner: Runner, msg: Any, msgdata: Any) -> None:
        if msg == 'fail':
            raise PermanentFailure('no')
        if msg == 'forward':
            runner.forward('forwarded')
        else:
            runner.emit('emitted', msg, msgdata)
            runner.emit('fresh', msg)

    work(spool, provider, dispose)
    for queue in ('forwarded', 'emitted'):
        assert context_of(spool, queue)[trace_context.PARENT] == PARENT
    found = trace_context.parse_context(context_of(spool, 'fresh'))
    assert found is not None
    assert found[1] == spans(exporter)[1].get_span_context().span_id
    bad = spool['bad']
    [name] = bad.get_files('.psv')
    assert bad.peek(name, '.psv').metadata.find(PARENT.encode()) > 0


@pytest.fixture
def otlp() -> Iterator[tuple[str, list[bytes]]]:
    """A receiver of OTLP: its address, and what was sent to it."""
    bodies: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers['content-length'])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = HTTPServer(('127.0.0.1', 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_address[1]}/v1/traces', bodies
    server.shutdown()
    thread.join()
    server.server_close()


def whole_life(directory: Path, place: str) -> tuple[str, str]:
    """Publish a message, fail with it once, hand it on, lose it to the bad queue, move it, send it back and finish it.

    :return: the span in which it was published, and that in which it was sent back.
    """
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(place)))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer('shop')
    spool = Spool(
        directory / 'spool', 'lazy', options=QueueOptions(max_attempts=2, retry=RetryPolicy(0, 0, 0))
    )
    with tracer.start_as_current_span('order') as order:
        spool['in'].enqueue('x')
    failures = [ValueError('secret')]
    refusals = [PermanentFailure('secret')]

    class Works(Runner):
        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
            if self.name == 'in':
                if failures:
                    raise failures.pop()
                self.emit('out', msg, msgdata)
            elif refusals:
                raise refusals.pop()

    def run(queue: str) -> None:
        Works(spool, RunnerOptions(queue, 'x:Works', queue=queue, tracing='link')).run(until_empty=True)

    run('in')
    run('out')
    [name] = spool['bad'].get_files('.psv')
    session = OperatorSession(SpoolView(directory, None), spool, Operator('ann', 'desk'))
    spool['later']
    assert apply(Move('later'), ChosenEntry('bad', name, '.psv'), session).error is None
    [name] = spool['later'].files
    with tracer.start_as_current_span('POST /act') as act:
        assert apply(Retry('out'), ChosenEntry('later', name, '.pck', 'out'), session).error is None
    run('out')
    provider.shutdown()
    return f'{order.get_span_context().span_id:016x}', f'{act.get_span_context().span_id:016x}'


def test_a_receiver_of_otlp_is_sent_the_whole_life_of_a_message(
    tmp_path: Path, otlp: tuple[str, list[bytes]]
) -> None:
    place, bodies = otlp
    order, act = in_new_program(whole_life, tmp_path, place)
    sent = [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    by_id = {span.span_id.hex(): span for span in sent}

    def named(name: str) -> list[Any]:
        return sorted(
            (span for span in sent if span.name == name), key=lambda span: span.start_time_unix_nano
        )

    def attributes(span: Any) -> dict[str, str]:
        return {one.key: one.value.string_value for one in span.attributes}

    def links(span: Any) -> dict[str, str]:
        return {one.attributes[0].value.string_value: one.span_id.hex() for one in span.links}

    assert sorted(span.name for span in sent if ' /' not in span.name) == sorted(
        ['order', 'send in']
        + ['receive in', 'process in'] * 2
        + ['send out', 'ack in']
        + ['receive out', 'process out'] * 2
        + ['shunt out', 'ack out']
    )
    [published] = named('send in')
    creation = published.span_id.hex()
    assert published.parent_span_id.hex() == order
    kinds = {'receive': 3, 'process': 5, 'ack': 3, 'shunt': 3}
    for span in sent:
        word, _, queue = span.name.partition(' ')
        if word in kinds:
            assert span.kind == kinds[word], span.name
            told = attributes(span)
            assert (told['messaging.system'], told['messaging.destination.name']) == ('switchboard', queue)
            assert told['messaging.operation.name'] == word
            assert told['messaging.operation.type'] == {'ack': 'settle', 'shunt': 'settle'}.get(word, word)
            assert 'secret' not in str(span)
    for queue in ('in', 'out'):
        for received, processed in zip(named(f'receive {queue}'), named(f'process {queue}'), strict=True):
            # Through retry, hand-off, bad queue and move: what it was put in with.
            assert links(received) == {'creation': creation}
            assert links(processed)['creation'] == creation
            assert processed.parent_span_id == received.span_id
            assert processed.trace_id == received.trace_id != published.trace_id
    first, second = named('process in')
    # Handed on by the attempt that succeeded, and made by somebody else.
    [handed_on] = named('send out')
    assert (published.kind, handed_on.kind) == (4, 3)
    assert handed_on.parent_span_id == second.span_id
    assert links(handed_on) == {'creation': creation}
    assert links(second) == {'creation': creation, 'attempt': first.span_id.hex()}
    refused, sent_back = named('process out')
    assert attributes(refused)['error.type'] == 'PermanentFailure'
    assert links(sent_back) == {'creation': creation, 'attempt': refused.span_id.hex(), 'operator': act}
    for word, above in (('ack in', second), ('shunt out', refused), ('ack out', sent_back)):
        [settled] = named(word)
        assert by_id[settled.parent_span_id.hex()] is above


def test_who_does_not_ask_for_it_has_no_span(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x')
    seen = []

    class Looks(Runner):
        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
            seen.append(trace.get_current_span().get_span_context().is_valid)

    Looks(spool, RunnerOptions('looks', 'x:Looks', queue='in')).run(until_empty=True)
    assert seen == [False]


def test_what_becomes_of_a_message_is_a_span_below_its_own(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    spool = Spool(tmp_path)
    names = [spool['in'].enqueue(text) for text in ('good', 'bad')]

    def dispose(runner: Runner, msg: Any, msgdata: Any) -> None:
        if msg == 'bad':
            raise PermanentFailure('secret')

    work(spool, provider, dispose)
    (good, bad), (ack,), (shunt,) = spans(exporter), spans(exporter, 'ack'), spans(exporter, 'shunt')
    for processed, settled, name in ((good, ack, names[0]), (bad, shunt, names[1])):
        assert settled.parent == processed.get_span_context()
        assert settled.kind == SpanKind.CLIENT
        attributes = settled.attributes or {}
        assert attributes['messaging.operation.type'] == 'settle'
        assert attributes['messaging.message.id'] == name.split('+')[1]
    assert (ack.name, shunt.name) == ('ack in', 'shunt in')
    assert 'secret' not in str(shunt.to_json())


def test_what_an_operator_sends_back_is_linked_to_the_span_in_which_it_was_done(
    tmp_path: Path, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x', traceparent=PARENT)
    errors = [PermanentFailure('no')]

    def dispose(runner: Runner, msg: Any, msgdata: Any) -> None:
        if errors:
            raise errors.pop()

    work(spool, provider, dispose)
    with provider.get_tracer('desk').start_as_current_span('POST /act') as act:
        [name] = spool['bad'].get_files('.psv')
        target = ChosenEntry('bad', name, '.psv', 'in')
        session = OperatorSession(SpoolView(tmp_path, None), spool, Operator('ann', 'desk'))
        assert apply(Retry(), target, session).error is None
    work(spool, provider, dispose)
    first, second = spans(exporter)
    links = {(link.attributes or {})['switchboard.link']: link.context.span_id for link in second.links}
    assert links == {
        'creation': int('cd' * 8, 16),
        'attempt': first.get_span_context().span_id,
        'operator': act.get_span_context().span_id,
    }
    # What a move, a retry and an edit leave as it was: the producer's own.
    assert all(link.context.trace_id == int('ab' * 16, 16) for link in second.links[:1])


def sent(directory: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """Put messages in, in a program whose provider is its own.

    :return: the spans, the messages' metadata, and the outer span's id.
    """
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    queue = Spool(directory)['in']
    queue.enqueue('before')
    with trace.get_tracer('shop').start_as_current_span('order') as outer:
        queue.enqueue('own')
        queue.enqueue('of another', traceparent=PARENT)
        with contextlib.suppress(QueueError):  # no kind holds it: a span that failed
            queue.enqueue(object())
    found = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    metadata = [queue.dequeue(name)[1] for name in queue.files]
    return found, metadata, f'0x{outer.get_span_context().span_id:016x}'


def test_a_message_that_is_put_in_is_a_span_whose_context_it_carries(tmp_path: Path) -> None:
    found, metadata, outer = in_new_program(sent, tmp_path)
    own, other, wrong, _ = found
    assert [one['name'] for one in (own, other, wrong)] == ['send in'] * 3
    assert [one['parent_id'] for one in (own, other, wrong)] == [outer] * 3
    before, carried, foreign = metadata
    assert trace_context.PARENT not in before
    assert carried[trace_context.PARENT].split('-')[2] == own['context']['span_id'][2:]
    assert own['kind'] == 'SpanKind.PRODUCER'
    assert own['attributes']['messaging.operation.type'] == 'send'
    # What somebody else has made is not made here: it keeps its context, and is linked to.
    assert foreign[trace_context.PARENT] == PARENT
    assert other['kind'] == 'SpanKind.CLIENT'
    assert other['links'][0]['context']['span_id'] == '0x' + 'cd' * 8
    assert wrong['attributes']['error.type'] == 'UnserializableError'
