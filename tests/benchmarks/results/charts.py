"""The charts of the page, as PNG and as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tests.benchmarks.cases import SUSTAINED
from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.messages import TITLES
from tests.benchmarks.results.tables import number as number_text

Results = Mapping[str, Any]

mpl.use('Agg')
mpl.rcParams.update(
    {
        'font.family': 'sans-serif',
        'font.size': 10,
        'axes.spines.top': False,
        'axes.spines.right': False,
        'axes.grid': True,
        'axes.grid.axis': 'x',
        'axes.axisbelow': True,
        'grid.color': '#dddddd',
        'svg.fonttype': 'none',
        # The same file for the same figures.
        'svg.hashsalt': 'switchboard',
        'figure.dpi': 110,
    }
)
OURS, FIRST, SECOND, GREY = '#c2410c', '#1d4ed8', '#7c9ddb', '#666666'
# Lines of one chart must be told apart without their colours as well.
LINES = (
    ('#1d4ed8', 'o'),
    ('#0f766e', 's'),
    ('#7c3aed', '^'),
    ('#a16207', 'D'),
    ('#be185d', 'v'),
    ('#475569', 'P'),
    ('#65a30d', 'X'),
    ('#0891b2', '<'),
    ('#9f1239', '>'),
)


def _save(figure: Any, directory: Path, name: str) -> None:
    for kind, metadata in (('svg', {'Date': None}), ('png', {'Software': None})):
        figure.savefig(directory / f'{name}.{kind}', bbox_inches='tight', metadata=metadata)
    pyplot.close(figure)


def _plain(value: float, _position: object = None) -> str:
    return f'{value:g}' if value < 1000 else f'{value:,.0f}'


def find(results: Results, group: str, case: str, a: str) -> list[dict[str, Any]]:
    """:return: the figures of one case against one of us, the slowest peer first."""
    figures = results.get(group, {}).get('figures', ())
    chosen = [each for each in figures if each['case'] == case and each['a'] == a]
    return sorted(chosen, key=lambda each: -float(each['ratio']))


def _log(axis: Any) -> None:
    """A scale on which twice as long and half as long are as far from one."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())


def _bars(axes: Axes, series: Sequence[tuple[str, str, list[dict[str, Any]]]], names: Sequence[str]) -> None:
    """One group of bars a peer.  They begin at 1, which is us: to the right the peer is slower."""
    height = 0.8 / len(series)
    for number, (label, colour, figures) in enumerate(series):
        by_name = {each['b']: each for each in figures}
        rows = [(row, by_name[name]) for row, name in enumerate(names) if name in by_name]
        for count, (row, each) in enumerate(rows):
            at = row + (number - (len(series) - 1) / 2) * height
            axes.barh(
                at, each['ratio'] - 1, height * 0.9, left=1, color=colour, label=label if count == 0 else None
            )
            axes.plot([each['low'], each['high']], [at, at], color='#111111', linewidth=1)
            beyond = max(each['ratio'], each['high'], 1) * 1.04
            axes.text(beyond, at, number_text(each['ratio']), va='center', fontsize=9)
    axes.axvline(1, color=OURS, linewidth=1.5)
    axes.set_xscale('log')
    _log(axes.xaxis)
    axes.set_yticks(range(len(names)), [ENTRANTS[name].title for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.1)


def cycle_lazy(results: Results, directory: Path) -> bool:
    """Life cycles of those that leave the disk to the kernel."""
    bursts = [each for each in find(results, 'cycle', TITLES['bytes'], 'ours') if each['b'] != 'floor']
    if not bursts:
        return False
    sustained = [each for each in find(results, 'cycle', SUSTAINED, 'ours') if each['b'] != 'floor']
    names = [each['b'] for each in bursts]
    figure, axes = pyplot.subplots(figsize=(8, 0.55 * len(names) + 1))
    _bars(axes, [('bursts', FIRST, bursts), ('sustained', SECOND, sustained)], names)
    axes.set_title('Time for a life of 1 KB, switchboard = 1, durability lazy', loc='left')
    axes.set_xlabel('times as long as switchboard (log scale; the line over a bar is the range of all pairs)')
    if sustained:
        axes.legend(loc='lower right')
    _save(figure, directory, 'cycle-lazy')
    return True


def cycle_full(results: Results, directory: Path) -> bool:
    """Life cycles of those that wait for the disk."""
    single = [
        each for each in find(results, 'cycle', TITLES['bytes'], 'ours-full') if each['b'] != 'floor-full'
    ]
    batch = [
        each for each in find(results, 'cycle', TITLES['bytes'], 'ours-batch') if each['b'] != 'floor-batch'
    ]
    if not single:
        return False
    names = [each['b'] for each in single]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(names) + 1.2))
    series = [('switchboard one at a time', FIRST, single), ('switchboard in batches of 100', SECOND, batch)]
    _bars(axes, series, names)
    axes.set_title('Time for a life of 1 KB, switchboard = 1, durability full', loc='left')
    axes.set_xlabel('times as long as switchboard (log scale)')
    axes.legend(loc='lower right')
    _save(figure, directory, 'cycle-full')
    return True


def backlog(results: Results, directory: Path) -> bool:
    """What a message costs at which depth: the others against us at the same depth, we against us at the smallest."""
    by_peer: dict[str, dict[int, float]] = {}
    for each in results.get('backlog', {}).get('figures', ()):
        by_peer.setdefault(each['b'], {})[each['extra']['depth']] = each['ratio']
    if not by_peer:
        return False
    figure, axes = pyplot.subplots(figsize=(8, 4.6))
    own: dict[int, float] = {}
    for each in results.get('depth', {}).get('figures', ()):
        if each['a'] != 'ours':
            continue
        own[each['extra']['than']] = 1.0
        own[each['extra']['depth']] = each['ratio']
    if own:
        axes.plot(
            *zip(*sorted(own.items()), strict=True),
            color=OURS,
            marker='o',
            linewidth=2.5,
            label='switchboard',
        )
    for (name, points), (colour, marker) in zip(sorted(by_peer.items()), LINES, strict=False):
        axes.plot(
            *zip(*sorted(points.items()), strict=True),
            color=colour,
            marker=marker,
            label=ENTRANTS[name].title,
        )
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.grid(axis='y')
    _log(axes.yaxis)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_title('Time for a life of one message while others wait', loc='left')
    axes.set_xlabel('messages waiting')
    axes.set_ylabel('times as long as switchboard\nat the same depth (switchboard: at 1,000)')
    axes.legend(loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False)
    _save(figure, directory, 'backlog')
    return True


def wakeup(results: Results, directory: Path) -> bool:
    """How long an idle runner sleeps on, as a distribution."""
    facts = results.get('wakeup', {}).get('facts')
    if not facts:
        return False
    figure, axes = pyplot.subplots(figsize=(8, 3.2))
    for name, label, colour in (('runner', 'runner', OURS), ('bare', 'bare inotify in Python', GREY)):
        waits = facts['waits_us'][name]
        shares = [(number + 1) / len(waits) * 100 for number in range(len(waits))]
        axes.plot(waits, shares, color=colour, label=label, linewidth=2)
    axes.set_xscale('log')
    _log(axes.xaxis)
    axes.grid(axis='y')
    axes.set_title("From the producer's rename to dispose() in an idle runner", loc='left')
    axes.set_xlabel('microseconds')
    axes.set_ylabel('% of the messages')
    axes.legend(loc='lower right')
    _save(figure, directory, 'wakeup')
    return True


CHARTS = {'cycle-lazy': cycle_lazy, 'cycle-full': cycle_full, 'backlog': backlog, 'wakeup': wakeup}


def draw(results: Results, directory: Path) -> set[str]:
    """Draw what there are results for.

    :return: the names of the charts that were made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return {name for name, chart in CHARTS.items() if chart(results, directory)}
