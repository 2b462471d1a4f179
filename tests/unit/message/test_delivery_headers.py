"""What a mail server has written on top of a mail."""

from __future__ import annotations

import pytest

from switchboard.message.delivery_headers import read_delivery_headers


@pytest.mark.parametrize(
    ('head', 'found'),
    [
        (b'', {}),
        (b'Subject: x\n\nReturn-Path: <no@example.com>\n', {}),
        (b'Return-Path: <a@example.com>\n\n', {'sender': 'a@example.com'}),
        (
            b'Return-Path: <>\r\nEnvelope-to: b@example.com,\r\n c@example.com\r\n\r\n',
            {'sender': '', 'recipients': ['b@example.com', 'c@example.com']},
        ),
        (b'X-Original-To: x@example.com\nDelivered-To: y@example.com\n\n', {'recipients': ['x@example.com']}),
        (
            b'From a@example.com Sun Nov 22 03:00:00 2026\nReturn-path: <a@example.com>\n\n',
            {'sender': 'a@example.com'},
        ),
        (b'Received: from a\nReturn-Path: <forged@example.com>\n\n', {}),
        (
            b'Delivered-To: first@example.com\nDelivered-To: second@example.com\n\n',
            {'recipients': ['first@example.com']},
        ),
        (b'Delivered-To: \xff@example.com\n\n', {'recipients': ['\udcff@example.com']}),
        (b'Return-Path: <\xe4@example.com>\n', {'sender': '\udce4@example.com'}),
        ('Delivered-To: \xe4@example.com\n'.encode(), {'recipients': ['\xe4@example.com']}),
        (b'no header at all', {}),
        (b'Envelope-To: <z@example.com>\n', {'recipients': ['z@example.com']}),
        (
            b'Envelope-To: <z@example.com>, y@example.com\n',
            {'recipients': ['z@example.com', 'y@example.com']},
        ),
        (b'Delivered-To: "a, b"@example.com\n', {'recipients': ['"a, b"@example.com']}),
        (
            b'Delivered-To: "a\\", b"@example.com,c@example.com\n',
            {'recipients': ['"a\\", b"@example.com', 'c@example.com']},
        ),
        (b'Delivered-To: <"a,b"@example.com>\n', {'recipients': ['"a,b"@example.com']}),
        (b'Delivered-To: "never ends, c@example.com\n', {'recipients': ['"never ends, c@example.com']}),
        (b'Delivered-To: ,\n', {}),
        (
            b'Envelope-To: a@example.com (Ann, of the office), b@example.com\n',
            {'recipients': ['a@example.com', 'b@example.com']},
        ),
        (
            b'Envelope-To: a@example.com (one (in, another) and "this\\), too)\n',
            {'recipients': ['a@example.com']},
        ),
        (b'Envelope-To: (a, b) a@(c, d)example.com\n', {'recipients': ['a@example.com']}),
        (
            b'Envelope-To: The office: a@example.com, Bert <b@example.com>;, c@example.com\n',
            {'recipients': ['a@example.com', 'b@example.com', 'c@example.com']},
        ),
        (b'Envelope-To: undisclosed-recipients:;\n', {}),
        (
            b'Envelope-To: "Lee, Ann" <a@example.com>, b@[IPv6:::1], <c@[1.2.3.4]>\n',
            {'recipients': ['a@example.com', 'b@[IPv6:::1]', 'c@[1.2.3.4]']},
        ),
        (b'Envelope-To: <@a,@b:c@example.com>\n', {'recipients': ['@a,@b:c@example.com']}),
        (b'Envelope-To: "a:b;(c"@example.com\n', {'recipients': ['"a:b;(c"@example.com']}),
        (
            b'Envelope-To: a@example.com (never ends, b@example.com\n',
            {'recipients': ['a@example.com (never ends, b@example.com']},
        ),
        (b'Envelope-To: <a@example.com, b@example.com\n', {'recipients': ['<a@example.com, b@example.com']}),
        (
            b'Envelope-To: <a@example.com> <b@example.com>\n',
            {'recipients': ['<a@example.com> <b@example.com>']},
        ),
        (b'Return-Path: <a@example.com> (Ann, of the office)\n', {'sender': 'a@example.com'}),
        (b'Delivered-To:\n\tb@example.com\n', {'recipients': ['b@example.com']}),
        (b' folded\nDelivered-To: b@example.com\n', {'recipients': ['b@example.com']}),
        (b'A: \rx\nDelivered-To: b@example.com\n', {}),
    ],
)
def test_the_envelope_is_read_above_the_first_received_field_only(
    head: bytes, found: dict[str, object]
) -> None:
    assert read_delivery_headers(head) == found


def test_a_head_without_end_is_looked_at_in_its_beginning_only() -> None:
    assert read_delivery_headers(b'X-A: b\n' * 100_000 + b'Return-Path: <late@example.com>\n\n') == {}
