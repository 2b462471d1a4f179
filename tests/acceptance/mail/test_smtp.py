"""The SMTP runner: what it says to a server, and what becomes of a mail by the server's answer."""

from __future__ import annotations

import os
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from switchboard.message.naming import PRESERVED
from switchboard.queue.wakeup import Wakeup
from switchboard.testing import FakeClock, run_until_empty
from tests.acceptance.mail.outlet import ANN, BOB, CID, RAW, Outlet
from tests.acceptance.mail.smtp_server import Server, serving
from tests.helpers.ports import free_port


def test_a_mail_is_delivered_with_its_envelope(tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, CID)
        outlet.put(BOB, sender='', msg=b'From ann Sun Nov 29 10:00:00 2026\nSubject: bounce\r\rlone\n')
        outlet.work()
    assert server.mails == [
        (ANN, [BOB, CID], b'Subject: hello\r\n\r\n..world\r\n'),
        ('', [BOB], b'Subject: bounce\r\n\r\nlone\r\n'),
    ]
    assert outlet.queue.get_files() == []


@pytest.mark.parametrize(
    'first',
    ['From what I hear 10:30', 'From : Ann <ann@example.com>', 'From "joe user"@example.com at 10:30'],
)
def test_a_first_line_that_is_no_line_of_a_mailbox_is_sent(first: str, tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, msg=f'{first}\nSubject: x\n\nbody\n'.encode())
        outlet.work()
    [(_, _, mail)] = server.mails
    assert mail == f'{first}\r\nSubject: x\r\n\r\nbody\r\n'.encode()


def test_one_connection_serves_many_mails(tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server, mails_per_connection='10')
        for _ in range(25):
            outlet.put(BOB)
        outlet.work()
    assert len(server.mails) == 25
    assert server.connections == 3
    assert server.commands.count('QUIT') == 3


def test_a_connection_that_the_server_has_closed_is_made_again(tmp_path: Path) -> None:
    answers = iter(['250 ok', 'drop'])
    with serving(Server(answers={'RSET': lambda: next(answers, '250 ok')})) as server:
        outlet = Outlet(tmp_path, server)
        for _ in range(3):
            outlet.put(BOB)
        outlet.work()
    assert len(server.mails) == 3
    assert server.connections == 2


def test_an_idle_connection_is_closed(tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server, idle='0')
        outlet.put(BOB)
        outlet.runner.setup()
        outlet.runner.dispose(RAW, {'sender': ANN, 'recipients': [BOB]})
        outlet.runner.periodic()
    assert server.commands[-1] == 'QUIT'


def test_recipients_that_are_to_come_later_are_tried_again_and_the_others_are_not(tmp_path: Path) -> None:
    clock = FakeClock()
    answers = iter(['450 4.2.1 later'])
    with serving(Server(answers={f'RCPT TO:<{CID}>': lambda: next(answers, '250 ok')})) as server:
        outlet = Outlet(tmp_path, server, clock)
        filebase = outlet.put(BOB, CID)
        outlet.work()
        [waiting] = outlet.queue.get_files()
        assert waiting != filebase
        [record] = outlet.queue.history(waiting)
        assert record['event'] == 'deferred'
        assert record['message'] == f'{CID}: 450 4.2.1 later'
        assert record['set'] == {'recipients': [CID]}
        run_until_empty(outlet.runner)
    assert [recipients for _, recipients, _ in server.mails] == [[BOB], [CID]]
    assert outlet.bad() == []


def test_recipients_that_are_refused_go_to_bad_with_the_answer(tmp_path: Path) -> None:
    with serving(Server(answers={f'RCPT TO:<{CID}>': '550 5.1.1 nobody here'})) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, CID)
        outlet.work()
    assert [recipients for _, recipients, _ in server.mails] == [[BOB]]
    [(recipients, reason)] = outlet.bad()
    assert recipients == [CID]
    assert f'{CID}: 550 5.1.1 nobody here' in reason


def test_refused_recipients_wait_for_those_that_are_tried_again(tmp_path: Path) -> None:
    clock = FakeClock()
    answers = iter(['450 later', '450 later'])
    with serving(
        Server(
            answers={f'RCPT TO:<{BOB}>': lambda: next(answers, '250 ok'), f'RCPT TO:<{CID}>': '550 nobody'}
        )
    ) as server:
        outlet = Outlet(tmp_path, server, clock)
        outlet.put(BOB, CID, 'dan@example.org')
        run_until_empty(outlet.runner)
    assert [recipients for _, recipients, _ in server.mails] == [['dan@example.org'], [BOB]]
    [(recipients, reason)] = outlet.bad()
    assert recipients == [CID]
    assert '550 nobody' in reason
    assert sum(command == f'RCPT TO:<{CID}>' for command in server.commands) == 1


@pytest.mark.parametrize(
    ('command', 'answer', 'fate'),
    [
        ('MAIL', '552 5.3.4 too large', 'bad'),
        ('DATA', '554 5.5.1 no', 'bad'),
        ('END', '554 5.7.1 spam', 'bad'),
        ('MAIL', '452 4.3.1 full', 'later'),
        ('END', '451 4.3.0 trouble', 'later'),
        ('END', 'drop', 'later'),
        ('MAIL', '421 4.3.2 closing', 'later'),
        ('RCPT', 'drop', 'later'),
    ],
)
def test_an_answer_to_the_whole_mail_is_one_to_each_recipient(
    tmp_path: Path, command: str, answer: str, fate: str
) -> None:
    with serving(Server(answers={command: answer})) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, CID)
        outlet.work()
        assert server.mails == []
    if fate == 'bad':
        [(recipients, reason)] = outlet.bad()
        assert recipients == [BOB, CID]
        assert answer in reason
    else:
        assert outlet.bad() == []
        [waiting] = outlet.queue.get_files()
        assert outlet.queue.history(waiting)[-1]['event'] == 'deferred'


@pytest.mark.parametrize(
    'answers',
    [
        None,
        {'GREETING': '554 go away'},
        {'GREETING': 'drop'},
        {'EHLO client.example': '421 not now', 'HELO': '421 no'},
    ],
)
def test_a_server_that_is_down_costs_the_mails_nothing(
    tmp_path: Path, answers: dict[str, Any] | None
) -> None:
    server = Server(port=free_port())
    outlet = Outlet(tmp_path, server)
    names = [outlet.put(BOB) for _ in range(50)]

    def files() -> dict[str, tuple[int, int]]:
        found = {}
        for name in os.listdir(tmp_path / 'spool' / 'out'):
            status = os.stat(tmp_path / 'spool' / 'out' / name)
            found[name] = (status.st_size, status.st_mtime_ns)
        return found

    before = files()
    if answers is None:
        outlet.work()
    else:
        server.answers = answers
        with serving(server):
            outlet.work()
        assert server.connections == 1
    assert files() == before
    server.answers = {}
    with serving(server):
        Outlet(tmp_path, server).work()
    assert len(server.mails) == len(names)


def test_a_runner_waits_longer_and_longer_for_a_server_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    outlet = Outlet(tmp_path, Server(port=free_port()), clock)
    outlet.put(BOB)
    waits: list[float] = []

    def wait(_wakeup: Wakeup, timeout_s: float | None) -> bool:
        waits.append(timeout_s or 0)
        clock.advance(timeout_s or 0)  # it has passed
        if len(waits) == 4:
            outlet.runner.stop()
        return False

    monkeypatch.setattr(Wakeup, 'wait', wait)
    outlet.runner.run()
    assert waits[:4] == pytest.approx([0.5, 1.0, 2.0, 4.0], abs=0.1)


def test_many_recipients_are_told_in_portions(tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server, recipients_per_mail='2')
        outlet.put(*(f'{number}@example.org' for number in range(5)))
        outlet.work()
    assert [len(recipients) for _, recipients, _ in server.mails] == [2, 2, 1]


def test_an_address_that_is_none_is_not_said_to_the_server(tmp_path: Path) -> None:
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put('x@example.org>\r\nRSET\r\n<', BOB)
        outlet.work()
    assert [recipients for _, recipients, _ in server.mails] == [[BOB]]
    assert 'RSET' not in server.commands[:-1]
    assert '553 5.1.3' in outlet.bad()[0][1]


def test_international_addresses_need_a_server_that_takes_them(tmp_path: Path) -> None:
    with serving(Server(extensions=('SMTPUTF8', '8BITMIME'))) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put('jürgen@example.org', msg='Subject: ü\n\nü\n'.encode())
        outlet.work()
        assert server.mails[0][1] == ['jürgen@example.org']
        assert 'MAIL FROM:<ann@example.com> BODY=8BITMIME SMTPUTF8' in server.commands
        server.extensions = ()
        outlet.put('jürgen@example.org')
        outlet.work()
    assert '553 5.6.7' in outlet.bad()[0][1]


def test_the_entrys_digest_goes_along_as_envelope_id(tmp_path: Path) -> None:
    with serving(Server(extensions=('SIZE', 'DSN'))) as server:
        outlet = Outlet(tmp_path, server)
        filebase = outlet.put(BOB)
        outlet.work()
    assert f'MAIL FROM:<{ANN}> SIZE=26 ENVID={filebase.split("+")[1]}' in server.commands


@pytest.mark.parametrize(
    'metadata',
    [
        {'recipients': [BOB]},
        {'sender': ANN},
        {'sender': ANN, 'recipients': []},
        {'sender': ANN, 'recipients': [1]},
    ],
)
def test_a_mail_without_an_envelope_goes_to_bad(tmp_path: Path, metadata: dict[str, Any]) -> None:
    outlet = Outlet(tmp_path, Server(port=9))
    outlet.queue.enqueue(RAW, metadata)
    outlet.work()
    assert len(outlet.spool['bad'].get_files(PRESERVED)) == 1


def test_what_is_no_mail_goes_to_bad(tmp_path: Path) -> None:
    outlet = Outlet(tmp_path, Server(port=9))
    outlet.put(BOB, msg={'no': 'mail'})
    outlet.work()
    assert outlet.bad()[0][1].endswith('a message of type dict is no mail')


def test_a_parsed_mail_is_sent_as_it_came(tmp_path: Path) -> None:
    msg = EmailMessage()
    msg['Subject'] = 'ü'
    msg.set_content('text\n')
    threads = set(threading.enumerate())
    with serving(Server()) as server:
        outlet = Outlet(tmp_path, server)
        outlet.put(BOB, msg=msg)
        outlet.work()
    assert b'\r\n\r\ntext\r\n' in server.mails[0][2]
    assert set(threading.enumerate()) <= threads
