"""A pipeline of three queues, worked by processes that come, go and die, on a disk that remembers what was synced.

One message is one text; it goes from ``in`` over ``middle`` to ``end``, where some are taken and finished.  Whatever
happens, an accepted message is in exactly one place.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchboard.options import QueueOptions, RunnerOptions
from switchboard.runner.runner import Runner
from switchboard.spool.spool import Spool
from switchboard.store.disk import Disk
from switchboard.testing.faults import FaultyDisk, Killed
from switchboard.testing.power import PowerLossDisk
from tests.faults.harness.world import DAMAGED

if TYPE_CHECKING:
    from switchboard.queue_defaults import DirectorySync, Durability

STAGES = {'in': 'middle', 'middle': 'end'}

# What is noted in the record of a run, with the message's text.
BEGUN, ACCEPTED, TAKEN = 'begun', 'accepted', 'taken'


class Hand(Runner):
    """Sends on what it gets: sometimes as it is, sometimes written anew, sometimes with a note beside it."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        target = STAGES[self.options.queue]
        if random.random() < 0.3:
            self.forward(target)
            return False
        self.emit(target, msg, msgdata)
        if random.random() < 0.2:
            self.emit('notes', f'note on {msg}')
        return False


class Line:
    """One run, decided by its seed."""

    def __init__(
        self,
        directory: Path,
        disk: PowerLossDisk,
        seed: int,
        durability: Durability = 'full',
        directory_sync: DirectorySync = 'auto',
    ) -> None:
        self.directory = directory
        self.directory_sync: DirectorySync = directory_sync
        self.durability = durability
        self.disk = disk
        self.random = random.Random(seed)
        random.seed(seed)
        self.count = 0
        self.kills = 0

    def run(self, steps: int) -> None:
        """Do `steps` things, each in a process of its own; now and then one is killed at one of its calls."""
        for _ in range(steps):
            work = self.random.choice(
                (self.produce, self.produce_many, self.hand_on, self.hand_on, self.consume)
            )
            if self.random.random() < 0.3:
                self.die_in(work)
            else:
                work(self.open(self.disk))
            self.recover()

    def open(self, disk: Disk) -> Spool:
        options = QueueOptions(durability=self.durability, directory_sync=self.directory_sync)
        return Spool(self.directory, options=options, disk=disk)

    def die_in(self, work: Any) -> None:
        disk = FaultyDisk(self.random.randint(1, 60), kill='simulated', disk=self.disk)
        with contextlib.suppress(Killed):
            work(self.open(disk))
        self.kills += bool(disk.failed_call)
        disk.end_process()

    def recover(self) -> None:
        spool = self.open(self.disk)
        spool.recover()
        for name in STAGES:
            spool[name].recover_backup_files()
        spool.pool.close()

    def _new(self) -> str:
        self.count += 1
        text = f'message {self.count} ' + 'x' * self.random.choice((0, 10, 600, 5000))
        self.disk.note((BEGUN, text))
        return text

    def produce(self, spool: Spool) -> None:
        text = self._new()
        spool['in'].enqueue(text)
        self.disk.note((ACCEPTED, text))
        spool.pool.close()

    def produce_many(self, spool: Spool) -> None:
        texts = [self._new() for _ in range(self.random.randint(2, 5))]
        spool['in'].enqueue_many(texts)
        for text in texts:
            self.disk.note((ACCEPTED, text))
        spool.pool.close()

    def hand_on(self, spool: Spool) -> None:
        queue = self.random.choice(list(STAGES))
        options = RunnerOptions('hand', '', queue, batch_size=self.random.choice((1, 1, 3)))
        Hand(spool, options).run(once=True)
        spool.pool.close()

    def consume(self, spool: Spool) -> None:
        taken = spool['end'].take()
        if taken is not None:
            self.disk.note((TAKEN, taken.msg))
            spool['end'].finish(taken.filebase)
        spool.pool.close()


def wrong(notes: Iterable[tuple[str, str]], found: Counter[str]) -> list[str]:
    """Compare what was promised with what is there.

    :return: one line for each message that is lost, doubled, or that nobody ever sent.
    """
    state = {text: what for what, text in notes}
    errors = []
    for text, what in state.items():
        allowed = (1,) if what == ACCEPTED else (0, 1)
        if found[text] not in allowed:
            errors.append(f'{text[:20]!r} {what}: there {found[text]} times')
    errors += [f'{text[:40]!r} was never sent' for text in found if text not in state]
    return errors


def messages(state: dict[str, tuple[str, ...]]) -> Counter[str]:
    """All messages in all queues; notes about messages are another matter, and so is what is damaged."""
    return Counter(
        text for name, texts in state.items() if name != 'notes' for text in texts if text != DAMAGED
    )
