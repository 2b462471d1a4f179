"""Changing a message on the desk: what can be changed, what never, what is shown before, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from switchboard.operating.audit import recent_acts
from tests.helpers.commands import at_work, fail, succeed
from tests.unit.web.desks import Browser, browser


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path, allow_edit=True) as made:
        yield made


def place(queue: str, filebase: str) -> str:
    return f'/entries/{queue}/{filebase.replace("+", "%2B")}'


def stored(here: Browser, where: str, **fields: Any) -> Any:
    """Send what the form would, after a look at it."""
    seen = here.json(f'{where}/edit')['seen']
    return here.post(f'{where}/store', {'seen': seen, 'reason': 'a slip', **fields})


def test_one_is_changed_and_sent_back_and_its_history_has_both(here: Browser) -> None:
    filebase = fail(here.spool, 'out', 'to: anne@wrong\nhello\n', colour='red', n=1)
    where = place('bad', filebase)
    form = here.json(f'{where}/edit')
    assert json.loads(form['metadata']) == {'colour': 'red', 'n': 1}
    assert form['body'] == 'to: anne@wrong\nhello\n'
    fields = {'metadata': '{"colour": "blue",\r\n "n": 1}', 'body': 'to: anne@right\r\nhello\r\n'}
    page = here.post(f'{where}/review', fields)
    for line in ('-colour: "red"', '+colour: "blue"', '-to: anne@wrong', '+to: anne@right', ' hello'):
        assert line in unescape(page.text), page.text
    assert '\\x0d' not in page.text
    assert '1 done' in stored(here, where, **fields).text
    (name,) = here.spool['out'].files
    assert here.spool['out'].get_files('.pck') == [name]
    shown = here.json(place('out', name))
    edited = next(one for one in shown['history'] if one['event'] == 'edited')
    assert edited['difference'] == [
        '-colour: "red"',
        '+colour: "blue"',
        '-to: anne@wrong',
        '+to: anne@right',
        ' hello',
    ]
    assert (edited['by'], edited['via'], edited['reason']) == ('desk', 'desk', 'a slip')
    assert recent_acts(here.desk.directory)[0]['act'] == 'edit'
    assert 'anne@wrong' in here.get(place('out', name)).text
    told = succeed('-C', here.config, 'show', name).out
    assert '-to: anne@wrong' in told
    msg, msgdata = here.spool['out'].dequeue(name)
    assert (msg, msgdata['colour']) == ('to: anne@right\nhello\n', 'blue')


def test_an_edit_is_undone_byte_for_byte_and_the_undoing_too(here: Browser) -> None:
    content = b'Subject: x\r\nFrom: a@example.com\r\n\r\nbody\r\n'
    filebase = here.spool['in'].enqueue(content, colour='red')
    where = place('in', filebase)
    text = here.json(f'{where}/edit')['body']
    stored(here, where, metadata='{}', body=text.replace('body', 'other'))
    (name,) = here.spool['in'].files
    where = place('in', name)
    assert here.get(f'{where}/download').content == content.replace(b'body', b'other')
    page = here.post(f'{where}/review', {'undo': 'yes'})
    assert '+colour: "red"' in unescape(page.text)
    stored(here, where, undo='yes')
    (name,) = here.spool['in'].files
    assert here.get(f'{place("in", name)}/download').content == content
    assert here.json(place('in', name))['metadata']['colour'] == 'red'
    assert here.json(place('in', name))['history'][-1]['undoes'] is True
    succeed('-C', here.config, 'edit', name, '--undo')
    (name,) = here.spool['in'].files
    assert here.get(f'{place("in", name)}/download').content == content.replace(b'body', b'other')
    assert [one['act'] for one in recent_acts(here.desk.directory)] == ['edit', 'undo', 'edit']


LOCKED = {
    'traceparent': 'x',
    'dedupe_key': 'k',
    'routing_key': 'a.b',
    'API_token': 'hush',
    '_x': 1,
    'deep': {'password': 'hush'},
}


@pytest.mark.parametrize('key', LOCKED)
def test_what_is_locked_is_refused_when_it_is_posted_by_hand(here: Browser, key: str) -> None:
    filebase = here.spool['in'].enqueue('x', {'traceparent': 'a', 'plain': 1, 'API_token': 'kept'})
    where = place('in', filebase)
    assert 'kept' not in here.get(f'{where}/edit').text
    answer = stored(here, where, metadata=json.dumps({'plain': 2, key: LOCKED[key]}), body='y')
    assert answer.status_code == 400
    assert here.spool['in'].files == [filebase]
    # And what is locked stays without being sent.
    assert stored(here, where, metadata='{"plain": 2}', body='y').status_code == 200
    msg, msgdata = here.spool['in'].dequeue(here.spool['in'].files[0])
    assert (msg, msgdata['traceparent'], msgdata['API_token'], msgdata['plain']) == ('y', 'a', 'kept', 2)


def test_fields_that_there_are_not_change_nothing(here: Browser) -> None:
    filebase = here.spool['in'].enqueue('x')
    stored(
        here,
        place('in', filebase),
        metadata='{}',
        body='y',
        filebase='z',
        origin='q',
        history='[]',
        kind='pickle',
    )
    (name,) = here.spool['in'].files
    found = here.json(place('in', name))
    assert name.partition('+')[0] == filebase.partition('+')[0]
    assert (found['kind'], found['origin']) == ('text', None)
    assert [one['event'] for one in found['history']] == ['edited']


def test_what_was_changed_or_taken_meanwhile_is_not_changed_again(here: Browser) -> None:
    filebase = here.spool['in'].enqueue('x')
    where = place('in', filebase)
    seen = here.json(f'{where}/edit')['seen']
    succeed('-C', here.config, 'edit', filebase, '--set', 'a=b')
    (name,) = here.spool['in'].files
    answer = here.post(f'{place("in", name)}/store', {'seen': seen, 'metadata': '{}', 'body': 'z'})
    assert answer.status_code == 409
    assert 'changed meanwhile' in answer.text
    assert here.post(f'{place("in", name)}/store', {'metadata': '{}', 'body': 'z'}).status_code == 400
    with at_work(here.spool, 'in', 'busy') as busy:
        assert 'cannot be changed here' in here.get(f'{place("in", busy)}/edit').text
        assert here.post(f'{place("in", busy)}/store', {'seen': 'x', 'body': 'z'}).status_code == 409


@pytest.mark.parametrize('body', [b'\xff\x00', 'a\u202eb', 'esc \x1b[31m', b'a\r\nb\nc', b'nul \0'], ids=repr)
def test_a_body_that_would_not_come_back_as_it_went_is_left_alone(here: Browser, body: Any) -> None:
    filebase = here.spool['in'].enqueue(body)
    where = place('in', filebase)
    assert here.json(f'{where}/edit')['body'] is None
    assert stored(here, where, metadata='{}', body='z').status_code == 400
    assert stored(here, where, metadata='{"a": 1}').status_code == 200
    assert here.spool['in'].dequeue(here.spool['in'].files[0])[0] == body


def test_what_no_runner_could_read_is_refused(here: Browser) -> None:
    filebase = here.spool['in'].enqueue({'a': 1})
    where = place('in', filebase)
    assert stored(here, where, metadata='{}', body='{"a":').status_code in (400, 409)
    assert stored(here, where, metadata='[1]').status_code == 400
    assert stored(here, where, metadata='{').status_code == 400
    assert stored(here, where, metadata='{}', body='{"a": 2}', to='nowhere').status_code == 404
    assert here.spool['in'].files == [filebase]


def test_a_desk_changes_nothing_unless_it_is_told_that_it_may(tmp_path: Path) -> None:
    with browser(tmp_path) as here:
        filebase = here.spool['in'].enqueue('x')
        where = place('in', filebase)
        assert 'Edit' not in here.get(where).text
        for path in (f'{where}/edit', f'/api{where}/edit'):
            assert here.get(path).status_code == 404
        for beginning in ('', '/api'):
            for verb in ('review', 'store'):
                assert here.post(f'{beginning}{where}/{verb}', {'body': 'y'}).status_code == 404
