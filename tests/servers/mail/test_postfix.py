"""A real Postfix delivers into queues by each of its four ways, through trouble of ours, and takes mails from a queue again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.spool.spool import Spool
from tests.helpers.ports import free_port
from tests.servers.mail.arrivals import arrive, subjects
from tests.servers.mail.postfix import Postfix, need_postfix, postfix
from tests.servers.place import USER, Place, place, small_disk

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

ANN = 'ann@example.com'
PIPE, ALIAS, MAILDIR, LMTP = (
    'x@lists.example.com',
    'reports@localhost',
    'mail@drop.example.com',
    'y@archive.example.com',
)
WAYS = (PIPE, ALIAS, MAILDIR, LMTP)
# All that a client may send: long lines it may not.
BODY = b'.dot\r\n..dots\r\nFrom here\r\n8 bits: \xfc\xff\r\n' + b'x' * 900 + b'\r\nend\r\n'

LMTP_RUNNER = """
[runner.lmtp]
class = runners.lmtp:Lmtp
queue =
listen = 127.0.0.1:{port}
routing_key = in
"""
QUEUES = """
[queue.in]
consumed_externally = yes
[queue.dropped]
consumed_externally = yes
maildir = yes
"""
RESEND = '''
from switchboard import Runner


class Resend(Runner):
    """To another address, or it would come back here."""

    def dispose(self, msg, msgdata):
        self.emit('out', msg, sender=msgdata['sender'], recipients=['final@drop.example.com'])
'''


def mail(subject: str, body: bytes = BODY) -> bytes:
    return f'Subject: {subject}\r\nFrom: {ANN}\r\n\r\n'.encode() + body


@pytest.fixture
def somewhere() -> Iterator[Place]:
    need_postfix()
    with place() as made:
        yield made


def show(server: Postfix, somewhere: Place) -> str:
    log = somewhere.directory / 'master.log'
    return server.told() + (log.read_text() if log.exists() else '')


def test_each_way_delivers_the_mail_and_its_envelope(somewhere: Place) -> None:
    port = free_port()
    spool = somewhere.configure(LMTP_RUNNER.format(port=port) + QUEUES)
    with somewhere.master(), postfix(somewhere, port) as server:
        for way in WAYS:
            server.send(ANN, way, content=mail(way))
            server.send('', way, content=mail(f'bounce {way}'))
        server.send(ANN, 'a@lists.example.com', 'b@lists.example.com', content=mail('two'))

        def told() -> str:
            return show(server, somewhere)

        taken = arrive(spool['in'], 7, told) + arrive(spool['dropped'], 2, told)
    by_subject = {str(one.msg['subject']): one for one in taken}
    assert len(by_subject) == len(taken) == 9
    for one in taken:
        content = bytes(one.msg)
        assert content.endswith(b'\n\n' + BODY.replace(b'\r\n', b'\n')), content
        assert b'\r' not in content
    for way in WAYS:
        assert by_subject[way].msgdata['sender'] == ANN
        assert by_subject[f'bounce {way}'].msgdata['sender'] == ''
        assert by_subject[way].msgdata['recipients'] == [way]
    assert sorted(by_subject['two'].msgdata['recipients']) == ['a@lists.example.com', 'b@lists.example.com']


def test_mails_wait_at_the_server_while_our_disk_is_full(somewhere: Place) -> None:
    port = free_port()
    with small_disk(somewhere.spool_directory, '8m') as fill:
        spool = somewhere.configure(LMTP_RUNNER.format(port=port) + QUEUES)
        with somewhere.master(), postfix(somewhere, port) as server:
            fill()
            for way in WAYS:
                server.send(ANN, way, content=mail(way, b'x' * 70 + b'\r\n'))
            deferred = {way: server.wait_for(rf'to=<{way}>.* status=deferred') for way in WAYS}
            assert '4.3.' in deferred[PIPE]
            assert ' 452 4.3.1 ' in deferred[LMTP]
            assert spool['in'].get_files() == []
            (somewhere.spool_directory / 'filler').unlink()
            taken = arrive(spool['in'], 3, server.told) + arrive(spool['dropped'], 1, server.told)
            assert subjects(taken) == sorted(WAYS)
            assert 'bounced' not in server.told()
        assert spool['in'].take() is None
        del spool, taken


def test_mails_that_come_while_the_master_is_down_go_all_the_way_later(somewhere: Place) -> None:
    port = free_port()
    (somewhere.directory / 'jobs.py').write_text(RESEND)
    with postfix(somewhere, port) as server:
        mailboxes = server.home / 'conf' / 'mailboxes'
        mailboxes.write_text(mailboxes.read_text() + 'final@drop.example.com final/\n')
        spool = somewhere.configure(
            LMTP_RUNNER.format(port=port)
            + '[runner.in]\nclass = jobs:Resend\nqueue = in\n[runner.dropped]\nclass = jobs:Resend\nqueue = dropped\n'
            + f'[runner.out]\nclass = runners.smtp:Smtp\nqueue = out\nhost = 127.0.0.1\nport = {server.port}\n'
            + '[queue.dropped]\nmaildir = yes\n[queue.out]\nretry = 1s\n[queue.final]\nexternal = yes\nmaildir = yes\n'
        )
        wanted = [f'{way} {number}' for way in WAYS for number in range(5)]
        for subject in wanted:
            server.send(ANN, subject.split()[0], content=mail(subject))
        server.wait_for(rf'to=<{LMTP}>.* status=deferred')
        server.wait_for(rf'to=<{PIPE}>.* status=sent')
        assert spool['final'].take() is None
        with somewhere.master():
            taken = arrive(spool['final'], len(wanted), lambda: show(server, somewhere))
        assert subjects(taken) == sorted(wanted)
        assert {one.msgdata['sender'] for one in taken} == {ANN}
        assert spool['bad'].get_files('.psv') == []


def test_a_runner_waits_for_a_server_that_is_down_and_delivers_when_it_is_back(somewhere: Place) -> None:
    spool = somewhere.configure(
        '[runner.out]\nclass = runners.smtp:Smtp\nqueue = out\nhost = 127.0.0.1\nport = @PORT@\n'
        '[queue.final]\nexternal = yes\nmaildir = yes\n'
    )
    for number in range(20):
        spool['out'].enqueue(mail(f'mail {number}'), sender=ANN, recipients=['final@drop.example.com'])
    spool['out'].enqueue(
        mail('nobody'), sender=ANN, recipients=['final@drop.example.com', 'nobody@drop.example.com']
    )
    with postfix(somewhere) as server:
        somewhere.config.write_text(somewhere.config.read_text().replace('@PORT@', str(server.port)))
        mailboxes = server.home / 'conf' / 'mailboxes'
        mailboxes.write_text(mailboxes.read_text() + 'final@drop.example.com final/\n')
        server.command('postfix', 'stop')
        with somewhere.master():
            log = Path(somewhere.directory / 'master.log')
            server.wait_for('DestinationDown', log)
            server.command('postfix', 'start')
            taken = arrive(spool['final'], 21, lambda: show(server, somewhere))
    assert subjects(taken) == sorted([f'mail {number}' for number in range(20)] + ['nobody'])
    [bad] = spool['bad'].get_files('.psv')
    entry = spool['bad'].peek(bad)
    assert 'nobody@drop.example.com: 550 5.1.1' in entry.records[-1]['reason']


def test_the_configuration_files_are_ones_that_postfix_accepts(somewhere: Place) -> None:
    somewhere.configure(QUEUES)
    with postfix(somewhere) as server:
        assert server.command('postfix', 'check') == ''
        warnings = subprocess.run(
            ['/usr/sbin/postconf', '-c', str(server.home / 'conf'), '-n'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert 'unused parameter' not in warnings.stderr


def test_a_command_of_an_alias_file_runs_as_the_files_owner(somewhere: Place) -> None:
    spool = somewhere.configure(QUEUES)
    with postfix(somewhere) as server:
        server.command('postconf', '-e', 'default_privs = mail')  # who may not write there
        shutil.chown(server.home / 'conf' / 'aliases', USER)
        server.command('postfix', 'reload')
        server.send(ANN, ALIAS, content=mail('owner'))
        assert subjects(arrive(spool['in'], 1, server.told)) == ['owner']


def test_a_spool_without_a_configuration_takes_plain_files(somewhere: Place) -> None:
    """What a script on the same machine does, beside the mail server."""
    spool = Spool(somewhere.spool_directory)
    (somewhere.directory / 'draft').write_bytes(mail('plain'))
    spool['in']
    (somewhere.directory / 'draft').rename(somewhere.spool_directory / 'in' / 'x.eml')
    assert subjects(arrive(spool['in'], 1)) == ['plain']
