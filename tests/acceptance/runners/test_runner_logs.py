"""What a runner's own code logs and prints: in the master's log, as events with the runner and the entry.  A real master."""

from __future__ import annotations

import json
import re
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


@pytest.mark.parametrize('log_file', ['', 'log'], ids=['standard error', 'a file'])
def test_what_is_written_past_python_is_an_event_of_its_runner_too(site: Installation, log_file: str) -> None:
    named = {'log_file': str(site.home / log_file)} if log_file else {}
    site.configure({'in': {}}, log_format='json', **named)
    site.start(ready=False)
    pid = int(site.told.wait_for(r'setup in (\d+)')[1])
    # One after the other: a listing that is read while both come may have the second alone.
    enqueue(site, 'write past')
    site.told.wait_for('end in .* write past')
    enqueue(site, 'write much')
    if not log_file:
        site.log.wait_for('that is all')  # nobody else empties that pipe
    site.told.wait_for('end in .* write much')
    assert site.stop() == 0
    if log_file:
        lines = [json.loads(line) for line in (site.home / log_file).read_text().splitlines()]
    else:
        site.log.said('x')
        lines = [json.loads(line) for line in site.log.seen]
    assert not [line for line in lines if line['event'] == 'internal error']
    raw = [line for line in lines if line['event'] == 'printed']
    assert {(line['process'], line['pid'], line['logger']) for line in raw} == {
        ('in 1/1', pid, 'switchboard.runner')
    }
    assert all(line['time'] for line in raw)
    said = [(line['level'], line['stream'], line['text']) for line in raw]
    for each in (
        ('info', 'stdout', 'by a system call'),
        ('warning', 'stderr', 'by a library: 42'),
        ('info', 'stdout', 'by a program'),
        ('warning', 'stderr', 'and its trouble'),
        ('info', 'stdout', 'that is all'),
    ):
        assert said.count(each) == 1
    # What had no end of line was ended by the next program's first.
    assert said.count(('info', 'stdout', 'without an endy')) == 1
    assert said.count(('info', 'stdout', 'y')) == 29999


def test_the_last_words_of_a_crash_are_events_too(site: Installation) -> None:
    site.configure({'in': {'max_restarts': '1'}}, log_format='json')
    site.start(ready=False)
    site.log.wait_for('"event": "ready"')
    pid = site.pids()['in 1/1']
    enqueue(site, 'crash')
    site.log.wait_for('"event": "ended"')
    said = [line['text'] for line in lines_of(site) if line['event'] == 'printed' and line['pid'] == pid]
    assert said[0] == 'Fatal Python error: Segmentation fault'
    assert any(re.search('File ".*jobs.py", line [0-9]+ in dispose', text) for text in said)
    site.stop()


@pytest.mark.parametrize('log_format', ['text', 'json'])
def test_a_log_that_nobody_reads_stops_no_supervision(site: Installation, log_format: str) -> None:
    site.configure({'in': {}}, log_format=log_format)
    site.start(ready=False)
    first = int(site.told.wait_for(r'setup in (\d+)')[1])
    # Lines of a megabyte and more in all, into a pipe of 64 KiB that is not emptied.
    enqueue(site, *['write much'] * 3)
    for _ in range(3):
        site.told.wait_for('end in .* write much')
    assert site.ask('restart', runner='in')['ok']
    second = int(site.told.wait_for(r'setup in (\d+)')[1])
    assert second != first
    enqueue(site, 'crash')
    site.told.wait_for(rf'setup in (?!{second})(\d+)')
    enqueue(site, 'log', 'write')
    site.told.wait_for('end in .* write')
    assert site.stop() == 0
