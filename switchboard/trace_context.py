"""The trace that a message belongs to: two keys of its metadata, by the grammar of the W3C's Trace Context.

A producer that puts a message in while a span is open has a span ``send QUEUE`` made for it, whose context the message carries; from then on nobody changes
it.  No library is loaded for that: where OpenTelemetry was not imported there is no span, and to see that costs one look into a table.
"""

from __future__ import annotations

import re
import sys

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol, TypeVar

    class HasFilebase(Protocol):
        """The context to be written of a message before it is published."""

        @property
        def filebase(self) -> str:
            """Its name."""

    Item = TypeVar('Item', bound=HasFilebase)

PARENT, STATE = 'traceparent', 'tracestate'
MAX_STATE_CHARACTERS = 512
# Version 00, as it is written by everybody; what a later one adds is not ours to read.
_PARENT = r'00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})'


def inject_context(metadata: dict[str, Any]) -> None:
    """Put the context of the open span, if there is one, into the metadata of a message that has none."""
    trace = sys.modules.get('opentelemetry.trace')
    if trace is None or PARENT in metadata:
        return
    _put(metadata, trace.get_current_span().get_span_context())


def _put(metadata: dict[str, Any], context: Any) -> None:
    if context.is_valid:
        metadata[PARENT] = f'00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}'
        state = context.trace_state.to_header()
        if state and len(state) <= MAX_STATE_CHARACTERS:
            metadata[STATE] = state


def may_have_span() -> bool:
    """Can there be a span at all?"""
    return 'opentelemetry.trace' in sys.modules


def prepare_in_span(metadata: dict[str, Any], queue: str, prepare: Callable[[], Item]) -> Item:
    """Prepare a message, within a span of its own if one is open that is recorded.

    A message that has a context keeps it, and the span is linked to it: somebody else has made the message.
    """
    trace = sys.modules.get('opentelemetry.trace')
    if trace is None:
        return prepare()
    if not trace.get_current_span().is_recording():
        inject_context(metadata)
        return prepare()
    created = extract_context(metadata)
    span = trace.get_tracer('switchboard').start_span(
        f'send {queue}',
        kind=trace.SpanKind.PRODUCER if created is None else trace.SpanKind.CLIENT,
        attributes={
            'messaging.system': 'switchboard',
            'messaging.operation.name': 'send',
            'messaging.operation.type': 'send',
            'messaging.destination.name': queue,
        },
        links=[] if created is None else [trace.Link(created, {'switchboard.link': 'creation'})],
    )
    if PARENT not in metadata:
        _put(metadata, span.get_span_context())
    try:
        item = prepare()
        span.set_attribute('messaging.message.id', item.filebase.partition('+')[2])
    except BaseException as error:
        span.set_attribute('error.type', type(error).__name__)
        span.set_status(trace.StatusCode.ERROR)
        raise
    finally:
        span.end()
    return item


def extract_context(record: Mapping[str, Any]) -> Any:
    """:return: the context in a message's metadata or a record, as OpenTelemetry's own object; None if there is none.  Where that is loaded only."""
    found = parse_context(record)
    if found is None:
        return None
    trace = sys.modules['opentelemetry.trace']
    trace_id, span_id, flags, state = found
    known = trace.TraceState.from_header([state]) if state else trace.TraceState()
    return trace.SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags), trace_state=known
    )


def parse_context(metadata: Mapping[str, Any]) -> tuple[int, int, int, str] | None:
    """Read what anybody may have written.

    :return: trace, span, flags, and the state; None if there is no context, or what stands there is none.
    """
    parent, state = metadata.get(PARENT), metadata.get(STATE)
    found = re.fullmatch(_PARENT, parent) if isinstance(parent, str) else None
    if found is None:
        return None
    is_state = isinstance(state, str) and len(state) <= MAX_STATE_CHARACTERS
    return int(found[1], 16), int(found[2], 16), int(found[3], 16), str(state) if is_state else ''
