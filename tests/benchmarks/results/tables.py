"""The tables of the page, each from its group of results; an empty text where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.contenders.contender import ENTRANTS

Results = Mapping[str, Any]
Figures = Sequence[Mapping[str, Any]]

LOOK_TITLES = {
    'fill_us': 'to put one, µs',
    'first message': 'first message, cold',
    'recovery': 'recovery',
    'get_files': '`get_files()`',
    'status': '`status`',
    'queues': '`queues`',
    'ls': '`ls --limit 20`',
    'shape': '`shape`',
    'show': '`show` one',
    'import': 'import alone',
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """:return: a Markdown table."""
    lines = [head, ['---', *('---:' for _ in head[1:])] if len(head) > 2 else ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def number(value: float) -> str:
    """:return: two digits that count, three above ten."""
    if value >= 100:
        return f'{value:,.0f}'
    return f'{value:.1f}' if value >= 2 else f'{value:.2f}'


def cell(figure: Mapping[str, Any] | None) -> str:
    """:return: a ratio, and its range."""
    if figure is None:
        return ''
    return f'**{number(figure["ratio"])}** ({number(figure["low"])}-{number(figure["high"])})'


def _figures(results: Results, group: str) -> Figures:
    figures: Figures = results.get(group, {}).get('figures') or ()
    return figures


def _facts(results: Results, group: str) -> Any:
    return results.get(group, {}).get('facts')


def _by_peer(figures: Figures, cases: Sequence[str]) -> str:
    """One line a peer, one column a case; the last line says what we took."""
    found = {(each['b'], each['case']): each for each in figures}
    peers = [name for name in ENTRANTS if any(peer == name for peer, _ in found)]
    rows = [[ENTRANTS[name].title, *(cell(found.get((name, case))) for case in cases)] for name in peers]
    ours = []
    for case in cases:
        times = sorted(each['a_us'] for each in figures if each['case'] == case)
        ours.append(f'{times[len(times) // 2]:,.0f} µs' if times else '')
    return table(['', *cases], [*rows, ['*ours took*', *ours]])


def _cases(figures: Figures) -> list[str]:
    return list(dict.fromkeys(each['case'] for each in figures))


def cycle(results: Results, side: str) -> str:
    """Life cycles against one of us."""
    figures = [
        each for each in _figures(results, 'cycle') if each['a'] == side and not each['b'].startswith('floor')
    ]
    if not figures:
        return ''
    title = {'ours': '', 'ours-full': 'One at a time:\n\n', 'ours-batch': 'In batches of 100:\n\n'}[side]
    return title + _by_peer(figures, _cases(figures))


def floor(results: Results) -> str:
    """How far we are from what C takes: the ratios the other way round."""
    figures = [
        each
        for group in ('cycle', 'bursts', 'pingpong')
        for each in _figures(results, group)
        if each['b'].startswith('floor')
    ]
    if not figures:
        return ''
    cases = _cases(figures)
    turned = {
        (each['a'], each['case']): {
            'ratio': 1 / each['ratio'],
            'low': 1 / each['high'],
            'high': 1 / each['low'],
        }
        for each in figures
    }
    rows = [
        [f'{ENTRANTS[name].title} / floor', *(cell(turned.get((name, case))) for case in cases)]
        for name in ('ours', 'ours-accelerated', 'ours-full', 'ours-batch')
    ]
    return table(['', *cases], rows)


def shapes(results: Results) -> str:
    """One at a time, pipeline, fan-out: lazy, then full."""
    parts = []
    for side, title in (
        ('ours', 'Against us, lazy:'),
        ('ours-full', 'Against us, full, one at a time:'),
        ('ours-batch', 'Against us, full, batches of 100 where there is something to put together:'),
    ):
        figures = [
            each
            for group in ('bursts', 'pingpong', 'pipeline', 'fan-out')
            for each in _figures(results, group)
            if each['a'] == side and not each['b'].startswith('floor')
        ]
        if figures:
            parts.append(f'{title}\n\n' + _by_peer(figures, _cases(figures)))
    return '\n'.join(parts)


def own(results: Results) -> str:
    """Our pipeline in life cycles of ours."""
    figures = _figures(results, 'own')
    if not figures:
        return ''
    rows = [[each['case'], cell(each)] for each in figures]
    return 'In life cycles of ours, lazy:\n\n' + table(['', 'life cycles'], rows)


def parallel(results: Results) -> str:
    """Several processes against each peer."""
    figures = _figures(results, 'parallel')
    return _by_peer(figures, _cases(figures)) if figures else ''


def speed_up(results: Results) -> str:
    """Several processes of ours against one and one."""
    figures = _figures(results, 'speed-up')
    if not figures:
        return ''
    found = {(each['a'], each['case']): each for each in figures}
    sides = list(dict.fromkeys(each['a'] for each in figures))
    rows = [[case, *(_shared(found.get((side, case))) for side in sides)] for case in _cases(figures)]
    head = ['', *(ENTRANTS[side].title for side in sides)]
    return (
        'Ours: time for a message against 1 to 1 (below 1 is faster), processor time of all processes for a message against 1 to 1, and the largest share of '
        'a slice / the smallest:\n\n' + table(head, rows)
    )


def _shared(figure: Mapping[str, Any] | None) -> str:
    if figure is None or 'uneven' not in figure['extra']:
        return cell(figure)
    parts = [cell(figure), number(figure['extra']['uneven'])]
    if 'cpu' in figure['extra']:  # older results have none
        parts.insert(1, number(figure['extra']['cpu']['ratio']))
    return ', '.join(parts)


def after(results: Results) -> str:
    """Ours after a burst, and just started."""
    figures, facts = _figures(results, 'after'), _facts(results, 'after') or {}
    rows = [[f'one at a time, {each["case"]}', cell(each), cpu_cell(each)] for each in figures]
    for size, times in facts.items():
        for name in ('first', 'second'):
            ratios = [f'**{number(times[name][key] / times["small"][key])}**' for key in ('us', 'cpu_us')]
            rows.append([f'the {name} burst of {int(size):,}, of a burst of at most 1,000', *ratios])
    rows += [
        [f'{ENTRANTS[each["a"]].title}: {each["case"]}', cell(each), cpu_cell(each)]
        for each in _figures(results, 'started')
    ]
    return table(['', 'time for a message', 'processor time'], rows) if rows else ''


def cpu_cell(figure: Mapping[str, Any]) -> str:
    """:return: the ratio of processor times, and its range."""
    return cell(figure['extra'].get('cpu'))


def crowd(results: Results) -> str:
    """Idle slices."""
    rows = [[each['case'], cell(each), cpu_cell(each)] for each in _figures(results, 'crowd')]
    return table(['', 'until all is worked on', "the runners' processor time"], rows) if rows else ''


def large(results: Results) -> str:
    """Memory of a large body."""
    facts = _facts(results, 'large')
    if not facts:
        return ''
    names = ('enqueue', 'take', 'show', 'enqueue text', 'take text', 'show text', 'import')
    rows = [[name, f'{facts[name]:,.0f} MB'] for name in names if name in facts]
    return table([f'a body of {facts["mb"]:,.0f} MB', 'most memory of the process'], rows)


def backlog(results: Results) -> str:
    """Peers with a backlog."""
    figures = _figures(results, 'backlog')
    return _by_peer(figures, _cases(figures)) if figures else ''


def depth(results: Results) -> str:
    """Us at great depths, and how long looks take."""
    figures = [each for each in _figures(results, 'depth') if each['a'] == 'ours']
    facts = _facts(results, 'depth')
    if not figures or not facts:
        return ''
    cases = {str(each['extra']['depth']): each for each in figures}
    rows = [['a life, against ours at the least depth', *(cell(each) for each in cases.values())]]
    for look, title in LOOK_TITLES.items():
        line = []
        for name in cases:
            seen = facts.get(name, {}).get(look)
            if isinstance(seen, Mapping):
                ended = f', exit {seen["exit"]}' if seen.get('exit') else ''
                line.append(f'{seen["seconds"]:.2f} s, {seen["peak_mb"]:.0f} MB{ended}')
            else:
                line.append('' if seen is None else number(seen))
        if any(line):
            rows.append([title, *line])
    return table(['waiting', *(f'{int(name):,}' for name in cases)], rows)


def transports(results: Results) -> str:
    """Transports of kombu."""
    figures = _figures(results, 'kombu')
    return _by_peer(figures, _cases(figures)) if figures else ''


def celery(results: Results) -> str:
    """Celery's tasks: how many in a second, and how long a single one takes."""
    figures, facts = _figures(results, 'celery'), _facts(results, 'celery') or {}
    rows = []
    for each in figures:
        waits = facts.get(each['b'], {})
        rates = [f'{1e6 / each[side]:,.0f}' for side in ('b_us', 'a_us')]
        times = [
            f'{waits[name]["p50_us"] / 1000:.1f} / {waits[name]["p99_us"] / 1000:.1f} ms'
            if name in waits
            else ''
            for name in (each['b'], each['a'])
        ]
        rows.append([ENTRANTS[each['b']].title, cell(each), *rates, *times])
    if not rows:
        return ''
    head = ['', 'ratio', 'tasks a second', 'ours', 'to an idle worker, p50 / p99', 'ours']
    text = 'Celery, two processes: 500 tasks that do nothing at once, and single ones to a worker that is idle, from `delay()` to the task:\n\n'
    return text + table(head, rows)


def syscalls(results: Results, workload: str) -> str:
    """One column for each that was counted, one line for each call."""
    counted = [each for each in _facts(results, 'syscalls') or () if each['workload'] == workload]
    if not counted:
        return ''
    own = counted[0]['calls']
    # What only others do is one line.
    names = list(
        dict.fromkeys(call for each in counted if each['name'].startswith('ours') for call in each['calls'])
    )
    names = [call for call in names if max(each['calls'].get(call, 0) for each in counted) >= 0.05]
    names.sort(key=lambda call: -own.get(call, 0))
    head = [ENTRANTS[each['name']].title + (', before' if each['before'] else '') for each in counted]
    rows = [
        [f'`{call}`', *(f'{each["calls"][call]:g}' if call in each['calls'] else '' for each in counted)]
        for call in names
    ]
    others = [sum(times for call, times in each['calls'].items() if call not in names) for each in counted]
    rows.append(['others', *(f'{times:.1f}' if times >= 0.05 else '' for times in others)])
    total = ['**all**', *(f'**{sum(each["calls"].values()):.1f}**' for each in counted)]
    return table(['', *head], [total, *rows])


def wakeup(results: Results) -> str:
    """Percentiles of both sleepers."""
    facts = _facts(results, 'wakeup')
    if not facts:
        return ''
    rows = [
        [title, *(f'{facts[name][key]:,.0f} µs' for key in ('p50_us', 'p90_us', 'p99_us', 'worst_us'))]
        for name, title in (('runner', 'idle runner'), ('bare', 'bare inotify in Python'))
    ]
    text = f'{facts["times"]} messages, each to a sleeping runner; the medians differ by a factor of {number(facts["ratio"])}.\n\n'
    return text + table(['', 'p50', 'p90', 'p99', 'worst'], rows)


def desk(results: Results) -> str:
    """First bytes of the pages, and what open tabs take."""
    facts = _facts(results, 'desk')
    if not facts:
        return ''
    depth = f'{facts["waiting"]:,} waiting, {facts["bad"]:,} bad'
    before, counted = facts['first_byte_s_before_it_has_counted'], facts['first_byte_s']
    slow = max(counted, key=lambda path: counted[path])
    ratio = facts['ratio']
    rates = facts['messages_a_second']
    rows = [
        ['first byte, slowest page, before it has counted', depth, f'{max(before.values()):.2f} s'],
        [f'first byte, slowest page (`{slow}`), slowest of three', depth, f'{counted[slow]:.2f} s'],
        ['first byte, slowest answer to five tabs', depth, f'{facts["first_byte_s_slowest_of_tabs"]:.2f} s'],
        [
            'messages a second of one program, five tabs open / none',
            f'{sorted(rates["no tab"])[len(rates["no tab"]) // 2]:,} without',
            cell(ratio | {'ratio': ratio['median']}),
        ],
    ]
    return table(['', 'on', ''], rows)


def footprint(results: Results) -> str:
    """Master and runners, and ``bin/drop``."""
    facts, start = _facts(results, 'footprint'), _figures(results, 'start')
    rows = []
    if facts:
        bare = f'{facts["runners"] + 1} bare interpreters'
        rows.append(
            [
                f'proportional set size, master and {facts["runners"]} idle runners',
                f'{facts["pss_mb"]:.0f} MB',
                f'{bare}: {facts["bare_pss_mb"]:.0f} MB',
                f'**{number(facts["pss_ratio"])}**',
            ]
        )
        if own_mb := facts.get('own_class_pss_mb'):
            shown = f'**{number(own_mb / facts["bare_pss_mb"])}**'
            rows.append(["the same, of a class of one's own", f'{own_mb:.0f} MB', '', shown])
        begun = facts['start']
        rows.append(
            [
                f'start to {facts["runners"]} runners ready',
                f'{begun["b_us"] / 1e6:.2f} s',
                f'{bare}: {begun["a_us"] / 1e6:.2f} s',
                cell(begun),
            ]
        )
    rows += [
        [
            '`bin/drop`, one mail',
            f'{each["b_us"] / 1000:.1f} ms',
            f'`{each["a"]}`: {each["a_us"] / 1000:.1f} ms',
            cell(each),
        ]
        for each in start
    ]
    return table(['', 'ours', 'floor', 'ratio'], rows) if rows else ''


def flush(results: Results) -> str:
    """Ways to bring a batch to the disk."""
    figures = _figures(results, 'flush')
    if not figures:
        return ''
    found = {(each['b'], each['case']): each for each in figures}
    cases = _cases(figures)
    names = list(dict.fromkeys(each['b'] for each in figures))
    plain = [f'{next(each["a_us"] for each in figures if each["case"] == case):,.0f} µs' for case in cases]
    rows = [[name, *(cell(found.get((name, case))) for case in cases)] for name in names]
    return table(['', *cases], [*rows, [f'*{figures[0]["a"]} took*', *plain]])


def before(results: Results) -> str:
    """An older checkout against this one."""
    figures = _figures(results, 'before')
    if not figures:
        return ''
    sides = [
        name for name in ('ours', 'ours-full', 'ours-batch') if any(each['a'] == name for each in figures)
    ]
    found = {(each['a'], each['case']): each for each in figures}
    rows = [[case, *(cell(found.get((name, case))) for name in sides)] for case in _cases(figures)]
    return table(['', *(ENTRANTS[name].title for name in sides)], rows)


def profiles(results: Results) -> str:
    """Where the time goes, for the page that explains it."""
    facts: Mapping[str, Mapping[str, Mapping[str, float]]] = _facts(results, 'profile') or {}
    parts = []
    for key, title, head in (
        ('parts', 'By program and library (perf)', 'part'),
        ('functions', 'By function, calls to the kernel included (py-spy)', 'function'),
        ('kernel', 'Functions of the kernel (perf)', 'function'),
    ):
        columns = [name for name in facts if facts[name].get(key)]
        if not columns:
            continue
        names = list(dict.fromkeys(each for name in columns for each in facts[name][key]))
        rows = [
            [
                f'`{each}`',
                *(
                    f'{facts[name][key][each] * 100:.1f} %' if each in facts[name][key] else ''
                    for name in columns
                ),
            ]
            for each in names
        ]
        parts.append(f'{title}:\n\n' + table([head, *columns], rows))
    return '\n'.join(parts)
