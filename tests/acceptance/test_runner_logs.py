"""What a runner's own code logs and prints: in the master's log, as events with the runner and the entry.  A real master."""

from __future__ import annotations

import json
from typing import Any

import pytest

from switchboard import Spool
from switchboard.status.log import MAX_CHARACTERS
from tests.acceptance.installation import Installation


def enqueue(site: Installation, *messages: str) -> list[str]:
    spool = Spool.from_config(site.config)
    return [spool['in'].enqueue(message) for message in messages]


def lines_of(site: Installation) -> list[dict[str, Any]]:
    """:return: the log's lines of runners, each of which is JSON as every reader understands it."""
    lines = [json.loads(line, parse_constant=pytest.fail) for line in site.log.seen]
    return [line for line in lines if line['process'] == 'in 1/1']


def test_what_is_logged_has_its_runner_and_its_entry(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    [entry] = enqueue(site, 'log')
    entry = entry.replace('+', '[+]')
    site.log.wait_for(rf' info mine in 1/1\[\d+\] {entry} logged by a runner$')
    site.log.wait_for(rf' info root in 1/1\[\d+\] {entry} logged by the root$')
    fields = 'seconds=0.250 endless=inf times=3'
    site.log.wait_for(rf' warning runner in 1/1\[\d+\] {entry} logged by itself {fields}$')
    assert site.stop() == 0


def test_what_is_printed_is_an_event_with_its_runner_and_its_entry(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    [entry] = enqueue(site, 'write')
    entry = entry.replace('+', '[+]')
    for level, stream, text in (
        ('info', 'stdout', '"in pieces"'),
        ('info', 'stdout', r'"bytes \\\\xff"'),
        ('warning', 'stderr', '"to standard error"'),
        ('warning', 'stderr', 'x' * 4000),
    ):
        pattern = rf' {level} runner in 1/1\[\d+\] {entry} printed stream={stream} text={text}'
        site.log.wait_for(pattern)
    assert site.stop() == 0
    # Said at the end of the process, and still of its entry.
    assert site.log.said(f'{entry} printed stream=stdout text="without an end"')
    assert max(map(len, site.log.seen)) < MAX_CHARACTERS + 500


def test_as_json_all_is_json_and_numbers_are_numbers(site: Installation) -> None:
    site.configure({'in': {}}, log_format='json')
    site.start(ready=False)
    site.log.wait_for('"event": "ready"')
    pid = site.pids()['in 1/1']
    written, logged = enqueue(site, 'write', 'log')
    site.log.wait_for('logged by itself')
    assert site.stop() == 0
    site.log.said('x')
    lines = lines_of(site)
    assert {line['pid'] for line in lines} == {pid}
    printed = [line['text'] for line in lines if line['event'] == 'printed' and line['filebase'] == written]
    assert printed[:3] == ['in pieces', 'bytes \\xff', 'to standard error']
    assert ''.join(printed[3:]).count('x') == 20000
    own = next(line for line in lines if line.get('message') == 'logged by itself')
    assert (own['event'], own['filebase'], own['level']) == ('logged', logged, 'warning')
    assert (own['seconds'], own['times'], own['endless']) == (0.25, 3, 'inf')
    assert own['logger'] == 'switchboard.runner.in'


def test_of_messages_at_work_at_once_each_line_has_its_own_entry(site: Installation) -> None:
    site.configure({'in': {'class': 'jobs:Together'}}, log_format='json')
    site.start(ready=False)
    site.log.wait_for('"event": "ready"')
    anna, bert = enqueue(site, 'anna', 'bert')
    for _ in range(2):
        site.log.wait_for('printed in a thread')
    assert site.stop() == 0
    said = {
        (line.get('text', line.get('message')), line['filebase'])
        for line in lines_of(site)
        if 'filebase' in line
    }
    assert said == {
        (f'{what} of {name}', entry)
        for what in ('printed', 'logged', 'printed in a thread')
        for name, entry in (('anna', anna), ('bert', bert))
    }
