"""Keys of the metadata that mean something to the queue, or are not stored: at each door where a person writes one, it is taken or refused with a word.

A value that is thrown away, or is stored and does nothing, is found out a week later.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.drop.request import DropRequest, UsageError
from switchboard.message.metadata import FIXED_METADATA, RESERVED, UNDERSCORE_ADVICE
from tests.helpers.commands import switchboard
from tests.unit.web.desks import browser

# Of each key, a value that is none, and a part of what is said of it.
WRONG: dict[str, tuple[object, str]] = {
    'version': (4, RESERVED['version']),
    'queue_expires': (1.5, RESERVED['queue_expires']),
    '_parsemsg': (True, UNDERSCORE_ADVICE),
    '_key': (1, UNDERSCORE_ADVICE),
    '_': ('x', UNDERSCORE_ADVICE),
    'expires': ('tomorrow', 'expires'),
    'priority': ('high', 'priority'),
    'delay': ('soon', 'delay'),
    'ttl': ('long', 'ttl'),
    'not_before': ('noon', 'not_before'),
    'order_key': (7, 'order_key is a text'),
    'dedupe_key': (None, 'dedupe_key is a text'),
}
# Values that mean something.
RIGHT: dict[str, object] = {
    'expires': 4_000_000_000.5,
    'priority': 9,
    'delay': 3600,
    'ttl': 3600,
    'not_before': 4_000_000_000,
    'order_key': 'k',
    'dedupe_key': 'd',
}
# What is not a number in JSON cannot be written at the mail servers' door, where all other values are text.
ALL_TEXT = ('order_key', 'dedupe_key')


class Doors:
    """The doors at which a person writes metadata; each says what went wrong, or nothing."""

    def __init__(self, directory: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.spool = spool
        self._directory = directory
        self._monkeypatch = monkeypatch

    def _run(self, *words: str | Path, input: bytes = b'') -> str:
        ran = switchboard('-s', self.spool.directory, *words, input=input)
        assert (ran.status == 0) == (ran.err == '' or ran.out != ''), ran
        return '' if ran.status == 0 else ran.err

    def enqueue(self, key: str, value: object) -> str:
        return self._run('enqueue', 'in', '-m', f'{key}:={json.dumps(value)}', input=b'x')

    def enqueue_text(self, key: str, value: object) -> str:
        return self._run('enqueue', 'in', '-m', f'{key}={value}', input=b'x')

    def json_lines(self, key: str, value: object) -> str:
        line = json.dumps({'msg': 'x', 'metadata': {key: value}})
        return self._run('enqueue', 'in', '--json-lines', input=line.encode())

    def drop(self, key: str, value: object) -> str:
        try:
            request = DropRequest(['in', '-m', f'{key}={value}'])
        except UsageError as error:
            return str(error)
        assert (request.fields | request.times_s)[key] == value
        return ''

    def edit(self, key: str, value: object) -> str:
        filebase = self.spool['in'].enqueue('x')
        try:
            return self._run('edit', filebase, '--set', f'{key}:={json.dumps(value)}')
        finally:
            switchboard('-s', self.spool.directory, 'rm', filebase, '--yes')

    def editor(self, key: str, value: object) -> str:
        program = self._directory / 'editor'
        program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{json.dumps({key: value})}' > \"$1\"\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self._monkeypatch.setenv('VISUAL', str(program))
        filebase = self.spool['in'].enqueue('x')
        try:
            return self._run('edit', filebase)
        finally:
            switchboard('-s', self.spool.directory, 'rm', filebase, '--yes')

    def desk(self, key: str, value: object) -> str:
        directory = self._directory / f'desk of {key}'
        directory.mkdir()
        with browser(directory, allow_edit=True) as here:
            where = f'/entries/in/{here.spool["in"].enqueue("x").replace("+", "%2B")}'
            answer = here.post(f'{where}/review', {'metadata': json.dumps({key: value}), 'body': 'x'})
            return '' if answer.status_code == 200 else str(answer.text)


DOORS: tuple[Callable[[Doors, str, object], str], ...] = (
    Doors.enqueue,
    Doors.enqueue_text,
    Doors.json_lines,
    Doors.drop,
    Doors.edit,
    Doors.editor,
    Doors.desk,
)


@pytest.fixture
def doors(tmp_path: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Doors:
    return Doors(tmp_path, spool, monkeypatch)


def test_the_table_names_every_key_that_is_not_stored() -> None:
    assert (RESERVED.keys() | FIXED_METADATA.keys() | RIGHT.keys()) - WRONG.keys() == set()


@pytest.mark.parametrize('door', DOORS, ids=lambda door: door.__name__)
def test_what_would_do_nothing_is_refused_with_a_word(
    doors: Doors, door: Callable[[Doors, str, object], str]
) -> None:
    as_text = door in (Doors.enqueue_text, Doors.drop)
    for key, (value, word) in WRONG.items():
        if as_text and key in ALL_TEXT:
            continue
        told = door(doors, key, value)
        # What says who a message is, the desk never changes.
        said = (
            'cannot be changed here' if door is Doors.desk and key[:1] in '_od' and key != 'delay' else word
        )
        assert key in told, (key, told)
        assert said.replace("'", '') in told.replace("'", '').replace('&#39;', ''), (key, told)
    assert doors.spool['in'].files == []


@pytest.mark.parametrize('door', DOORS[:-1], ids=lambda door: door.__name__)
def test_what_means_something_is_taken(doors: Doors, door: Callable[[Doors, str, object], str]) -> None:
    for key, value in RIGHT.items():
        is_duration = door is Doors.enqueue_text and key in ('delay', 'ttl')
        assert door(doors, key, f'{value}s' if is_duration else value) == '', key


@pytest.mark.parametrize('door', [Doors.enqueue, Doors.json_lines], ids=lambda door: door.__name__)
def test_what_every_message_has_may_be_given_back(
    doors: Doors, door: Callable[[Doors, str, object], str]
) -> None:
    for key, value in FIXED_METADATA.items():
        assert door(doors, key, value) == ''


def test_a_priority_a_delay_and_an_end_that_are_written_as_text_count(doors: Doors) -> None:
    queue = doors.spool['in']
    doors.enqueue_text('expires', 4_000_000_000)
    doors.enqueue_text('priority', 9)
    doors.enqueue_text('delay', '1h')
    urgent, ending = queue.take(), queue.take()
    assert urgent is not None
    assert ending is not None
    assert (urgent.msgdata['priority'], ending.msgdata['expires']) == (9, 4_000_000_000.0)
    assert queue.take() is None
    assert len(queue.get_files('.pck')) == 1
