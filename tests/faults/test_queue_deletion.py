"""Queues are declared and deleted while producers and consumers work on them: every message that was accepted is accounted for."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import QueueError, UnknownQueueError

ROUNDS = 60
PRODUCERS = 3
PUT, GOT = b'p', b'g'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'switchboard.cfg'
    path.write_text('[switchboard]\nspool = spool\ndurability = lazy\n')
    return path


def produce(config: Path, pipe: Connection, progress: int) -> None:
    """Publish messages until asked to stop, and report each; then send how many were accepted."""
    spool, accepted = Spool.from_config(config), 0
    while not pipe.poll():
        try:
            spool.publish({'n': accepted}, routing_key='q')
            accepted += 1
            os.write(progress, PUT)
        except UnknownQueueError:
            pipe.poll(0.0002)  # until there is such a queue again, or the end
    pipe.send(accepted)


def consume(config: Path, pipe: Connection, progress: int) -> None:
    """Take messages until asked to stop; give every third one back, finish the others and report each; then send how many were finished."""
    spool, finished, turn = Spool.from_config(config), 0, 0
    while not pipe.poll():
        try:
            queue = spool['q']
            taken = queue.take()
            if taken is None:
                continue
            turn += 1
            if turn % 3 == 0:
                queue.release(taken.filebase)
                continue
            queue.finish(taken.filebase)
            finished += 1
            os.write(progress, GOT)
        except UnknownQueueError:
            pipe.poll(0.0002)  # until there is such a queue again, or the end
        except (QueueError, FileNotFoundError):
            continue  # the directory went while it was listed, or the entry while it was claimed
    pipe.send(finished)


def wait_for(reports: int, wanted: bytes) -> None:
    """Read until as many reports have come as wanted."""
    missing = len(wanted)
    while missing > 0:
        missing -= os.read(reports, 65536).count(wanted[:1])


@pytest.mark.slow
def test_every_message_that_was_accepted_was_finished_dropped_or_kept(config, tmp_path):
    spool = Spool.from_config(config)
    context = multiprocessing.get_context('fork')
    workers = []
    reports, progress = os.pipe()
    for work in (*[produce] * PRODUCERS, consume):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(config, theirs, progress), daemon=True)
        process.start()
        workers.append((process, ours))
    dropped = 0
    try:
        for turn in range(ROUNDS):
            spool.declare('q')
            # A life that ends at once, or after some messages, or when the consumer has got one of those of this life.
            wait_for(reports, (b'', PUT * 5, PUT * 30, GOT)[turn % 4])
            dropped += spool.delete('q')
    finally:
        counts = []
        for _, ours in workers:
            ours.send('stop')
        for process, ours in workers:
            counts.append(ours.recv())
            process.join(60)
        os.close(reports)
        os.close(progress)
    *accepted, finished = counts
    spool.delete_unused_queues()
    kept = [path for path in (tmp_path / 'spool').glob('*/*.*') if path.parent.name != '.spare']
    assert sum(accepted) > ROUNDS
    assert dropped > 0
    assert finished > 0
    assert sum(accepted) == finished + dropped + len(kept)
    assert all(path.parent.name == 'bad' for path in kept)
    assert 'q' not in spool.queue_names()
