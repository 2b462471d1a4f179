"""The second part of the suite: what becomes of an entry from its claim to its end.  See ``conformance``."""

from __future__ import annotations

from typing import Any

import pytest

from switchboard.errors import EntryTakenError, ForeignFileError
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock
from tests.conformance import NOBODYS, Backend, drain


def events(records: list[Any]) -> list[str]:
    return [record['event'] for record in records]


class TestClaim:
    def test_a_claimed_entry_is_out_of_the_list_and_in_that_of_the_claimed(self, board: Any) -> None:
        first, second = board.enqueue('a'), board.enqueue('b')
        board.dequeue(first)
        assert board.files == board.get_files() == [second]
        assert board.get_files('.bak') == [first]

    def test_what_is_claimed_cannot_be_claimed_again(self, board: Any) -> None:
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        with pytest.raises(EntryTakenError):
            board.dequeue(filebase)
        assert board.get_files('.bak') == [filebase]

    def test_an_entry_that_is_not_there_is_taken(self, board: Any) -> None:
        with pytest.raises(EntryTakenError):
            board.dequeue(NOBODYS)

    def test_a_name_that_is_not_of_the_grammar_is_foreign(self, board: Any) -> None:
        names = ('foo', '', NOBODYS[:-1], NOBODYS + '+p0', NOBODYS + 'G', '../' + NOBODYS, NOBODYS + '\n')
        for name in names:
            with pytest.raises(ForeignFileError):
                board.dequeue(name)

    def test_take_gives_each_entry_once_and_then_nothing(self, board: Any) -> None:
        filebases = [board.enqueue(number) for number in range(3)]
        taken = [board.take() for _ in range(3)]
        assert [(one.filebase, one.msg) for one in taken] == list(zip(filebases, range(3), strict=True))
        assert board.take() is None
        assert board.get_files('.bak') == filebases

    def test_two_objects_never_take_the_same_entry(self, backend: Backend) -> None:
        one, other = backend.board(), backend.board()
        for number in range(20):
            one.enqueue(number)
        messages = []
        while (taken := one.take() or other.take()) is not None:
            messages.append(taken.msg)
            one, other = other, one
        assert messages == list(range(20))

    def test_ready_says_whether_there_is_something_to_take(self, board: Any) -> None:
        assert not board.ready()
        filebase = board.enqueue('x')
        assert board.ready()
        board.dequeue(filebase)
        assert not board.ready()


class TestFinish:
    def test_a_finished_entry_is_gone(self, board: Any) -> None:
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        board.finish(filebase)
        assert board.get_files() == board.get_files('.bak') == []

    def test_an_entry_that_nobody_claimed_is_claimed_and_finished(self, board: Any) -> None:
        filebase = board.enqueue('x')
        board.finish(filebase)
        assert board.get_files() == board.get_files('.bak') == []

    def test_finishing_twice_says_that_it_is_not_there(self, board: Any) -> None:
        filebase = board.enqueue('x')
        board.finish(filebase)
        with pytest.raises(EntryTakenError) as caught:
            board.finish(filebase)
        assert (caught.value.queue, caught.value.filebase) == ('in', filebase)

    def test_finishing_what_never_was_says_so_too(self, board: Any) -> None:
        with pytest.raises(EntryTakenError):
            board.finish(NOBODYS)

    def test_any_object_of_the_process_may_finish_what_another_claimed(self, backend: Backend) -> None:
        filebase = backend.board().enqueue('x')
        backend.board().dequeue(filebase)
        backend.board().finish(filebase)
        assert backend.board().get_files('.bak') == []

    @pytest.mark.parametrize('claim', [True, False])
    def test_a_preserved_entry_is_in_bad_under_its_name(self, backend: Backend, claim: bool) -> None:
        board = backend.board()
        filebase = board.enqueue('x')
        if claim:
            board.dequeue(filebase)
        board.finish(filebase, preserve=True)
        assert board.get_files() == board.get_files('.bak') == []
        assert backend.preserved().get_files('.psv') == [filebase]

    def test_preserving_twice_is_no_error(self, backend: Backend) -> None:
        board = backend.board()
        filebase = board.enqueue('x')
        board.finish(filebase, preserve=True)
        board.finish(filebase, preserve=True)
        assert backend.preserved().get_files('.psv') == [filebase]

    @pytest.mark.needs('history')
    def test_the_reason_and_the_queue_are_in_its_history(self, backend: Backend) -> None:
        board = backend.board()
        filebase = board.enqueue('x')
        board.finish(filebase, preserve=True, reason='no such user', cause='attempts')
        record = backend.preserved().history(filebase)[-1]
        assert record['event'] == 'preserved'
        assert (record['queue'], record['reason'], record['cause']) == ('in', 'no such user', 'attempts')


class TestRelease:
    def test_a_released_entry_is_where_it_was(self, board: Any) -> None:
        filebases = [board.enqueue(number) for number in range(3)]
        board.dequeue(filebases[0])
        assert board.release(filebases[0]) == filebases[0]
        assert board.files == filebases
        assert drain(board) == [0, 1, 2]

    def test_what_is_not_held_cannot_be_released(self, board: Any) -> None:
        filebase = board.enqueue('x')
        for name in (filebase, NOBODYS):
            with pytest.raises(EntryTakenError):
                board.release(name)
        assert board.files == [filebase]

    @pytest.mark.needs('delay', 'clock')
    def test_with_a_delay_it_is_the_same_entry_at_another_time(self, backend: Backend) -> None:
        clock = FakeClock()
        board = backend.board(clock=clock)
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        renamed = board.release(filebase, delay_s=60)
        assert digest_of(renamed) == digest_of(filebase)
        assert (board.files, board.get_files()) == ([], [renamed])
        clock.advance(60.001)
        assert board.files == [renamed]

    @pytest.mark.needs('delay', 'clock')
    def test_a_delay_is_kept_when_the_clock_was_set_back(self, backend: Backend) -> None:
        clock = FakeClock()
        board = backend.board(clock=clock)
        filebase = board.enqueue('x')
        clock.set_back(3600)
        board.dequeue(filebase)
        board.release(filebase, delay_s=60, record={'event': 'failed'})
        assert board.files == []
        assert board.take() is None
        assert board.wait_s() == pytest.approx(60)

    @pytest.mark.needs('history', 'clock')
    def test_a_record_makes_no_delay_when_the_clock_was_set_back(self, backend: Backend) -> None:
        clock = FakeClock()
        board = backend.board(clock=clock)
        filebase = board.enqueue('x')
        clock.set_back(3600)
        board.dequeue(filebase)
        board.release(filebase, record={'event': 'kept'})
        assert board.files == [filebase]

    @pytest.mark.needs('delay')
    @pytest.mark.parametrize('delay_s', [1e300, 10.0**12])
    def test_a_delay_beyond_all_names_is_the_longest_there_is(self, board: Any, delay_s: float) -> None:
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        assert board.get_files() == [] != board.release(filebase, delay_s=delay_s)
        assert len(board.get_files()) == 1

    @pytest.mark.needs('history')
    def test_its_record_is_in_its_history_and_without_one_there_is_none(self, board: Any) -> None:
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        board.release(filebase)
        assert board.history(filebase) == []
        board.dequeue(filebase)
        board.release(filebase, record={'event': 'failed', 'claim': 1, 'self': 2})
        (record,) = board.history(filebase)
        assert (record['event'], record['claim'], record['self']) == ('failed', 1, 2)

    def test_a_held_back_entry_is_not_taken_though_it_is_ready(self, board: Any) -> None:
        first, second = board.enqueue('a'), board.enqueue('b')
        board.defer(first, 60)
        assert board.take().filebase == second
        assert board.take() is None
        assert not board.ready()
        assert board.files == [first]
        assert 0 < board.wait_s() <= 60


@pytest.mark.needs('history')
class TestHistory:
    def test_a_new_entry_has_none(self, board: Any) -> None:
        assert board.history(board.enqueue('x')) == []

    def test_records_are_kept_in_order_with_their_time(self, backend: Backend) -> None:
        clock = FakeClock(1_800_000_000)
        board = backend.board(clock=clock)
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        board.annotate(filebase, {'event': 'seen', 'by': ['a', {'b': 'h\u00e4'}]})
        clock.advance(1.5)
        board.annotate(filebase, {'note': 'no event', 'time': 'forged'})
        seen, noted = board.history(filebase)
        assert (seen['event'], seen['by'], seen['time']) == ('seen', ['a', {'b': 'h\u00e4'}], 1_800_000_000.0)
        assert (noted['event'], noted['time']) == ('noted', 1_800_000_001.5)

    def test_it_stays_with_the_entry_from_claim_to_claim_and_into_bad(self, backend: Backend) -> None:
        board = backend.board()
        filebase = board.enqueue('x', n=1)
        for event in ('one', 'two'):
            board.dequeue(filebase)
            board.annotate(filebase, {'event': event})
            board.release(filebase)
        assert board.dequeue(filebase) == ('x', {'n': 1, 'version': 3, '_parsemsg': False})
        board.finish(filebase, preserve=True)
        assert events(backend.preserved().history(filebase)) == ['one', 'two', 'preserved']

    def test_only_the_holder_writes_it(self, board: Any) -> None:
        filebase = board.enqueue('x')
        with pytest.raises(EntryTakenError):
            board.annotate(filebase, {'event': 'seen'})
        assert board.history(filebase) == []

    def test_of_an_unknown_entry_there_is_none(self, board: Any) -> None:
        with pytest.raises(EntryTakenError):
            board.history(NOBODYS)


class TestRecovery:
    def test_what_this_process_gave_up_is_ready_again(self, board: Any) -> None:
        filebases = [board.enqueue(number) for number in range(3)]
        for filebase in filebases[:2]:
            board.dequeue(filebase)
        assert board.recover() == filebases[:2]
        assert board.files == filebases
        assert drain(board) == [0, 1, 2]

    def test_a_periodic_recovery_leaves_what_this_process_holds(self, board: Any) -> None:
        filebase = board.enqueue('x')
        board.dequeue(filebase)
        assert board.recover(own=False) == []
        assert board.get_files('.bak') == [filebase]
        board.finish(filebase)

    @pytest.mark.parametrize('limit', [1, 3, 5])
    def test_too_many_recoveries_lead_to_bad(self, backend: Backend, limit: int) -> None:
        board = backend.board(options=QueueOptions(max_recoveries=limit))
        filebase = board.enqueue('x')
        for time in range(1, limit + 1):
            board.dequeue(filebase)
            assert board.recover() == ([filebase] if time < limit else [])
        assert board.get_files() == board.get_files('.bak') == []
        assert backend.preserved().get_files('.psv') == [filebase]

    @pytest.mark.needs('history')
    def test_each_recovery_is_counted_in_the_history(self, board: Any) -> None:
        filebase = board.enqueue('x')
        for _ in range(2):
            board.dequeue(filebase)
            board.recover_backup_files()
        assert [record['count'] for record in board.history(filebase)] == [1, 2]

    def test_a_release_is_no_recovery(self, board: Any) -> None:
        filebase = board.enqueue('x')
        for _ in range(5):
            board.dequeue(filebase)
            board.release(filebase)
        assert board.files == [filebase]
