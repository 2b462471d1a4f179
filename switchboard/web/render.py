"""From a page's object to HTML: everything is escaped, and characters that could act on a reader are written out.

And pictures, each served as a file of its own, because the pages' policy allows nothing inside of them.  A line of the last hour is drawn here; which way
messages go is drawn by Graphviz, where that is installed.  Both have colours that can be seen on light and on dark.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from switchboard.operating.text import age, ago, duration, escape_terminal, intcomma, local_time, number, size
from switchboard.routing.topology import Graph
from switchboard.web.forms import HALVES

CELLS = (1, 5, 25, 100)


def _shown(value: Any) -> Any:
    """:return: the text that an expression of a template writes; markup is what templates' own macros made."""
    if value is None:
        return ''
    if hasattr(value, '__html__'):
        return value
    return escape_terminal(str(value))


def _stamp(ns: str | int | None) -> str:
    return local_time(int(ns) / 1e9) if ns else ''


def _when(seconds: Any) -> str:
    is_time = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < 1e10
    return local_time(seconds) if is_time else '?'


def _iso(seconds: Any) -> str:
    is_time = isinstance(seconds, int | float) and 0 <= seconds < 1e10
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds)) if is_time else ''


def _short(filebase: str) -> str:
    return filebase.partition('+')[0]


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _where(**fields: Any) -> str:
    given = {key: value for key, value in fields.items() if value not in (None, '')}
    return urlencode(given, errors=HALVES)


def template_environment() -> Environment:
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
        'age': lambda seconds: '' if seconds is None else age(seconds),
        'ago': lambda seconds: '' if seconds is None else ago(seconds),
        'stamp': _stamp,
        'when': _when,
        'iso': _iso,
        'size': size,
        'intcomma': intcomma,
        'number': number,
        'duration': duration,
        'heat': lambda count: f'heat{sum(count >= least for least in CELLS)}',
        'short': _short,
        'compact': _compact,
        'segment': lambda text: quote(str(text), safe='', errors=HALVES),
    }
    made.globals['where'] = _where
    # There is one way out of escaping, and no template needs it.
    del made.filters['safe']
    return made


# A picture of more is none, and takes Graphviz long.
MAX_EDGES = 400
DRAW_S = 10.0
LOOK = (
    '-Gbgcolor=transparent -Gpad=0.1 -Granksep=0.7 '
    '-Nstyle=rounded -Nfontname=sans-serif -Nfontsize=12 -Nmargin=0.18,0.08 -Ncolor=#6b7690 -Nfontcolor=#6f7c98 -Npenwidth=1.2 '
    '-Efontname=sans-serif -Efontsize=9 -Ecolor=#5b7cfa -Efontcolor=#6f7c98 -Earrowsize=0.7'
).split()

WIDTH, HEIGHT = 120, 28


def sparkline(values: Sequence[float], slots: int) -> str:
    """:return: an SVG file; the newest value stands at the right edge.

    :param slots: how many values fill the width.
    """
    shown = list(values)[-slots:]
    if len(shown) == 1:
        shown *= 2  # the beginning of a line
    top = max([*shown, 1.0])
    step = WIDTH / max(slots - 1, 1)
    start = WIDTH - step * (len(shown) - 1)
    points = [
        f'{start + step * at:.1f},{HEIGHT - 3 - (HEIGHT - 6) * value / top:.1f}'
        for at, value in enumerate(shown)
    ]
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="#5b7cfa" stroke-width="1.5" stroke-linejoin="round"/>'
    area = ''
    if len(points) > 1:
        corners = f'{start:.1f},{HEIGHT - 2} {" ".join(points)} {WIDTH},{HEIGHT - 2}'
        area = f'<polygon points="{corners}" fill="#5b7cfa" fill-opacity="0.16"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<path d="M0 {HEIGHT - 2.5}H{WIDTH}" stroke="#8b94a8" stroke-opacity="0.35"/>'
        f'{area}{line if len(points) > 1 else ""}</svg>\n'
    )


def can_draw() -> bool:
    """:return: whether Graphviz is installed."""
    return shutil.which('dot') is not None


def topology_svg(graph: Graph, waiting: Mapping[str, int | None]) -> bytes | None:
    """:return: an SVG file; None without Graphviz, and of a graph that is too large for a picture.

    :param waiting: how much waits in each queue, for its box.
    """
    if not graph.edges or len(graph.edges) > MAX_EDGES or not can_draw():
        return None
    ends = {end for edge in graph.edges for end in (edge.source, edge.target)}
    nodes = tuple(
        node._replace(note=intcomma(many) if node.kind == 'queue' and many else '')
        for node, many in ((node, waiting.get(node.name)) for node in graph.nodes)
        if (node.kind, node.name) in ends
    )
    return _drawn(graph._replace(nodes=nodes).to_dot())


@lru_cache(maxsize=4)
def _drawn(dot: str) -> bytes | None:
    try:
        command = ['dot', '-Tsvg', *LOOK]  # wherever it is installed
        ran = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=DRAW_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout
