"""A span for each message at work, for runners whose section says ``tracing = link`` or ``parent``.

Taking a message is a span, ``receive``, which begins a trace of its own and is linked to the context that the message was put in with: delays of hours make
traces that are parent and child useless.  Its work is a span below that, ``process``, with the same link; with ``parent`` it is the child of the message's context instead.  A message that is tried again is linked to the attempt before, and one that an
operator has sent back to the span in which that was done.  What becomes of a message is a span below: ``ack`` or ``shunt``.

The provider is made in the runner's process, after the fork, because the threads of an SDK do not survive one: by the environment
(``OTEL_TRACES_EXPORTER``, ...) if the SDK is installed and no code of the user's has made one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, cast

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind
from opentelemetry.trace.status import Status, StatusCode

from switchboard import trace_context
from switchboard.interfaces import Taken
from switchboard.message.naming import digest_of
from switchboard.options import RunnerOptions

# How long the last spans may take to be sent when the runner ends.
FLUSH_MS = 3000

# Of messages that were taken and have not begun yet; those that are given back are forgotten some day.
MAX_RECEIVED = 10_000

_ATTEMPTS = ('failed', 'deferred')


class Tracing:
    """See the module.  One object for a process.

    :param slice_name: the slice that it works, as ``1/2``.
    :param provider: the SDK's; by default the process's.
    """

    def __init__(
        self, options: RunnerOptions, slice_name: str, provider: trace.TracerProvider | None = None
    ) -> None:
        self._options = options
        self._slice_name = slice_name
        self._provider = provider or _provider_of_process()
        self._tracer = self._provider.get_tracer('switchboard')
        self._received: dict[str, SpanContext] = {}

    def receive(self, take: Callable[[], Taken | None]) -> Taken | None:
        """Take a message.  A look that finds nothing is no span."""
        began_ns = time.time_ns()
        taken = take()
        if taken is None:
            return None
        created = trace_context.extract_context(taken.msgdata)
        links = [] if created is None else [Link(created, {'switchboard.link': 'creation'})]
        span = self._tracer.start_span(
            f'receive {self._options.queue}',
            contexts.Context(),
            SpanKind.CLIENT,
            self._attributes('receive', 'receive', taken.filebase),
            links,
            start_time=began_ns,
        )
        span.end()
        if len(self._received) >= MAX_RECEIVED:
            self._received.clear()
        self._received[taken.filebase] = span.get_span_context()
        return taken

    def _attributes(self, name: str, kind: str, filebase: str) -> dict[str, str | int]:
        """:return: the attributes that a span of each operation has."""
        return {
            'messaging.system': 'switchboard',
            'messaging.operation.name': name,
            'messaging.operation.type': kind,
            'messaging.destination.name': self._options.queue,
            'messaging.destination.partition.id': self._slice_name,
            'messaging.message.id': digest_of(filebase),
            'messaging.consumer.group.name': self._options.name,
        }

    def begin(self, filebase: str, metadata: dict[str, Any], history: Sequence[Any]) -> tuple[Span, object]:
        """Open the span of one message."""
        queue = self._options.queue
        created = trace_context.extract_context(metadata)
        attempted = _last(history, lambda record: record.get('event') in _ATTEMPTS)
        operated = _last(history, lambda record: 'via' in record)
        attempt = 1 + sum(one.get('event') in _ATTEMPTS for one in history)
        links = [
            Link(found, {'switchboard.link': what})
            for found, what in ((created, 'creation'), (attempted, 'attempt'), (operated, 'operator'))
            if found is not None
        ]
        parent = contexts.Context()
        above = self._received.pop(filebase, None)
        if created is not None and self._options.tracing == 'parent':
            above = created
        if above is not None:
            parent = trace.set_span_in_context(NonRecordingSpan(above), parent)
        span = self._tracer.start_span(
            f'process {queue}',
            parent,
            SpanKind.CONSUMER,
            self._attributes('process', 'process', filebase) | {'switchboard.attempt': attempt},
            links,
        )
        return span, contexts.attach(trace.set_span_in_context(span))

    def end(self, span: Span, token: Any, outcome: str, error: BaseException | None) -> None:
        """Close it."""
        contexts.detach(token)
        if error is not None:
            span.set_attribute('error.type', type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
        span.set_attribute('switchboard.outcome', outcome)
        span.end()

    def settled(self, word: str, processed: Span, filebase: str, began_ns: int) -> None:
        """Tell of the end of a message in its queue: ``ack``, it is done and gone; ``shunt``, it is in the bad queue."""
        self._tracer.start_span(
            f'{word} {self._options.queue}',
            trace.set_span_in_context(processed, contexts.Context()),
            SpanKind.CLIENT,
            self._attributes(word, 'settle', filebase),
            start_time=began_ns,
        ).end()

    def flush(self) -> None:
        """Have the last spans sent, within a bound."""
        flush = getattr(self._provider, 'force_flush', None)
        if flush is not None:
            flush(FLUSH_MS)


def _last(history: Sequence[Any], fits: Callable[[Any], bool]) -> SpanContext | None:
    """:return: the context of the last record that fits and has one."""
    for record in reversed(history):
        if fits(record) and (found := trace_context.extract_context(record)) is not None:
            return cast(SpanContext, found)
    return None


def _provider_of_process() -> trace.TracerProvider:
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        for entry in entry_points(group='opentelemetry_configurator', name='configurator'):
            entry.load()().configure()
        provider = trace.get_tracer_provider()
    return provider
