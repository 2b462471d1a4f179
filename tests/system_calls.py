"""``python -m tests.system_calls`` writes the table of `docs/explanation/system-calls.md`, as strace counts it.

A process of its own does each operation once, after a warm-up, and calls the kernel with a name that leads nowhere before each:
so the trace says where one operation ends and the next begins.  Calls are counted and no time is taken, so a busy machine says the same as
a quiet one.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from switchboard.store.disk import Disk
from switchboard.store.kernel import WITH_ALL_NAMES
from tests.helpers.accelerator import steps

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs' / 'explanation' / 'system-calls.md'
COMMAND = 'python -m tests.system_calls'

PART = re.compile(r'(<!-- written by `python -m tests\.system_calls` -->\n).*?(<!-- end -->)', re.DOTALL)

MARK = '/an/operation/begins'
CALL = re.compile(r'^\d+ +(\w+)\((.*)$')
WARM_UP_TURNS = 20
BATCH = 10
# Of as many, the one with the fewest calls: now and then an operation also does what is due once in a second.
ROUNDS = 5

# One word for what the kernel offers under several, and a library chooses from.
WORDS = {
    **dict.fromkeys(('newfstatat', 'fstat', 'stat', 'lstat', 'statx'), 'stat'),
    **dict.fromkeys(('renameat', 'renameat2', 'rename'), 'rename'),
    **dict.fromkeys(('getdents64', 'getdents'), 'getdents'),
    'openat': 'open',
    'pwrite64': 'pwrite',
    'pread64': 'pread',
    'unlinkat': 'unlink',
    'faccessat2': 'access',
}
# What an interpreter does for itself, now and then.
UNCOUNTED = {
    'brk',
    'mmap',
    'munmap',
    'mremap',
    'madvise',
    'futex',
    'rt_sigaction',
    'rt_sigprocmask',
    'getrandom',
}

OPERATIONS = {
    'enqueue': '`enqueue`',
    'take': '`take`, with the listing of the directory',
    'finish': '`finish`',
    'release': '`release`: give a claimed entry back',
    'preserve': '`finish(preserve=True)`: into the bad queue',
    'enqueue_many': f'`enqueue_many` of {BATCH} messages',
    'runner': 'a runner that emits one message for each: commit of one, and `take` of the next',
}


def mark(name: str) -> None:
    """Tell the trace that an operation begins."""
    os.access(f'{MARK}/{name}', os.F_OK)


class DiskOf(Disk):
    """Takes the file system for one that keeps names in a certain order, whatever it is: calls are counted here, not trusted."""

    def __init__(self, fsync_scope: int) -> None:
        self._fsync_scope = fsync_scope

    def fsync_scope(self, fd: int) -> int:
        return self._fsync_scope


def operate(directory: str, fsync_scope: int, durability: str, accelerated: bool = False) -> None:
    """Do each operation once, in a process that strace watches."""
    from switchboard import Runner, Spool
    from switchboard.options import RunnerOptions

    logging.getLogger('switchboard').addHandler(logging.NullHandler())
    disk = DiskOf(fsync_scope)
    disk.accelerator = steps() if accelerated else None
    spool = Spool(directory, durability=durability, disk=disk)
    queue = spool['in']
    body = b'x' * 1024

    def taken() -> Any:
        found = queue.take()
        assert found is not None
        return found.filebase

    for _ in range(WARM_UP_TURNS):
        queue.enqueue(body)
        queue.release(taken())
        queue.finish(taken(), preserve=True)
        queue.enqueue_many([body] * BATCH)
        for _ in range(BATCH):
            queue.finish(taken())

    for _ in range(ROUNDS):
        mark('enqueue')
        queue.enqueue(body)
        mark('take')
        filebase = taken()
        mark('finish')
        queue.finish(filebase)
        mark('')
        queue.enqueue(body)
        filebase = taken()
        mark('release')
        queue.release(filebase)
        mark('')
        filebase = taken()
        mark('preserve')
        queue.finish(filebase, preserve=True)
        mark('enqueue_many')
        queue.enqueue_many([body] * BATCH)
        mark('')
        for _ in range(BATCH):
            queue.finish(taken())

    class Relay(Runner):
        turn = 0

        def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
            mark('')
            self.emit('out', msg)
            self.turn += 1
            # The first has made the directory of what it emits to, the last is followed by no other.
            if 2 < self.turn < ROUNDS + 3:
                mark('runner')

    for _ in range(ROUNDS + 3):
        queue.enqueue(body)
    Relay(spool, RunnerOptions('relay', 'relay:Relay', queue='in')).run(until_empty=True)


def traced(durability: str, accelerated: bool = False) -> dict[str, list[str]]:
    """:return: the calls of each operation, in their order; of `full`, on a file system that needs one flush."""
    found = trace('tests.system_calls', WITH_ALL_NAMES, durability, accelerated)
    return {name: found[name] for name in OPERATIONS}


def trace(module: str, *arguments: object, only: str = 'all') -> dict[str, list[str]]:
    """Call a module's `operate` with a spool's directory and these arguments, in a process that strace watches.

    :param only: the system calls that are of interest.
    :return: the calls of each operation, in their order.
    """
    with tempfile.TemporaryDirectory(prefix='system-calls.') as place:
        written = Path(place) / 'trace'
        program = f'from {module} import operate; operate{(f"{place}/spool", *arguments)!r}'
        command = ['strace', '-f', '-qq', '-e', 'signal=none', '-e', f'trace={only}', '-o', str(written)]
        subprocess.run([*command, sys.executable, '-c', program], cwd=ROOT, check=True)
        return operations_of(written.read_text().splitlines())


def operations_of(lines: Sequence[str]) -> dict[str, list[str]]:
    """:return: the fewest calls between one mark and the next; those behind a mark without a name are left out."""
    found: dict[str, list[list[str]]] = {}
    name = ''
    for line in lines:
        match = CALL.match(line)
        if match is None:
            continue
        call, rest = match.groups()
        if f'"{MARK}/' in rest:
            name = rest.partition(f'"{MARK}/')[2].partition('"')[0]
            found.setdefault(name, []).append([])
        elif name and call not in UNCOUNTED:
            found[name][-1].append(WORDS.get(call, call))
    return {name: min(calls, key=len) for name, calls in found.items() if name}


def shown(calls: Sequence[str]) -> str:
    """:return: their number, and their names in order; what comes several times in a row is counted."""
    words = ' '.join(f'`{name}`' for name in calls)
    words = re.sub(r'(`\w+`)(?: \1)+', lambda match: f'{match[1]}x{match[0].count(match[1])}', words)
    words = re.sub(
        r'(?<!\S)((?:\S+ ){2,4}?)(?:\1)+',
        lambda match: f'({match[1].strip()})x{len(match[0]) // len(match[1])} ',
        words + ' ',
    )
    return f'{len(calls)}: {words.strip()}'


def table(full: dict[str, list[str]], lazy: dict[str, list[str]]) -> str:
    """:return: the table in Markdown."""
    rows = [f'| {words} | {shown(full[name])} | {shown(lazy[name])} |' for name, words in OPERATIONS.items()]
    return '\n'.join(
        ['| operation | `durability = full`, one flush | `durability = lazy` |', '|---|---|---|', *rows, '']
    )


def written(page: str) -> str:
    """:return: the page with its table made anew."""
    made = table(traced('full'), traced('lazy'))
    return PART.sub(lambda match: f'{match[1]}\n{made}\n{match[2]}', page)


if __name__ == '__main__':
    PAGE.write_text(written(PAGE.read_text()))
