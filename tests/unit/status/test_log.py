"""Log lines: written for grep, taken apart for programs, never torn by a rotation or forged by a message."""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from switchboard.events import FILEBASE_AT_WORK, log_event
from switchboard.status import log
from switchboard.status.captured_output import LoggedStreams

ENTRY = '1700000000.000000001+' + 'ab' * 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'switchboard.log'


def test_a_line_has_its_time_level_purpose_and_process_before_the_message(path: Path) -> None:
    log.configure(path)
    log.set_process_name('in 1/2')
    log_event(log.logger('queue'), logging.INFO, ENTRY, 'stored', queue='in', seconds=0.25)
    line = path.read_text()
    assert line.endswith(f'] {ENTRY} stored queue=in seconds=0.250\n')
    assert ' info queue in 1/2[' in line
    assert line[10] == 'T'


def test_a_traceback_follows_its_line_indented(path: Path) -> None:
    log.configure(path)
    try:
        raise ValueError('no\x1b[31m such thing')
    except ValueError:
        log.logger('runner').exception('%s failed', ENTRY)
    first, *rest = path.read_text().splitlines()
    assert first.endswith('failed')
    assert all(line.startswith('    ') for line in rest)
    assert rest[-1] == '    ValueError: no\\x1b[31m such thing'


@pytest.mark.parametrize(
    ('stream', 'warning', 'error'), [('its own', '<4>', '<3>'), ('of another', '', ''), ('', '', '')]
)
def test_the_journal_reads_in_each_line_how_severe_it_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stream: str, warning: str, error: str
) -> None:
    status = os.fstat(2)
    number = status.st_ino + (stream == 'of another')
    monkeypatch.setenv('JOURNAL_STREAM', f'{status.st_dev}:{number}' if stream else '')
    log.configure(waits=True)
    log.logger('queue').warning('one')
    try:
        raise ValueError('no such thing')
    except ValueError:
        log.logger('runner').exception('two')
    lines = capfd.readouterr().err.splitlines()
    assert re.match(rf'{warning}20.* warning queue ', lines[0])
    assert re.match(rf'{error}20.* error runner ', lines[1])
    assert lines[-1] == f'{error}    ValueError: no such thing'
    assert all(line.startswith(f'{error}    ') for line in lines[2:])


def test_a_file_is_told_no_priorities(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(2)
    monkeypatch.setenv('JOURNAL_STREAM', f'{status.st_dev}:{status.st_ino}')
    log.configure(path)
    log.logger('queue').warning('one')
    assert path.read_text().startswith('20')


def test_a_message_cannot_forge_a_line(path: Path) -> None:
    log.configure(path)
    log.logger('drop').info('sender=%s', 'a\n2026-01-01T00:00:00.000Z error master forged\u2028\x9b31m')
    [line] = path.read_text().splitlines()
    assert 'a\\n2026' in line
    assert '\\u2028\\x9b31m' in line


def test_json_lines_have_the_entry_the_word_and_whole_values_with_numbers_as_numbers(path: Path) -> None:
    log.configure(path, as_json=True)
    fields = {
        'queue': 'in',
        'reason': 'not "ours" \\ at=all\n',
        'count': 3,
        'took_s': 0.25,
        'is_new': True,
        'none': None,
    }
    log_event(log.logger('queue'), logging.WARNING, ENTRY, 'preserved', **fields)
    record = json.loads(path.read_text())
    assert (record['filebase'], record['event']) == (ENTRY, 'preserved')
    del fields['none']
    assert {key: record[key] for key in fields} == fields
    assert 'none' not in record
    assert (record['level'], record['logger'], record['pid']) == ('warning', 'switchboard.queue', os.getpid())


@example(fields={'a': 'x\x85y\u2028z\x9b31m\ud800'}, as_json=True)
@given(
    fields=st.dictionaries(
        st.text('abcdef_', min_size=1), st.text() | st.integers() | st.floats() | st.binary()
    ),
    as_json=st.booleans(),
)
def test_whatever_the_fields_hold_it_is_one_line_and_json(fields: dict[str, Any], *, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / 'log'
        log.configure(path, as_json=as_json)
        log_event(log.logger('queue'), logging.WARNING, ENTRY, 'preserved', **fields)
        log.configure(None, level='WARNING')
        [line] = path.read_text().splitlines()
        if as_json:
            record = json.loads(line, parse_constant=pytest.fail)
            assert record['event'] == 'preserved'


def test_a_message_of_another_kind_is_an_event_with_its_text(path: Path) -> None:
    log.configure(path, as_json=True)
    logging.getLogger('switchboard.queue').warning('%s is %d=x', 'this', 3)
    line = json.loads(path.read_text())
    assert (line['event'], line['message']) == ('logged', 'this is 3=x')


def test_json_lines_keep_a_traceback_as_a_list_and_their_own_members(path: Path) -> None:
    log.configure(path, as_json=True)
    try:
        raise KeyError('x')
    except KeyError:
        log_event(log.logger('runner'), logging.ERROR, None, 'failed', pid=77, level='low', exc_info=True)
    record = json.loads(path.read_text())
    assert record['traceback'][-1] == "KeyError: 'x'"
    assert (record['pid'] != 77, record['level']) == (True, 'error')


def test_after_a_rotation_reopen_writes_to_the_new_file(path: Path) -> None:
    log.configure(path)
    log.logger('master').info('one')
    path.rename(path.with_suffix('.1'))
    log.logger('master').info('two')
    assert log.reopen() == []
    log.logger('master').info('three')
    assert 'two' in path.with_suffix('.1').read_text()
    assert path.read_text().endswith('three\n')


def test_when_reopening_fails_the_old_file_stays_in_use_and_says_so(path: Path) -> None:
    log.configure(path)
    path.rename(path.with_suffix('.1'))
    path.mkdir()
    [error] = log.reopen()
    assert error.startswith('cannot reopen the log path=')
    log.logger('master').info('still here')
    assert path.with_suffix('.1').read_text().endswith('still here\n')


def test_without_a_file_lines_go_to_standard_error(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.configure(None)
    log.logger('master').info('hello')
    assert capfd.readouterr().err.endswith('hello\n')


def test_configuring_again_replaces_what_was_there(path: Path) -> None:
    log.configure(path)
    log.configure(path.with_suffix('.2'))
    log.logger('master').info('once')
    assert path.read_text() == ''
    assert path.with_suffix('.2').read_text().count('once') == 1


def test_a_full_disk_ends_nobody(path: Path) -> None:
    log.configure(Path('/dev/full'))
    log.logger('master').info('nobody hears this')


@pytest.mark.parametrize('as_json', [False, True])
def test_arguments_that_do_not_fit_are_a_line_and_no_reason_to_die(*, as_json: bool, path: Path) -> None:
    log.configure(path, as_json=as_json)
    log.logger('master').info('%d', 'three')
    log.logger('master').info('still here')
    content = path.read_text()
    assert 'logging error' in content
    assert 'TypeError' in content
    assert 'still here' in content.splitlines()[-1]


@contextlib.contextmanager
def printing(path: Path) -> Iterator[None]:
    streams = sys.stdout, sys.stderr
    log.configure(path, as_json=True)
    LoggedStreams().use()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def printed(path: Path) -> list[tuple[str, str | None]]:
    return [(line['text'], line.get('filebase')) for line in map(json.loads, path.read_text().splitlines())]


def test_a_line_that_was_begun_for_one_entry_is_not_ended_for_another(path: Path) -> None:
    def speak() -> None:
        FILEBASE_AT_WORK.set('one')
        print('begun', end='')
        FILEBASE_AT_WORK.set('two')
        print('whole')
        print('begun anew', end='')
        FILEBASE_AT_WORK.set(None)
        sys.stdout.close()

    with printing(path):
        contextvars.copy_context().run(speak)
    assert printed(path) == [('begun', 'one'), ('whole', 'two'), ('begun anew', 'two')]


def test_threads_that_print_at_once_do_not_mix_their_lines(path: Path) -> None:
    halfway = threading.Barrier(2)

    def speak(name: str) -> None:
        sys.stdout.write(f'{name} begins ')
        halfway.wait()
        sys.stdout.write(f'{name} ends\n')

    threads = [threading.Thread(target=speak, args=(name,)) for name in ('anna', 'bert')]
    with printing(path):
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert {text for text, _ in printed(path)} == {'anna begins anna ends', 'bert begins bert ends'}


def test_a_line_without_end_is_said_in_pieces(path: Path) -> None:
    with printing(path):
        sys.stdout.write('x' * (3 * log.MAX_CHARACTERS + 5))
    assert [len(text) for text, _ in printed(path)] == [*[log.MAX_CHARACTERS] * 3, 5]


def test_what_a_library_logs_without_end_is_cut(path: Path) -> None:
    log.configure(path)
    logging.getLogger('switchboard.queue').warning('y' * (log.MAX_CHARACTERS + 7))
    assert path.read_text().endswith('yyy... (7 characters more)\n')
