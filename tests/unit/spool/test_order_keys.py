"""The order key of a message, by every door: its own, or else the value of the key that its queue names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.drop.program import Drop
from switchboard.drop.request import DropRequest
from switchboard.handoff.publish_many import Publication
from switchboard.message.naming import slice_digits, slice_digits_of
from switchboard.spool.active_config import publish_queue_options
from switchboard.store.disk import Disk
from tests.helpers.commands import succeed
from tests.helpers.runs import make_runner

CONFIGURATION = """
[queue.*]
consumed_externally = yes
[queue.in]
[queue.copy]
order_key = list
[queue.out]
order_key = list
"""

Keys = dict[str, str]
Door = Callable[[Spool, Path, Keys], object]


@pytest.fixture
def spool(make_spool: Callable[..., Spool]) -> Spool:
    return make_spool(CONFIGURATION)


def enqueue(spool: Spool, config: Path, keys: Keys) -> None:
    spool['out'].enqueue(b'x', **keys)


def enqueue_with_metadata(spool: Spool, config: Path, keys: Keys) -> None:
    spool['out'].enqueue(b'x', keys)


def batch(spool: Spool, config: Path, keys: Keys) -> None:
    with spool['out'].batch() as batch:
        batch.enqueue(b'x', **keys)


def enqueue_many(spool: Spool, config: Path, keys: Keys) -> None:
    spool['out'].enqueue_many([(b'x', keys)])


def publish(spool: Spool, config: Path, keys: Keys) -> None:
    spool.publish(b'x', routing_key='out', **keys)


def publish_many(spool: Spool, config: Path, keys: Keys) -> None:
    spool.publish_many([Publication(b'x', keys, ('out', 'copy'))])


def deduplicated(spool: Spool, config: Path, keys: Keys) -> None:
    spool['out'].enqueue(b'x', dedupe_key='1', **keys)


def hand_on(runner: Any, msg: Any, msgdata: Any = None, **keys: Any) -> None:
    runner.emit('out', msg, msgdata, **keys)


def emit(spool: Spool, config: Path, keys: Keys) -> None:
    spool['in'].enqueue('input')
    make_runner(spool, lambda runner, *_: hand_on(runner, b'x', **keys)).run(until_empty=True)


def emit_the_inputs(spool: Spool, config: Path, keys: Keys) -> None:
    spool['in'].enqueue(b'x', keys)
    make_runner(spool, hand_on).run(until_empty=True)


def command_line(spool: Spool, config: Path, keys: Keys) -> None:
    pairs = [word for key, value in keys.items() for word in ('-m', f'{key}={value}')]
    succeed('-C', config, 'enqueue', 'out', '-', *pairs, input=b'x')


def json_lines(spool: Spool, config: Path, keys: Keys) -> None:
    succeed(
        '-C',
        config,
        'enqueue',
        'out',
        '--json-lines',
        input=json.dumps({'msg': 1, 'metadata': keys}).encode(),
    )


def mail_servers_door(spool: Spool, config: Path, keys: Keys) -> None:
    assert spool.config is not None
    publish_queue_options(spool.config)
    pairs = [word for key, value in keys.items() for word in ('-m', f'{key}={value}')]
    reading, writing = os.pipe()
    os.write(writing, b'Subject: x\n\n')
    os.close(writing)
    door = Drop(DropRequest(['out', *pairs]), spool.directory, Disk())
    door.check()
    door.read(reading)
    os.close(reading)
    door.write_metadata({})
    door.store(lambda: None)


DOORS = (
    *(enqueue, enqueue_with_metadata, batch, enqueue_many, publish, publish_many, deduplicated),
    *(emit, emit_the_inputs, command_line, json_lines, mail_servers_door),
)


@pytest.mark.parametrize('door', DOORS)
@pytest.mark.parametrize(
    ('keys', 'key'),
    [
        ({'order_key': 'own'}, 'own'),
        ({'list': 'garden'}, 'garden'),
        ({'order_key': 'own', 'list': 'garden'}, 'own'),
    ],
)
def test_its_own_goes_before_the_queues(spool: Spool, config: Path, door: Door, keys: Keys, key: str) -> None:
    door(spool, config, keys)
    (filebase,) = spool['out'].files
    assert slice_digits_of(filebase) == slice_digits(key)
