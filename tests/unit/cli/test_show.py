"""``show``: all that is known of an entry, and nothing of it that could act on a terminal."""

from __future__ import annotations

import base64
import os
from email.message import EmailMessage
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.exits import Exit
from switchboard.message.mail import mail_from_bytes
from tests.helpers.commands import fail, succeed, switchboard

NASTY = b'\x1b]0;owned\x07\x1b[2J\xc2\x9b31m\r over \xe2\x80\xae\xff\x00'


def test_an_entry_is_found_by_the_beginning_of_its_name_or_digest_in_any_queue(spool: Spool) -> None:
    filebase = spool['in'].enqueue('the one')
    spool['out'].enqueue('another', not_before=2_000_000_000)
    digest = filebase.partition('+')[2]
    beginnings = [filebase, filebase[:15], digest[:12], f'in/{filebase[:12]}', f'{filebase}.pck']
    for beginning in [*beginnings, spool.path('in', filebase + '.pck')]:
        assert succeed('-s', spool.directory, 'show', beginning).lines[0] == f'in/{filebase}'


def test_a_beginning_of_several_names_them(spool: Spool) -> None:
    one, two = (
        spool['in'].enqueue('x', not_before=2_000_000_000),
        spool['out'].enqueue('y', not_before=2_000_000_000),
    )
    ran = switchboard('-s', spool.directory, 'show', '2000')
    assert ran.status == Exit.NO_INPUT
    assert f'in/{one}' in ran.err
    assert f'out/{two}' in ran.err
    assert succeed('-s', spool.directory, 'show', 'out/2000').lines[0] == f'out/{two}'


def test_an_entry_that_is_not_there_is_no_input(spool: Spool) -> None:
    spool['in'].enqueue('x')
    for beginning in ('999', 'elsewhere/1', '1795317402.674871037+' + 'a' * 40, 'in/'):
        assert switchboard('-s', spool.directory, 'show', beginning).status == Exit.NO_INPUT


def test_the_history_is_shown_with_its_tracebacks(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x', 'TimeoutError', 'no answer')
    out = succeed('-s', spool.directory, 'show', filebase).out
    assert 'came from in' in out
    assert 'TimeoutError: no answer' in out
    assert '      |   File "jobs.py", line 3, in dispose\n' in out
    assert 'cause=rejected' in out
    assert out.count('TimeoutError: no answer') == 2, (
        'once said and once in the traceback, not a third time as a reason'
    )


@pytest.mark.parametrize('kind', ['bytes', 'mail', 'text', 'json'])
def test_nothing_of_a_message_acts_on_the_terminal(spool: Spool, kind: str) -> None:
    text = NASTY.decode('utf-8', 'replace')
    msg = {
        'bytes': NASTY,
        'mail': mail_from_bytes(b'Subject: ' + NASTY + b'\n\n' + NASTY),
        'text': text,
        'json': {text: text},
    }
    filebase = spool['in'].enqueue(msg[kind], {text: text})
    spool['in'].dequeue(filebase)
    record = {'event': text, text: text, 'error': text, 'message': text, 'traceback': text}
    spool['in'].annotate(filebase, record)
    spool['in'].finish(filebase, preserve=True, reason=text)
    for words in (
        ['show', filebase],
        ['show', filebase, '--headers'],
        ['ls'],
        ['ls', '--json'],
        ['show', filebase, '--json'],
    ):
        ran = succeed('-s', spool.directory, *words)
        assert not set(ran.out) & set('\x1b\x07\x00\r\x9b\u202e\x7f'), words
        assert ran.out


def test_raw_writes_the_bytes_of_the_body_and_nothing_else(spool: Spool) -> None:
    filebase = spool['in'].enqueue(NASTY)
    assert succeed('-s', spool.directory, 'show', '--raw', filebase).raw == NASTY


def test_the_header_of_a_mail_is_enough_for_some(spool: Spool) -> None:
    mail = EmailMessage()
    mail['Subject'] = 'hello'
    mail.set_content('the content')
    filebase = spool['in'].enqueue(mail)
    whole, headers = (
        succeed('-s', spool.directory, 'show', filebase, *more).out for more in ([], ['--headers'])
    )
    assert 'Subject: hello' in headers
    assert 'the content' not in headers
    assert 'the content' in whole


def test_metadata_are_those_a_runner_gets(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x', rcpt=['a@example.org'], tries=1)
    spool['in'].dequeue(filebase)
    spool['in'].release(filebase, record={'event': 'kept', 'set': {'tries': 2}, 'drop': ['rcpt']})
    ran = succeed('-s', spool.directory, 'show', filebase, '--json')
    assert {key: ran.objects[0]['metadata'].get(key) for key in ('tries', 'rcpt')} == {
        'tries': 2,
        'rcpt': None,
    }
    assert '  tries  2' in succeed('-s', spool.directory, 'show', filebase).lines


def test_a_long_body_is_cut_unless_all_of_it_is_wanted(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x' * 20_000)
    out = succeed('-s', spool.directory, 'show', filebase).out
    assert '... 3616 bytes more' in out
    assert 'x' * 20_000 in succeed('-s', spool.directory, 'show', '--full', filebase).out


def test_json_holds_text_as_text_and_other_bytes_as_base64(spool: Spool) -> None:
    text, data = spool['in'].enqueue('hallo ü'), spool['in'].enqueue(b'\xff\x00')
    assert succeed('-s', spool.directory, 'show', text, '--json').objects[0]['body'] == 'hallo ü'
    fields = succeed('-s', spool.directory, 'show', data, '--json').objects[0]
    assert base64.b64decode(fields['body_base64']) == b'\xff\x00'


def test_a_torn_entry_is_shown_as_far_as_it_can_be_read(spool: Spool) -> None:
    filebase = spool['in'].enqueue('content ' * 20)
    path = Path(spool.path('in', filebase + '.pck'))
    content = bytearray(path.read_bytes())
    content[-5:] = b'\x00\x1b\x00\x00\x00'
    path.write_bytes(content)
    ran = succeed('-s', spool.directory, 'show', filebase)
    assert 'damage    torn: the checksum does not match' in ran.out
    assert 'content content' in ran.out


def test_a_pickle_is_shown_and_never_loaded(spool: Spool, tmp_path: Path) -> None:
    filebase = spool['in'].enqueue('x')
    victim = tmp_path / 'loaded'
    pickle = b'\x80\x04cposix\nsystem\n(Vtouch ' + os.fsencode(victim) + b'\ntR.'
    Path(spool.path('in', filebase + '.pck')).write_bytes(pickle + pickle)
    for words in (['ls', 'in'], ['show', filebase], ['show', filebase, '--json'], ['shape', '--by', 'kind']):
        succeed('-s', spool.directory, *words)
    assert 'kind      mailman' in succeed('-s', spool.directory, 'show', filebase).out
    assert not victim.exists()
