"""From a page's object to HTML: everything is escaped, and characters that could act on a reader are written out."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from switchboard.operating.text import age, duration, escape_terminal, grouped, moment, number, size
from switchboard.web.forms import HALVES

CELLS = (1, 5, 25, 100)


def _shown(value: Any) -> Any:
    """:return: the text that an expression of a template writes; markup is what templates' own macros made."""
    if value is None:
        return ''
    if hasattr(value, '__html__'):
        return value
    return escape_terminal(str(value))


def _ago(seconds: float | None) -> str:
    return '' if seconds is None else age(seconds)


def _stamp(ns: str | int | None) -> str:
    return moment(int(ns) / 1e9) if ns else ''


def _when(seconds: Any) -> str:
    is_time = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e10
    return moment(seconds) if is_time else '?'


def _iso(seconds: Any) -> str:
    is_time = isinstance(seconds, int | float) and 0 <= seconds < 1e10
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds)) if is_time else ''


def _heat(count: int) -> str:
    return f'heat{sum(count >= least for least in CELLS)}'


def _short(filebase: str) -> str:
    return filebase.partition('+')[0]


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _where(**fields: Any) -> str:
    given = {key: value for key, value in fields.items() if value not in (None, '')}
    return urlencode(given, errors=HALVES)


def environment() -> Environment:
    """:return: the environment that renders the templates."""
    made = Environment(
        loader=PackageLoader('switchboard.web'),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[],
    )
    made.filters |= {
        'ago': _ago,
        'stamp': _stamp,
        'when': _when,
        'iso': _iso,
        'size': size,
        'grouped': grouped,
        'number': number,
        'duration': duration,
        'heat': _heat,
        'short': _short,
        'compact': _compact,
        'segment': lambda text: quote(str(text), safe='', errors=HALVES),
    }
    made.globals['where'] = _where
    # There is one way out of escaping, and no template needs it.
    del made.filters['safe']
    return made
