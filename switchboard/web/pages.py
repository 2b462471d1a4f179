"""The pages: each is a function that returns what it shows as an object for programs, and changes nothing.

None walks over a queue without a budget; a page says which part was not looked at.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from switchboard.errors import ConfigError
from switchboard.operating.audit import recent_acts
from switchboard.operating.health import (
    Alarm,
    Problem,
    flag_alarms,
    master_alarm,
    mistakes_alarm,
    reload_alarm,
    runner_alarms,
    runners_without_process,
    untaken,
    waits,
)
from switchboard.operating.queue_counts import AGE_MINUTES, QueueCounts
from switchboard.operating.queue_info import UNKNOWN, count_fields, queue_info
from switchboard.operating.selection import Pattern, Selection, Term
from switchboard.operating.spool_view import read_flags
from switchboard.operating.text import intcomma, number, one_line, quoted
from switchboard.routing.topology import Graph
from switchboard.status.snapshot import Snapshot, master_fields, runner_fields
from switchboard.store.layout import ACTS, BAD, RUN, TRASH
from switchboard.web.desk import Desk
from switchboard.web.forms import Form
from switchboard.web.message_body import redacted
from switchboard.web.render import MAX_EDGES, can_draw
from switchboard.web.spool_counts import OTHERS, LatestFailure, Rates, SpoolCounts

MAX_ACTS = 500
TOP_ERRORS = 5
COUNTED = ('done', 'failed', 'retried', 'kept', 'restarts')


def alarms(desk: Desk, snapshot: Snapshot) -> list[dict[str, str]]:
    """:return: the alarms that somebody should look at now, the worst first."""
    found = [*_alarms_of_master(desk, snapshot), *_alarms_of_queues(desk)]
    shown = [_alarm(desk, alarm, link) for alarm, link in found if alarm.level]
    return sorted(shown, key=lambda one: one['level'] != 'bad')


def _alarms_of_master(desk: Desk, snapshot: Snapshot) -> Iterator[tuple[Alarm, str]]:
    now_s, config = time.time(), desk.config
    yield master_alarm(snapshot, now_s), '/runners'
    counted = desk.counter.last
    if not snapshot.alive and counted.elsewhere is not None:
        yield counted.elsewhere, '/runners'
    if desk.config_path is not None and desk.config_errors:
        yield mistakes_alarm(desk.config_path, desk.config_errors), '/configuration'
    if (reload := reload_alarm(snapshot, now_s)) is not None:
        yield reload, '/configuration'
    waiting = {name: counts.waiting for name, counts in counted.queues.items()}
    missing = runners_without_process(snapshot, config)
    lasting = {name: advice for name, advice in missing.items() if name in counted.without_process}
    for alarm in runner_alarms(snapshot, lasting, now_s, untaken(snapshot, config, waiting)):
        yield alarm, '/runners'


def _alarms_of_queues(desk: Desk) -> Iterator[tuple[Alarm, str]]:
    spool_counts = desk.counter.last
    bad = spool_counts.bad
    if bad.total:
        rows = bad.by.get('error', [])
        new = sum(row.counts[0] for row in rows)
        fresh = f', {intcomma(new)} of them in the last five minutes' if new else ''
        latest = bad.latest.get(rows[0].name, LatestFailure()) if rows else LatestFailure()
        mostly = f': {"mostly " if len(rows) > 1 else ""}{rows[0].name}' if rows else ''
        where = f' in {latest.origin}' if latest.origin else ''
        says = f', {one_line(latest.message[:160])}' if latest.message else ''
        text = f'{number(bad.total, "bad entry", "bad entries")}{fresh}{mostly}{where}{says}'
        yield Alarm('bad' if new else 'warn', '', text), '/groups'
    for name, counts in spool_counts.queues.items():
        for alarm in _alarms_of_queue(desk, name, counts):
            yield alarm._replace(text=alarm.text + waits(counts.waiting)), f'/queues/{name}'


def _alarms_of_queue(desk: Desk, name: str, counts: QueueCounts | None) -> list[Alarm]:
    trouble = [Alarm('bad', name, counts.trouble)] if counts is not None and counts.trouble else []
    return trouble + flag_alarms(name, read_flags(desk.directory, name))


def _alarm(desk: Desk, alarm: Alarm, link: str) -> dict[str, str]:
    return {'level': alarm.level, 'text': desk.with_installation(str(alarm)), 'link': link}


def overview(desk: Desk, form: Form) -> dict[str, Any]:
    """All queues, all runners, and the alarms."""
    snapshot = desk.snapshot()
    spool_counts = desk.counter.last
    return {
        'counted_at_ns': _counted(spool_counts),
        'alarms': alarms(desk, snapshot),
        'master': master_fields(snapshot),
        'queues': _queues(desk, spool_counts),
        'runners': _runners(snapshot),
        'errors': _top_errors(spool_counts),
        'bad': spool_counts.bad.total,
        'looked_at': spool_counts.bad.looked_at,
        'command': desk.command('top'),
    }


def _counted(spool_counts: SpoolCounts) -> str | None:
    return str(spool_counts.at_ns) if spool_counts.at_ns else None


def _queues(desk: Desk, spool_counts: SpoolCounts) -> list[dict[str, Any]]:
    now_s = time.time()
    names = desk.view.queue_names()
    return [_queue_row(spool_counts, name, read_flags(desk.directory, name), now_s) for name in names]


def _queue_row(spool_counts: SpoolCounts, name: str, flags: dict[str, Any], now_s: float) -> dict[str, Any]:
    counts = spool_counts.queues.get(name)
    is_known = spool_counts.bad.total is not None and name not in (BAD, TRASH)
    in_bad = spool_counts.bad.origins.get(name, 0) if is_known else None
    fields = count_fields(counts or QueueCounts(name), flags, now_s, in_bad)
    done = spool_counts.throughput.get(name)
    rates = spool_counts.rates.get(name, Rates())
    return fields | {
        'counted': counts is not None,
        'trouble': (counts.trouble if counts is not None else '') or None,
        'oldest_at_ns': str(counts.oldest_ns) if counts is not None and counts.oldest_ns else None,
        'flag_details': flags,
        'done': done.done if done else None,
        'failed': done.failed if done else None,
        'slices': done.slices if done else 0,
        'rate_in': _rounded(rates.entered),
        'rate_done': _rounded(rates.done),
        'rate_failed': _rounded(rates.failed),
    }


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1) if rate < 10 else float(round(rate))


def _runners(snapshot: Snapshot) -> list[dict[str, Any]]:
    """:return: each runner, with its slices."""
    found: dict[str, dict[str, Any]] = {}
    for record in snapshot.records:
        fresh = {'runner': record.runner, 'slices': [], **dict.fromkeys(COUNTED, 0)}
        one = found.setdefault(record.runner, fresh)
        one['slices'].append(runner_fields(record))
        for key in COUNTED:
            one[key] += getattr(record, key)
    return list(found.values())


def _top_errors(spool_counts: SpoolCounts) -> list[dict[str, Any]]:
    return [
        {
            'error': row.name,
            'entries': row.total,
            'fresh': row.counts[0],
            'message': spool_counts.bad.latest.get(row.name, LatestFailure()).message or None,
            'origin': spool_counts.bad.latest.get(row.name, LatestFailure()).origin or None,
            'last_age_s': _last_age_s(spool_counts, row.name),
            'selection': _group_selection('error', row.name),
        }
        for row in spool_counts.bad.by.get('error', [])[:TOP_ERRORS]
    ]


def _last_age_s(spool_counts: SpoolCounts, error: str) -> float | None:
    latest = spool_counts.bad.latest.get(error)
    return None if latest is None else round(latest.age_s + (time.time_ns() - spool_counts.at_ns) / 1e9, 3)


def queue(desk: Desk, form: Form, name: str) -> dict[str, Any]:
    """One queue: how much is in it, its flags, its options and who set them."""
    view = desk.view
    view.check_queues([name])
    spool_counts = desk.counter.last
    found = queue_info(view, name)
    runners = desk.config.runners if desk.config is not None else {}
    consumers = {runner for runner, options in runners.items() if options.queue == name}
    return {
        'counted_at_ns': _counted(spool_counts),
        **_queue_row(spool_counts, name, found.flags, time.time()),
        **json.loads(
            json.dumps(found.all_fields(spool_counts.queues.get(name, QueueCounts(name))), default=str)
        ),
        'alarms': [one._asdict() for one in _alarms_of_queue(desk, name, spool_counts.queues.get(name))],
        'set_options': found.changed_options,
        'where': list(found.declared_where()),
        'runners': [one for one in _runners(desk.snapshot()) if one['runner'] in consumers],
        'files': str(desk.directory / name),
        'command': desk.command('show', name),
    }


AGES = tuple((low, high) for low, high in zip((0, *AGE_MINUTES), (*AGE_MINUTES, 0), strict=True))


def groups(desk: Desk, form: Form) -> dict[str, Any]:
    """The bad queue: errors by age; each cell leads to its entries."""
    by = form.choice('by', ('error', 'frame'), 'error')
    spool_counts = desk.counter.last
    bad = spool_counts.bad
    rows = []
    for row in bad.by.get(by, []):
        selection = _group_selection(by, row.name)
        cells = [
            {'entries': count, 'selection': _aged(selection, *age) if selection is not None else None}
            for count, age in zip(row.counts, AGES, strict=True)
        ]
        rows.append(
            {
                **row.fields(by),
                'group': row.name,
                'new': row.name in bad.new[by],
                'selection': selection,
                'cells': cells,
            }
        )
    return {
        'by': by,
        'counted_at_ns': _counted(spool_counts),
        'total': bad.total,
        'looked_at': bad.looked_at,
        'trouble': (spool_counts.queues[BAD].trouble if BAD in spool_counts.queues else '') or None,
        'ages': [_until(high) for _, high in AGES[:-1]] + ['older'],
        'groups': rows,
        'command': desk.command('shape', BAD, '--by', by),
    }


def _group_selection(by: str, name: str) -> str | None:
    if name == OTHERS:
        return None
    value = '' if name == '(none)' else name
    return str(Selection((Term('queue', (Pattern.exactly(BAD),)), Term(by, (Pattern.exactly(value),)))))


def _until(minutes: int) -> str:
    """:return: the upper end of a column of ages, as people say it."""
    hours, rest = divmod(minutes, 60)
    return f'<{hours}h{rest:02}' if hours else f'<{rest}m'


def _aged(selection: str, low: int, high: int) -> str:
    return selection + (f' older:{low}m' if low else '') + (f' younger:{high}m' if high else '')


def runners(desk: Desk, form: Form) -> dict[str, Any]:
    """Each runner and its slices: what it works on, what it has done, its last error."""
    snapshot = desk.snapshot()
    config = desk.config
    rows = _runners(snapshot)
    shown = {one['runner'] for one in rows}
    for one in rows:
        options = config.runners.get(one['runner']) if config is not None else None
        one['queue'] = options.queue if options is not None else None
        one['class'] = options.class_path if options is not None else None
    missing = [name for name in config.runners if name not in shown] if config is not None else []
    return {
        'alarms': alarms(desk, snapshot),
        'master': master_fields(snapshot),
        'runners': rows,
        'not_running': missing,
        'command': desk.command('status'),
    }


def topology(desk: Desk, form: Form) -> dict[str, Any]:
    """The ways of messages: exchanges, queues, runners, with how much waits in each queue."""
    spool_counts = desk.counter.last
    graph = desk.config.graph() if desk.config is not None else Graph()
    routes = [edge.fields() for edge in graph.edges]
    return {
        'nodes': [node.fields() for node in graph.nodes],
        'routes': routes,
        'waiting': {
            node.name: _depth(spool_counts, node.name) for node in graph.nodes if node.kind == 'queue'
        },
        'has_configuration': desk.config is not None,
        'is_drawn': 0 < len(routes) <= MAX_EDGES and can_draw(),
        'counted_at_ns': _counted(spool_counts),
        'command': desk.command('graph'),
    }


def _depth(spool_counts: SpoolCounts, name: str) -> int | None:
    counts = spool_counts.queues.get(name)
    return None if counts is None or counts.waiting == UNKNOWN else counts.waiting + counts.preserved


def configuration(desk: Desk, form: Form) -> dict[str, Any]:
    """The configuration in force, and the mistakes in the files."""
    config = desk.view.config
    snapshot = desk.snapshot()
    found: list[Problem] = [('error', one) for one in desk.config_errors]
    found += [('warning', one) for one in config.warnings] if config is not None else []
    found += desk.counter.last.problems
    return {
        'counted_at_ns': _counted(desk.counter.last),
        'file': str(desk.config_path) if desk.config_path is not None else None,
        'spool': str(desk.directory),
        'errors': [_mistake(desk, level, one) for level, one in found if level == 'error'],
        'warnings': [_mistake(desk, level, one) for level, one in found if level == 'warning'],
        'reload_error': snapshot.master.reload_error or None,
        'digest': config.digest if config is not None else None,
        'runners': [
            {
                'runner': name,
                'class': one.class_path,
                'queue': one.queue or None,
                'instances': one.instances,
                'settings': redacted(dict(one.settings), desk.settings.redact),
            }
            for name, one in (config.runners.items() if config is not None else ())
        ],
        'queues': [
            found.fields() | {'set_options': found.changed_options}
            for found in (queue_info(desk.view, name) for name in desk.view.queue_names())
        ],
        'desk': {
            'listen': desk.settings.listen,
            'hosts': sorted(desk.settings.answered_hosts()),
            'read_only': desk.settings.read_only,
            'users_are_known_by': 'password'
            if desk.settings.users
            else desk.settings.user_header or ('the socket' if desk.settings.is_unix else 'nothing'),
            'redacted': list(desk.settings.redact),
        },
        'command': desk.command('check'),
    }


def _mistake(desk: Desk, level: str, error: ConfigError) -> dict[str, Any]:
    return {'level': level, **error.fields(), 'text': desk.with_installation(str(error))}


def acts(desk: Desk, form: Form) -> dict[str, Any]:
    """The last acts of operators, by command line and desk alike."""
    limit = form.number('limit', 100, 1, MAX_ACTS)
    return {
        'acts': recent_acts(desk.directory, limit),
        'limit': limit,
        'command': f'tail {quoted(desk.directory / RUN / ACTS)}',
    }
