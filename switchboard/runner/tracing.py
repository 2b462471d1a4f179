"""A span for each message at work, for runners whose section says ``tracing = link`` or ``parent``.

The span begins a trace of its own and is linked to the context that the message was put in with: delays of hours make traces that are parent and child
useless.  With ``parent`` it is the child of that context as well.  A message that is tried again is linked to the attempt before.

The provider is made in the runner's process, after the fork, because the threads of an SDK do not survive one: by the environment
(``OTEL_TRACES_EXPORTER``, ...) if the SDK is installed and no code of the user's has made one.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from switchboard import trace_context
from switchboard.message.naming import digest_of
from switchboard.options import RunnerOptions

# How long what was measured may take to be sent when the runner ends.
FLUSH_MS = 3000


class Tracing:
    """See the module.  One object for a process.

    :param slice: which part of the queue it works on, as ``1/2``.
    :param provider: the SDK's; by default the process's.
    """

    def __init__(
        self, options: RunnerOptions, slice: str, provider: trace.TracerProvider | None = None
    ) -> None:
        self._options = options
        self._slice = slice
        self._provider = provider or _provider_of_process()
        self._tracer = self._provider.get_tracer('switchboard')

    def begin(self, filebase: str, metadata: dict[str, Any], history: Sequence[Any]) -> tuple[Span, object]:
        """Open the span of one message."""
        queue = self._options.queue
        created = _context_of(metadata)
        before = next((found for one in reversed(history) if (found := _context_of(one)) is not None), None)
        attempt = 1 + sum(one.get('event') in ('failed', 'deferred') for one in history)
        links = [
            Link(found, {'switchboard.link': what})
            for found, what in ((created, 'creation'), (before, 'attempt'))
            if found is not None
        ]
        parent = contexts.Context()
        if created is not None and self._options.tracing == 'parent':
            parent = trace.set_span_in_context(NonRecordingSpan(created), parent)
        span = self._tracer.start_span(
            f'process {queue}',
            parent,
            SpanKind.CONSUMER,
            {
                'messaging.system': 'switchboard',
                'messaging.operation.name': 'process',
                'messaging.operation.type': 'process',
                'messaging.destination.name': queue,
                'messaging.destination.partition.id': self._slice,
                'messaging.message.id': digest_of(filebase),
                'messaging.consumer.group.name': self._options.name,
                'switchboard.attempt': attempt,
            },
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

    def flush(self) -> None:
        """Have what was measured sent, within a bound."""
        flush = getattr(self._provider, 'force_flush', None)
        if flush is not None:
            flush(FLUSH_MS)


def _context_of(record: Any) -> SpanContext | None:
    found = trace_context.read(record) if isinstance(record, dict) else None
    if found is None:
        return None
    trace_id, span_id, flags, state = found
    known = TraceState.from_header([state]) if state else TraceState()
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags), trace_state=known)


def _provider_of_process() -> trace.TracerProvider:
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        for entry in entry_points(group='opentelemetry_configurator', name='configurator'):
            entry.load()().configure()
        provider = trace.get_tracer_provider()
    return provider
