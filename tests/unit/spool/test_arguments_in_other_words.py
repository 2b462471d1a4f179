"""An argument of a call under another word or unit, ``enqueue(delay_s=5)``: it is refused, and not stored as a key that does nothing."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from switchboard import Spool
from switchboard.brokers import connect
from switchboard.brokers.queue import BrokerQueue
from switchboard.brokers.url import read_broker_url
from switchboard.drop.request import DropRequest, UsageError
from switchboard.message.metadata import MISSPELLED
from switchboard.spool.replies import Replies
from tests.helpers.commands import switchboard
from tests.helpers.runs import make_runner

ROOT = Path(__file__).resolve().parents[3]

Call = Callable[..., object]


def enqueue(spool: Spool, **keys: Any) -> object:
    return spool['in'].enqueue('x', **keys)


def enqueue_in_a_batch(spool: Spool, **keys: Any) -> object:
    with spool['in'].batch() as batch:
        return batch.enqueue('x', **keys)


def enqueue_on_a_broker(spool: Spool, **keys: Any) -> object:
    url = read_broker_url('amqp://localhost/')  # nothing listens: it would wait for it
    return BrokerQueue('in', url, connection=connect(url)).enqueue('x', **keys)


def publish(spool: Spool, **keys: Any) -> object:
    return spool.publish('x', **({'routing_key': 'in'} | keys))


def ask(spool: Spool, **keys: Any) -> object:
    with Replies(spool) as replies:
        return replies.ask('x', **({'routing_key': 'in'} | keys))


def emit(spool: Spool, **keys: Any) -> object:
    return make_runner(spool).emit('in', 'x', **keys)


def reply(spool: Spool, **keys: Any) -> object:
    return make_runner(spool).reply({'reply_to': 'in'}, 'x', **keys)


CALLS = {
    'switchboard/queue/switchboard.py': [enqueue],
    'switchboard/queue/producer.py': [enqueue_in_a_batch],
    'switchboard/brokers/queue.py': [enqueue_on_a_broker],
    'switchboard/spool/spool.py': [publish],
    'switchboard/spool/replies.py': [ask],
    'switchboard/runner/runner.py': [emit, reply],
}
# What takes all keys as Mailman does, and what only declares.
OTHERS = {'switchboard/mailman/queue.py', 'switchboard/interfaces.py'}
EVERY_CALL = [call for calls in CALLS.values() for call in calls]


@pytest.mark.parametrize('call', EVERY_CALL)
@pytest.mark.parametrize(
    ('name', 'right'),
    [
        ('delay_s', 'delay, in seconds'),
        ('ttl_s', 'ttl, in seconds'),
        ('expires_ms', 'expires, in seconds since the epoch'),
        ('not_before_s', 'not_before, in seconds since the epoch'),
        ('dedup_key', 'dedupe_key;'),
        ('routingkey', 'routing_key;'),
        ('_metadata', 'metadata'),
    ],
)
def test_it_is_refused_and_the_right_one_named(spool: Spool, call: Call, name: str, right: str) -> None:
    with pytest.raises(TypeError, match=f'^{name}: the argument is {right}'):
        call(spool, **{name: 5})
    assert spool['in'].files == []


def test_the_metadata_under_the_name_that_runners_give_them(spool: Spool) -> None:
    for call in EVERY_CALL:
        if call is not reply:  # where it is the request's
            with pytest.raises(TypeError, match=r'^msgdata: the argument is metadata$'):
                call(spool, msgdata={})


def takes_keys(node: ast.AST) -> TypeGuard[ast.FunctionDef]:
    return (
        isinstance(node, ast.FunctionDef)
        and node.args.kwarg is not None
        and len(node.args.defaults) > 0  # the metadata need not be given
        and any(argument.arg.strip('_') == 'metadata' for argument in node.args.args)
    )


FOUND = {
    str(path.relative_to(ROOT)): [node for node in ast.walk(ast.parse(path.read_text())) if takes_keys(node)]
    for folder in ('switchboard', 'runners')
    for path in (ROOT / folder).rglob('*.py')
}


def test_every_call_that_takes_keys_is_among_these() -> None:
    expected = {path: len(calls) for path, calls in CALLS.items()}
    assert {path: len(nodes) for path, nodes in FOUND.items() if nodes and path not in OTHERS} == expected


def test_every_call_that_takes_keys_says_that_it_refuses_these() -> None:
    silent = [
        f'{path}: {node.name}'
        for path, nodes in FOUND.items()
        for node in nodes
        if path != 'switchboard/mailman/queue.py'
        if not re.search(r':raises TypeError:|See `I\w+`', ast.get_docstring(node) or '')
    ]
    assert silent == []


def test_a_key_of_that_name_in_the_metadata_is_the_callers_own(spool: Spool) -> None:
    for key in MISSPELLED:
        queue = spool['in']
        assert queue.dequeue(queue.enqueue('x', {key: 'mine'}))[1][key] == 'mine'


def test_keys_that_mean_nothing_here_are_stored(spool: Spool) -> None:
    own = {'listid': 'a.example.com', 'received_time': 3, 'delayed': 1, 'delay_reason': 'x', 'expiry': 2}
    _, stored = spool['in'].dequeue(
        spool['in'].enqueue('x', {'delay_s': 1}, version=3, _parsemsg=True, **own)
    )
    assert stored == own | {'delay_s': 1, 'version': 3, '_parsemsg': False}


@pytest.mark.parametrize(('name', 'right'), MISSPELLED.items())
def test_a_person_who_writes_one_is_told_the_key(tmp_path: Path, name: str, right: str) -> None:
    with pytest.raises(UsageError, match=f'^-m {name}: the key is {right}'):
        DropRequest(['-s', str(tmp_path), '-m', f'{name}=5', 'in'])
    ran = switchboard('-s', tmp_path, 'enqueue', 'in', 'x', '-m', f'{name}=5')
    assert (ran.status, f'{name}: the key is {right}' in ran.err) == (2, True), ran


def test_the_door_takes_keys_that_only_begin_like_one(tmp_path: Path) -> None:
    fields = ['delay_reason=rain', 'dedup_note=x', 'versions=4', 'order_key=a', 'dedupe_key=b']
    request = DropRequest(['-s', str(tmp_path), 'in', *(word for field in fields for word in ('-m', field))])
    assert request.fields == dict(field.split('=') for field in fields)
