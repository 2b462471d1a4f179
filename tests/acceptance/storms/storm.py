"""A storm: producers and a pipeline of three runners, killed at random, while slices change, directories are renewed and the disk fills up.

By hand::

    python -m tests.acceptance.storms.storm --messages 100000 --kills 500

Every message that was accepted must be exactly once at the end of the pipeline, or in the bad queue with a reason.  What
was accepted stands in ledgers outside of the spool, which each producer writes: a line before it enqueues, a line
after.  A message whose producer was killed between the two may be there or not, but not twice; one that was
refused must not be there.

The spool is on a small file system in memory if one can be mounted, so that the disk can be filled; elsewhere it never is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from switchboard.errors import QueueError, QueueFullError
from switchboard.message.entry import read_entry
from switchboard.message.naming import PRESERVED, READY
from switchboard.options import RunnerOptions
from switchboard.runner.runner import Runner
from switchboard.spool.spool import Spool
from switchboard.store.folder import Folder
from switchboard.store.renewal import renew
from tests.faults.harness.tmpfs import fill, mounted
from tests.helpers.waiting import eventually
from tests.large_directories import GrowingDisk, Grown

STAGES = {'in': 'middle', 'middle': 'last', 'last': 'end'}
END = 'end'
PRODUCERS = 3
SLICES_MAX = 3
RECOVERY_S = 0.3
# Between two kills, on average; producers are slowed down to go on as long as the killing does.
KILL_EVERY_S = 0.15
# How long the disk stays full, and after which shares of the kills it gets so.
FULL_S = 1.0
FULL_AFTER = (0.2, 0.5, 0.8)
RENEW_EVERY_S = 0.001
QUIET_S = 600.0


@dataclass
class Result:
    """What a storm has come to."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0
    at_the_end: int = 0
    in_bad: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    recovered: int = 0
    kills: int = 0
    killed: dict[str, int] = field(default_factory=dict)
    slice_changes: int = 0
    disk_full_times: int = 0
    renewed: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    never_accepted: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Was nothing lost, doubled, made up, or left lying?"""
        return not (self.lost or self.doubled or self.never_accepted or self.left)


# What the children do.


class Stage(Runner):
    """Sends on what it gets: mostly written anew, sometimes as it is."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        target = STAGES[self.options.queue]
        assert self.queue is not None
        deaths = sum(record['event'] == 'recovered' for record in self.queue.history(self.filebase))
        if random.random() < 0.1:
            self.forward(target)
        else:
            self.emit(target, msg, msgdata, deaths=deaths + msgdata.get('deaths', 0))
        return False

    def snooze(self, filecnt: int) -> None:
        if os.getppid() == 1:
            self.stop()


def run_stage(spool: Path, queue: str, index: int, count: int) -> None:
    options = RunnerOptions(
        queue,
        '',
        queue,
        batch_size=random.choice((1, 5, 20)),
        recovery_interval_s=RECOVERY_S,
        poll_interval_s=0.2,
    )
    runner = Stage(Spool(spool), options, slice=index, numslices=count)
    signal.signal(signal.SIGTERM, lambda *_: runner.stop())
    runner.run()


def produce(spool: Path, ledger: Path, pace_s: float) -> None:
    """Enqueue until told to stop, a message each `pace_s`; the ledger is named after this process's life and nobody else's."""
    queue = Spool(spool)['in']
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    with ledger.open('a', buffering=1) as file:
        for number in range(10**9):
            if stopped or os.getppid() == 1:
                return
            texts = [f'{ledger.stem}.{number}.{part}' for part in range(random.choice((1, 1, 10)))]
            body = 'x' * random.choice((0, 200, 2000))
            file.write(f'begun {" ".join(texts)}\n')
            try:
                queue.enqueue_many([f'{text} {body}' for text in texts])
            except QueueError as error:
                file.write(f'refused {" ".join(texts)}\n')
                # A producer is not told when there is room again.
                time.sleep(0.05 if isinstance(error, QueueFullError) else 0.2)
            else:
                file.write(f'accepted {" ".join(texts)}\n')
                time.sleep(pace_s * len(texts))  # messages are to come as long as processes are killed


class LargeDisk(GrowingDisk):
    """Every directory has grown."""

    def fstat(self, fd: int) -> Any:
        """See `Disk`."""
        return Grown(os.fstat(fd))


def renew_all(spool: Path, count: Path) -> None:
    """Renew every directory that happens to be empty, again and again; others have all of them open."""
    disk = LargeDisk()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    folders = [Folder(spool / name, disk) for name in (*STAGES, END, '.stage', '.spare', 'bad')]
    with count.open('ab', buffering=0) as file:
        while not stopped and os.getppid() != 1:
            for folder in folders:
                if renew(folder):
                    file.write(b'.')
            time.sleep(RENEW_EVERY_S)  # others work there, at any moment


# Who lets them.


class Storm:
    """Starts the children, kills them, and counts what is left."""

    def __init__(self, spool: Path, ledgers: Path, seed: int, *, can_fill: bool) -> None:
        self.spool = spool
        self.ledgers = ledgers
        self.renewals = ledgers.parent / 'renewals'
        self.random = random.Random(seed)
        self.can_fill = can_fill
        self.result = Result()
        self.children: dict[int, tuple[str, Callable[[], None]]] = {}
        self.lives = 0
        self.pace_s = 0.0

    def start(self, role: str, work: Callable[[], None]) -> None:
        # What the parent does on SIGTERM is not for a child, not even in its first moments.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                random.seed()
                work()
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        self.children[child] = role, work

    def start_producer(self) -> None:
        self.lives += 1
        ledger = self.ledgers / f'{self.lives}.ledger'
        self.start('producer', lambda: produce(self.spool, ledger, self.pace_s))

    def start_renewer(self) -> None:
        self.start('renewer', lambda: renew_all(self.spool, self.renewals))

    def start_stage(self, queue: str) -> None:
        count = self.random.randint(1, SLICES_MAX)
        for index in range(count):
            self.start(queue, lambda index=index: run_stage(self.spool, queue, index, count))

    def kill(self) -> None:
        """Kill one child and start another in its place."""
        child = self.random.choice(list(self.children))
        role, work = self.children.pop(child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.result.kills += 1
        self.result.killed[role] = self.result.killed.get(role, 0) + 1
        if role == 'producer':
            self.start_producer()
        else:
            self.start(role, work)

    def change_slices(self) -> None:
        """Start a stage with another number of slices; the old ones are told to go, and overlap for a while."""
        queue = self.random.choice(list(STAGES))
        old = [child for child, (role, _) in self.children.items() if role == queue]
        self.start_stage(queue)
        self.end(old)
        self.result.slice_changes += 1

    def end(self, children: list[int]) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)
        for child in children:
            del self.children[child]
            status = os.waitpid(child, 0)[1]
            # The signal may have come before the child was ready for it.
            assert status in (0, signal.SIGTERM), f'a child ended with {status}'

    def accepted(self) -> int:
        return sum(len(words) - 1 for words in self.lines() if words[0] == 'accepted')

    def lines(self) -> Iterator[list[str]]:
        for ledger in self.ledgers.iterdir():
            for line in ledger.read_text().splitlines():
                yield line.split()

    def rage(self, messages: int, kills: int) -> None:
        """Go on until enough was accepted and enough have died."""
        self.pace_s = kills * KILL_EVERY_S * PRODUCERS / messages
        for _ in range(PRODUCERS):
            self.start_producer()
        for queue in STAGES:
            self.start_stage(queue)
        self.start_renewer()
        full_after = [share * kills for share in FULL_AFTER] if self.can_fill else []
        while self.result.kills < kills or self.accepted() < messages:
            time.sleep(self.random.expovariate(1 / KILL_EVERY_S))  # any moment is to be that of a kill
            self.kill()
            if self.random.random() < 0.2:
                self.change_slices()
            if self.result.kills % 50 == 0:
                print(f'{self.result.kills} killed, {self.accepted()} accepted', file=sys.stderr, flush=True)
            if full_after and self.result.kills > full_after[0]:
                full_after.pop(0)
                self.fill_the_disk()

    def fill_the_disk(self) -> None:
        """For a while there is no room for anything; the killing goes on."""
        ballast = fill(self.spool.parent)
        until_s = time.monotonic() + FULL_S
        while time.monotonic() < until_s:
            time.sleep(self.random.expovariate(1 / KILL_EVERY_S))  # any moment, as above
            self.kill()
        ballast.unlink()
        self.result.disk_full_times += 1

    def calm(self) -> None:
        """Let the pipeline run empty."""
        self.end([child for child, (role, _) in self.children.items() if role == 'producer'])
        # A storm that does not calm down is shown by its figures.
        with contextlib.suppress(AssertionError):
            eventually(lambda: not any(self.waiting()), 'calm', within_s=QUIET_S)
        self.end(list(self.children))

    def waiting(self) -> Iterator[str]:
        for place in (*STAGES, '.stage'):
            # A list: who takes the first and leaves must not leave a directory open.
            yield from [f'{place}/{name}' for name in os.listdir(self.spool / place)]

    def count(self) -> Result:
        """Compare what was accepted with what is there."""
        result, state = self.result, {}
        for words in self.lines():
            state |= dict.fromkeys(words[1:], words[0])
        told = Counter(state.values())
        result.accepted, result.refused, result.unknown = told['accepted'], told['refused'], told['begun']
        found: Counter[str] = Counter()
        for queue, suffix in ((END, READY), ('bad', PRESERVED)):
            for path in (self.spool / queue).glob(f'*{suffix}'):
                entry = read_entry(path.stem, path.read_bytes())
                found[entry.body.decode().split()[0] if entry.damage is None else path.name] += 1
                result.recovered += sum(record['event'] == 'recovered' for record in entry.records)
                result.recovered += json.loads(entry.metadata).get('deaths', 0)
                if queue == 'bad':
                    result.in_bad += 1
                    reason = str(entry.records[-1].get('reason', 'none')) if entry.records else 'none'
                    result.reasons[reason] = result.reasons.get(reason, 0) + 1
                else:
                    result.at_the_end += 1
        result.lost = [text for text, what in state.items() if what == 'accepted' and not found[text]]
        result.doubled = [text for text, times in found.items() if times > 1]
        result.never_accepted = [text for text in found if state.get(text) not in ('accepted', 'begun')]
        result.left = list(self.waiting())
        result.renewed = self.renewals.stat().st_size
        return result


def storm(messages: int, kills: int, *, size: str = '2g', seed: int | None = None) -> Result:
    """Let a storm rage and say what is left."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix='storm-') as home, contextlib.ExitStack() as stack:
        ledgers = Path(home) / 'ledgers'
        ledgers.mkdir()
        disk = Path(home) / 'disk'
        disk.mkdir()
        can_fill = stack.enter_context(mounted(disk, size)) == ''
        weather = Storm(disk / 'spool', ledgers, seed or random.randrange(10**9), can_fill=can_fill)
        for queue in (*STAGES, END, 'bad'):
            Spool(weather.spool)[queue]
        try:
            weather.rage(messages, kills)
            weather.calm()
        finally:
            for child in weather.children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        result = weather.count()
    result.seconds = round(time.monotonic() - started_s, 1)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--messages', type=int, default=100_000, help='accepted, at least')
    parser.add_argument('--kills', type=int, default=500, help='at least')
    parser.add_argument('--size', default='2g', help='of the file system')
    parser.add_argument('--seed', type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped'))
    result = storm(arguments.messages, arguments.kills, size=arguments.size, seed=arguments.seed)
    print(json.dumps(asdict(result), indent=4))
    return 0 if result.is_clean else 1


if __name__ == '__main__':
    sys.exit(main())
