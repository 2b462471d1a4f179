"""What deletes by the time of day asks twice: a clock that jumps ahead and comes back deletes nothing, wherever somebody looks."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import switchboard
from switchboard import Spool
from switchboard.brokers.delivery_counts import FORGET_S, DeliveryCounts
from switchboard.errors import TemporaryFailure
from switchboard.operating.janitor import remove_old_preserved, tidy
from switchboard.options import QueueOptions
from switchboard.queue.expiry_clock import SETTLES_S, ExpiryClock
from switchboard.runner.verdict import judge
from switchboard.store.folder import Folder
from switchboard.store.layout import CLOCK
from switchboard.testing import FakeClock

DAY_S = 86400.0
DAY_NS = 86400 * 1_000_000_000
YEARS_S = 56 * 365 * DAY_S
HEX = 'ab' * 20


@dataclass
class Place:
    """A spool, and the clock that all processes of its machine have."""

    path: Path
    clock: FakeClock

    def spool(self) -> Spool:
        """:return: the spool as a new process sees it."""
        return Spool(self.path, 'lazy', clock=self.clock)


@dataclass(frozen=True)
class Deleter:
    """Something that is deleted by the time of day: how it comes there, and whether it goes when somebody looks after `lasts_s`."""

    put: Callable[[Place], object]
    is_gone: Callable[[Place], bool]
    lasts_s: float = DAY_S


def put_expiring(place: Place) -> None:
    place.spool()['in'].enqueue('x', ttl=DAY_S)


def is_expired_when_taken(place: Place) -> bool:
    spool = place.spool()
    taken = spool['in'].take()
    if taken is not None:
        spool['in'].release(taken.filebase)
    return not spool['in'].get_files('.pck')


def is_expired_when_tidied(place: Place) -> bool:
    spool = place.spool()
    tidy(spool)
    return not spool['in'].get_files('.pck')


def put_in_bad(place: Place) -> None:
    queue = place.spool()['in']
    queue.finish(queue.enqueue('x'), preserve=True)


def is_removed_from_bad(place: Place) -> bool:
    bad = place.spool()['bad']
    remove_old_preserved(bad, DAY_S)
    return not bad.get_files('.psv')


def put_in_trash(place: Place) -> None:
    put_in_bad(place)
    [file] = (place.path / 'bad').iterdir()
    (place.path / 'trash').mkdir()
    file.rename(place.path / 'trash' / file.name)


def is_removed_from_trash(place: Place) -> bool:
    tidy(place.spool())
    return not list((place.path / 'trash').glob('*.psv'))


def is_key_forgotten(place: Place) -> bool:
    spool = place.spool()
    queue = spool.queue('in', dedupe_window_s=DAY_S)
    spool.dedupe_keys(queue).remove_expired()
    return not list((place.path / '.dedupe@in').glob('*.pck'))


def is_key_unknown(place: Place) -> bool:
    spool = place.spool()
    [marker] = (place.path / '.dedupe@in').glob('*.pck')
    return spool.dedupe_keys(spool.queue('in', dedupe_window_s=DAY_S)).find(marker.stem) is None


def is_queue_deleted(place: Place) -> bool:
    place.spool().delete_unused_queues()
    return not (place.path / 'soon').exists()


def counts(place: Place) -> DeliveryCounts:
    spool = place.spool()
    return DeliveryCounts(
        Folder(place.path / '.held@in', spool.disk), spool.disk, place.clock, spool.expiry_clock
    )


def is_count_forgotten(place: Place) -> bool:
    counts(place).collect_dead_holders()
    return counts(place).deaths(HEX) == 0


def put_in_tmp(place: Place) -> None:
    place.spool().queue('in', maildir=True)
    path = place.path / 'in' / 'tmp' / 'half'
    path.write_text('Subject: x\n')
    os.utime(path, ns=(place.clock.time_ns(), place.clock.time_ns()))


def is_swept(place: Place) -> bool:
    assert place.spool().queue('in', maildir=True).take() is None
    return not (place.path / 'in' / 'tmp' / 'half').exists()


def is_given_up(place: Place) -> bool:
    spool = place.spool()
    history = [{'event': 'deferred', 'time': FIRST_FAILURE[place.path]}]
    options = QueueOptions(max_retry_time_s=DAY_S)
    return (
        judge(TemporaryFailure('x'), history, options, spool['in'].expiry_clock.time_ns() / 1e9).outcome
        == 'failed'
    )


FIRST_FAILURE: dict[Path, float] = {}


DELETERS = {
    'a message, when it is taken': Deleter(put_expiring, is_expired_when_taken),
    'a message, by the janitor': Deleter(put_expiring, is_expired_when_tidied),
    'the bad queue': Deleter(put_in_bad, is_removed_from_bad),
    'the trash': Deleter(put_in_trash, is_removed_from_trash, 7 * DAY_S),
    "a key's file": Deleter(lambda place: place.spool()['in'].enqueue('x', dedupe_key='k'), is_key_forgotten),
    'a key': Deleter(lambda place: place.spool()['in'].enqueue('x', dedupe_key='k'), is_key_unknown),
    'a declared queue': Deleter(
        lambda place: place.spool().declare('soon', expires_s=DAY_S), is_queue_deleted
    ),
    'a count of deaths': Deleter(lambda place: counts(place).add_death(HEX), is_count_forgotten, FORGET_S),
    "a maildir's tmp": Deleter(put_in_tmp, is_swept, 36 * 3600.0),
    'a retry': Deleter(
        lambda place: FIRST_FAILURE.update({place.path: place.spool().clock.time_ns() / 1e9}), is_given_up
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / 'spool', FakeClock())


# A key from the future is no key.
not_of_keys = pytest.mark.parametrize(
    'deleter',
    [
        pytest.param(each, id=name)
        for name, each in DELETERS.items()
        if each.is_gone not in (is_key_unknown, is_key_forgotten)
    ],
)


@pytest.fixture(params=DELETERS.values(), ids=DELETERS.keys())
def deleter(request: pytest.FixtureRequest) -> Deleter:
    found: Deleter = request.param
    return found


def test_it_goes_when_its_time_is_over(place: Place, deleter: Deleter) -> None:
    deleter.put(place)
    place.clock.advance(deleter.lasts_s - 60)
    assert not deleter.is_gone(place)
    place.clock.advance(120)
    assert deleter.is_gone(place)


@pytest.mark.parametrize('ahead_s', [40 * DAY_S, YEARS_S])
def test_it_stays_while_the_clock_is_ahead_for_a_moment(
    place: Place, deleter: Deleter, ahead_s: float
) -> None:
    deleter.put(place)
    place.clock.set_forward(ahead_s)
    for _ in range(3):
        assert not deleter.is_gone(place)
        place.clock.advance(60)
    place.clock.set_back(ahead_s)
    assert not deleter.is_gone(place)
    place.clock.advance(deleter.lasts_s + SETTLES_S)
    assert deleter.is_gone(place)


def test_it_stays_when_the_clock_was_behind_and_is_set_right(place: Place, deleter: Deleter) -> None:
    place.clock.set_back(YEARS_S)
    deleter.put(place)
    place.clock.set_forward(YEARS_S)
    assert not deleter.is_gone(place)


@not_of_keys
def test_it_stays_when_the_clock_is_set_back(place: Place, deleter: Deleter) -> None:
    deleter.put(place)
    place.clock.set_back(YEARS_S)
    assert not deleter.is_gone(place)


def test_a_clock_that_stays_ahead_is_believed(place: Place) -> None:
    put_expiring(place)
    place.clock.set_forward(40 * DAY_S)
    assert not is_expired_when_tidied(place)
    place.clock.advance(SETTLES_S - 1)
    assert not is_expired_when_taken(place)
    place.clock.advance(2)
    assert is_expired_when_tidied(place)


def test_a_clock_that_wanders_is_not_believed(place: Place) -> None:
    put_expiring(place)
    for _ in range(20):
        place.clock.set_forward(3 * DAY_S)
        assert not is_expired_when_tidied(place)
        place.clock.advance(60)


def test_what_may_be_over_is_not_given_out_either(place: Place) -> None:
    put_expiring(place)
    spool = place.spool()
    spool['in'].enqueue('good')
    place.clock.set_forward(40 * DAY_S)
    taken = spool['in'].take()
    assert taken is not None
    assert taken.msg == 'good'
    assert spool['in'].take() is None
    place.clock.set_back(40 * DAY_S)
    place.clock.advance(61)
    late = spool['in'].take()
    assert late is not None
    assert late.msg == 'x'


def test_a_last_use_stays_as_long_ago_as_it_was(place: Place) -> None:
    place.spool().declare('soon', expires_s=DAY_S)
    place.clock.advance(DAY_S / 2)
    place.clock.set_forward(YEARS_S)
    for _ in range(20):
        assert not is_queue_deleted(place)
        place.clock.advance(60)
    place.clock.advance(DAY_S / 2 - 20 * 60 - 10)
    assert not is_queue_deleted(place)
    place.clock.advance(20)
    assert is_queue_deleted(place)


def test_a_use_in_the_future_is_noted_anew(place: Place) -> None:
    place.clock.set_forward(YEARS_S)
    place.spool().declare('soon', expires_s=DAY_S)
    place.clock.set_back(YEARS_S)
    assert not is_queue_deleted(place)
    place.clock.advance(DAY_S + 1)
    assert is_queue_deleted(place)


# A machine that was off.


def test_what_expired_while_the_machine_was_off_waits_until_the_clock_has_settled(place: Place) -> None:
    put_expiring(place)
    place.clock.reboot(off_s=2 * DAY_S)
    place.clock.advance(20)
    assert not is_expired_when_tidied(place)
    assert place.spool()['in'].take() is None
    place.clock.advance(SETTLES_S)
    assert is_expired_when_tidied(place)


@not_of_keys
def test_a_machine_that_boots_in_1970_deletes_nothing_of_before(place: Place, deleter: Deleter) -> None:
    deleter.put(place)
    now_s = place.clock.time_ns() / 1e9
    place.clock.reboot(off_s=5 - now_s)
    assert not deleter.is_gone(place)
    place.clock.advance(30)
    place.clock.set_forward(now_s + 60 - place.clock.time_ns() / 1e9)
    assert not deleter.is_gone(place)


def test_what_was_put_in_in_1970_waits_when_the_clock_is_set_right(place: Place, deleter: Deleter) -> None:
    place.spool()
    now_s = place.clock.time_ns() / 1e9
    place.clock.reboot(off_s=5 - now_s)
    deleter.put(place)
    place.clock.advance(30)
    place.clock.set_forward(now_s)
    assert not deleter.is_gone(place)


# The note.


def test_a_note_that_cannot_be_read_or_written_leaves_each_process_with_what_it_saw(place: Place) -> None:
    spool = place.spool()
    (place.path / '.run' / CLOCK).write_text('no note at all')
    assert spool.expiry_clock.time_ns() == place.clock.time_ns()
    note = place.path / '.run' / CLOCK
    note.unlink()
    note.mkdir()
    place.clock.set_forward(DAY_S)
    assert spool.expiry_clock.time_ns() == place.clock.time_ns() - DAY_NS
    place.clock.advance(SETTLES_S + 1)
    assert spool.expiry_clock.time_ns() == place.clock.time_ns()


@pytest.mark.parametrize('place_of', range(4))
@pytest.mark.parametrize(
    'number', ['-' + '9' * 400, '9' * 400, '-' + '9' * 20], ids=('low', 'high', 'of 65 bits')
)
def test_a_note_with_numbers_that_no_clock_says_is_none(place: Place, number: str, place_of: int) -> None:
    words = ['1', str(place.clock.time_ns()), '0', '0']
    words[place_of] = number
    (place.path / '.run').mkdir(parents=True, exist_ok=True)
    (place.path / '.run' / CLOCK).write_text(f'{place.clock.boot_id()} {" ".join(words)}')
    spool = place.spool()
    assert spool.expiry_clock.time_ns() == place.clock.time_ns()
    spool['in'].enqueue('x', ttl=60)
    assert spool['in'].take() is not None


def test_an_object_of_its_own_remembers_by_itself() -> None:
    clock = FakeClock()
    expiry_clock = ExpiryClock(clock)
    clock.set_forward(DAY_S)
    assert expiry_clock.time_ns() == clock.time_ns() - DAY_NS
    clock.set_back(2 * DAY_S)
    assert expiry_clock.time_ns() == clock.time_ns()


def test_a_slewed_clock_is_no_leap() -> None:
    clock = FakeClock()
    expiry_clock = ExpiryClock(clock)
    for _ in range(100):
        clock.advance(60)
        clock.set_forward(0.03)  # five hundred parts in a million, as much as kernels slew
        assert expiry_clock.time_ns() == clock.time_ns()


# The next one.

# Modules that ask the wall clock, and what for.  What deletes or expires asks `ExpiryClock`, here or in what it is handed.
ASK_THE_WALL_CLOCK = {
    'brokers/consumer.py': 'delays',
    'brokers/delivery_counts.py': 'labels; forgets by the expiry clock',
    'brokers/encode.py': 'labels; expires by the expiry clock',
    'brokers/producer.py': 'names and delays',
    'brokers/queue.py': 'names; expires by the expiry clock',
    'cli/commands/ls.py': 'shows',
    'cli/commands/lifecycle.py': 'shows',
    'cli/commands/queues.py': 'shows',
    'cli/commands/show.py': 'shows',
    'cli/commands/status.py': 'shows',
    'cli/commands/top.py': 'shows',
    'cli/commands/tail.py': 'shows',
    'clock.py': 'is the clock',
    'declared/declarations.py': 'labels; expires by the expiry clock',
    'declared/presence.py': 'labels',
    'filestore.py': 'names',
    'handoff/deduplication.py': 'labels; forgets when both times say so',
    'handoff/moving.py': 'names',
    'master/master.py': 'labels',
    'master/supervision.py': 'labels',
    'kombu_transport/payload.py': 'delays',
    'message/expiry.py': 'what it is handed',
    'message/naming.py': 'names',
    'message/packing.py': 'names',
    'metrics/collector.py': 'shows',
    'metrics/counting.py': 'labels',
    'operating/acts.py': 'selects',
    'operating/audit.py': 'labels',
    'operating/queue_counts.py': 'shows',
    'operating/editing.py': 'names',
    'operating/grouping.py': 'says when it has looked',
    'operating/holding.py': 'names',
    'operating/janitor.py': 'tells names from the future; removes by the expiry clock',
    'operating/queue_info.py': 'shows',
    'operating/spool_view.py': 'selects',
    'queue/consumer.py': 'delays; expires by the expiry clock',
    'queue/ready_queue.py': 'delays',
    'queue/recovery.py': 'names and labels',
    'runner/settling.py': 'counts how long; gives up by the expiry clock',
    'runner/tracing.py': 'labels',
    'runners/bridge_arrivals.py': 'labels',
    'runners/retry.py': 'delays',
    'spool/spool.py': 'has the expiry clock look',
    'spool/pickup.py': 'names; sweeps by the expiry clock',
    'status/alerts.py': 'labels',
    'status/scoreboard.py': 'labels',
    'store/flags.py': 'labels',
    'queue/expiry_clock.py': 'is the expiry clock',
    'testing/clock.py': 'is the clock',
    'web/identity.py': 'how long a form is good for',
    'web/entry_pages.py': 'shows',
    'web/pages.py': 'shows',
    'web/spool_counts.py': 'labels',
}


# What stands in each file that asks it.
WALL_CLOCK = re.compile(r'\.\s*time(_ns)?\b')


def asks_the_wall_clock(path: Path) -> bool:
    source = path.read_text()
    return WALL_CLOCK.search(source) is not None and any(
        isinstance(node, ast.Attribute)
        and (
            node.attr == 'time_ns'
            or (node.attr == 'time' and isinstance(node.value, ast.Name) and node.value.id == 'time')
        )
        for node in ast.walk(ast.parse(source))
    )


def test_whoever_asks_the_wall_clock_says_what_for() -> None:
    package = Path(switchboard.__file__).parent
    found = {
        str(path.relative_to(package)) for path in package.rglob('*.py') if asks_the_wall_clock(path)
    } | {f'runners/{path.name}' for path in (package / 'runners').glob('*.py') if asks_the_wall_clock(path)}
    assert found == set(ASK_THE_WALL_CLOCK)
