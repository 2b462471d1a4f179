"""What each reply of a server, at each stage, means for a mail, whatever comes after it.  The table is in the reference."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path
from typing import Any

import pytest

from switchboard.errors import ConfigError
from tests.acceptance.mail.outlet import ANN, BOB, CID, Outlet
from tests.acceptance.mail.smtp_server import Server, serving

AFTER = ('next', 'drop', 'silence', 'garbage')

# By stage, answer and what comes after it.  `down`: the mail was not touched, and no attempt is counted.
ALWAYS: dict[tuple[str, str], str] = {
    ('GREETING', '421 4.3.2 busy'): 'down',
    ('GREETING', '554 5.7.1 no'): 'down',
    ('GREETING', 'what?'): 'down',
    ('AUTH', '454 4.7.0 later'): 'down',
    ('AUTH', '535 5.7.8 wrong'): 'down',
    ('AUTH', 'what?'): 'down',
    ('STARTTLS', '454 4.7.0 later'): 'down',
    ('STARTTLS', '554 5.7.0 no'): 'down',
    ('STARTTLS', 'what?'): 'down',
    ('MAIL', '421 4.3.2 leaving'): 'later',
    ('MAIL', '452 4.3.1 full'): 'later',
    ('MAIL', '552 5.3.4 too large'): 'bad',
    ('MAIL', '550 5.7.1 no'): 'bad',
    ('MAIL', '354 go on'): 'later',
    ('MAIL', 'what?'): 'later',
    ('RCPT', '421 4.3.2 leaving'): 'later',
    ('RCPT', '450 4.2.1 busy'): 'later',
    ('RCPT', '550 5.1.1 unknown'): 'bad',
    ('RCPT', '552 5.2.2 too many'): 'later',
    ('RCPT', '354 go on'): 'later',
    ('RCPT', 'what?'): 'later',
    ('DATA', '451 4.3.0 trouble'): 'later',
    ('DATA', '554 5.5.1 no valid recipients'): 'bad',
    ('DATA', '250 what for'): 'later',
    ('DATA', 'what?'): 'later',
    ('END', '250 taken'): 'done',
    ('END', '299 taken'): 'done',
    ('END', '451 4.3.0 trouble'): 'later',
    ('END', '554 5.7.1 spam'): 'bad',
    ('END', '354 go on'): 'later',
    ('END', 'what?'): 'later',
    ('QUIT', '221 bye'): 'done',
    ('QUIT', '500 no'): 'done',
    ('QUIT', 'what?'): 'done',
    ('RSET', '250 ok'): 'bad',
    ('RSET', '500 no'): 'bad',
    ('RSET', 'what?'): 'bad',
}
# What is accepted is good if the rest is; the second word is for all else that may come after it.
IF_ALL_IS_WELL: dict[tuple[str, str], tuple[str, str]] = {
    ('GREETING', '220 ready'): ('done', 'down'),
    ('GREETING', '250 ready'): ('done', 'down'),
    ('EHLO', '250 server'): ('done', 'later'),
    ('EHLO', '550 no, say HELO'): ('done', 'down'),
    ('AUTH', '235 welcome'): ('done', 'later'),
    ('MAIL', '250 ok'): ('done', 'later'),
    ('MAIL', '254 ok'): ('done', 'later'),
    ('RCPT', '250 ok'): ('done', 'later'),
    ('RCPT', '251 forwarded'): ('done', 'later'),
    ('RCPT', '254 ok'): ('done', 'later'),
    ('DATA', '354 go on'): ('done', 'later'),
}
CASES = [
    *((stage, answer, after, fate) for (stage, answer), fate in ALWAYS.items() for after in AFTER),
    *(
        (stage, answer, after, fates[after != 'next'])
        for (stage, answer), fates in IF_ALL_IS_WELL.items()
        for after in AFTER
    ),
]


def fate_of(outlet: Outlet, server: Server) -> str:
    waiting = outlet.queue.get_files()
    if outlet.bad():
        return 'bad'
    if not waiting:
        # The mails that the server has, or said that it has.
        return 'done'
    return 'later' if outlet.queue.history(waiting[0]) else 'down'


def deliver(tmp_path: Path, server: Server, stage: str, keys: dict[str, str]) -> str:
    """Send a mail on a way that passes a stage.

    :return: what became of it.
    """
    if stage == 'AUTH':
        server.extensions = ('AUTH PLAIN',)
        (tmp_path / 'password').write_text('secret')
        keys |= {'user': 'me', 'password_file': str(tmp_path / 'password')}
    elif stage == 'STARTTLS':
        server.extensions = ('STARTTLS',)
        keys |= {'tls': 'starttls'}
    elif stage == 'RSET':
        server.answers['MAIL'] = '550 5.7.1 no'
    with serving(server):
        outlet = Outlet(tmp_path, server, **keys)
        outlet.put(BOB)
        outlet.work()
        outlet.runner.cleanup()
    return fate_of(outlet, server)


@pytest.mark.parametrize(('stage', 'answer', 'after', 'fate'), CASES)
def test_what_a_reply_means_for_the_mail(
    tmp_path: Path, stage: str, answer: str, after: str, fate: str
) -> None:
    server = Server(answers={stage: answer if after == 'next' else f'{answer}|{after}'})
    keys: dict[str, str] = {'timeout': '1s', 'connect_timeout': '1s'} if after == 'silence' else {}
    assert deliver(tmp_path, server, stage, keys) == fate
    assert bool(server.mails) == (fate == 'done')


@pytest.mark.parametrize('end', ['endless', 'drip'])
@pytest.mark.parametrize(
    ('stage', 'answer', 'fate'),
    [
        ('GREETING', '220 ready', 'down'),
        ('EHLO', '250 server', 'down'),
        ('STARTTLS', '220 go', 'down'),
        ('AUTH', '235 welcome', 'down'),
        ('MAIL', '250 ok', 'later'),
        ('RCPT', '250 ok', 'later'),
        ('DATA', '354 go on', 'later'),
        ('END', '451 4.3.0 trouble', 'later'),
        ('QUIT', '221 bye', 'done'),
        ('RSET', '250 ok', 'bad'),
    ],
)
def test_a_reply_without_an_end_is_a_connection_that_broke_off(
    tmp_path: Path, stage: str, answer: str, fate: str, end: str
) -> None:
    server = Server(answers={stage: f'{answer}|{end}'})
    keys = {'timeout': '1s', 'connect_timeout': '1s'} if end == 'drip' else {}
    assert deliver(tmp_path, server, stage, keys) == fate


@pytest.mark.parametrize('after', AFTER)
def test_an_answer_that_one_recipient_has_got_counts_whatever_the_next_one_meets(
    tmp_path: Path, after: str
) -> None:
    answers = {f'RCPT TO:<{BOB}>': '550 5.1.1 unknown' + (f'|{after}' if after != 'next' else '')}
    keys = {'timeout': '1s'} if after == 'silence' else {}
    with serving(Server(answers=answers)) as server:
        outlet = Outlet(tmp_path, server, **keys)
        outlet.put(BOB, CID)
        outlet.work()
    if after == 'next':
        assert [recipients for recipients, _ in outlet.bad()] == [[BOB]]
        assert [recipients for _, recipients, _ in server.mails] == [[CID]]
        return
    [waiting] = outlet.queue.get_files()
    _, msgdata = outlet.queue.peek(waiting).load(outlet.queue.serializers)
    assert msgdata['recipients'] == [CID]
    assert list(msgdata['refused']) == [BOB]


@pytest.mark.parametrize('trouble', ['drop', 'what?', '421 leaving'])
def test_who_has_the_mail_does_not_get_it_again_when_a_later_portion_fails(
    tmp_path: Path, trouble: str
) -> None:
    answers: dict[str, Any] = {f'RCPT TO:<{CID}>': trouble}
    with serving(Server(answers=answers)) as server:
        outlet = Outlet(tmp_path, server, recipients_per_mail='1')
        outlet.put(BOB, CID)
        outlet.work()
    assert [recipients for _, recipients, _ in server.mails] == [[BOB]]
    [waiting] = outlet.queue.get_files()
    _, msgdata = outlet.queue.peek(waiting).load(outlet.queue.serializers)
    assert msgdata['recipients'] == [CID]


def test_who_has_the_mail_does_not_get_it_again_when_this_program_has_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server, recipients_per_mail='1')
        outlet.put(BOB, CID)
        send = outlet.runner.send_to

        def fail(mail: Any, recipients: Any, answers: Any) -> None:
            if CID in recipients:
                raise ZeroDivisionError
            send(mail, recipients, answers)

        monkeypatch.setattr(outlet.runner, 'send_to', fail)
        outlet.work()
    assert [recipients for _, recipients, _ in server.mails] == [[BOB]]
    [waiting] = outlet.queue.get_files()
    assert 'ZeroDivisionError' in str(outlet.queue.history(waiting)[-1])


@pytest.mark.parametrize('odd', ['x\udce4@example.org', 'a@b>\r\nDATA', '\ud800@example.org', 'a\x7f@b'])
def test_an_address_that_cannot_be_said_is_refused_alone(tmp_path: Path, odd: str) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, odd, CID)
        outlet.work()
    assert [recipients for _, recipients, _ in server.mails] == [[BOB, CID]]
    [(recipients, reason)] = outlet.bad()
    assert len(recipients) == 1
    assert '553 5.1.3' in reason


def test_an_international_address_is_refused_alone_where_the_server_takes_none(tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, 'jörg@example.org')
        outlet.work()
    assert [recipients for _, recipients, _ in server.mails] == [[BOB]]
    assert [recipients for recipients, reason in outlet.bad() if '5.6.7' in reason] == [['jörg@example.org']]


@pytest.mark.parametrize('takes_it', [True, False])
def test_a_mail_that_came_with_smtputf8_leaves_with_it_or_goes_back_with_that_reason(
    tmp_path: Path, takes_it: bool
) -> None:
    with serving(Server(extensions=('SMTPUTF8',) if takes_it else ())) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, smtputf8=True)
        outlet.work()
    if takes_it:
        assert f'MAIL FROM:<{ANN}> SMTPUTF8' in server.commands
        assert len(server.mails) == 1
    else:
        assert 'SMTPUTF8' in outlet.bad()[0][1]
        assert server.mails == []


@pytest.mark.parametrize('way', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
def test_names_and_passwords_of_any_letters_are_sent_in_utf_8(tmp_path: Path, way: str) -> None:
    challenge = base64.b64encode(b'<1896.697170952@server>').decode()
    answers: dict[str, Any] = {'AUTH': '235 welcome' if way == 'PLAIN' else f'334 {challenge}'}
    user, password = 'jörg', 'geheim€'
    plain = base64.b64encode(f'\0{user}\0{password}'.encode()).decode()
    digest = hmac.new(password.encode(), b'<1896.697170952@server>', 'md5').hexdigest()
    told = {
        'PLAIN': f'AUTH PLAIN {plain}',
        'LOGIN': base64.b64encode(password.encode()).decode(),
        'CRAM-MD5': base64.b64encode(f'{user} {digest}'.encode()).decode(),
    }[way]
    (tmp_path / 'password').write_text(password + '\n', encoding='utf-8')
    with serving(Server(extensions=(f'AUTH {way}',), answers=answers)) as server:
        outlet = Outlet(tmp_path, server, user=user, password_file=str(tmp_path / 'password'))
        outlet.put(BOB)
        outlet.work()
    # The test's server writes the first word of a line in capitals.
    assert told in server.commands or told.upper() in server.commands
    assert len(server.mails) == 1


@pytest.mark.parametrize(
    ('keys', 'said'),
    [
        ({'user': 'me'}, 'password_file'),
        ({'password_file': '/dev/null'}, 'without a user'),
        ({'user': 'me', 'password_file': '/dev/null', 'host': 'mail.example.com'}, 'clear text'),
    ],
)
def test_a_password_that_would_not_be_used_or_be_seen_by_all_is_a_mistake(
    tmp_path: Path, keys: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Outlet(tmp_path, Server(port=9), **keys)


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1', '::1'])
def test_to_the_own_machine_a_password_may_go_as_it_is(tmp_path: Path, host: str) -> None:
    Outlet(tmp_path, Server(port=9), user='me', password_file='/etc/hostname', host=host)


def test_it_may_go_in_clear_text_where_that_is_said(tmp_path: Path) -> None:
    Outlet(tmp_path, Server(port=9), user='me', password_file='x', host='mail.example.com', tls='no')
