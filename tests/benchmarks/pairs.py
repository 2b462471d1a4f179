"""Taking turns: two contenders, A B A B, each in its process, and what comes out of it."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.contenders.contender import ENTRANTS, Entrant
from tests.benchmarks.messages import stored_bytes
from tests.benchmarks.servers import server

ROOT = Path(__file__).resolve().parents[2]


class Turn(NamedTuple):
    """One turn of one contender.

    :param seconds: for one message.
    :param cpu_s: of its process's processor time for one message; None where it was not asked for.
    """

    seconds: float
    messages: int
    cpu_s: float | None = None


@dataclass(frozen=True)
class Round:
    """One turn of each contender: seconds for one message, how many messages there were, and seconds of processor time."""

    seconds: tuple[float, ...]
    messages: int
    cpu_s: tuple[float | None, ...] = ()


class ContenderError(Exception):
    """A contender cannot start, or has failed."""


@dataclass
class Figure:
    """What a comparison has shown: ``b`` took `ratio` times as long as ``a`` for one message.

    `ratio` is the median over the pairs, `low` and `high` are the least and the greatest; `a_us` and `b_us` are the medians of
    what each took for one message, in microseconds.
    """

    case: str
    a: str
    b: str
    ratio: float
    low: float
    high: float
    a_us: float
    b_us: float
    pairs: int
    messages: int
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """:return: for the results' file."""
        return asdict(self)


def build_floor(directory: Path) -> Path:
    """Compile ``floor.c``.

    :raises ContenderError: there is no compiler, or it fails.
    """
    target = directory / 'floor'
    if target.exists():
        return target
    compiler = shutil.which('cc') or shutil.which('gcc')
    if compiler is None:
        raise ContenderError('no C compiler: apt-get install gcc libc6-dev')
    source = Path(__file__).with_name('floor.c')
    built = subprocess.run(
        [compiler, '-O2', '-o', str(target), str(source)], capture_output=True, text=True, check=False
    )
    if built.returncode:
        raise ContenderError(f'floor.c: {built.stderr[-500:]}')
    return target


class Worker:
    """A contender in its process."""

    def __init__(
        self,
        entrant: Entrant,
        directory: Path,
        place: Path,
        environment: dict[str, str] | None = None,
        **options: object,
    ) -> None:
        self.entrant = entrant
        self.directory = directory
        self.options = options
        if entrant.is_native:
            arguments = [str(build_floor(place)), str(directory), str(entrant.options['flags'])]
        else:
            words = [f'{key}={value}' for key, value in options.items()]
            arguments = [
                sys.executable,
                '-m',
                f'{__package__}.worker',
                entrant.name,
                str(directory),
                *words,
            ]
        self._log = (place / 'workers.log').open('ab')
        self._process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._expect('ready')

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line or line.startswith('failed'):
            raise ContenderError(f'{self.entrant.title}: {line or "ended"}; see workers.log')
        return line

    def _expect(self, word: str) -> None:
        try:
            if self._read() != word:
                raise ContenderError(f'{self.entrant.title}: did not say {word!r}')
        except ContenderError:
            self.close()
            raise

    def send(self, *words: object) -> None:
        """Give a command; :meth:`answer` waits for what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(' '.join(map(str, words)) + '\n')
        self._process.stdin.flush()

    def answer(self) -> tuple[float, ...]:
        """:return: the numbers that it says.

        :raises ContenderError: it has failed.
        """
        return tuple(map(float, self._read().split()))

    def turn(self, workload: str, kind: str, count: int, min_s: float) -> Turn:
        """Let it work."""
        if self.entrant.is_native:
            self.send(workload, stored_bytes(kind), count, min_s)
        else:
            self.send(workload, kind, count, min_s)
        seconds, messages, *cpu_s = self.answer()
        return Turn(seconds / messages, int(messages), cpu_s[0] / messages if cpu_s else None)

    def close(self) -> None:
        """End it; nothing of it is needed any more."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


@contextmanager
def workers(place: Path, *sides: tuple[str, dict[str, object]]) -> Iterator[list[Worker]]:
    """Start contenders, each in an empty directory, with their servers; clean up behind them."""
    with ExitStack() as stack:
        started = []
        for name, options in sides:
            entrant = ENTRANTS[name]
            directory = Path(tempfile.mkdtemp(prefix=f'{name}.', dir=place))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            environment = stack.enter_context(server(entrant.needs, directory / 'server'))
            worker = Worker(entrant, directory, place, environment, **options)
            stack.callback(worker.close)
            started.append(worker)
        yield started


def settle(directory: Path) -> None:
    """Wait until everything that was written is on the disk: a turn must not pay for the one before."""
    subprocess.run(['sync', '--file-system', str(directory)], check=True)


def alternate(
    place: Path, turns: Sequence[Callable[[], tuple[float, int] | Turn]], pairs: int
) -> list[Round]:
    """Take turns.  The first turn of each warms up and is thrown away.

    :return: what each round has shown.
    """
    rounds = []
    for number in range(pairs + 1):
        made = []
        for turn in turns:
            settle(place)
            made.append(Turn(*turn()))
        if number:
            times, cpu_s = tuple(each.seconds for each in made), tuple(each.cpu_s for each in made)
            rounds.append(Round(times, sum(each.messages for each in made), cpu_s))
    return rounds


def figure(
    case: str, a: str, b: str, rounds: Sequence[Round], sides: tuple[int, int] = (0, 1), **extra: object
) -> Figure:
    """Sum up a comparison.

    :param sides: which of the turns of each round are `a` and `b`.
    """
    pairs = [(each.seconds[sides[0]], each.seconds[sides[1]]) for each in rounds]
    ratios = [b_s / a_s for a_s, b_s in pairs]
    extra['quickest'] = min(b_s for _, b_s in pairs) / min(a_s for a_s, _ in pairs)
    cpu = [(each.cpu_s[sides[0]], each.cpu_s[sides[1]]) for each in rounds if each.cpu_s]
    worked = [b_s / a_s for a_s, b_s in cpu if a_s and b_s]
    if worked:
        extra['cpu'] = {'ratio': statistics.median(worked), 'low': min(worked), 'high': max(worked)}
    return Figure(
        case,
        a,
        b,
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        statistics.median(a_s for a_s, _ in pairs) * 1e6,
        statistics.median(b_s for _, b_s in pairs) * 1e6,
        len(pairs),
        sum(each.messages for each in rounds),
        dict(extra),
    )
