"""Limits with producers in real processes, against the bound that ``limits`` promises."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switchboard import Spool
from switchboard.config.config import Config
from switchboard.errors import QueueError, QueueFullError
from switchboard.options import QueueOptions
from switchboard.testing import MemorySpool

# Each example starts processes.
few = settings(max_examples=12, deadline=None)


def together(works: list[Callable[[], int]]) -> list[int]:
    """Let processes begin at the same moment.

    :return: what each of them said in the end.
    """
    gate, go = os.pipe()
    said: list[tuple[int, int]] = []
    for work in works:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(go)
                os.read(gate, 1)  # ends when the parent closes its end
                os.write(writing, b'%d' % work())
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        said.append((child, reading))
    os.close(gate)
    os.close(go)
    answers = []
    for child, reading in said:
        answers.append(int(os.read(reading, 100) or b'-1'))
        os.close(reading)
        assert os.waitpid(child, 0)[1] == 0
    return answers


def spool_in(home: Path, **options: Any) -> Config:
    """Make a spool whose queue ``in`` has these options."""
    lines = [f'{key} = {value}' for key, value in options.items()]
    text = '[switchboard]\nspool = spool\ndurability = lazy\n[queue.in]\n' + '\n'.join(lines) + '\n'
    (home / 'switchboard.cfg').write_text(text)
    config = Config.load(home / 'switchboard.cfg')
    Spool.from_config(config)['in'].get_files()
    return config


def put(config: Config, messages: int, batch: int, size: int = 1) -> Callable[[], int]:
    """Enqueue until the queue is full."""

    def work() -> int:
        queue = Spool.from_config(config)['in']
        accepted = 0
        for start in range(0, messages, batch):
            number = min(batch, messages - start)
            try:
                if batch == 1:
                    queue.enqueue(b'x' * size)
                else:
                    queue.enqueue_many([b'x' * size] * number)
            except QueueFullError:
                continue
            accepted += number
        return accepted

    return work


@few
@given(
    limit=st.integers(1, 60),
    producers=st.integers(2, 4),
    each=st.integers(1, 60),
    batch=st.sampled_from([1, 1, 5]),
)
def test_producers_together_exceed_a_number_of_messages_by_what_they_had_in_hand_at_most(
    limit: int, producers: int, each: int, batch: int
) -> None:
    with tempfile.TemporaryDirectory() as home:
        config = spool_in(Path(home), max_messages=limit)
        accepted = together([put(config, each, batch) for _ in range(producers)])
        stored = len(Spool.from_config(config)['in'].files)
    assert stored == sum(accepted)
    assert stored <= limit + (producers - 1) * batch
    if batch == 1:
        assert stored >= min(limit, producers * each)


@pytest.mark.slow
@few
@given(limit=st.integers(1000, 20_000), producers=st.integers(2, 4), size=st.integers(1, 900))
def test_producers_together_exceed_a_number_of_bytes_by_what_they_had_in_hand_at_most(
    limit: int, producers: int, size: int
) -> None:
    with tempfile.TemporaryDirectory() as home:
        config = spool_in(Path(home), max_bytes=limit)
        accepted = together([put(config, 40, 1, size) for _ in range(producers)])
        sizes = [path.stat().st_size for path in Path(home, 'spool', 'in').glob('*.pck')]
    assert len(sizes) == sum(accepted)
    assert sum(sizes) <= limit + (producers - 1) * max(sizes, default=0)


@few
@given(limit=st.integers(10, 40), producers=st.integers(2, 4), each=st.integers(1, 40))
def test_producers_that_push_the_oldest_out_never_fail_and_leave_a_full_queue(
    limit: int, producers: int, each: int
) -> None:
    with tempfile.TemporaryDirectory() as home:
        config = spool_in(Path(home), max_messages=limit, overflow='drop-oldest')
        accepted = together([put(config, each, 1) for _ in range(producers)])
        queue = Spool.from_config(config)['in']
        left, claimed = len(queue.files), len(queue.get_files('.bak'))
    assert sum(accepted) == producers * each
    assert claimed == 0
    assert min(limit, producers * each) - producers < left <= limit + producers - 1


@pytest.mark.slow
@few
@given(producers=st.integers(2, 4), keys=st.integers(1, 12), each=st.integers(1, 30))
def test_producers_together_store_each_key_once(producers: int, keys: int, each: int) -> None:
    def put_with_keys(config: Config, first: int) -> Callable[[], int]:
        def work() -> int:
            queue = Spool.from_config(config)['in']
            for number in range(first, first + each):
                queue.enqueue(number % keys, dedupe_key=number % keys)
            return 0

        return work

    with tempfile.TemporaryDirectory() as home:
        config = spool_in(Path(home))
        together([put_with_keys(config, first) for first in range(producers)])
        queue = Spool.from_config(config)['in']
        bodies = sorted(int(queue.peek(filebase).body) for filebase in queue.files)
    assert bodies == sorted(
        {number % keys for first in range(producers) for number in range(first, first + each)}
    )


Group = list[tuple[str, int]]
GROUPS = st.lists(
    st.tuples(
        st.sampled_from(['enqueue_many', 'emit', 'publish']),
        st.lists(st.tuples(st.sampled_from(['in', 'out']), st.integers(0, 900)), min_size=1, max_size=6),
    ),
    max_size=12,
)


def come_in(spool: Spool, way: str, group: Group) -> dict[str, list[str]]:
    """Let messages in together.

    :return: the filebases of the stored ones, by queue.
    """
    stored: dict[str, list[str]] = {'in': [], 'out': []}
    if way == 'enqueue_many':
        name = group[0][0]
        stored[name] = spool[name].enqueue_many([b'x' * size for _, size in group])
    elif way == 'publish':
        name, size = group[0]
        stored[name] = [spool.publish(b'x' * size, routing_key=name)[name]]
    else:
        transaction = spool.transaction(None, None)
        try:
            for name, size in group:
                stored[name].append(transaction.emit(spool[name], b'x' * size, {}))
        except BaseException:
            transaction.discard()
            raise
        transaction.commit()
    return stored


def size_of(spool: Spool, name: str, filebase: str) -> int:
    return Path(spool.path(name, f'{filebase}.pck')).stat().st_size


def fits(options: QueueOptions, sizes: list[int]) -> bool:
    assert options.max_messages is not None
    assert options.max_bytes is not None
    return len(sizes) <= options.max_messages and sum(sizes) <= options.max_bytes


@settings(max_examples=60, deadline=None)
@given(messages=st.integers(1, 6), size_bytes=st.integers(300, 4000), groups=GROUPS)
def test_together_they_push_out_as_many_of_the_oldest_as_they_need_or_none(
    messages: int, size_bytes: int, groups: list[tuple[str, Group]]
) -> None:
    options = QueueOptions(
        durability='lazy', max_messages=messages, max_bytes=size_bytes, overflow='drop-oldest'
    )
    spool = MemorySpool(options=options)
    for way, group in groups:
        before = {name: spool[name].files for name in ('in', 'out')}
        sizes = {name: [size_of(spool, name, each) for each in before[name]] for name in before}
        try:
            stored = come_in(spool, way, group)
        except QueueError:
            assert {name: spool[name].files for name in before} == before
            continue
        for name, names in stored.items():
            after = spool[name].files
            gone = len(before[name]) + len(names) - len(after)
            assert after == before[name][gone:] + names
            new = [size_of(spool, name, each) for each in names]
            assert fits(options, [*sizes[name][gone:], *new])
            assert not gone or not fits(options, [*sizes[name][gone - 1 :], *new])
