"""The second part of the suite: what becomes of an entry from its claim to its end.  See ``conformance``."""

from __future__ import annotations

from typing import Any

import pytest

from switchboard.errors import EntryTakenError, ForeignFileError
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock
from tests.contracts.queue import NOBODYS, Backend, drain


def events(records: list[Any]) -> list[str]:
    return [record['event'] for record in records]


class TestClaim:
    def test_a_claimed_entry_is_out_of_the_list_and_in_that_of_the_claimed(self, queue: Any) -> None:
        first, second = queue.enqueue('a'), queue.enqueue('b')
        queue.dequeue(first)
        assert queue.files == queue.get_files() == [second]
        assert queue.get_files('.bak') == [first]

    def test_what_is_claimed_cannot_be_claimed_again(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        with pytest.raises(EntryTakenError):
            queue.dequeue(filebase)
        assert queue.get_files('.bak') == [filebase]

    def test_an_entry_that_is_not_there_is_taken(self, queue: Any) -> None:
        with pytest.raises(EntryTakenError):
            queue.dequeue(NOBODYS)

    def test_a_name_that_is_not_of_the_grammar_is_foreign(self, queue: Any) -> None:
        names = ('foo', '', NOBODYS[:-1], NOBODYS + '+p0', NOBODYS + 'G', '../' + NOBODYS, NOBODYS + '\n')
        for name in names:
            with pytest.raises(ForeignFileError):
                queue.dequeue(name)

    def test_take_gives_each_entry_once_and_then_nothing(self, queue: Any) -> None:
        filebases = [queue.enqueue(number) for number in range(3)]
        taken = [queue.take() for _ in range(3)]
        assert [(one.filebase, one.msg) for one in taken] == list(zip(filebases, range(3), strict=True))
        assert queue.take() is None
        assert queue.get_files('.bak') == filebases

    def test_two_objects_never_take_the_same_entry(self, backend: Backend) -> None:
        one, other = backend.queue(), backend.queue()
        for number in range(20):
            one.enqueue(number)
        messages = []
        while (taken := one.take() or other.take()) is not None:
            messages.append(taken.msg)
            one, other = other, one
        assert messages == list(range(20))

    def test_ready_says_whether_there_is_something_to_take(self, queue: Any) -> None:
        assert not queue.has_ready()
        filebase = queue.enqueue('x')
        assert queue.has_ready()
        queue.dequeue(filebase)
        assert not queue.has_ready()


class TestFinish:
    def test_a_finished_entry_is_gone(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        queue.finish(filebase)
        assert queue.get_files() == queue.get_files('.bak') == []

    def test_an_entry_that_nobody_claimed_is_claimed_and_finished(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        queue.finish(filebase)
        assert queue.get_files() == queue.get_files('.bak') == []

    def test_finishing_twice_says_that_it_is_not_there(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        queue.finish(filebase)
        with pytest.raises(EntryTakenError) as caught:
            queue.finish(filebase)
        assert (caught.value.queue, caught.value.filebase) == ('in', filebase)

    def test_finishing_what_never_was_says_so_too(self, queue: Any) -> None:
        with pytest.raises(EntryTakenError):
            queue.finish(NOBODYS)

    def test_any_object_of_the_process_may_finish_what_another_claimed(self, backend: Backend) -> None:
        filebase = backend.queue().enqueue('x')
        backend.queue().dequeue(filebase)
        backend.queue().finish(filebase)
        assert backend.queue().get_files('.bak') == []

    @pytest.mark.parametrize('claim', [True, False])
    def test_a_preserved_entry_is_in_bad_under_its_name(self, backend: Backend, claim: bool) -> None:
        queue = backend.queue()
        filebase = queue.enqueue('x')
        if claim:
            queue.dequeue(filebase)
        queue.finish(filebase, preserve=True)
        assert queue.get_files() == queue.get_files('.bak') == []
        assert backend.preserved().get_files('.psv') == [filebase]

    def test_preserving_twice_is_no_error(self, backend: Backend) -> None:
        queue = backend.queue()
        filebase = queue.enqueue('x')
        queue.finish(filebase, preserve=True)
        queue.finish(filebase, preserve=True)
        assert backend.preserved().get_files('.psv') == [filebase]

    @pytest.mark.needs('history')
    def test_the_reason_and_the_queue_are_in_its_history(self, backend: Backend) -> None:
        queue = backend.queue()
        filebase = queue.enqueue('x')
        queue.finish(filebase, preserve=True, reason='no such user', cause='attempts')
        record = backend.preserved().history(filebase)[-1]
        assert record['event'] == 'preserved'
        assert (record['queue'], record['reason'], record['cause']) == ('in', 'no such user', 'attempts')


class TestRelease:
    def test_a_released_entry_is_where_it_was(self, queue: Any) -> None:
        filebases = [queue.enqueue(number) for number in range(3)]
        queue.dequeue(filebases[0])
        assert queue.release(filebases[0]) == filebases[0]
        assert queue.files == filebases
        assert drain(queue) == [0, 1, 2]

    def test_what_is_not_held_cannot_be_released(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        for name in (filebase, NOBODYS):
            with pytest.raises(EntryTakenError):
                queue.release(name)
        assert queue.files == [filebase]

    @pytest.mark.needs('delay', 'clock')
    def test_with_a_delay_it_is_the_same_entry_at_another_time(self, backend: Backend) -> None:
        clock = FakeClock()
        queue = backend.queue(clock=clock)
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        renamed = queue.release(filebase, delay_s=60)
        assert digest_of(renamed) == digest_of(filebase)
        assert (queue.files, queue.get_files()) == ([], [renamed])
        clock.advance(60.001)
        assert queue.files == [renamed]

    @pytest.mark.needs('delay', 'clock')
    def test_a_delay_is_kept_when_the_clock_was_set_back(self, backend: Backend) -> None:
        clock = FakeClock()
        queue = backend.queue(clock=clock)
        filebase = queue.enqueue('x')
        clock.set_back(3600)
        queue.dequeue(filebase)
        queue.release(filebase, delay_s=60, record={'event': 'failed'})
        assert queue.files == []
        assert queue.take() is None
        assert queue.wait_s() == pytest.approx(60)

    @pytest.mark.needs('history', 'clock')
    def test_a_record_makes_no_delay_when_the_clock_was_set_back(self, backend: Backend) -> None:
        clock = FakeClock()
        queue = backend.queue(clock=clock)
        filebase = queue.enqueue('x')
        clock.set_back(3600)
        queue.dequeue(filebase)
        queue.release(filebase, record={'event': 'kept'})
        assert queue.files == [filebase]

    @pytest.mark.needs('delay')
    @pytest.mark.parametrize('delay_s', [1e300, 10.0**12])
    def test_a_delay_beyond_all_names_is_the_longest_there_is(self, queue: Any, delay_s: float) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        assert queue.get_files() == [] != queue.release(filebase, delay_s=delay_s)
        assert len(queue.get_files()) == 1

    @pytest.mark.needs('history')
    def test_its_record_is_in_its_history_and_without_one_there_is_none(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        queue.release(filebase)
        assert queue.history(filebase) == []
        queue.dequeue(filebase)
        queue.release(filebase, record={'event': 'failed', 'claim': 1, 'self': 2})
        (record,) = queue.history(filebase)
        assert (record['event'], record['claim'], record['self']) == ('failed', 1, 2)

    def test_a_held_back_entry_is_not_taken_though_it_is_ready(self, queue: Any) -> None:
        first, second = queue.enqueue('a'), queue.enqueue('b')
        queue.defer(first, 60)
        assert queue.take().filebase == second
        assert queue.take() is None
        assert not queue.has_ready()
        assert queue.files == [first]
        assert 0 < queue.wait_s() <= 60


@pytest.mark.needs('history')
class TestHistory:
    def test_a_new_entry_has_none(self, queue: Any) -> None:
        assert queue.history(queue.enqueue('x')) == []

    def test_records_are_kept_in_order_with_their_time(self, backend: Backend) -> None:
        clock = FakeClock(1_800_000_000)
        queue = backend.queue(clock=clock)
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        queue.annotate(filebase, {'event': 'seen', 'by': ['a', {'b': 'h\u00e4'}]})
        clock.advance(1.5)
        queue.annotate(filebase, {'note': 'no event', 'time': 'forged'})
        seen, noted = queue.history(filebase)
        assert (seen['event'], seen['by'], seen['time']) == ('seen', ['a', {'b': 'h\u00e4'}], 1_800_000_000.0)
        assert (noted['event'], noted['time']) == ('noted', 1_800_000_001.5)

    def test_it_stays_with_the_entry_from_claim_to_claim_and_into_bad(self, backend: Backend) -> None:
        queue = backend.queue()
        filebase = queue.enqueue('x', n=1)
        for event in ('one', 'two'):
            queue.dequeue(filebase)
            queue.annotate(filebase, {'event': event})
            queue.release(filebase)
        assert queue.dequeue(filebase) == ('x', {'n': 1, 'version': 3, '_parsemsg': False})
        queue.finish(filebase, preserve=True)
        assert events(backend.preserved().history(filebase)) == ['one', 'two', 'preserved']

    def test_only_the_holder_writes_it(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        with pytest.raises(EntryTakenError):
            queue.annotate(filebase, {'event': 'seen'})
        assert queue.history(filebase) == []

    def test_of_an_unknown_entry_there_is_none(self, queue: Any) -> None:
        with pytest.raises(EntryTakenError):
            queue.history(NOBODYS)


class TestRecovery:
    def test_what_this_process_gave_up_is_ready_again(self, queue: Any) -> None:
        filebases = [queue.enqueue(number) for number in range(3)]
        for filebase in filebases[:2]:
            queue.dequeue(filebase)
        assert queue.recover() == filebases[:2]
        assert queue.files == filebases
        assert drain(queue) == [0, 1, 2]

    def test_a_periodic_recovery_leaves_what_this_process_holds(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        assert queue.recover(include_own=False) == []
        assert queue.get_files('.bak') == [filebase]
        queue.finish(filebase)

    @pytest.mark.parametrize('limit', [1, 3, 5])
    def test_too_many_recoveries_lead_to_bad(self, backend: Backend, limit: int) -> None:
        queue = backend.queue(options=QueueOptions(max_recoveries=limit))
        filebase = queue.enqueue('x')
        for time in range(1, limit + 1):
            queue.dequeue(filebase)
            assert queue.recover() == ([filebase] if time < limit else [])
        assert queue.get_files() == queue.get_files('.bak') == []
        assert backend.preserved().get_files('.psv') == [filebase]

    @pytest.mark.needs('history')
    def test_each_recovery_is_counted_in_the_history(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        for _ in range(2):
            queue.dequeue(filebase)
            queue.recover_backup_files()
        assert [record['count'] for record in queue.history(filebase)] == [1, 2]

    def test_a_release_is_no_recovery(self, queue: Any) -> None:
        filebase = queue.enqueue('x')
        for _ in range(5):
            queue.dequeue(filebase)
            queue.release(filebase)
        assert queue.files == [filebase]
