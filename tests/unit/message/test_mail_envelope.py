"""What is kept of an envelope, from each mail server's way of telling it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.message.delivery_headers import read_delivery_headers
from switchboard.message.mail_envelope import (
    MAX_FROM_LINE_BYTES,
    dump_ascii_json,
    quote_json,
    read_envelope,
    split_from_line,
)


def told(from_line: bytes = b'', **environment: bytes) -> dict[str, object]:
    return read_envelope({key.encode(): value for key, value in environment.items()}, from_line)


def test_a_postfix_alias_tells_by_environment() -> None:
    metadata = told(
        SENDER=b'anna@example.org',
        RECIPIENT=b'list+urgent@example.com',
        ORIGINAL_RECIPIENT=b'list-alias@example.com',
        EXTENSION=b'urgent',
        CLIENT_ADDRESS=b'192.0.2.1',
        SASL_USERNAME=b'',
        LOCAL=b'list+urgent',
        DOMAIN=b'example.com',
        USER=b'nobody',
    )
    assert metadata == {
        'sender': 'anna@example.org',
        'recipients': ['list+urgent@example.com'],
        'original_recipient': 'list-alias@example.com',
        'extension': 'urgent',
        'client_address': '192.0.2.1',
    }


def test_exim_tells_the_two_halves_of_an_address() -> None:
    metadata = told(SENDER=b'anna@example.org', LOCAL_PART=b'list', DOMAIN=b'example.com')
    assert metadata == {'sender': 'anna@example.org', 'recipients': ['list@example.com']}


def test_qmail_tells_by_names_of_its_own() -> None:
    metadata = told(
        SENDER=b'', RECIPIENT=b'list-x@example.com', LOCAL=b'list-x', HOST=b'example.com', EXT=b'x'
    )
    assert metadata == {'sender': '', 'recipients': ['list-x@example.com'], 'extension': 'x'}


def test_qmail_without_a_recipient_is_joined_from_local_and_host() -> None:
    assert told(LOCAL=b'a', HOST=b'b.example') == {'recipients': ['a@b.example']}


def test_the_name_of_the_machine_alone_is_no_recipient() -> None:
    assert told(HOST=b'mx1', DOMAIN=b'example.com', LOCAL=b'') == {}


def test_the_null_sender_of_a_bounce_is_not_the_same_as_no_sender() -> None:
    assert told(SENDER=b'') == {'sender': ''}
    assert told() == {}


@pytest.mark.parametrize('name', ['MAILER-DAEMON', 'mailer-daemon', '<MAILER-DAEMON>', '<>', ''])
def test_a_mail_server_may_give_the_empty_sender_a_name(name: str) -> None:
    assert read_envelope({}, sender=name) == {'sender': ''}
    assert told(SENDER=name.encode()) == {'sender': ''}
    assert read_delivery_headers(f'Return-Path: {name}\n\n'.encode()) == {'sender': ''}
    assert told(SENDER=b'MAILER-DAEMON@example.com') == {'sender': 'MAILER-DAEMON@example.com'}


def test_arguments_win_over_the_environment() -> None:
    environment = {b'SENDER': b'no', b'RECIPIENT': b'no'}
    assert read_envelope(environment, b'', '<a@x>', ['<b@x>', 'c@x'], {'list': 'l'}) == {
        'sender': 'a@x',
        'recipients': ['b@x', 'c@x'],
        'list': 'l',
    }


def test_the_from_line_is_kept_and_names_the_sender_if_nobody_else_does() -> None:
    line = b'From anna@example.org  Sun Nov 22 03:00:00 2026'
    assert told(line) == {'from_line': line.decode(), 'sender': 'anna@example.org'}
    assert told(line, SENDER=b'b@x')['sender'] == 'b@x'


@pytest.mark.parametrize(
    ('start', 'line', 'begins'),
    [
        (b'From a@b Sun Nov 22 03:00:00 2026\nSubject: x\n', b'From a@b Sun Nov 22 03:00:00 2026', 34),
        (b'From a@b Sun Nov 22 03:00:00 2026\r\nSubject: x\r\n', b'From a@b Sun Nov 22 03:00:00 2026', 35),
        (b'From \nx', b'', 0),
        (b'From: a@b\n', b'', 0),
        (b'from a@b\n', b'', 0),
        (b'From here on there is no line end', b'', 0),
        (b'From ' + b'x' * MAX_FROM_LINE_BYTES + b'\n', b'', 0),
        (b'', b'', 0),
    ],
)
def test_only_a_whole_from_line_is_taken_off(start: bytes, line: bytes, begins: int) -> None:
    assert split_from_line(start) == (line, begins)


DATES = [
    *(
        'Sun Nov 22 03:00:00 2026',
        'Sun Nov  1 03:00:00 2026',
        'Sun Nov 1 03:00 2026',
        'Sun Nov 22 03:00:00 CET 2026',
    ),
    *('Sun Nov 22 03:00:00 +0100 2026', 'Sun Nov 22 03:00:00 2026 +0100', 'Sun Nov 22 03:00:00 2026 UTC'),
    *(
        'Sun, 22 Nov 2026 03:00:00 +0100',
        'Sun, 22 Nov 2026 03:00:00',
        'Sun Nov 22 03:00:00 2026 remote from host',
        'Sun Nov 22 03:00:00 99',
        'Sun Nov 22 03:00:00 MET DST 2026',
    ),
]


@pytest.mark.parametrize('date', DATES)
@pytest.mark.parametrize(
    ('written', 'sender'),
    [
        ('ann@example.com', 'ann@example.com'),
        ('"joe user"@example.com', '"joe user"@example.com'),
        ('<ann@example.com>', 'ann@example.com'),
        ('<>', ''),
        ('MAILER-DAEMON', ''),
        ('root', 'root'),
    ],
)
@pytest.mark.parametrize('blanks', [' ', '  '])
def test_a_line_of_the_mailbox_form_names_the_sender(
    date: str, written: str, sender: str, blanks: str
) -> None:
    line = f'From {written}{blanks}{date}'.encode()
    assert split_from_line(line + b'\nSubject: x\n') == (line, len(line) + 1)
    assert told(line)['sender'] == sender


@pytest.mark.parametrize(
    'line',
    [
        b'From : Ann <ann@example.com>',
        b'From what I hear',
        b'From what I hear Sun Nov 22 03:00:00 2026',
        b'From "quoted text, he said it on" Sun Nov 22 03:00:00 2026',
        b'From "joe user Sun Nov 22 03:00:00 2026',
        b'From "joe user"@x and more Sun Nov 22 03:00:00 2026',
        b'From <what I hear> Sun Nov 22 03:00:00 2026',
        b'From <ann@x> said Sun Nov 22 03:00:00 2026',
        b'From Sun Nov 22 03:00:00 2026',
        b'From  Sun Nov 22 03:00:00 2026',
        b'From ann@example.com',
        b'From ann@example.com yesterday',
        b'From ann@example.com Sun Nov 22 03:00:00 2026 and more',
        b'From ann@example.com Sun',
        b'From ann@example.comSun Nov 22 03:00:00 2026',
        b'From\tann@example.com Sun Nov 22 03:00:00 2026',
    ],
)
def test_what_only_begins_with_the_word_is_a_part_of_the_message(line: bytes) -> None:
    assert split_from_line(line + b'\nSubject: x\n') == (b'', 0)
    assert 'sender' not in told(line)
    if not line.startswith(b'From :'):  # a field, with a blank that there should not be
        assert read_delivery_headers(line + b'\nReturn-Path: <a@example.com>\n') == {}


@given(
    st.dictionaries(st.sampled_from(['SENDER', 'RECIPIENT', 'EXT', 'LOCAL', 'HOST']), st.binary()),
    st.binary(),
)
def test_whatever_a_stranger_writes_becomes_json_that_can_be_read_and_encoded(
    environment: dict[str, bytes], from_line: bytes
) -> None:
    metadata = told(from_line, **environment)
    text = dump_ascii_json(metadata)
    assert text.isascii()
    assert json.loads(text) == metadata
    assert json.dumps(metadata, ensure_ascii=False).encode('utf-8')  # no lone surrogates


def test_bytes_that_are_no_utf8_stay_readable() -> None:
    assert told(SENDER=b'andr\xe9@x') == {'sender': 'andr\\xe9@x'}
    assert told(SENDER='andré@x'.encode()) == {'sender': 'andré@x'}


@given(st.text())
def test_text_is_quoted_as_json_does_it(text: str) -> None:
    assert quote_json(text) == json.dumps(text)


@pytest.mark.parametrize(
    'value', [0, 9, 1.5, 1e16, ['a', 'b'], [], {}, {'a': ['ü'], 'b': 1}, 'x"\\\n\0\x7f😀']
)
def test_values_are_written_as_json_does_it(value: object) -> None:
    assert dump_ascii_json(value) == json.dumps(value, separators=(',', ':'))
