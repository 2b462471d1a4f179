"""A mail that parses itself when it is looked at is, to whoever looks, the mail that was parsed at once."""

from __future__ import annotations

import contextlib
import copy
import email
import email.policy
import pickle
import smtplib
from collections.abc import Callable
from email.generator import BytesGenerator
from email.message import EmailMessage, Message
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard.message.mail import mail_bytes, mail_from_bytes

PLAIN = b'From: a@example.com\nSubject: hello\nTo: b@example.com\n\nworld\n'
EIGHT_BIT = b'Subject: caf\xc3\xa9\nX: \xff\n\n\xe4\xf6\xfc\0\r\n'
MULTIPART = (
    b'Received: one\nReceived: two\nContent-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n'
    b'preamble\n--b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nh\xc3\xa4\n'
    b'--b\nContent-Type: text/html\nContent-Disposition: attachment; filename="x.html"\n\n<p>\n--b--\nepilogue\n'
)
NESTED = b'Content-Type: message/rfc822\n\n' + PLAIN
BROKEN = b'Content-Type: multipart/mixed\nno colon here\n\n--b\nnever closed'
FROM_LINE = b'From someone@example.com Mon Jan  1 00:00:00 2024\n' + PLAIN
LONG = b'Subject: ' + b'word ' * 60 + b'\nDKIM-Signature: v=1; b=' + b'A' * 300 + b'\n folded\n\nbody\n'
SAMPLES = [
    b'',
    b'\n',
    b'x',
    PLAIN,
    EIGHT_BIT,
    MULTIPART,
    NESTED,
    BROKEN,
    FROM_LINE,
    LONG,
    PLAIN.replace(b'\n', b'\r\n'),
]

names = st.sampled_from(
    ['Subject', 'To', 'X-Odd', 'Content-Type', 'Content-Transfer-Encoding', 'Date', 'From']
)
texts = st.sampled_from(
    [
        'multipart/mixed; boundary=b',
        'text/plain; charset=latin-1',
        'message/rfc822',
        'base64',
        '8bit',
        'h\u00e4',
        '',
    ]
) | st.text(st.characters(exclude_categories=('Cs',), exclude_characters='\r\n'), max_size=30)
headers = st.lists(st.tuples(names, texts).map(lambda pair: f'{pair[0]}: {pair[1]}\n'.encode()), max_size=5)
bodies = st.binary(max_size=80) | st.sampled_from([MULTIPART, PLAIN, b'--b\n\nx\n--b--\n', b'aGVsbG8=\n'])
mails = st.builds(lambda lines, body: b''.join(lines) + b'\n' + body, headers, bodies) | st.binary(
    max_size=120
)


def eager_mail(raw: bytes, *, modern: bool) -> Message:
    return email.message_from_bytes(raw, policy=email.policy.default if modern else email.policy.compat32)


def view(msg: Message) -> list[Any]:
    """All that can be asked of a mail, as far as it can be compared."""

    def ask(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception as error:
            return type(error)

    return [
        ask(question)
        for question in (
            msg.keys,
            lambda: [str(value) for value in msg.values()],
            lambda: [(name, str(value)) for name, value in msg.items()],
            lambda: list(msg.raw_items()),
            lambda: [str(value) for value in msg.get_all('received', [])],
            lambda: (str(msg['subject']), 'subject' in msg, len(msg), list(msg)),
            msg.get_content_type,
            msg.get_content_maintype,
            msg.get_content_subtype,
            msg.get_default_type,
            msg.get_content_charset,
            msg.get_charset,
            msg.get_charsets,
            msg.get_filename,
            msg.get_boundary,
            msg.get_content_disposition,
            msg.get_params,
            lambda: msg.get_param('charset'),
            msg.get_unixfrom,
            msg.is_multipart,
            lambda: (msg.preamble, msg.epilogue),
            lambda: [type(defect) for defect in msg.defects],
            lambda: msg.as_string(),
            lambda: str(msg),
            lambda: msg.as_string(unixfrom=msg.get_unixfrom() is not None, maxheaderlen=40),
            lambda: msg.as_bytes(policy=msg.policy.clone(linesep='\r\n')),
            lambda: [part.get_content_type() for part in msg.walk()],
            lambda: [type(part) for part in msg.get_payload()] if msg.is_multipart() else msg.get_payload(),
            lambda: msg.get_payload(decode=True),
            lambda: msg.as_bytes(unixfrom=msg.get_unixfrom() is not None, policy=msg.policy),
        )
    ]


@pytest.fixture(params=[False, True], ids=['Message', 'EmailMessage'])
def modern(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class TestUntouched:
    @given(mails, st.booleans())
    def test_the_bytes_are_the_same_ones(self, raw: bytes, modern: bool) -> None:
        msg = mail_from_bytes(raw, modern=modern)
        assert mail_bytes(msg) is raw
        with contextlib.suppress(Exception):  # the library cannot read every odd header
            _ = msg['subject'], msg.keys(), msg.get_content_type(), str(msg)
        assert mail_bytes(msg) == raw

    @pytest.mark.parametrize('raw', SAMPLES)
    def test_as_bytes_gives_them_with_a_from_line_if_that_is_asked_for(
        self, raw: bytes, modern: bool
    ) -> None:
        msg = mail_from_bytes(raw, modern=modern)
        has_from_line = raw.startswith(b'From ')
        assert msg.as_bytes(unixfrom=has_from_line) is raw
        if has_from_line:
            assert msg.as_bytes() == bytes(msg) == raw.partition(b'\n')[2]
        else:
            assert bytes(msg) == raw
            assert msg.as_bytes(unixfrom=True).startswith(b'From nobody ')

    def test_nothing_is_parsed_before_somebody_looks(self, modern: bool) -> None:
        msg = mail_from_bytes(PLAIN, modern=modern)
        assert isinstance(msg, EmailMessage if modern else Message)
        assert '_headers' not in vars(msg)
        assert msg['subject'] == 'hello'
        assert '_headers' in vars(msg)


class TestTheSameToWhoeverLooks:
    @pytest.mark.parametrize('raw', SAMPLES)
    def test_samples(self, raw: bytes, modern: bool) -> None:
        assert view(mail_from_bytes(raw, modern=modern)) == view(eager_mail(raw, modern=modern))

    @given(mails, st.booleans())
    def test_any_mail(self, raw: bytes, modern: bool) -> None:
        # The end of the list first: the views before would have parsed the mail.
        assert view(mail_from_bytes(raw, modern=modern))[::-1] == view(eager_mail(raw, modern=modern))[::-1]

    def test_an_attribute_that_there_is_not_is_not_there(self, modern: bool) -> None:
        with pytest.raises(AttributeError, match='colour'):
            mail_from_bytes(PLAIN, modern=modern).colour  # noqa: B018 - to ask for it is the test


CHANGES: dict[str, Callable[[Any], Any]] = {
    '__setitem__': lambda msg: msg.__setitem__('X-New', 'yes'),
    '__delitem__': lambda msg: msg.__delitem__('subject'),
    'add_header': lambda msg: msg.add_header('X-New', 'yes', key='value'),
    'replace_header': lambda msg: msg.replace_header('subject', 'other'),
    'set_raw': lambda msg: msg.set_raw('X-Raw', 'yes'),
    'set_payload': lambda msg: msg.set_payload('other\n'),
    'set_charset': lambda msg: msg.set_charset('latin-1'),
    'set_param': lambda msg: msg.set_param('charset', 'latin-1'),
    'del_param': lambda msg: msg.del_param('charset'),
    'set_type': lambda msg: msg.set_type('multipart/alternative'),
    'set_boundary': lambda msg: msg.set_boundary('other'),
    'set_unixfrom': lambda msg: msg.set_unixfrom('From me@example.com Mon Jan  1 00:00:00 2024'),
    'set_default_type': lambda msg: msg.set_default_type('message/rfc822'),
    'attach': lambda msg: msg.attach(email.message_from_bytes(PLAIN)),
    'get_payload': lambda msg: msg.get_payload(0).set_payload('changed part\n'),
    'walk': lambda msg: [part.set_payload('x\n') for part in msg.walk() if not part.is_multipart()],
    'preamble': lambda msg: setattr(msg, 'preamble', 'other'),
    'epilogue': lambda msg: setattr(msg, 'epilogue', 'other'),
    'policy': lambda msg: setattr(msg, 'policy', msg.policy.clone(max_line_length=30)),
    '_payload': lambda msg: setattr(msg, '_payload', 'behind its back\n'),
}
MODERN_CHANGES: dict[str, Callable[[Any], Any]] = {
    'set_content': lambda msg: msg.set_content('other\n'),
    'add_related': lambda msg: msg.add_related('y'),
    'add_alternative': lambda msg: msg.add_alternative('y'),
    'add_attachment': lambda msg: msg.add_attachment('x', filename='x'),
    'make_related': lambda msg: msg.make_related(),
    'make_alternative': lambda msg: msg.make_alternative(),
    'make_mixed': lambda msg: msg.make_mixed(),
    'clear': lambda msg: msg.clear(),
    'clear_content': lambda msg: msg.clear_content(),
    'get_body': lambda msg: msg.get_body().set_content('changed body\n'),
    'iter_attachments': lambda msg: [part.set_content('x') for part in msg.iter_attachments()],
    'iter_parts': lambda msg: [part.set_content('x') for part in msg.iter_parts()],
    'get_content': lambda msg: msg.get_content().set_content('changed inside\n'),
}
# What only tells something; lists that are handed out are made anew.
READING = frozenset(
    'as_bytes as_string get get_all get_boundary get_charset get_charsets get_content_charset get_content_disposition '
    'get_content_maintype get_content_subtype get_content_type get_default_type get_filename get_param get_params '
    'get_unixfrom is_attachment is_multipart items keys raw_items values'.split()
)


def methods(message_class: type[Message]) -> set[str]:
    return {
        name
        for name in dir(message_class)
        if callable(getattr(message_class, name)) and not name.startswith('_')
    }


class TestTouched:
    @pytest.mark.parametrize('name', CHANGES)
    @pytest.mark.parametrize('looked_at', [False, True])
    def test_what_may_change_a_mail_has_it_written_anew(
        self, name: str, looked_at: bool, modern: bool
    ) -> None:
        msg, eager = mail_from_bytes(MULTIPART.replace(b'Rec', b'Subject: s\nRec', 1), modern=modern), None
        eager = eager_mail(mail_bytes(msg), modern=modern)
        if looked_at:
            assert msg.is_multipart()
        try:
            CHANGES[name](eager)
        except Exception as error:
            with pytest.raises(type(error)):
                CHANGES[name](msg)
        else:
            CHANGES[name](msg)
        assert mail_bytes(msg) == mail_bytes(eager)
        assert view(msg) == view(eager)

    @pytest.mark.parametrize('name', MODERN_CHANGES)
    @pytest.mark.parametrize('raw', [PLAIN, MULTIPART, NESTED])
    def test_so_do_the_methods_of_the_modern_class(self, name: str, raw: bytes) -> None:
        pair = mail_from_bytes(raw, modern=True), eager_mail(raw, modern=True)
        outcomes = []
        for msg in pair:
            try:
                MODERN_CHANGES[name](msg)
                outcomes.append('')
            except Exception as error:
                outcomes.append(repr(error))
            if msg.is_multipart() and not msg.get_boundary():
                msg.set_boundary('chosen')  # where none is set, one is made up each time
        assert outcomes[0] == outcomes[1]
        assert mail_bytes(pair[0]) == mail_bytes(pair[1])

    def test_each_method_of_the_standard_library_is_known_to_change_or_to_read(self) -> None:
        assert methods(EmailMessage) - READING - CHANGES.keys() - MODERN_CHANGES.keys() == set()
        assert methods(Message) - READING - CHANGES.keys() == set()

    def test_flattening_with_a_policy_is_no_change(self, modern: bool) -> None:
        msg = mail_from_bytes(BROKEN, modern=modern)
        assert msg.as_bytes(policy=msg.policy.clone(linesep='\r\n')) != BROKEN
        assert msg.as_string()
        assert mail_bytes(msg) is BROKEN

    def test_the_standard_librarys_own_flattening_works_on_it(self, modern: bool) -> None:
        flat = BytesIO()
        BytesGenerator(flat, policy=email.policy.SMTP if modern else None).flatten(
            mail_from_bytes(PLAIN, modern=modern)
        )
        assert flat.getvalue() == (PLAIN.replace(b'\n', b'\r\n') if modern else PLAIN)


class TestCopies:
    @pytest.mark.parametrize('looked_at', [False, True])
    @pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda msg: pickle.loads(pickle.dumps(msg))])
    def test_a_deep_copy_is_a_mail_of_its_own(
        self, duplicate: Callable[[Any], Any], looked_at: bool, modern: bool
    ) -> None:
        msg = mail_from_bytes(PLAIN, modern=modern)
        if looked_at:
            assert msg['subject'] == 'hello'
        other = duplicate(msg)
        del other['subject']
        assert mail_bytes(msg) is PLAIN
        assert mail_bytes(other) == PLAIN.replace(b'Subject: hello\n', b'')

    @pytest.mark.parametrize('looked_at', [False, True])
    def test_a_shallow_copy_shares_what_an_eager_one_would_share(self, looked_at: bool, modern: bool) -> None:
        pairs = []
        for msg in (mail_from_bytes(MULTIPART, modern=modern), eager_mail(MULTIPART, modern=modern)):
            if looked_at:
                assert msg.is_multipart()
            other = copy.copy(msg)
            del other['received']
            if looked_at:
                msg.get_payload(0).set_payload('changed in both\n')
            pairs.append((mail_bytes(msg), mail_bytes(other)))
        assert pairs[0] == pairs[1]

    def test_a_client_that_removes_a_header_from_its_copy_leaves_the_mail_alone(self, modern: bool) -> None:
        sent: list[bytes] = []

        class Client(smtplib.SMTP):
            def ehlo_or_helo_if_needed(self) -> None:
                pass

            def sendmail(self, sender: Any, recipients: Any, text: Any, *args: Any) -> Any:
                sent.append(text)
                return {}

        msg = mail_from_bytes(b'Bcc: c@example.com\n' + PLAIN, modern=modern)
        Client().send_message(msg, 'a@example.com', ['b@example.com'])
        assert sent == [PLAIN.replace(b'\n', b'\r\n')]
        assert msg['bcc'] == 'c@example.com'


class TestWriting:
    @pytest.mark.parametrize(
        'raw', [PLAIN, EIGHT_BIT.replace(b'\r', b''), MULTIPART, NESTED, LONG, FROM_LINE]
    )
    def test_a_mail_that_was_parsed_by_others_is_written_as_it_came(self, raw: bytes, modern: bool) -> None:
        assert mail_bytes(eager_mail(raw, modern=modern)) == raw

    def test_a_line_that_no_mail_server_takes_is_folded(self) -> None:
        msg = Message()
        msg['To'] = ', '.join(f'user{number}@example.com' for number in range(100))
        lines = mail_bytes(msg).splitlines()
        assert max(map(len, lines)) <= 998
        assert eager_mail(mail_bytes(msg), modern=True)['to'].addresses[-1].username == 'user99'

    def test_an_empty_mail_is_an_empty_line(self) -> None:
        assert mail_bytes(Message()) == mail_bytes(EmailMessage()) == b'\n'


@pytest.mark.parametrize(
    'raw', [*SAMPLES, b'A: b\r\n\rbody', b'A: b\r\r\nbody', b'A: b\n\r\nC: d\n\n', b'\r\nA: b\n\n']
)
@pytest.mark.parametrize('modern', [False, True])
def test_to_look_at_a_header_parses_no_more_than_the_headers(raw: bytes, modern: bool) -> None:
    mail = mail_from_bytes(raw, modern=modern)
    policy = email.policy.default if modern else email.policy.compat32
    assert mail.items() == email.message_from_bytes(raw, policy=policy).items()
    assert '_payload' not in mail.__dict__
    mail['X-New'] = 'yes'
    assert mail.get_payload() is not None or raw == b''
    assert mail['X-New'] == 'yes'
