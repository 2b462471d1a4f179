"""The page: tables and words around the results.  It says nothing that the results do not say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders.contender import ENTRANTS
from tests.benchmarks.results import tables
from tests.benchmarks.results.tables import Results, table
from tests.benchmarks.results.targets import MEASURES, verdicts

INTRODUCTION = """\
# Benchmarks

How fast this is, beside what people would use instead. The page and its charts are written by `bin/bench`; nobody edits them.

A figure is a ratio: how many times as long a peer takes for the same work, so **above 1 the peer is slower**, below 1 it is faster.
Both take turns in one run, A B A B, each in a process of its own; each pair of turns gives a ratio, the median counts, and the range of
all pairs stands in brackets. Starting, importing and the first turn of each are left out. Before each turn, outside of its time, the
file system is synced. Times in microseconds are there for orientation: they are this machine's, on this day.
"""

MEASURED = """\
Cases that are *lazy* are compared by processor time, the kernel's share included: they do nothing else, and other work on the machine hardly changes it. Cases that wait for
the disk, or in which several processes take part, are compared by elapsed time. Both are medians of pairs; the ratio of the quickest turns of both sides stands beside them.

"""

HOW = """\
## How to repeat it

```console
$ bin/bench                      # everything: about half an hour
$ bin/bench --quick              # fewer and shorter turns: some minutes
$ bin/bench --only wakeup        # one part; bin/bench --help lists them
$ bin/bench --directory /srv/queue  # on another disk
```

It makes an environment of its own in `.venv-bench`, with the peers from the package index, and installs Debian's `redis-server` and
`rabbitmq-server` if it runs as root; a peer that is missing is left out. The results are in
[results.json](benchmarks/results.json), the code is in `tests/benchmarks`.
"""

CAVEATS = """\
## What to keep in mind

- One machine, one disk, one day. Few cores: where a server takes part, it has the other core to itself, which flatters it.
- Durability is not the same everywhere, so each peer meets the one of ours that promises about as much. *lazy* survives the death of
  any process, *full* also a power cut. Ours in *full* has the file *and its name* on the disk; no peer that keeps files has the name.
- The time of a sync shows how good the disk is, or how well it lies: virtual disks often answer from memory.
- The peers promise different things, too. Only our pipeline hands on exactly once. Other differences:
"""


def _value(value: float | None, unit: str) -> str:
    return '' if value is None else f'{tables.number(value)} {unit}'.rstrip()


def _targets(results: Results) -> str:
    rows, between = [], []
    others = list(results.get('elsewhere', {}))
    for each in verdicts(results):
        shown = _value(each['value'], each['unit']) or 'not measured'
        verdict = {True: 'met', False: '**not met**', None: ''}[each['met']]
        there = [_value(each['elsewhere'][name], each['unit']) for name in others]
        measures = [_value(each[measure], '') for measure in MEASURES]
        rows.append(
            [
                each['name'],
                each['goal'],
                shown,
                verdict,
                _value(each['floor'], each['unit']),
                *measures,
                *there,
            ]
        )
        if each['met'] is False:
            numbers = f' ({each["took"]})' if each['took'] else ''
            between.append((each['between'], each['name'] + numbers))
    here = str(results['machine'].get('file system', 'unknown')).partition(' (')[0]
    text = (
        '## Targets\n\n'
        + MEASURED
        + table(
            [
                'figure',
                'target',
                f'this run, {here}',
                '',
                'at the floor',
                'time',
                'processor time',
                'quickest turns',
                *others,
            ],
            rows,
        )
    )
    if not between:
        return text
    reasons: dict[str, list[str]] = {}
    for reason, name in between:
        reasons.setdefault(reason, []).append(name)
    lines = [f'- {"; ".join(names)}. {reason}' for reason, names in reasons.items()]
    return text + '\nWhy a target is not met:\n\n' + '\n'.join(lines) + '\n'


def _machine(results: Results) -> str:
    facts = results['machine']
    rows = [[key, str(facts[key])] for key in facts if key not in ('packages', 'programs')]
    versions = {**facts['packages'], **facts['programs']}
    rows.append(['versions', ', '.join(f'{name} {version}' for name, version in versions.items())])
    rows.append(['duration of the last run', f'{results.get("minutes", "?")} minutes'])
    return '## The machine\n\n' + table(['', ''], rows) + '\n' + _measured(results)


def _measured(results: Results) -> str:
    """When each part was measured, and how busy the machine was: a part that a run leaves out keeps its figures from before."""
    here = str(results['machine'].get('file system', 'unknown')).partition(' (')[0]
    rows = []
    for place, groups in ((here, results), *results.get('elsewhere', {}).items()):
        by_run: dict[tuple[str, str, str], list[str]] = {}
        for name, group in groups.items():
            if isinstance(group, Mapping) and 'figures' in group:
                for run, what in _runs(name, group).items():
                    by_run.setdefault(run, []).append(what)
        for (when, load, turns), names in sorted(by_run.items()):
            rows.append([', '.join(sorted(names)), place, when, load, turns])
    text = 'Each part has the date and the load of its own measurement (processes that ran or waited, over the minute before it began):\n\n'
    return text + table(['part', 'on', 'measured', 'load', 'turns'], rows)


def _runs(name: str, group: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    """:return: the runs that a group's figures come from, each with the group's name, and the peers that were measured apart from the others."""
    peers: dict[tuple[str, str, str], list[str]] = {_run(group): []}
    for each in group['figures']:
        entrant = ENTRANTS.get(each['b'])
        peers.setdefault(_run({**group, **each}), []).append(entrant.title if entrant else each['b'])
    return {
        run: name if run == _run(group) else f'{name} ({", ".join(dict.fromkeys(titles))})'
        for run, titles in peers.items()
    }


def _run(measured: Mapping[str, Any]) -> tuple[str, str, str]:
    load = measured.get('load')
    return (
        str(measured.get('when', 'before')),
        '' if load is None else f'{load:.1f}',
        'short (`--quick`)' if measured.get('quick') else '',
    )


def _caveats() -> str:
    rows = [[entrant.title, entrant.caveat] for entrant in ENTRANTS.values() if entrant.caveat]
    return CAVEATS + '\n' + table(['peer', 'not equal'], rows)


def _chart(name: str, text: str, drawn: set[str]) -> str:
    return f'[![{text}](benchmarks/{name}.png)](benchmarks/{name}.svg)\n' if name in drawn else ''


def _section(title: str, *parts: str) -> str:
    measured = [part for part in parts if '|' in part]
    return f'## {title}\n\n' + '\n'.join(part for part in parts if part) if measured else ''


def sections(results: Results, drawn: set[str]) -> Iterable[str]:
    yield INTRODUCTION
    yield _targets(results)
    yield _machine(results)
    yield _section(
        'A life, left to the kernel',
        'Put 500 messages (50 of 100 KB), then take and finish all. *Sustained*: turns ten times as long; it '
        'shows whether a file system that creates and deletes all the time gets slower at it.\n',
        tables.cycle(results, 'ours'),
        _chart('cycle-lazy', 'Life cycles, lazy', drawn),
    )
    yield _section(
        'A life, on the disk',
        'Put 200 messages (20 of 100 KB), then take and finish all. First against us one at a time, then against us in '
        'batches of 100 that share a flush.\n',
        tables.cycle(results, 'ours-full'),
        tables.cycle(results, 'ours-batch'),
        _chart('cycle-full', 'Life cycles, full', drawn),
    )
    yield _section(
        'The floor',
        'The same system calls from C, without packing, checksums, metadata: how many times as long as it we take.\n',
        tables.floor(results),
    )
    yield _section(
        'Ways to bring a batch to the disk',
        'Time for a message, against `fdatasync` of each file; all write, flush, rename, and sync the directory once.\n',
        tables.flush(results),
    )
    yield _section(
        'Other shapes of work',
        'Put 2,000, take 2,000: more than 64 descriptors can hold. One at a time: put one, take one. Pipeline: into a queue, on to a second, on to a third, out; ours with exactly-once '
        'hand-off by a runner. Fan-out: one message into ten queues, and out of all; ours as one transaction.\n',
        tables.shapes(results),
        tables.own(results),
    )
    yield _section(
        'Several processes',
        'Producers to consumers, all at once, each a process, on one queue; 2,000 messages. Consumers that find nothing sleep for '
        '0.5 ms; ours have a slice each.\n',
        tables.parallel(results),
        tables.speed_up(results),
    )
    yield _section(
        'After a burst, and just started',
        'Ours, against ours in a spool of ordinary size that has been in use. *Just started*: a new process, and nothing of the disk in memory (`drop_caches`, '
        'if that is allowed).\n',
        tables.after(results),
    )
    yield _section(
        'In a crowd',
        'Messages one at a time to one slice of nine, against one slice alone.\n',
        tables.crowd(results),
    )
    yield _section('A large body', tables.large(results))
    yield _section(
        'With a backlog',
        'Put one, take the oldest, while many others wait.\n',
        tables.backlog(results),
        'Ours, against ours with 1,000 waiting (100 bytes each), and how long an operator waits:\n'
        if results.get('depth')
        else '',
        tables.depth(results),
        _chart('backlog', 'Cost of a message by depth', drawn),
    )
    yield _section(
        'As a broker of kombu and Celery',
        'Publish, consume and acknowledge 1 KB of JSON through kombu, sent to a consumer; the same program over each transport. Ours in '
        '*lazy* meets those that write lazily, ours in *full* those that sync before they answer.\n',
        tables.transports(results),
        tables.celery(results),
    )
    yield _section(
        'System calls',
        'For one message of 1 KB, by `strace -c`: a longer run less a shorter one. *Put all, take all* of 300:\n',
        tables.syscalls(results, 'fill'),
        '*Put one, take one*, which lists the directory for each message:\n',
        tables.syscalls(results, 'pingpong'),
    )
    yield _section('Wake-up', tables.wakeup(results), _chart('wakeup', 'Wake-up', drawn))
    yield _section('Footprint and start', tables.footprint(results))
    yield _section(
        'The desk on a deep spool',
        'What the web page costs. A program puts messages of 200 bytes into a third queue of that spool and takes them out, with five '
        'tabs open and with none, in turns. To the desk, a tab is a request every five seconds with the tag of the page that it has; '
        'no browser draws on this machine.\n',
        tables.desk(results),
    )
    yield _section(
        'Before and after',
        'An older checkout against this one: how many times as long it took.\n'
        if results.get('before')
        else '',
        tables.before(results),
    )
    yield _caveats()
    yield HOW


def write(results: Results, page: Path) -> None:
    """Write the page, its charts beside it, and the profiles into the page that explains them."""
    from tests.benchmarks.results import charts

    drawn = charts.draw(results, page.parent / 'benchmarks')
    page.write_text('\n'.join(part.rstrip('\n') + '\n' for part in sections(results, drawn) if part))
    explanation = page.parents[1] / 'explanation' / 'performance.md'
    if explanation.exists() and results.get('profile'):
        when = results['profile'].get('when', 'before')
        told = f'Measured {when}, with the names that functions had then.'
        _fill_in(explanation, f'{told}\n\n{tables.profiles(results)}')


def _fill_in(path: Path, text: str, mark: str = 'profiles') -> None:
    """Replace what stands between two marks."""
    begin, end = f'<!-- {mark}, written by bin/bench -->', f'<!-- end of {mark} -->'
    head, found, rest = path.read_text().partition(begin)
    _, closed, tail = rest.partition(end)
    if found and closed:
        path.write_text(f'{head}{begin}\n\n{text}\n{end}{tail}')
