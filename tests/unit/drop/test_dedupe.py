"""The same message twice through `drop`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool, Switchboard
from switchboard.drop.dedupe import make_dedupe_key
from switchboard.drop.program import Drop
from switchboard.drop.request import DropRequest
from switchboard.errors import (
    ContentDisallowedError,
    MessageTooLargeError,
    QueueFullError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.spool.active_config import activate, publish_queue_options
from switchboard.store.disk import Disk
from tests.helpers.configurations import load
from tests.helpers.waiting import eventually

MAIL = b'Subject: x\nMessage-ID: <1@example.org>\n\nbody'


def key(kind: str, raw: bytes, **metadata: Any) -> str:
    return make_dedupe_key(kind, raw, metadata)


def test_by_content_every_byte_and_both_ends_count() -> None:
    one = key('content', MAIL, sender='a', recipients=['b', 'c'])
    assert one == key('content', MAIL, recipients=['c', 'b'], sender='a')
    others = [
        key('content', MAIL + b'\n', sender='a', recipients=['b', 'c']),
        key('content', MAIL, sender='', recipients=['b', 'c']),
        key('content', MAIL, recipients=['b', 'c']),
        key('content', MAIL, sender='a', recipients=['b']),
        key('content', MAIL, sender='a'),
    ]
    assert len({one, *others}) == 6


def test_by_message_id_the_recipients_count_and_the_rest_does_not() -> None:
    one = key('message-id', MAIL, sender='a', recipients=['b'])
    assert one == key(
        'message-id', b'X-Way: another\nmessage-id:\n <1@example.org> \n\nother', recipients=['b']
    )
    assert one != key('message-id', MAIL, recipients=['c'])
    assert one != key('message-id', MAIL.replace(b'<1@', b'<2@'), recipients=['b'])


@pytest.mark.parametrize(
    'raw',
    [
        b'Subject: x\n\nMessage-ID: <1@x>\n',
        b'Message-ID: none\n\n',
        b'Message-ID: <1@x>\nMessage-ID: <2@x>\n\n',
        b'\0\xff',
        b'',
    ],
)
def test_a_mail_without_one_message_id_goes_by_its_content(raw: bytes) -> None:
    assert key('message-id', raw, sender='a') == key('content', raw, sender='a')


def drop(directory: Path, raw: bytes, *arguments: str, queue: str = 'in') -> str:
    door = Drop(DropRequest([queue, *arguments]), str(directory / 's'), Disk())
    door.check()
    path = directory / 'message'
    path.write_bytes(raw)
    with path.open('rb') as stream:
        door.read(stream.fileno())
    door.write_metadata({})
    door.store(lambda: None)
    return door.filebase


def test_the_second_one_is_not_stored_and_the_first_is_as_ever(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\n'))
    raw = b'From a@x Sun Nov 22 03:00:00 2026\n' + MAIL + b'\0\xff\r no end'
    first = drop(tmp_path, raw, '-d', 'content', '-m', 'priority=3')
    assert drop(tmp_path, raw, '-d', 'content', '-m', 'priority=3') == first
    queue = Spool(tmp_path / 's')['in']
    assert queue.files == [first]
    assert first.endswith('+p3')
    msg, msgdata = queue.dequeue(first)
    assert msg.as_bytes() == raw.partition(b'\n')[2]
    assert msgdata['sender'] == 'a@x'


def test_a_key_may_be_given(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\n'))
    assert drop(tmp_path, b'a', '-m', 'dedupe_key=k') == drop(
        tmp_path, b'b', '-m', 'dedupe_key=k', '-d', 'content'
    )
    assert drop(tmp_path, b'a', '-m', 'dedupe_key=l') != drop(tmp_path, b'a', '-m', 'dedupe_key=k')


def test_the_queue_says_how_long_a_key_counts(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\ndedupe_window = 1ms\n'))
    first = drop(tmp_path, b'a', '-d', 'content')
    eventually(lambda: drop(tmp_path, b'a', '-d', 'content') != first, 'a new key')


@pytest.mark.parametrize(
    ('options', 'error'), [('max_body = 3', MessageTooLargeError), ('accept = json', ContentDisallowedError)]
)
def test_the_options_of_the_queue_hold_on_this_way_too(
    tmp_path: Path, options: str, error: type[SwitchboardError]
) -> None:
    publish_queue_options(load(tmp_path, f'[queue.in]\n{options}\n'))
    with pytest.raises(error):
        drop(tmp_path, MAIL, '-d', 'content')


def test_what_is_stopped_at_the_last_moment_leaves_the_key_free(tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    publish_queue_options(load(tmp_path, '[queue.in]\n'))
    door = Drop(DropRequest(['in', '-d', 'content']), str(tmp_path / 's'), Disk())
    door.check()
    door.write_metadata({})
    with pytest.raises(KeyboardInterrupt):
        door.store(stop)
    assert drop(tmp_path, b'', '-d', 'content') in Spool(tmp_path / 's')['in'].files


def test_a_queue_that_a_program_has_declared_takes_mails_by_its_own_options(tmp_path: Path) -> None:
    config = load(tmp_path, '[queue.in]\n[queue.*]\norder_key = list\n')
    activate(config)
    spool = Spool.from_config(config)
    spool.declare('late', options={'max_messages': 1, 'ttl_s': 60.0})
    filebase = drop(tmp_path, MAIL, '-C', str(config.path), queue='late')
    assert spool['late'].files == [filebase]
    assert 'queue_expires' in spool['late'].take().msgdata
    with pytest.raises(QueueFullError):
        drop(tmp_path, MAIL, queue='late')
    spool.delete('late')
    with pytest.raises(UnknownQueueError):
        drop(tmp_path, MAIL, queue='late')


def test_in_a_spool_without_a_configuration_the_options_of_a_declared_queue_hold_too(tmp_path: Path) -> None:
    Spool(tmp_path / 's').declare('late', options={'max_messages': 1})
    drop(tmp_path, MAIL, queue='late')
    with pytest.raises(QueueFullError):
        drop(tmp_path, MAIL, queue='late')


def finished(queue: Switchboard) -> Any:
    taken = queue.take()
    filebase, msg = taken.filebase, taken.msg
    queue.finish(filebase)
    return msg


def test_what_a_full_queue_pushes_out_goes_through_the_exchange_that_is_in_force(tmp_path: Path) -> None:
    sections = '[queue.in]\nmax_messages = 1\noverflow = dead-letter\ndead_letter = exchange:dead\n[queue.a]\n[queue.b]\n'
    (tmp_path / 'exchange.cfg').write_text('[exchange.dead]\ntype = fanout\nbindings = -> a, b\n')
    config = load(tmp_path, sections)
    activate(config)
    spool = Spool.from_config(config)
    for subject in (b'one', b'two'):
        drop(tmp_path, b'Subject: %s\n\n' % subject, '-C', str(config.path))
    assert [finished(spool[queue])['subject'] for queue in ('in', 'a', 'b')] == ['two', 'one', 'one']
    config.path.write_text(config.path.read_text() + '# edited\n')
    drop(tmp_path, b'Subject: three\n\n', '-C', str(config.path))
    drop(tmp_path, b'Subject: four\n\n', '-C', str(config.path))
    assert (len(spool['a'].files), len(spool['bad'].get_files('.psv'))) == (0, 1)
