"""A real Exim delivers into queues by each of its three ways, also after trouble of ours."""

from __future__ import annotations

import pytest

from tests.servers.mail.arrivals import arrive, subjects
from tests.servers.mail.exim import exim
from tests.servers.place import Place, small_disk

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

ANN = 'ann@example.com'
PIPE, MAILDIR, LMTP = 'x@lists.example.com', 'mail@drop.example.com', 'y@archive.example.com'
WAYS = (PIPE, MAILDIR, LMTP)
BODY = b'..dots\r\nFrom here\r\n8 bits: \xfc\xff\r\nend\r\n'

CONFIGURATION = """
[runner.lmtp]
class = runners.lmtp:Lmtp
queue =
listen = {home}/lmtp.sock
routing_key = in
socket_mode = 666
[queue.in]
consumed_externally = yes
[queue.dropped]
consumed_externally = yes
maildir = yes
"""


def mail(subject: str, body: bytes = BODY) -> bytes:
    return f'Subject: {subject}\r\nFrom: {ANN}\r\n\r\n'.encode() + body


def test_each_way_delivers_the_mail_and_its_envelope(somewhere: Place) -> None:
    spool = somewhere.configure(CONFIGURATION.format(home=somewhere.directory))
    with exim(somewhere) as server, somewhere.master():
        for way in WAYS:
            server.send(ANN, way, content=mail(way))
            server.send('', way, content=mail(f'bounce {way}'))
        server.send(ANN, 'a@lists.example.com', 'b@lists.example.com', content=mail('two'))
        taken = arrive(spool['in'], 5, server.told) + arrive(spool['dropped'], 2, server.told)
    by_subject = {str(one.msg['subject']): one for one in taken}
    assert len(by_subject) == len(taken) == 7
    for one in taken:
        assert bytes(one.msg).endswith(b'\n\n' + BODY.replace(b'\r\n', b'\n'))
    for way in WAYS:
        assert by_subject[way].msgdata['sender'] == ANN
        assert by_subject[f'bounce {way}'].msgdata['sender'] == ''
        assert by_subject[way].msgdata['recipients'] == [way]
    assert sorted(by_subject['two'].msgdata['recipients']) == ['a@lists.example.com', 'b@lists.example.com']


def test_mails_wait_at_the_server_while_our_disk_is_full_and_our_server_is_down(somewhere: Place) -> None:
    with small_disk(somewhere.spool_directory, '8m') as fill:
        spool = somewhere.configure(CONFIGURATION.format(home=somewhere.directory))
        with exim(somewhere) as server:
            fill()
            for way in WAYS:
                server.send(ANN, way, content=mail(way, b'x' * 70 + b'\r\n'))
            for way in WAYS:
                assert ' defer ' in server.wait_for(f'== {way}')
            (somewhere.spool_directory / 'filler').unlink()
            with somewhere.master():
                taken = arrive(spool['in'], 2, server.told) + arrive(spool['dropped'], 1, server.told)
            assert subjects(taken) == sorted(WAYS)
            assert '**' not in server.told()
        assert spool['in'].take() is None
        del spool, taken
