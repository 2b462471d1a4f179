"""A mail is written as it came, but for what was touched; one that a program has made as the standard library writes it."""

from __future__ import annotations

import contextlib
import copy
import email
import pickle
from email._policybase import Compat32
from email.header import Header, decode_header, make_header
from email.message import Message
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import SMTP
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from switchboard.message.flatten import flatten, parse_mail
from switchboard.message.mail import mail_bytes, mail_from_bytes

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


class AsItStands(Compat32):
    """Has the library write header fields as they stand, which its own policy folds anew."""

    def fold_binary(self, name: str, value: Any) -> bytes:
        if type(value) is str and value.isascii() and max(map(len, value.split('\n'))) < 990:
            return f'{name}: {value}{self.linesep}'.replace('\r\n', '\n').encode('ascii')
        return super().fold_binary(name, value)


AS_IT_STANDS = AsItStands()


def by_the_library(mail: Message) -> bytes:
    return mail.as_bytes(policy=AS_IT_STANDS)


@pytest.mark.parametrize('raw', MAILS.values(), ids=MAILS.keys())
def test_it_writes_what_the_library_writes(raw: bytes) -> None:
    assert flatten(email.message_from_bytes(raw)) == by_the_library(email.message_from_bytes(raw))


@pytest.mark.parametrize('path', SAMPLES, ids=lambda path: path.stem)
def test_it_writes_the_samples_as_the_library_does(path: Path) -> None:
    raw = path.read_bytes()
    if max(map(len, raw.split(b'\n'))) < 990:
        assert flatten(email.message_from_bytes(raw)) == by_the_library(email.message_from_bytes(raw))
    assert written(parse_mail(raw)) == raw


@given(
    st.lists(st.sampled_from([*MAILS.values(), b'--b\n', b'Content-Type: text/plain\n', b'\n', b'\r', b' x']))
)
def test_it_writes_what_the_library_writes_of_any_mixture(pieces: list[bytes]) -> None:
    raw = b''.join(pieces)
    try:
        expected = by_the_library(email.message_from_bytes(raw))
    except UnicodeEncodeError:
        reject()  # it does not write all that it reads
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


@pytest.mark.parametrize('end', ['\n', '\r', '\r\n', '\n\n', '\n \n'])
def test_a_field_that_somebody_has_smuggled_in_stays_a_part_of_its_own(end: str) -> None:
    mail = Message()
    mail._headers.append(('Subject', f'one{end}Bcc: eve@example.org'))
    mail.set_payload('body')
    again = email.message_from_bytes(flatten(mail))
    assert (again.keys(), again.get_payload()) == (['Subject'], 'body')


@pytest.mark.parametrize('name', ['A\nBcc', 'A:', '', 'A b', 'A\x0b', '\u00e4', ' A'])
def test_what_can_be_no_name_of_a_field_is_refused(name: str) -> None:
    mail = Message()
    mail._headers.append((name, 'x'))
    with pytest.raises(ValueError, match='cannot be the name'):
        flatten(mail)


STRANGE = ['\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\x85', '\u2028', '\u2029']


@pytest.mark.parametrize('modern', [False, True])
@pytest.mark.parametrize('strange', STRANGE, ids=lambda text: f'U+{ord(text):04X}')
def test_what_ends_a_line_for_python_alone_ends_no_field(strange: str, modern: bool) -> None:
    line = f'Subject: hi{strange}Bcc: eve@example.com'.encode()
    raw = line + b'\nTo: ann@example.com\n\nbody\n'
    mail = mail_from_bytes(raw, modern=modern)
    mail['X-Seen'] = 'yes'
    assert mail_bytes(mail) == line + b'\nTo: ann@example.com\nX-Seen: yes\n\nbody\n'
    made = Message()
    for value in (
        f'hi{strange}Bcc: eve@example.com',
        Header(f'hi{strange}Bcc: eve@example.com'),
        f'h\u00e4{strange}Bcc: x',
    ):
        del made['Subject']
        made['Subject'] = value
        again = email.message_from_bytes(flatten(made))
        assert again.keys() == ['Subject']
        written = str(make_header(decode_header(again['Subject'])))
        assert written.replace('\n ', '') == str(value)


def test_a_class_that_overrides_what_it_likes_is_written_from_its_fields() -> None:
    class Own(Message):
        def raw_items(self):
            yield 'X-Own', 'yes'

        def as_bytes(self) -> bytes:
            raise NotImplementedError

        items = keys = get_payload = walk = as_string = __str__ = as_bytes

    own = Own()
    own['Subject'] = 'x'
    own.set_payload('body')
    assert flatten(own) == mail_bytes(own) == b'Subject: x\n\nbody'


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


lines = st.sampled_from(
    [
        *(
            b'Subject: one',
            b'Subject:one',
            b'subject:   two ',
            b'X-Tab:\tx',
            b' folded',
            b'\tfolded',
            b'no colon',
            b': no name',
        ),
        *(
            b'From: a@example.com',
            b'From x',
            b'From : x',
            b'X: \xff\xfe',
            b'X: \x0b\x0cBcc: y',
            b'Empty:',
            b'MIME-Version: 1.0',
        ),
        *(b'Content-Type: multipart/mixed; boundary=b', b'Content-Type: multipart/signed; boundary="c"'),
        *(b'Content-Type: multipart/digest; boundary=b', b'Content-Type: multipart/mixed'),
        *(
            b'Content-Type: message/rfc822',
            b'Content-Type: message/delivery-status',
            b'Content-Type: text/plain',
        ),
        *(
            b'Content-Transfer-Encoding: base64',
            b'--b',
            b'--b  ',
            b'--b--',
            b'--b--\t',
            b'--c',
            b'--c--',
            b'',
            b'',
            b'body',
            b' ',
        ),
    ]
)
ends = st.sampled_from([b'\n', b'\n', b'\r\n', b'\r'])
raws = st.lists(st.tuples(lines, ends).map(b''.join), max_size=25).map(b''.join) | st.lists(
    lines, max_size=25
).flatmap(lambda many: st.sampled_from([b'\n'.join(many), b'\r\n'.join(many)]))
SIGNED = (
    b'Received: x\r\nContent-Type: multipart/signed; boundary="c"\r\nSubject:  two  blanks \r\n\r\npreamble\r\n\r\n--c \r\n'
    b'Content-Type: multipart/mixed;\r\n\tboundary=b\r\n\r\n\r\n--b\r\nContent-Type:text/plain\r\n\r\none\r\n\r\n\r\n--b\r\n'
    b'Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nbare \r here\r\n\r\n--b--\r\n\r\n--c\r\n'
    b'Content-Type: application/pgp-signature\r\n\r\nx\xff\r\n--c--\r\nepilogue\r\n\r\n'
)


def look(mail: Message) -> None:
    """Do what a runner does that only looks."""
    for part in mail.walk():
        _ = part.get('subject'), len(part), part.keys(), part.is_multipart(), part.get_content_type()
        _ = part.get_payload() if part.is_multipart() else part.get_payload(decode=False)
        _ = part.preamble, part.epilogue, part.get_filename(), part.get_boundary()


def written(mail: Message) -> bytes:
    return flatten(mail, unixfrom=mail.get_unixfrom() is not None)


# What a broken mail is made of, line by line.
LINES = (
    *(b'A: b', b' folded\x0c', b'\tfolded', b'', b'', b'--B', b'--B--', b'text', b'From what I hear'),
    *(b'From x@y Thu Nov 26 10:00:00 2026', b'From : a@b', b'From:a', b'\xff', b':', b' ', b'--C'),
    *(
        b'Content-Type: message/rfc822',
        b'Content-Type: message/delivery-status',
        b'Content-Type: message/global',
    ),
    *(b'Content-Type: multipart/mixed; boundary=B', b'Content-Type: multipart/digest; boundary="C"'),
)


class TestExact:
    @given(raws, st.booleans())
    @example(SIGNED, False)
    @example(b'Content-Type: multipart/mixed; boundary=b\n\n--b\nFrom x\nA: b\n\nc\n--b--\n', False)
    @example(SIGNED.replace(b'\r\n', b'\n'), True)
    def test_a_mail_that_was_looked_at_is_what_it_was(self, raw: bytes, modern: bool) -> None:
        mail = mail_from_bytes(raw, modern=modern)
        with contextlib.suppress(ValueError, LookupError, IndexError, AttributeError):  # the library's own
            look(mail)
        assert mail_bytes(mail) == raw
        if not modern:
            assert written(parse_mail(raw)) == raw

    @given(raws, st.booleans())
    @example(SIGNED, True)
    @example(b'From x\n\n', False)
    @example(b'From x\n\n', True)
    def test_a_field_more_is_that_field_and_nothing_else(self, raw: bytes, looked_at: bool) -> None:
        raw = b'Subject: x\n' + raw
        mail = mail_from_bytes(raw)
        if looked_at:
            look(mail)
        mail['X-New'] = 'yes'
        after = mail_bytes(mail)
        assert after.count(b'X-New: yes') == 1
        before, _, behind = after.partition(b'X-New: yes')
        end = next(end for end in (b'\r\n', b'\r', b'\n', b'') if behind.startswith(end))
        # At the very end of a mail without an end, one is put before it.
        assert raw in (
            before + behind[len(end) :],
            before[:-1] + behind[len(end) :],
            before[:-2] + behind[len(end) :],
        )
        assert email.message_from_bytes(after).get_all('x-new') == ['yes']
        del mail['X-New']
        assert mail_bytes(mail).rstrip(b'\r\n') == raw.rstrip(b'\r\n')

    @pytest.mark.parametrize('end', [b'\n', b'\r\n'])
    @pytest.mark.parametrize(
        'raw',
        [
            b'Content-Type: message/rfc822\nFrom : a@example.com\n\nbody\n',
            b'Content-Type: multipart/mixed; boundary=b\nFrom\t: a@example.com\n\n--b\nA: b\n\nc\n--b--\n',
            b'Content-Type: message/rfc822\n\nSubject: x\nFrom : a@example.com\n\nbody\n',
            b'Content-Type: message/rfc822\n\nFrom ada Sun Nov 15 10:00:00 2026\nFrom : a@example.com\nTo: b\n\nbody\n',
            b'From : a@example.com\nContent-Type: message/rfc822\n\nA: b\n\nbody\n',
        ],
    )
    def test_a_field_more_in_a_part_is_that_field_and_nothing_else(self, raw: bytes, end: bytes) -> None:
        raw = raw.replace(b'\n', end)
        for number in range(2):
            mail = mail_from_bytes(raw)
            part = list(mail.walk())[number]
            part['X-New'] = 'yes'
            assert mail_bytes(mail).replace(b'X-New: yes' + end, b'') == raw

    @pytest.mark.parametrize('end', [b'\n', b'\r\n'])
    def test_a_line_that_is_no_field_between_header_and_a_mail_inside_takes_nothing_with_it(
        self, end: bytes
    ) -> None:
        raw = b'Content-Type: message/rfc822\nFrom what I hear\n\nA: b\nC: d\n\nbody\n'.replace(b'\n', end)
        mail = mail_from_bytes(raw)
        inner = list(mail.walk())[1]
        assert mail_bytes(mail) == raw
        inner['X-New'] = 'yes'
        after = mail_bytes(mail)
        assert after.replace(b'X-New: yes' + end, b'') == raw

    @pytest.mark.parametrize('modern', [False, True])
    @pytest.mark.parametrize('end', [b'\n', b'\r\n'])
    @pytest.mark.parametrize(
        'raw',
        [
            b'Content-Type: message/rfc822\n folded\x0c\nFrom x@y Thu Nov 26 10:00:00 2026\n\nA: b\nC: d\n\nbody\n',
            b'Content-Type: message/rfc822\nFrom what I hear\n\n\nbody\n',
            b'Content-Type: message/rfc822\nFrom x y\n\nContent-Type: message/rfc822\nFrom x y\n\nA: b\n\nbody\n',
            b'Content-Type: multipart/digest; boundary=b\n\n--b\nA: b\nFrom what I hear\n\nC: d\nbody\n--b--\n',
        ],
    )
    def test_an_empty_line_that_divides_two_headers_stays(self, raw: bytes, end: bytes, modern: bool) -> None:
        raw = raw.replace(b'\n', end)
        for number in range(len(list(mail_from_bytes(raw).walk()))):
            mail = mail_from_bytes(raw, modern=modern)
            part = list(mail.walk())[number]
            part['X-New'] = 'yes'
            after = mail_bytes(mail)
            assert after.replace(b'X-New: yes' + end, b'') == raw
            assert [one['X-New'] for one in mail_from_bytes(after, modern=modern).walk()].index(
                'yes'
            ) == number
            part.set_unixfrom('From z@y Thu Nov 26 10:00:00 2026')
            part['X-New'] = 'again'
            assert b'\nX-New: again' in mail_bytes(mail)

    @pytest.mark.parametrize('modern', [False, True])
    @pytest.mark.parametrize('end', [b'\n', b'\r\n', b'\r'])
    def test_a_field_in_a_mail_that_is_not_there_is_no_field_of_the_one_around_it(
        self, end: bytes, modern: bool
    ) -> None:
        raw = b'Content-Type: message/global' + end
        mail = mail_from_bytes(raw, modern=modern)
        list(mail.walk())[1]['X-New'] = 'yes'
        after = mail_bytes(mail)
        assert after.startswith(raw + end + b'X-New: yes')
        assert [part['X-New'] for part in mail_from_bytes(after, modern=modern).walk()] == [None, 'yes']

    @given(st.lists(st.sampled_from(LINES), max_size=10), st.integers(0, 9), st.booleans(), st.booleans())
    def test_a_field_more_anywhere_keeps_all_other_bytes(
        self, lines: list[bytes], number: int, crlf: bool, modern: bool
    ) -> None:
        end = b'\r\n' if crlf else b'\n'
        raw = b''.join(line + end for line in (b'a: b', b'Content-Type: message/rfc822', *lines))
        mail = mail_from_bytes(raw, modern=modern)
        try:
            parts = list(mail.walk())
        except (ValueError, LookupError, AttributeError, TypeError):
            reject()  # the library cannot walk through all that it reads
        parts[number % len(parts)]['X-New'] = 'yes'
        before, mark, behind = mail_bytes(mail).partition(b'X-New: yes' + end)
        assert mark
        # Where there was none, an empty line may be put before the header that it stands in, or behind it.
        after = before + behind
        places = [place for place in range(len(after)) if after.startswith(end, place)]
        assert raw in (after, *(after[:place] + after[place + len(end) :] for place in places))

    @given(
        st.lists(st.sampled_from([line for line in LINES if b'delivery-status' not in line]), max_size=10),
        st.integers(0, 9),
        st.sampled_from([b'\n', b'\r\n']),
        st.booleans(),
    )
    @example([b'\xff'], 1, b'\n', False)
    @example([b'From what I hear'], 1, b'\r\n', False)
    @example([b'From x y', b'text', b'A: b'], 1, b'\n', False)
    @example([b'Content-Type: multipart/mixed; boundary=B', b'--B', b'\xff'], 1, b'\n', False)
    def test_a_field_more_anywhere_is_read_as_it_was_written(
        self, lines: list[bytes], number: int, end: bytes, is_cut: bool
    ) -> None:
        raw = end.join((b'a: b', b'Content-Type: message/rfc822', *lines, b'' if not is_cut else b'--B'))
        mail = mail_from_bytes(raw)
        parts = list(mail.walk())
        parts[number % len(parts)]['X-New'] = 'yes'
        headers = [part.items() for part in parts]
        assert [part.items() for part in mail_from_bytes(mail_bytes(mail)).walk()] == headers

    @pytest.mark.parametrize('payload', ['A: b\n', '\n', ' folded\n', 'From x\nA: b\n', 'From : a\n'])
    @pytest.mark.parametrize('raw', [b'Subject: x\nno field\n', b'no field\n', b'', b'Subject: x'])
    def test_a_text_that_takes_the_place_of_one_without_an_empty_line_is_no_header(
        self, raw: bytes, payload: str
    ) -> None:
        mail = mail_from_bytes(raw)
        headers = mail.items()
        mail.set_payload(payload)
        after = mail_from_bytes(mail_bytes(mail))
        assert (after.items(), after.get_payload()) == (headers, payload)

    def test_a_part_that_loses_its_last_field_is_a_part(self) -> None:
        mail = mail_from_bytes(
            b'Content-Type: multipart/mixed; boundary=B\n\n--B\nA: b\n--B\nC: d\n\ntwo\n--B--\n'
        )
        del mail.get_payload(0)['A']
        after = mail_from_bytes(mail_bytes(mail))
        assert [part.items() for part in after.get_payload()] == [[], [('C', 'd')]]

    def test_of_equal_fields_the_one_that_was_changed_changes(self) -> None:
        mail = mail_from_bytes(b'A:  b\nA: b\nA:b\nC: d\n\nbody\n')
        mail.replace_header('A', 'other')
        assert mail_bytes(mail) == b'A: other\nA: b\nA:b\nC: d\n\nbody\n'

    @given(st.integers(0, 2))
    def test_a_field_that_goes_takes_its_own_bytes_along(self, number: int) -> None:
        fields = [b'A:1\r\n', b'B:  2\r\n\t3 \r\n', b'C : 4\x0b\r\n'.replace(b'C :', b'C:')]
        body = SIGNED.partition(b'\r\n')[2]
        mail = mail_from_bytes(b''.join(fields) + body)
        look(mail)
        del mail['ABC'[number]]
        del fields[number]
        assert mail_bytes(mail) == b''.join(fields) + body

    def test_a_field_of_a_part_that_changes_leaves_all_others(self) -> None:
        mail = mail_from_bytes(SIGNED)
        [signed, signature] = mail.get_payload()
        signature.replace_header('Content-Type', 'application/x-other')
        assert mail_bytes(mail) == SIGNED.replace(b'application/pgp-signature', b'application/x-other')
        inner = signed.get_payload(1).get_payload(0)
        inner['X-New'] = 'yes'
        inner.set_payload('changed\n')
        assert mail_bytes(mail) == SIGNED.replace(
            b'application/pgp-signature', b'application/x-other'
        ).replace(
            b'Subject: inner\r\n\r\nbare \r here\r\n\r\n',
            b'Subject: inner\r\nX-New: yes\r\n\r\nchanged\r\n\r\n',
        )

    def test_a_footer_of_a_mailing_list_leaves_the_parts_before_it(self) -> None:
        mail = mail_from_bytes(SIGNED)
        assert mail.is_multipart()
        mail.attach(MIMEText('footer'))
        after = mail_bytes(mail)
        start, end = (
            SIGNED.index(b'Content-Type: multipart/mixed'),
            SIGNED.index(b'\r\n--c\r\nContent-Type: app'),
        )
        assert SIGNED[start:end] in after
        again = email.message_from_bytes(after)
        assert [part.get_content_type() for part in again.get_payload()] == [
            *('multipart/mixed', 'application/pgp-signature', 'text/plain')
        ]
        assert b'footer' in after

    def test_a_mail_that_is_wrapped_in_a_new_one_is_what_it_was(self) -> None:
        outer = MIMEMultipart(boundary='new')
        outer.attach(MIMEText('see below'))
        outer.attach(MIMEMessage(parse_mail(SIGNED)))
        assert SIGNED in mail_bytes(outer)

    def test_a_part_that_moves_to_another_mail_is_what_it_was(self) -> None:
        signed = mail_from_bytes(SIGNED).get_payload(0)
        outer = MIMEMultipart(boundary='new')
        outer.attach(signed)
        start, end = (
            SIGNED.index(b'Content-Type: multipart/mixed'),
            SIGNED.index(b'\r\n--c\r\nContent-Type: app'),
        )
        assert b'--new\n' + SIGNED[start:end] + b'\n--new--\n' in mail_bytes(outer)

    @pytest.mark.parametrize(
        'duplicate', [copy.deepcopy, copy.copy, lambda mail: pickle.loads(pickle.dumps(mail))]
    )
    def test_a_copy_is_written_as_it_was(self, duplicate: Any) -> None:
        mail = mail_from_bytes(SIGNED)
        look(mail)
        assert mail_bytes(duplicate(mail)) == SIGNED
