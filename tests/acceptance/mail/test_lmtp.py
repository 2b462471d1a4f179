"""The LMTP door: what is said to whom, and what is on the disk then."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import smtplib
import socket
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from switchboard.config.config import Config
from switchboard.errors import ConfigError
from switchboard.runners.lmtp import Lmtp
from switchboard.spool.spool import Spool
from switchboard.store.disk import Disk
from switchboard.testing.faults import FaultyDisk
from tests.acceptance.mail.lmtp import Client, configure, listening
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S, eventually

MAIL = b'Subject: hello\r\n\r\nworld\r\n'


def bodies(home: Path, name: str) -> list[tuple[bytes, list[str]]]:
    """:return: what a queue holds, with its recipients."""
    queue = Spool.from_config(home / 'switchboard.cfg')[name]
    found = []
    while (taken := queue.take()) is not None:
        found.append((bytes(taken.msg), taken.msgdata['recipients']))
        queue.finish(taken.filebase)
    return found


def test_a_mail_is_stored_before_250_is_said(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with listening(config), Client(tmp_path / 'lmtp') as client:
        assert client.deliver(MAIL, 'lists@example.org') == {'lists@example.org': 250}
        queue = Spool.from_config(config)['lists']
        taken = queue.take()
    assert taken is not None
    assert bytes(taken.msg) == b'Subject: hello\n\nworld\n'
    assert taken.msgdata == {
        'door': 'lmtp',
        'sender': 'ann@example.com',
        'recipients': ['lists@example.org'],
        'exchange': 'mail',
        'routing_key': 'lists.example.org',
        'version': 3,
        '_parsemsg': False,
    }


def test_recipients_that_share_their_queues_share_a_copy(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with listening(config), Client(tmp_path / 'lmtp') as client:
        codes = client.deliver(MAIL, 'lists@a', 'both@a', 'Lists+x@b', 'nobody@a', 'both@b')
    assert codes == {'lists@a': 250, 'both@a': 250, 'Lists+x@b': 250, 'nobody@a': 550, 'both@b': 250}
    assert sorted(recipients for _, recipients in bodies(tmp_path, 'lists')) == [
        ['both@a', 'both@b'],
        ['lists@a', 'Lists+x@b'],
    ]
    assert [recipients for _, recipients in bodies(tmp_path, 'archive')] == [['both@a', 'both@b']]


def test_each_recipient_gets_the_reply_of_its_own_queue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(tmp_path)
    spool = Spool.from_config(config)
    spool['full'].enqueue('there is one already')
    spool.drain('archive')
    with listening(config), Client(tmp_path / 'lmtp') as client:
        codes = client.deliver(
            MAIL + b'x' * 100 + b'\r\n', 'full@a', 'lists@a', 'archive@a', 'small@a', 'both@a'
        )
    assert codes == {'full@a': 452, 'lists@a': 250, 'archive@a': 451, 'small@a': 552, 'both@a': 451}
    assert [recipients for _, recipients in bodies(tmp_path, 'lists')] == [['lists@a']]
    refused = [one for one in caplog.records if one.members['event'] == 'not stored']
    # Nothing is wrong here: an operator, or a limit, has said so.
    assert {one.members['recipients']: one.levelname for one in refused if one.levelno > logging.INFO} == {
        'full@a': 'WARNING',
        'small@a': 'WARNING',
    }


@pytest.mark.parametrize(('error', 'code'), [(errno.ENOSPC, 452), (errno.EIO, 451)])
def test_a_disk_in_trouble_is_never_the_senders_fault(tmp_path: Path, error: int, code: int) -> None:
    config = configure(tmp_path)
    disk = FaultyDisk(calls=('pwrite',), persistent=True, error=error)
    with listening(config, disk), Client(tmp_path / 'lmtp') as client:
        disk.arm(1)
        assert client.deliver(MAIL, 'lists@a', 'both@a') == {'lists@a': code, 'both@a': code}
        disk.arm(0)
        assert client.deliver(MAIL, 'lists@a') == {'lists@a': 250}
    assert len(bodies(tmp_path, 'lists')) == 1


def test_a_bounce_has_no_sender(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with listening(config), Client(tmp_path / 'lmtp') as client:
        assert client.deliver(MAIL, 'lists@a', sender='') == {'lists@a': 250}
    taken = Spool.from_config(config)['lists'].take()
    assert taken is not None
    assert taken.msgdata['sender'] == ''


def test_dots_eight_bits_and_long_lines_arrive_as_they_were_sent(tmp_path: Path) -> None:
    content = b'Subject: \xe9\r\n\r\n..two\r\n.\xff\0\r\n' + b'x' * 100_000 + b'\r\n'
    config = configure(tmp_path)
    with listening(config), Client(tmp_path / 'lmtp') as client:
        assert client.deliver(content, 'lists@a') == {'lists@a': 250}
    assert [body for body, _ in bodies(tmp_path, 'lists')] == [content.replace(b'\r\n', b'\n')]


def test_a_mail_that_is_too_large_is_refused_to_each_recipient(tmp_path: Path) -> None:
    config = configure(tmp_path, runner='max_size = 1K')
    with listening(config), Client(tmp_path / 'lmtp') as client:
        assert client.esmtp_features['size'] == '1024'
        assert client.deliver(b'x' * 2000 + b'\r\n', 'lists@a', 'both@a') == {'lists@a': 552, 'both@a': 552}
        assert client.mail('ann@example.com', ['SIZE=2000'])[0] == 552
        assert client.deliver(MAIL, 'lists@a') == {'lists@a': 250}


def test_a_client_that_is_silent_is_left(tmp_path: Path) -> None:
    config = configure(tmp_path, runner='timeout = 200ms')
    with listening(config), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(tmp_path / 'lmtp'))
        assert client.recv(100).startswith(b'220 ')
        assert client.recv(100) == b''


def test_more_clients_than_allowed_are_told_to_come_later(tmp_path: Path) -> None:
    config = configure(tmp_path, runner='max_connections = 1')
    with listening(config), Client(tmp_path / 'lmtp') as client:
        with socket.socket(socket.AF_UNIX) as second:
            second.settimeout(PATIENCE_S)
            second.connect(str(tmp_path / 'lmtp'))
            assert second.recv(100).startswith(b'421 ')
        assert client.deliver(MAIL, 'lists@a') == {'lists@a': 250}


class CountingDisk(Disk):
    """Counts the flushes, each of as many files as there are to be flushed."""

    def __init__(self) -> None:
        self.flushes = 0
        self.entered = threading.Event()
        self.gate = threading.Event()

    def sync_files(self, fds: Sequence[int], *, names: bool = False) -> None:
        """See `Disk`."""
        self.flushes += 1
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)


def test_mails_that_arrive_during_a_flush_share_the_next_one(tmp_path: Path) -> None:
    config = configure(tmp_path)
    Spool.from_config(config)['lists'].enqueue(b'x')  # so that all directories are there
    disk = CountingDisk()
    with listening(config, disk) as runner:
        clients = [Client(tmp_path / 'lmtp') for _ in range(10)]
        threads = [threading.Thread(target=client.deliver, args=(MAIL, 'lists@a')) for client in clients]
        threads[0].start()
        assert disk.entered.wait(PATIENCE_S)  # the first mail's flush is under way
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: len(runner.server.publisher.waiting) == 9, 'all others waiting')
        disk.gate.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        for client in clients:
            client.close()
    assert disk.flushes == 2
    assert Spool.from_config(config)['lists'].get_files()[10:]


def test_a_stop_lets_the_mail_that_is_arriving_end_and_tells_the_others_to_go(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with listening(config) as runner:
        idle, busy = Client(tmp_path / 'lmtp'), Client(tmp_path / 'lmtp')
        busy.mail('ann@example.com')
        busy.rcpt('lists@a')
        runner.stop()
        assert idle.getreply()[0] == 421
        with pytest.raises(OSError), Client(tmp_path / 'lmtp'):  # nobody is let in any more
            pass
        assert busy.data(MAIL)[0] == 250
        assert busy.getreply()[0] == 421
        idle.close()
        busy.close()
    assert len(bodies(tmp_path, 'lists')) == 1
    assert not (tmp_path / 'lmtp').exists()


@pytest.mark.slow
def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    config = configure(tmp_path, runner='stop_timeout = 1s')
    with listening(config) as runner:
        client = Client(tmp_path / 'lmtp')
        client.mail('ann@example.com')
        runner.stop()
    client.close()


def test_a_successor_takes_the_socket_over_without_a_gap(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with listening(config):
        with listening(config):
            assert stat.S_IMODE(os.stat(tmp_path / 'lmtp').st_mode) == 0o660
            with Client(tmp_path / 'lmtp') as client:
                assert client.deliver(MAIL, 'lists@a') == {'lists@a': 250}
        assert not (tmp_path / 'lmtp').exists()


def test_it_listens_on_tcp_too(tmp_path: Path) -> None:
    port = free_port()
    config = configure(tmp_path, runner='')
    path = tmp_path / 'switchboard.cfg'
    path.write_text(path.read_text().replace(f'listen = {tmp_path}/lmtp', f'listen = 127.0.0.1:{port}'))
    config = type(config).load(path)
    with listening(config), smtplib.LMTP('127.0.0.1', port, timeout=PATIENCE_S) as client:
        client.sendmail('ann@example.com', ['lists@a'], MAIL)
    assert len(bodies(tmp_path, 'lists')) == 1


@pytest.mark.parametrize(
    ('runner', 'reason'),
    [
        ('routing_key = {nothing}', 'is none of'),
        ('max_size = many', 'is not a size'),
        ('socket_mode = 999', 'is not an octal mask'),
    ],
)
def test_a_mistake_in_the_section_is_told(tmp_path: Path, runner: str, reason: str) -> None:
    config = configure(tmp_path, runner=runner)
    with pytest.raises(ConfigError, match=reason):
        Lmtp(Spool.from_config(config), config.runners['lmtp'])


@pytest.mark.parametrize(
    'place', ['127.0.0.1', ':24', '127.0.0.1:²', '127.0.0.1:65536', '127.0.0.1:' + '9' * 5000]
)
def test_a_place_that_is_none_to_listen_at_is_told(tmp_path: Path, place: str) -> None:
    configure(tmp_path, runner='')
    path = tmp_path / 'switchboard.cfg'
    path.write_text(path.read_text().replace(f'listen = {tmp_path}/lmtp', f'listen = {place}'))
    config = Config.load(path)
    with pytest.raises(ConfigError, match='is neither host:port nor a path'):
        asyncio.run(Lmtp(Spool.from_config(config), config.runners['lmtp']).setup())


def test_what_is_no_socket_is_not_taken_for_one_that_was_left(tmp_path: Path) -> None:
    config = configure(tmp_path)
    (tmp_path / 'lmtp').write_text('mine')
    with pytest.raises(ConfigError, match='lmtp: is there, and is no socket'):
        asyncio.run(Lmtp(Spool.from_config(config), config.runners['lmtp']).setup())
    assert (tmp_path / 'lmtp').read_text() == 'mine'


def talk(home: Path, *lines: bytes) -> list[bytes]:
    """Say lines, each after the answer to the one before, and return the last line of each answer."""
    answers = []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        client.connect(str(home / 'lmtp'))
        file = client.makefile('rb')
        for line in (b'', *lines):
            if line:
                client.sendall(line + b'\r\n')
            while (answer := file.readline())[3:4] == b'-':
                pass
            answers.append(answer.strip())
    return answers[1:]


def test_an_address_that_is_no_utf_8_is_refused_alone(tmp_path: Path) -> None:
    with listening(configure(tmp_path)) as runner:
        answers = talk(
            tmp_path,
            b'LHLO here',
            b'MAIL FROM:<x\xe4@example.com>',
            b'MAIL FROM:<ann@example.com> SMTPUTF8',
            b'RCPT TO:<lists\xe4@lists>',
            'RCPT TO:<lists@jörg>'.encode(),
            b'RCPT TO:<lists@x>',
            b'DATA',
            b'Subject: x\r\n\r\n.',
        )
        [filebase] = runner.spool['lists'].files
        _, msgdata = runner.spool['lists'].dequeue(filebase)
    codes = [answer[:9] for answer in answers]
    assert codes[1] == codes[3] == b'553 5.6.7'
    assert codes[4][:3] in (b'250', b'550')
    assert codes[5] == b'250 2.1.5'
    assert msgdata['recipients'][-1] == 'lists@x'
    assert all('\udce4' not in one for one in msgdata['recipients'])


@pytest.mark.parametrize('address', [b'', b'lists@li\x00sts', b'li\x7fsts@x', b'li\x0bsts@x', b'\x01lists@x'])
def test_a_recipient_that_is_no_address_is_refused_alone(tmp_path: Path, address: bytes) -> None:
    with listening(configure(tmp_path)) as runner:
        answers = talk(
            tmp_path,
            b'LHLO here',
            b'MAIL FROM:<>',
            b'RCPT TO:<%s>' % address,
            b'RCPT TO:<lists@x>',
            b'DATA',
            b'Subject: x\r\n\r\n.',
        )
        [filebase] = runner.spool['lists'].files
        _, msgdata = runner.spool['lists'].dequeue(filebase)
    assert answers[1][:3] == b'250'
    assert answers[2][:9] == b'553 5.1.3'
    assert answers[3][:3] == b'250'
    assert msgdata['recipients'] == ['lists@x']


def test_the_greeting_is_asked_for_by_its_name(tmp_path: Path) -> None:
    with listening(configure(tmp_path)):
        assert b'LHLO' in talk(tmp_path, b'MAIL FROM:<a@x>')[0]


def test_mails_that_arrive_share_one_memory(tmp_path: Path) -> None:
    config = configure(tmp_path, runner='max_buffer_memory = 20K')
    with listening(config) as runner:
        opening = (b'LHLO here', b'MAIL FROM:<a@x>', b'RCPT TO:<lists@x>', b'DATA')
        # A small one goes, one that is too much for what is left does not, and afterwards all is given back.
        assert talk(tmp_path, *opening, b'Subject: x\r\n\r\n.')[-1].startswith(b'250')
        assert talk(tmp_path, *opening, b'x' * 30_000)[-1].startswith(b'421 4.3.1')
        assert talk(tmp_path, *opening, b'Subject: x\r\n\r\n.')[-1].startswith(b'250')
        runner.server.memory.used_bytes += 20 << 10  # others have it
        assert talk(tmp_path, *opening)[-1].startswith(b'452 4.3.1')
        runner.server.memory.used_bytes -= 20 << 10
    assert runner.server.memory.used_bytes == 0
    assert len(runner.spool['lists'].files) == 2
