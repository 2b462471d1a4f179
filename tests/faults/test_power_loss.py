"""The power goes at any point of a recorded run: what was promised with ``durability = full`` is there, whole, and once.

What a cut may leave is decided by the model in ``switchboard.testing.power_model``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME
from switchboard.testing.power import CrashPoint, PowerLossDisk
from tests.faults.harness.world import DAMAGED, State, World, observe_after_cut, remove
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.operations.pipeline import Line, messages, wrong

if TYPE_CHECKING:
    from switchboard.queue_defaults import DirectorySync, Durability

pytestmark = pytest.mark.slow

# What an `fsync` of a file is good for: nothing but its content, its name too (Btrfs), all names before it (ext4, XFS).
FSYNC_SCOPES = pytest.mark.parametrize(
    'fsync_scope', [CONTENT_ONLY, WITH_NAME, WITH_ALL_NAMES], ids=['apart', 'with the file', 'in order']
)
# What may be left at each moment is decided so many times.
VARIANTS = 10
# Runs of the pipeline, in two halves: one of them each day.
HALF_SEEDS = 13
OPERATION_BEGUN, OPERATION_DONE = 'operation begun', 'operation done'


def record(operation: Operation, directory: Path, disk: PowerLossDisk) -> None:
    """Do an operation on a disk that remembers; what was prepared for it is on the disk."""
    world = World(directory, disk)
    operation.prepare(world)
    disk.assume_durable(directory)
    disk.sync_all()
    disk.note(OPERATION_BEGUN)
    operation.act(world)
    disk.note(OPERATION_DONE)


# What was found, by the files that a cut has left.
Seen = dict[frozenset[object], tuple[State, int]]


def cut(
    point: CrashPoint, source: Path, scratch: Path, variant: int, seen: Seen, *, believing: bool = False
) -> tuple[State, int]:
    """Take the power away, and come up again.

    :param seen: of this run: many cuts leave the same files, and what is made of those does not depend on the moment.
    """
    left = frozenset(point.surviving_files(variant).items())
    if left not in seen:
        point.restore(source, scratch, variant)
        seen[left] = observe_after_cut(scratch / 'spool', believing=believing)
        remove(scratch)
    return seen[left]


def _sound(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in texts if text != DAMAGED)


class Outcome(NamedTuple):
    """What one cut has left, and what it might have."""

    point: int
    variant: int
    found: State
    allowed: list[State]
    # Which call failed or died before that.
    failed_call: int = 0


def cuts(
    operation: Operation,
    directory: Path,
    disk: PowerLossDisk,
    variants: Iterable[int],
    *,
    since: str = OPERATION_BEGUN,
    returned: bool = True,
    seen: Seen | None = None,
) -> Iterator[Outcome]:
    """Take the power away at each moment of a recorded operation, several times.

    :param variants: the numbers of what may be left at each moment.
    :param since: what was noted before the first of these crash points.
    :param returned: the operation said that all was well.
    :param seen: of runs that go alike, see `the_same_again`.
    """
    seen = {} if seen is None else seen
    for point in disk.crash_points():
        if since not in point.notes:
            continue
        allowed = operation.after_cut(promised=returned and OPERATION_DONE in point.notes)
        for variant in variants:
            found, _ = cut(point, directory, directory.parent / 'after', variant, seen)
            if point.model.fsync_scope != CONTENT_ONLY and not any(
                DAMAGED in texts for state in allowed for texts in state.values()
            ):
                # With one flush the name of what was not promised may be there without its content: it is found out, and counts as nothing.
                found = {queue: sound for queue, texts in found.items() if (sound := _sound(texts))}
            yield Outcome(point.number, variant, found, allowed)


@pytest.mark.parametrize('operation', OPERATIONS, ids=str)
@FSYNC_SCOPES
@pytest.mark.in_turns
def test_a_power_cut_leaves_all_of_an_operation_or_nothing(
    fsync_scope: int, operation: Operation, scratch: Path
) -> None:
    disk = PowerLossDisk(seed=1, fsync_scope=fsync_scope)
    directory = scratch / 'run'
    directory.mkdir()
    record(operation, directory, disk)
    for outcome in cuts(operation, directory, disk, range(VARIANTS)):
        assert outcome.found in outcome.allowed, outcome


@dataclass
class Tally:
    """What many cuts of many runs of the pipeline have shown."""

    runs: int = 0
    kills: int = 0
    cuts: int = 0
    # Files of finished messages, found again under their old names with new content: set aside, and no message of theirs missing.
    remains: int = 0
    errors: list[str] = field(default_factory=list)


def cut_pipelines(
    directory: Path,
    kind: type[PowerLossDisk],
    seeds: Iterable[int],
    *,
    steps: int = 40,
    share: float = 0.2,
    believing: bool = False,
    durability: Durability = 'full',
    fsync_scope: int = CONTENT_ONLY,
    directory_sync: DirectorySync = 'auto',
    sought: str | None = None,
) -> Tally:
    """Record runs of the pipeline and cut each at a share of its crash points.

    :param sought: a pattern: with the first error that has it, all has been found.
    """
    tally = Tally()
    for seed in seeds:
        source = directory / str(seed)
        source.mkdir()
        disk = kind(seed, fsync_scope)
        line = Line(source / 'spool', disk, seed, durability, directory_sync)
        line.run(steps)
        tally.runs += 1
        tally.kills += line.kills
        rng = random.Random(seed)
        seen: Seen = {}
        for point in disk.crash_points():
            if rng.random() < share:
                found, damaged = cut(
                    point, source, directory / 'after', rng.randrange(1000), seen, believing=believing
                )
                tally.cuts += 1
                tally.remains += damaged
                errors = wrong(point.notes, messages(found))
                tally.errors += [f'seed {seed}, crash point {point.number}: {error}' for error in errors]
                if sought is not None and any(re.search(sought, error) for error in errors):
                    return tally
        remove(source)
    return tally


@pytest.mark.parametrize('first_seed', [0, HALF_SEEDS])
@pytest.mark.in_turns('first_seed', (0, HALF_SEEDS))
@FSYNC_SCOPES
@pytest.mark.in_turns
def test_a_pipeline_whose_processes_die_loses_and_doubles_nothing_when_the_power_goes(
    fsync_scope: int, first_seed: int, scratch: Path
) -> None:
    seeds = range(first_seed, first_seed + HALF_SEEDS)
    tally = cut_pipelines(scratch, PowerLossDisk, seeds, fsync_scope=fsync_scope)
    assert tally.errors == []
    assert tally.kills > 5
    assert tally.cuts > 300


# The same with something taken out: the model must see it, or it proves nothing.


class WithoutDirectorySync(PowerLossDisk):
    """Syncs no directory."""

    def skips(self, directory: str) -> bool:
        return True

    def fsync(self, fd: int) -> None:
        node = self.inode_of(fd)
        if not isinstance(node, str) or not self.skips(node):
            super().fsync(fd)


class WithoutStageSync(WithoutDirectorySync):
    """Syncs all directories but the stage."""

    def skips(self, directory: str) -> bool:
        return directory.endswith('/.stage')


class WithoutQueueSync(WithoutDirectorySync):
    """Syncs all directories but the queues."""

    def skips(self, directory: str) -> bool:
        return '/.' not in directory


class WithoutDataSync(PowerLossDisk):
    """Syncs no data."""

    def fdatasync(self, fd: int) -> None:
        pass


@pytest.mark.parametrize('kind', [WithoutDirectorySync, WithoutStageSync, WithoutQueueSync, WithoutDataSync])
def test_what_is_not_synced_is_found_missing(kind: type[PowerLossDisk], scratch: Path) -> None:
    assert cut_pipelines(scratch, kind, range(3), share=0.1, sought='').errors


class WithoutFileSync(PowerLossDisk):
    """Syncs directories and nothing else."""

    def fsync(self, fd: int) -> None:
        if isinstance(self.inode_of(fd), str):
            super().fsync(fd)


class WithDataSync(PowerLossDisk):
    """Has ``fdatasync`` do the work of ``fsync``."""

    def fsync(self, fd: int) -> None:
        if isinstance(self.inode_of(fd), str):
            super().fsync(fd)
        else:
            self.fdatasync(fd)


class Believer(PowerLossDisk):
    """Is no such disk as the program takes it for: a file's ``fsync`` does nothing for its name."""

    def fsync_scope(self, fd: int) -> int:
        return WITH_ALL_NAMES

    def __init__(self, seed: int, fsync_scope: int) -> None:
        super().__init__(seed, CONTENT_ONLY)


class WithFileAlone(PowerLossDisk):
    """Keeps a file's name with the file, where the program relies on the order of all names."""

    def fsync_scope(self, fd: int) -> int:
        return WITH_ALL_NAMES

    def __init__(self, seed: int, fsync_scope: int) -> None:
        super().__init__(seed, WITH_NAME)


class DirectoriesAlone(PowerLossDisk):
    """Has the program flush directories, where such a flush leaves the names that a file had elsewhere."""

    def fsync_scope(self, fd: int) -> int:
        return CONTENT_ONLY

    def __init__(self, seed: int, fsync_scope: int) -> None:
        super().__init__(seed, WITH_NAME)


@FSYNC_SCOPES
@pytest.mark.in_turns
def test_a_pipeline_with_two_flushes_loses_and_doubles_nothing_either(
    fsync_scope: int, scratch: Path
) -> None:
    """Not even where a flush of a file does less than the program is told: with one flush that is found out, see below."""
    kind = Believer if fsync_scope == CONTENT_ONLY else PowerLossDisk
    tally = cut_pipelines(scratch, kind, range(40, 48), fsync_scope=fsync_scope, directory_sync='always')
    assert tally.errors == []
    assert tally.cuts > 300


@pytest.mark.parametrize('kind', [WithoutFileSync, WithDataSync, Believer, WithFileAlone, DirectoriesAlone])
def test_one_flush_where_it_does_not_do_is_found_out(kind: type[PowerLossDisk], scratch: Path) -> None:
    assert cut_pipelines(scratch, kind, range(6), share=0.2, fsync_scope=WITH_ALL_NAMES, sought='').errors


def test_lazy_promises_less_and_what_it_loses_is_found(scratch: Path) -> None:
    tally = cut_pipelines(scratch, PowerLossDisk, range(3), durability='lazy', sought='accepted')
    assert any('accepted' in error for error in tally.errors)


@pytest.mark.parametrize('durability', ['full', 'lazy'])
@pytest.mark.in_turns('durability', ('full', 'lazy'))
def test_nothing_is_delivered_that_was_never_sent_even_where_bodies_are_stale(
    durability: Durability, scratch: Path
) -> None:
    tally = cut_pipelines(scratch, PowerLossDisk, range(8), durability=durability)
    assert tally.remains
    assert [error for error in tally.errors if 'never sent' in error] == []


def test_without_the_content_check_a_recycled_file_would_be_taken_for_a_message(scratch: Path) -> None:
    sought = 'never sent|there 2 times'
    tally = cut_pipelines(scratch, PowerLossDisk, range(12), believing=True, sought=sought)
    assert re.search(sought, tally.errors[-1])
