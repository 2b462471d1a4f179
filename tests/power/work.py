"""Work with a spool until somebody ends it, and write down what was promised.

Several processes may do so with one spool and one log, and each may be killed at any time.

The log lies elsewhere, where no power is cut. A line is a word, a message's number, and perhaps its queue, and the numbers of the notes that are
handed on with it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from switchboard import Spool
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder

# Messages that are there at a time, about: each cut looks for all of them.  It is counted now and then.
KEPT, COUNTED_EVERY = 300, 20


class LyingDisk(Disk):
    """Flushes nothing."""

    fsync = staticmethod(lambda fd: None)
    fdatasync = staticmethod(lambda fd: None)
    syncfs = staticmethod(lambda fd: True)


class Work:
    """Everything that a program and an operator do with messages, at random.

    :param mode: ``full``; ``two``, with two flushes; ``none``: the disk says "flushed" and does nothing, which is to be found out; ``lazy``: nothing
        is flushed, and messages are only put in, with keys, and finished.
    :param first: the number of the first message, which nobody else uses.
    """

    def __init__(self, directory: Path, log: Path, mode: str, first: int) -> None:
        self.mode = mode
        disk = LyingDisk() if mode == 'none' else Disk()
        self.spool = Spool(directory, 'lazy' if mode == 'lazy' else 'full', disk=disk)
        keys = {'directory_sync': 'always'} if mode == 'two' else {}
        self.queues = {
            name: self.spool.queue(name, **keys) for name in ('in', 'middle', 'end', 'dead', 'renewed')
        }
        self.log = open(log, 'a', buffering=1)  # noqa: SIM115  closed with the process
        self.numbers = itertools.count(first)
        self.note('fsync_scope', self.queues['in'].folder.fsync_scope)

    def note(self, what: str, *words: Any) -> None:
        self.log.write(' '.join([what, *map(str, words), '.\n']))

    def new(self) -> str:
        number = next(self.numbers)
        self.note('begun', number)
        return f'{number}:' + 'y' * random.choice((10, 800, 6000))

    def accepted(self, *texts: str) -> None:
        for text in texts:
            self.note('accepted', number_of(text))

    def enqueue(self) -> None:
        text = self.new()
        self.queues['in'].enqueue(text)
        self.accepted(text)

    def enqueue_many(self) -> None:
        texts = [self.new() for _ in range(random.choice((2, 5, 20)))]
        self.queues['in'].enqueue_many(texts)
        self.accepted(*texts)

    def enqueue_once(self) -> None:
        text = self.new()
        self.note('keyed', number_of(text))
        for _ in range(2):
            enqueue_with_key(self.spool, text)
            self.accepted(text)

    def adopt(self) -> None:
        """Drop a mail as a file, on the disk, and have it taken in."""
        number = next(self.numbers)
        self.note('begun', number)
        folder = self.queues['in'].folder
        name, mail = f'{number}.eml', b'Subject: x\n\n%d:mail\n' % number
        fd = os.open(f'.{name}', os.O_CREAT | os.O_WRONLY, 0o660, dir_fd=folder.fd)
        os.write(fd, mail)
        os.fsync(fd)
        os.close(fd)
        os.rename(f'.{name}', name, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        os.fsync(folder.fd)
        self.note('accepted', number)
        pickup = self.spool['in'].pickup
        assert pickup is not None
        pickup.collect([name])

    def hand_on(self, source: str = 'in', target: str = 'middle') -> bool:
        queue = self.queues[source]
        taken = queue.take()
        if taken is None:
            return False
        transaction = self.spool.transaction(queue, taken.filebase)
        text = str(taken.msg.get_payload()) if hasattr(taken.msg, 'get_payload') else str(taken.msg)
        notes = [self.new() for _ in range(random.choice((0, 0, 1, 2)))]
        self.note('hands', number_of(text), source, *map(number_of, notes))
        transaction.emit(self.queues[target], text, {})
        for note in notes:
            transaction.emit(self.queues['end'], note, {})
        transaction.commit()
        self.note('left', number_of(text), source)
        self.accepted(*notes)
        return True

    def hand_on_again(self) -> None:
        self.hand_on('middle', 'end')

    def forward(self) -> None:
        taken = self.queues['middle'].take()
        if taken is not None:
            transaction = self.spool.transaction(self.queues['middle'], taken.filebase)
            transaction.forward(self.queues['end'])
            transaction.commit()

    def release(self) -> None:
        taken = self.queues['in'].take()
        if taken is not None:
            self.queues['in'].release(taken.filebase, record={'event': 'failed', 'error': 'again'})

    def preserve(self) -> None:
        taken = self.queues['in'].take()
        if taken is not None:
            self.queues['in'].finish(taken.filebase, preserve=True)

    def recover(self) -> None:
        """Give out again what killed workers had."""
        self.spool.recover()
        for queue in self.queues.values():
            queue.recover(include_own=False)

    def renew(self) -> None:
        """Let many names come and go in empty directories, have them renewed, and put messages there."""
        stage, queue = self.spool.stage.folder, self.queues['renewed']
        for folder in (stage, queue.folder):
            grow(folder)
        before = {folder.key for folder in (stage, queue.folder)}
        self.spool.recover()
        while self.hand_on('renewed', 'end'):
            pass  # another worker's
        if before.isdisjoint({stage.key, queue.folder.key}):
            self.note('renewed')
        text = self.new()
        queue.enqueue(text)
        self.accepted(text)
        self.hand_on('renewed', 'end')

    def finish(self) -> None:
        """Finish what is too much."""
        surplus = sum(len(self.queues[name].files) for name in ('in', 'middle', 'end')) - KEPT
        for queue in ('end', 'middle', 'in'):
            while surplus > 0 and (taken := self.queues[queue].take()) is not None:
                text = str(taken.msg.get_payload()) if hasattr(taken.msg, 'get_payload') else str(taken.msg)
                self.note('finished', number_of(text))
                self.queues[queue].finish(taken.filebase)
                surplus -= 1

    def for_ever(self) -> None:
        """Work."""
        steps: Sequence[Callable[[], object]] = [
            *[self.enqueue, self.hand_on, self.hand_on_again] * 4,
            *(self.enqueue_many, self.enqueue_once, self.adopt),
            *(self.forward, self.release, self.preserve, self.recover, self.renew),
        ]
        if self.mode == 'lazy':
            steps = [self.enqueue_once, self.enqueue]
        while True:
            for _ in range(COUNTED_EVERY):
                random.choice(steps)()
            self.finish()


def grow(folder: Folder) -> None:
    """Make a directory as large as many entries make it, where directories stay large."""
    # The same for all workers, so that the next one takes away what a killed one has left.
    names = [f'.{number:0200d}' for number in range(700)]
    for name in names:
        # Another worker may have made it, or replace the directory meanwhile.
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.symlink('nowhere', name, dir_fd=folder.fd)  # no message
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder.fd)
    folder.follow_renewal()


def enqueue_with_key(spool: Spool, text: str) -> None:
    """Put a message into a queue that takes each number once."""
    spool['in'].enqueue(text, dedupe_key=f'number {number_of(text)}')


def number_of(text: str) -> int:
    """:return: the number that a message's text begins with."""
    return int(text.partition(':')[0])
