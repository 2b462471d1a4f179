"""What writes mails quickly writes the same bytes as the standard library."""

from __future__ import annotations

import email
from email.header import Header
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.message.flatten import AS_IT_STANDS, flatten
from switchboard.message.mail import lazy_mail

SAMPLES = sorted((Path(__file__).parents[3] / 'docs' / 'samples').glob('*.eml'))
PARTS = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\nbefore\r\n--b\r\n%s\r\n--b--\r\nafter\r\n'
MAILS = {
    'text': b'Subject: one\n\nbody\n',
    'no body': b'Subject: one\n\n',
    'nothing': b'',
    'line ends of all kinds': b'Subject: one\r\n\r\na\rb\nc\r\nd',
    'bytes that are no text': b'Subject: one\n\n\xff\xfe\n',
    'a header that is no text': b'Subject: \xff\n\nbody\n',
    'folded': b'Subject: one\n two\n\tthree\n\nbody\n',
    'a line longer than any mail may have': b'Subject: ' + b'x' * 1200 + b'\n\nbody\n',
    'parts': PARTS % b'Content-Type: text/plain\r\n\r\none\r\n--b\r\n\r\ntwo',
    'parts in parts': PARTS % (PARTS.replace(b'"b"', b'c').replace(b'--b', b'--c') % b'\r\ninside'),
    'parts without a boundary': b'Content-Type: multipart/mixed\n\nbody\n',
    'parts that are none': b'Content-Type: multipart/mixed; boundary=b\n\nbody\n',
    'a boundary with an escape': PARTS.replace(b'"b"', b'"\\b"') % b'\r\none',
    'a boundary after another parameter': PARTS.replace(b'boundary', b'charset=x; boundary') % b'\r\none',
    'signed': PARTS.replace(b'mixed', b'signed') % b'Subject: a\r\n b\r\n\r\none',
    'a mail in a mail': b'Content-Type: message/rfc822\n\nSubject: inner\n\nbody\n',
    'a report': b'Content-Type: message/delivery-status\n\nA: b\n\nC: d\n',
    'a digest': PARTS.replace(b'mixed', b'digest') % b'\r\nSubject: inner\r\n\r\none',
    'a type that is none': b'Content-Type: nonsense\n\nbody\n',
    'an empty type': b'Content-Type:\n\nbody\n',
    'base64': b'Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\nAAAA\n',
}


def by_the_library(mail: Message) -> bytes:
    return mail.as_bytes(policy=AS_IT_STANDS)


@pytest.mark.parametrize('raw', MAILS.values(), ids=MAILS.keys())
def test_it_writes_what_the_library_writes(raw: bytes) -> None:
    assert flatten(email.message_from_bytes(raw)) == by_the_library(email.message_from_bytes(raw))
    assert flatten(lazy_mail(raw)) == by_the_library(email.message_from_bytes(raw))


@pytest.mark.parametrize('path', SAMPLES, ids=lambda path: path.stem)
def test_it_writes_the_samples_as_the_library_does(path: Path) -> None:
    raw = path.read_bytes()
    assert flatten(email.message_from_bytes(raw)) == by_the_library(email.message_from_bytes(raw))


@given(
    st.lists(st.sampled_from([*MAILS.values(), b'--b\n', b'Content-Type: text/plain\n', b'\n', b'\r', b' x']))
)
def test_it_writes_what_the_library_writes_of_any_mixture(pieces: list[bytes]) -> None:
    raw = b''.join(pieces)
    try:
        expected = by_the_library(email.message_from_bytes(raw))
    except Exception as error:
        with pytest.raises(type(error)):
            flatten(email.message_from_bytes(raw))
    else:
        assert flatten(email.message_from_bytes(raw)) == expected


def test_mails_that_a_program_has_made_are_written_as_the_library_does() -> None:
    made = MIMEMultipart('alternative', boundary='b')
    made['Subject'] = Header('Grüße', 'utf-8')
    made.attach(MIMEText('one', 'plain', 'utf-8'))
    made.attach(MIMEText('<p>two</p>', 'html'))
    assert flatten(made) == by_the_library(made)
    del made['Subject']
    made['Subject'] = 'two'
    assert flatten(made) == by_the_library(made)


def test_the_envelope_line_is_written_when_it_is_asked_for() -> None:
    mail = email.message_from_bytes(b'From ada Sun Nov 15 10:00:00 2026\nSubject: one\n\nbody\n')
    assert flatten(mail, unixfrom=True).startswith(b'From ada ')
    assert flatten(mail).startswith(b'Subject: ')


def test_a_field_that_somebody_has_smuggled_in_is_left_to_the_library() -> None:
    mail = Message()
    mail._headers.append(('Subject', 'one\nBcc: eve@example.org'))  # type: ignore[attr-defined]
    mail.set_payload('body')
    try:
        expected = by_the_library(mail)
    except Exception as error:  # newer libraries refuse it
        with pytest.raises(type(error)):
            flatten(mail)
    else:
        assert flatten(mail) == expected


def test_a_class_that_writes_its_headers_itself_is_left_to_the_library() -> None:
    class Own(Message):
        def raw_items(self):  # type: ignore[no-untyped-def]
            yield 'X-Own', 'yes'

    own = Own()
    own.set_payload('body')
    assert flatten(own) == b'X-Own: yes\n\nbody'


def test_a_text_that_is_no_ascii_is_refused_as_by_the_library() -> None:
    mail = Message()
    mail.set_payload('Grüße')
    with pytest.raises(UnicodeEncodeError):
        flatten(mail)


def test_parts_of_a_newer_kind_are_written_too() -> None:
    part = email.message_from_bytes(b'Subject: inner\n\none\n', policy=SMTP)
    outer = MIMEMultipart(boundary='b')
    outer.attach(part)
    assert flatten(outer) == by_the_library(outer)
