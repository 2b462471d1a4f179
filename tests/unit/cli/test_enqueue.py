"""``enqueue``: files, standard input and JSON lines become entries; names are printed once they are stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from email.message import Message
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.exits import Exit
from tests.helpers.commands import succeed, switchboard

CONFIG = """
[queue.in]
[queue.copy]
[queue.small]
max_messages = 3
max_body = 10
[queue.texts]
accept = text
"""
EXCHANGES = """
[exchange.all]
type = fanout
bindings =
    -> in, copy
[exchange.topics]
type = topic
bindings =
    lists.* -> in
"""


@pytest.fixture
def spool(make_spool: Callable[..., Spool]) -> Spool:
    return make_spool(CONFIG, EXCHANGES)


def test_standard_input_is_one_message_of_bytes(config: Path, spool: Spool) -> None:
    ran = succeed('-C', config, 'enqueue', 'in', input=b'\xff\x00 as it is')
    assert spool['in'].files == ran.lines
    assert spool['in'].dequeue(ran.lines[0])[0] == b'\xff\x00 as it is'


def test_a_file_is_of_the_kind_that_its_ending_says(config: Path, spool: Spool, tmp_path: Path) -> None:
    contents = {
        'a.eml': b'Subject: x\r\n\r\n\xe4',
        'b.txt': 'ü'.encode(),
        'c.json': b'{"n": 1}',
        'd.bin': b'\xff',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    ran = succeed('-C', config, 'enqueue', 'in', *(tmp_path / name for name in contents))
    mail, text, value, data = (spool['in'].dequeue(filebase)[0] for filebase in ran.lines)
    assert isinstance(mail, Message)
    assert mail.as_bytes() == contents['a.eml']
    assert (text, value, data) == ('ü', {'n': 1}, b'\xff')


def test_the_kind_can_be_named(config: Path, spool: Spool) -> None:
    (filebase,) = succeed('-C', config, 'enqueue', 'in', '-', '--kind', 'json', input=b'[1, 2]').lines
    assert spool['in'].dequeue(filebase)[0] == [1, 2]


def test_standard_input_that_is_not_of_its_kind_is_called_so(config: Path) -> None:
    ran = switchboard('-C', config, 'enqueue', 'in', '--kind', 'json', input='not json')
    assert ran.status == Exit.DATA
    assert ran.err.startswith('switchboard: standard input: this is no json: Expecting value')


def test_what_a_line_is_about_is_named_once(config: Path, tmp_path: Path) -> None:
    place = tmp_path / 'a.json'
    place.mkdir()
    ran = switchboard('-C', config, 'enqueue', 'in', place)
    assert ran.err == f'switchboard: {place}: Is a directory\n'


def test_metadata_are_text_or_json(config: Path, spool: Spool) -> None:
    words = [
        '-m',
        'from=me=you',
        '-m',
        'urgent:=true',
        '-m',
        'rcpt:=["a"]',
        '--order-key',
        'k',
        '--priority',
        '7',
    ]
    (filebase,) = succeed('-C', config, 'enqueue', 'in', *words, input=b'x').lines
    assert filebase.endswith('+p7')
    metadata = spool['in'].dequeue(filebase)[1]
    found = {key: metadata[key] for key in ('from', 'urgent', 'rcpt', 'order_key', 'priority')}
    assert found == {'from': 'me=you', 'urgent': True, 'rcpt': ['a'], 'order_key': 'k', 'priority': 7}


@pytest.mark.parametrize('pair', ['novalue', '=x', 'k:={', ':=1', 'k:={"a":1,"a":2}'])
def test_a_pair_that_is_none_is_wrong_use(config: Path, pair: str) -> None:
    assert switchboard('-C', config, 'enqueue', 'in', '-m', pair, input=b'x').status == Exit.USAGE


def test_a_delay_is_a_duration(config: Path, spool: Spool) -> None:
    succeed('-C', config, 'enqueue', 'in', '--delay', '1h', input=b'x')
    assert spool['in'].files == []
    assert len(spool['in'].get_files()) == 1
    ran = switchboard('-C', config, 'enqueue', 'in', '--delay', '60', input=b'x')
    assert ran.status == Exit.USAGE
    assert 'did you mean 60s?' in ran.err


def test_a_message_is_published_to_every_queue_it_is_for(config: Path, spool: Spool) -> None:
    ran = succeed('-C', config, 'enqueue', '--exchange', 'all', '--json', input=b'x')
    by_queue = {each['queue']: each['filebase'] for each in ran.objects}
    assert {name: spool[name].files for name in by_queue} == {
        'in': [by_queue['in']],
        'copy': [by_queue['copy']],
    }


def test_a_message_that_nobody_takes_is_told_of(config: Path, tmp_path: Path) -> None:
    (tmp_path / 'a').write_text('x')
    words = ['-C', config, 'enqueue', tmp_path / 'a', '--exchange', 'topics', '--routing-key']
    assert succeed(*words, 'lists.dogs').lines[0].startswith('in/')
    ran = switchboard(*words, 'other')
    assert ran.status == Exit.NO_ROUTE
    assert f'`switchboard -C {config} route' in ran.err
    assert switchboard('-C', config, 'enqueue', '--exchange', 'nowhere', input=b'x').status == Exit.NO_INPUT


@pytest.mark.parametrize('kind', ['mail', 'text'])
def test_half_a_surrogate_pair_in_a_line_is_called_so(kind: str, config: Path) -> None:
    line = json.dumps({'msg': 'a\ud800', 'kind': kind}).encode()
    ran = switchboard('-C', config, 'enqueue', 'in', '--json-lines', input=line)
    assert ran.status == 65
    assert f'"msg" of the kind {kind} has half a surrogate pair at 1' in ran.err


def test_json_lines_are_stored_in_their_order(config: Path, spool: Spool) -> None:
    lines = [{'msg': n, 'metadata': {'n': n}} for n in range(600)]
    ran = succeed(
        '-C', config, 'enqueue', 'in', '--json-lines', input='\n'.join(map(json.dumps, lines)).encode()
    )
    assert spool['in'].files == ran.lines
    messages = [spool['in'].dequeue(filebase) for filebase in ran.lines]
    assert [(msg, metadata['n']) for msg, metadata in messages] == [(n, n) for n in range(600)]


def test_a_line_may_have_a_kind_of_its_own(config: Path, spool: Spool) -> None:
    lines = b'{"msg": "S: x\\n\\nbody", "kind": "mail"}\n{"msg": "/w==", "kind": "bytes"}\n\n{"msg": "t", "kind": "text"}\n'
    ran = succeed('-C', config, 'enqueue', 'in', '--json-lines', input=lines)
    mail, data, text = (spool['in'].dequeue(filebase)[0] for filebase in ran.lines)
    assert (mail['S'], data, text) == ('x', b'\xff', 't')


def test_a_line_that_cannot_be_used_does_not_stop_the_others(config: Path, spool: Spool) -> None:
    lines = [
        b'{"msg": 1}', b'nonsense', b'{"message": 1}', b'[]', b'{"msg": 1, "metadata": []}',
        b'{"msg": 1, "kind": "text"}', b'{"msg": "x", "kind": "bytes"}', b'{"msg": 1, "kind": "odd"}', b'{"msg": 2}',
    ]  # fmt: skip
    ran = switchboard('-C', config, 'enqueue', 'in', '--json-lines', input=b'\n'.join(lines))
    assert ran.status == Exit.PARTIAL
    assert spool['in'].files == ran.lines
    assert len(ran.lines) == 2
    complaints = ran.err.splitlines()
    assert [line.split(':')[1].strip() for line in complaints[:-1]] == [f'line {n}' for n in range(2, 9)]
    assert complaints[-1] == 'switchboard: 2 messages stored, 7 not'


def test_quietly_only_what_went_wrong_is_told(config: Path, spool: Spool) -> None:
    ran = switchboard(
        '-C', config, 'enqueue', 'in', '--json-lines', '--quiet', input=b'{"msg": 1}\nnonsense\n'
    )
    assert (ran.status, ran.out) == (Exit.PARTIAL, '')
    assert 'line 2: ' in ran.err
    assert len(spool['in'].files) == 1
    assert succeed('-C', config, 'enqueue', 'in', '--quiet', '--json', input=b'x').out == ''


def test_a_full_queue_is_a_temporary_failure_that_is_told_once(config: Path, spool: Spool) -> None:
    for _ in range(3):
        succeed('-C', config, 'enqueue', 'small', input=b'x')
    lines = b'\n'.join(b'{"msg": %d}' % n for n in range(10))
    ran = switchboard('-C', config, 'enqueue', 'small', '--json-lines', input=lines)
    assert (ran.status, ran.out) == (Exit.TEMPORARY, '')
    assert len(ran.err.splitlines()) == 1
    assert 'line 1: small: 3 messages wait' in ran.err


def test_what_a_queue_refuses_for_good_is_not_temporary(config: Path, tmp_path: Path) -> None:
    assert switchboard('-C', config, 'enqueue', 'small', input=b'x' * 11).status == Exit.DATA
    assert switchboard('-C', config, 'enqueue', 'texts', input=b'x').status == Exit.DATA
    assert switchboard('-C', config, 'enqueue', 'in', '--kind', 'json', input=b'{').status == Exit.DATA
    assert switchboard('-C', config, 'enqueue', 'in', '--kind', 'text', input=b'\xff').status == Exit.DATA


def test_a_file_that_is_not_there_does_not_stop_the_others(
    config: Path, spool: Spool, tmp_path: Path
) -> None:
    (tmp_path / 'there').write_text('x')
    ran = switchboard('-C', config, 'enqueue', 'in', tmp_path / 'missing', tmp_path / 'there')
    assert ran.status == Exit.PARTIAL
    assert spool['in'].files == ran.lines
    assert 'missing: there is no such file' in ran.err
    assert switchboard('-C', config, 'enqueue', 'in', tmp_path / 'missing').status == Exit.NO_INPUT


def test_an_undeclared_queue_is_no_input(config: Path, tmp_path: Path) -> None:
    ran = switchboard('-C', config, 'enqueue', 'inn', input=b'x')
    assert ran.status == Exit.NO_INPUT
    assert not (tmp_path / 'spool' / 'inn').exists()


def test_where_to_must_be_said(config: Path) -> None:
    assert switchboard('-C', config, 'enqueue', input=b'x').status == Exit.USAGE
    assert switchboard('-C', config, 'enqueue', 'in', '--routing-key', 'k', input=b'x').status == Exit.USAGE


def test_a_spool_without_a_configuration_makes_queues_as_they_are_named(tmp_path: Path) -> None:
    ran = switchboard('-s', tmp_path / 'new', 'enqueue', 'in', input=b'x')
    assert ran.status == Exit.NO_INPUT
    assert 'init' in ran.err
    assert not (tmp_path / 'new').exists(), 'a slip of the pen makes no spool'
    succeed('-s', tmp_path / 'new', 'init')
    succeed('-s', tmp_path / 'new', 'enqueue', 'in', input=b'x')
    assert len(Spool(tmp_path / 'new')['in'].files) == 1


def test_a_message_may_be_given_a_time_to_live_and_a_key_that_is_stored_once(tmp_path: Path) -> None:
    succeed('-s', tmp_path / 'spool', 'init')
    words = ('-s', tmp_path / 'spool', 'enqueue', 'in', '--ttl', '1h', '--dedupe-key', 'k')
    first = succeed(*words, input=b'a').lines
    assert succeed(*words, input=b'b').lines == first
    [taken] = [Spool(tmp_path / 'spool')['in'].take()]
    assert taken.msg == b'a'
    assert 3590 < taken.msgdata['expires'] - float(taken.filebase.partition('+')[0]) <= 3600


def test_what_is_dropped_to_make_room_is_told(tmp_path: Path) -> None:
    succeed('-s', tmp_path / 'spool', 'init')
    succeed('-s', tmp_path / 'spool', 'declare', 'in', '-o', 'max_messages=1', '-o', 'overflow=drop-oldest')
    [first] = succeed('-s', tmp_path / 'spool', 'enqueue', 'in', input=b'a').lines
    ran = succeed('-s', tmp_path / 'spool', 'enqueue', 'in', input=b'b')
    assert ran.err == f'switchboard: {first} dropped queue=in reason=overflow\n'
    assert succeed('-s', tmp_path / 'spool', 'queues', 'in', '--json').objects[0]['waiting'] == 1


def test_a_pair_that_means_something_to_the_queue_is_read_as_its_option(tmp_path: Path) -> None:
    succeed('-s', tmp_path, 'init')
    (filebase,) = succeed('-s', tmp_path, 'enqueue', 'in', '-m', 'priority=9', input=b'x').lines
    assert filebase.endswith('+p9')
    succeed('-s', tmp_path, 'enqueue', 'in', '--set', 'delay=1h', input=b'x')
    assert succeed('-s', tmp_path, 'ls', 'in', '--state', 'delayed', '--count').lines == ['1']
    for wrong in ('priority=x', 'priority=10', 'priority:=true', 'delay=soon', 'order_key:=7'):
        assert switchboard('-s', tmp_path, 'enqueue', 'in', '-m', wrong, input=b'x').status == Exit.USAGE, (
            wrong
        )


@pytest.mark.parametrize(
    ('line', 'why'),
    [
        ('{"msg": 1, "meta": {}}', 'unknown members: meta'),
        ('{"msg": 1, "metadata": {"priority": "9"}}', "priority is a number from 0 to 9, not '9'"),
        ('{"msg": 1, "metadata": {"priority": 99}}', 'priority is a number from 0 to 9'),
        ('{"msg": 1, "metadata": {"order_key": 7}}', 'order_key is a text'),
        ('{"msg": 1, "metadata": {"delay": "soon"}}', 'delay'),
        ('{"msg": 1, "metadata": {"ttl": [1]}}', 'ttl'),
        ('{"msg": 1e999}', 'beyond all numbers'),
        ('{"msg": 1, "msg": 2}', "there are two members 'msg'"),
        ('{"msg": {"to": {"a": 1, "b": 2, "a": 3}}}', "there are two members 'a'"),
        ('{"msg": ' + '[' * 5000 + ']' * 5000 + '}', 'nested too deeply'),
        (r'{"msg": "\ud800", "kind": "text"}', ''),
    ],
)
def test_one_bad_line_fails_alone(tmp_path: Path, line: str, why: str) -> None:
    succeed('-s', tmp_path, 'init')
    lines = f'{{"msg": "good"}}\n{line}\n{{"msg": "as good"}}\n'.encode()
    ran = switchboard('-s', tmp_path, 'enqueue', 'in', '--json-lines', input=lines)
    assert (ran.status, len(ran.lines)) == (Exit.PARTIAL, 2)
    assert 'line 2' in ran.err
    assert why in ran.err
