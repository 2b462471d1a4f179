"""What `docs/explanation/threads-and-locks.md` says that threads may share, shared by threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.declared.presence import Ticket
from switchboard.errors import EntryTakenError
from switchboard.handoff.publish_many import Publication
from switchboard.store.folder import Folder

THREADS, TURNS = 6, 40


@pytest.fixture(autouse=True)
def _often() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def together(work: Callable[[int], None]) -> None:
    """Run the same work in many threads at once, and raise what one of them raised."""
    start, errors = threading.Barrier(THREADS), []

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def drain(spool: Spool, name: str) -> list[str]:
    found = []
    while (taken := spool[name].take()) is not None:
        found.append(taken.msg)
        spool[name].finish(taken.filebase)
    return sorted(found)


EXPECTED = sorted(f'{number} {turn}' for number in range(THREADS) for turn in range(TURNS))


def enqueue(spool: Spool, body: str) -> None:
    spool['in'].enqueue(body)


def enqueue_many(spool: Spool, body: str) -> None:
    spool['in'].enqueue_many([body])


def enqueue_with_key(spool: Spool, body: str) -> None:
    first = spool['in'].enqueue(body, dedupe_key=body)
    assert spool['in'].enqueue(body, dedupe_key=body) == first


def publish(spool: Spool, body: str) -> None:
    spool.publish(body, routing_key='in')


def publish_many(spool: Spool, body: str) -> None:
    [outcome] = spool.publish_many([Publication(body, {}, ['in'])])
    assert isinstance(outcome, dict)


def declare_and_move(spool: Spool, body: str) -> None:
    name = f'queue-{body.replace(" ", "-")}'
    spool.declare(name)
    spool[name].enqueue(body)
    taken = spool[name].take()
    assert taken is not None
    transaction = spool.transaction(spool[name], taken.filebase)
    transaction.forward(spool['in'])
    assert spool.commit_all([transaction]) == {}
    spool.delete(name)


@pytest.mark.parametrize(
    'put', [enqueue, enqueue_many, enqueue_with_key, publish, publish_many, declare_and_move]
)
def test_all_that_is_put_in_is_there_once(put: Callable[[Spool, str], None], tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    spool['in']

    def work(number: int) -> None:
        for turn in range(TURNS):
            put(spool, f'{number} {turn}')

    together(work)
    assert drain(spool, 'in') == EXPECTED


def first_uses(spool: Spool, number: int) -> None:
    """Each of the things that are made when they are first needed."""
    spool.declare(f'queue-{number}')
    assert not spool['in'].is_paused(refresh=True)
    spool['in'].enqueue([number], dedupe_key=str(number))
    spool.publish({'number': number}, routing_key='in')


def test_what_is_made_at_its_first_use_serves_all_threads(tmp_path: Path) -> None:
    for turn in range(TURNS):
        spool = Spool(tmp_path / str(turn), 'lazy')
        together(lambda number, spool=spool: first_uses(spool, number))
        assert len(spool['in'].files) == 2 * THREADS
        spool.close()


def test_threads_that_ask_for_the_owner_at_once_get_the_same(tmp_path: Path) -> None:
    for turn in range(TURNS):
        spool = Spool(tmp_path / str(turn), 'lazy')
        owners = []

        def declare(number: int, spool: Spool = spool, owners: list[Ticket] = owners) -> None:
            owner = spool.declared.owner
            owners.append(owner)
            spool.declared.declare(f'queue-{number}', owner=owner)

        together(declare)
        assert len(set(owners)) == 1
        assert len(list((tmp_path / str(turn) / '.run' / 'owners').iterdir())) == 1
        owners[0].close()
        spool.close()


def test_threads_that_hold_a_brokers_messages_note_them_in_one_file(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    for turn in range(TURNS):
        folder = Folder(spool.path(f'.held@{turn}'), spool.disk)
        held = DeliveryCounts(folder, spool.disk, spool.clock)

        def hold(number: int, held: DeliveryCounts = held) -> None:
            held.note_claimed(f'{number:040x}')

        together(hold)
        [file] = Path(folder.path).iterdir()
        assert sorted(file.read_text().split()) == [f'{number:040x}' for number in range(THREADS)]
        together(lambda number, held=held: held.note_ended(f'{number:040x}'))
        held.close()
        assert not list(Path(folder.path).iterdir())
    spool.close()


def test_a_batch_of_one_thread_does_not_hold_what_others_put_in(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    entered, seen = threading.Event(), threading.Event()
    queue = spool['in']

    def other() -> None:
        entered.wait()
        queue.enqueue('theirs')
        seen.set()

    thread = threading.Thread(target=other)
    thread.start()

    def fail() -> None:
        with queue.batch() as batch:
            batch.enqueue('mine')
            entered.set()
            seen.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    thread.join()
    assert drain(spool, 'in') == ['theirs']


@pytest.mark.parametrize('end', ['finish', 'hand off'])
def test_each_entry_is_taken_by_one_thread(end: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    spool['in'].enqueue_many(EXPECTED)
    spool['out']
    got: list[str] = []

    def work(number: int) -> None:
        while True:
            try:
                taken = spool['in'].take()
            except EntryTakenError:
                continue
            if taken is None:
                if not spool['in'].get_files():
                    return
                continue
            got.append(taken.msg)
            if end == 'finish':
                spool['in'].annotate(taken.filebase, {'event': 'seen'})
                spool['in'].finish(taken.filebase)
            else:
                transaction = spool.transaction(spool['in'], taken.filebase)
                transaction.emit(spool['out'], taken.msg, {})
                transaction.commit()

    together(work)
    assert sorted(got) == EXPECTED
    assert drain(spool, 'out') == (EXPECTED if end == 'hand off' else [])
