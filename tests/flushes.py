"""``python -m tests.flushes`` writes the table of flushes in `docs/explanation/states.md`, as strace counts them."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any

from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME
from tests.system_calls import ROOT, DiskOf, mark, trace

if TYPE_CHECKING:
    from switchboard.queue_defaults import DirectorySync

PAGE = ROOT / 'docs' / 'explanation' / 'states.md'
COMMAND = 'python -m tests.flushes'
PART = re.compile(r'(<!-- written by `python -m tests\.flushes` -->\n).*?(<!-- end -->)', re.DOTALL)
ONLY = 'access,faccessat,faccessat2,fsync,fdatasync,syncfs'
FLUSHES = frozenset(('fsync', 'fdatasync', 'syncfs'))

# The columns: what is known of the file system, and what is asked for.
WAYS: tuple[tuple[int, DirectorySync], ...] = (
    (CONTENT_ONLY, 'always'),
    (WITH_NAME, 'always'),
    (WITH_NAME, 'auto'),
    (WITH_ALL_NAMES, 'auto'),
)

# What is done, and the least flushes that any program needs for the same promise, on a file system that keeps names in order.
OPERATIONS = {
    'enqueue': ('`enqueue`', '1'),
    'enqueue_many': ('`enqueue_many` of 10', '1'),
    'enqueue_100': ('`enqueue_many` of 100', '1'),
    'finish': ('`finish`', '0'),
    'release': ('`release`: given back as it was', '0'),
    'failed': ('`release` with a record: a retry', '0'),
    'preserve': ('`finish(preserve=True)`', '0'),
    'retry': ('`switchboard retry`, `mv`', '0'),
    'forward': ('`forward` to one queue', '0'),
    'hand_off': ('a hand-off: one output', '1'),
    'hand_off_5': ('a hand-off: five outputs', '1'),
    'publish': ('`publish` to two queues', '1'),
    'dedupe': ('`enqueue` with a new `dedupe_key`', '1'),
    'known': ('`enqueue` with a known one', '0'),
    'adopt': ('a dropped `*.eml` is taken in', '1'),
}


def operate(directory: str, fsync_scope: int, directory_sync: DirectorySync) -> None:
    """Do each operation, in a process that strace watches."""
    from switchboard import Spool
    from switchboard.handoff.moving import send_back

    logging.getLogger('switchboard').addHandler(logging.NullHandler())
    spool = Spool(directory, disk=DiskOf(fsync_scope))
    queue, *others = (
        spool.queue(name, directory_sync=directory_sync) for name in ('in', 'a', 'b', 'c', 'd', 'e', 'bad')
    )
    body = b'x' * 1024

    def taken(text: bytes | None = body) -> Any:
        if text is not None:
            queue.enqueue(text)
        found = queue.take()
        assert found is not None
        return found.filebase

    def hand_off(outputs: int) -> None:
        transaction = spool.transaction(queue, filebase)
        for other in others[:outputs]:
            transaction.emit(other, body, {})
        transaction.commit()

    for turn in range(2):  # the first one makes directories
        name = str if turn else lambda _: ''
        mark(name('enqueue'))
        queue.enqueue(body)
        mark(name('enqueue_many'))
        queue.enqueue_many([body] * 10)
        mark(name('enqueue_100'))
        queue.enqueue_many([body] * 100)
        mark('')
        while (found := queue.take()) is not None:
            queue.finish(found.filebase)
        filebase = taken()
        mark(name('finish'))
        queue.finish(filebase)
        mark('')
        filebase = taken()
        mark(name('release'))
        queue.release(filebase)
        mark('')
        filebase = taken(None)
        mark(name('failed'))
        queue.release(filebase, record={'event': 'failed', 'error': 'E'})
        mark('')
        filebase = taken(None)
        mark(name('preserve'))
        queue.finish(filebase, preserve=True)
        mark(name('retry'))
        send_back(others[-1], filebase, queue)
        mark('')
        filebase = taken(None)
        transaction = spool.transaction(queue, filebase)
        mark(name('forward'))
        transaction.forward(others[0])
        transaction.commit()
        mark('')
        filebase = taken()
        mark(name('hand_off'))
        hand_off(1)
        mark('')
        filebase = taken()
        mark(name('hand_off_5'))
        hand_off(5)
        mark(name('publish'))
        transaction = spool.transaction(None, None)
        for other in others[:2]:
            transaction.emit(other, body, {})
        transaction.commit()
        mark(name('dedupe'))
        queue.enqueue(body, dedupe_key=f'key {turn}')
        mark(name('known'))
        queue.enqueue(body, dedupe_key=f'key {turn}')
        mark('')
        queue.finish(taken(None))
        with open(os.path.join(queue.queue_directory, f'{turn}.eml'), 'w') as mail:
            mail.write('Subject: x\n\nx\n')
        assert queue.pickup is not None
        mark(name('adopt'))
        assert queue.pickup.collect([f'{turn}.eml']) == 1
        mark('')
        queue.finish(taken(None))


def counted(fsync_scope: int, directory_sync: DirectorySync) -> dict[str, str]:
    """:return: how many flushes each operation has, and which."""
    found = trace('tests.flushes', fsync_scope, directory_sync, only=ONLY)
    flushes = {name: [call for call in found[name] if call in FLUSHES] for name in OPERATIONS}
    return {
        name: f'{len(calls)} (`syncfs`)' if 'syncfs' in calls else str(len(calls))
        for name, calls in flushes.items()
    }


def written(page: str) -> str:
    """:return: the page with its table made anew."""
    columns = [counted(fsync_scope, directory_sync) for fsync_scope, directory_sync in WAYS]
    rows = [
        ' | '.join(['', words, *(column[name] for column in columns), least, '']).strip()
        for name, (words, least) in OPERATIONS.items()
    ]
    heads = [
        '| operation | two flushes | two flushes, Btrfs | one flush, Btrfs | one flush, ext4 and XFS | least possible |',
        '|---|---|---|---|---|---|',
    ]
    made = '\n'.join(['', *heads, *rows, '', ''])
    return PART.sub(lambda match: f'{match[1]}{made}{match[2]}', page)


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text()))
