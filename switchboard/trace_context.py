"""The trace that a message belongs to: two keys of its metadata, by the grammar of the W3C's Trace Context.

Whoever puts a message in while a span is open gives it that span's context; from then on nobody changes it.  No library is loaded for that: where
OpenTelemetry was not imported there is no span, and to see that costs one look into a table.
"""

from __future__ import annotations

import re
import sys

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PARENT, STATE = 'traceparent', 'tracestate'
MAX_STATE_CHARACTERS = 512
# Version 00, as it is written by everybody; what a later one adds is not ours to read.
_PARENT = r'00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})'


def carry(metadata: dict[str, Any]) -> None:
    """Put the context of the open span, if there is one, into the metadata of a message that has none."""
    trace = sys.modules.get('opentelemetry.trace')
    if trace is None or PARENT in metadata:
        return
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        metadata[PARENT] = f'00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}'
        state = context.trace_state.to_header()
        if state and len(state) <= MAX_STATE_CHARACTERS:
            metadata[STATE] = state


def read(metadata: Mapping[str, Any]) -> tuple[int, int, int, str] | None:
    """Read what anybody may have written.

    :return: trace, span, flags, and the state; None if there is no context, or what stands there is none.
    """
    parent, state = metadata.get(PARENT), metadata.get(STATE)
    found = re.fullmatch(_PARENT, parent) if isinstance(parent, str) else None
    if found is None:
        return None
    is_state = isinstance(state, str) and len(state) <= MAX_STATE_CHARACTERS
    return int(found[1], 16), int(found[2], 16), int(found[3], 16), str(state) if is_state else ''
