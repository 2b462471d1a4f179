"""The runner: what it does with each message, over a directory and over memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from zope.interface.verify import verifyObject

from switchboard import Runner, Spool
from switchboard.errors import ConfigError, PermanentFailure, TemporaryFailure
from switchboard.interfaces import IRunner
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions, RetryPolicy, RunnerOptions
from switchboard.runner.settings import Setting
from switchboard.testing import FakeClock, run_until_empty
from tests.helpers.runs import Recorder, make_runner, preserved


class TestDisposing:
    def test_each_message_is_handled_once_in_order_and_gone(self, spool: Any) -> None:
        spool['in'].enqueue_many([(number, {'n': number}) for number in range(5)])
        runner = make_runner(spool)
        assert run_until_empty(runner) == 0
        assert [msg for msg, _ in runner.seen] == list(range(5))
        assert [msgdata['n'] for _, msgdata in runner.seen] == list(range(5))
        assert spool['in'].get_files() == spool['in'].get_files('.bak') == []

    def test_the_class_keeps_its_contract(self, spool: Any) -> None:
        assert verifyObject(IRunner, make_runner(spool))

    def test_the_message_at_work_and_its_key_are_known_and_the_key_stays(self, spool: Any) -> None:
        filebase = spool['in'].enqueue('x')
        keys = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            keys.append(runner.idempotency_key)
            assert digest_of(runner.filebase) == digest_of(filebase)
            if len(keys) < 3:
                raise TemporaryFailure(retry_after_s=0)

        runner = make_runner(spool, dispose)
        run_until_empty(runner)
        assert keys == [digest_of(filebase)] * 3
        assert (runner.filebase, runner.idempotency_key) == ('', '')

    def test_the_key_stays_however_often_the_message_is_kept_and_whatever_of_it_changes(
        self, tmp_path: Path
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=FakeClock())
        filebase = spool['in'].enqueue([0], tries=0)
        keys, names = [], set()

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> bool:
            keys.append(runner.idempotency_key)
            names.add(runner.filebase)
            msgdata['tries'] += 1
            # Of a message that is kept with other metadata so often, the history is folded: it is stored anew.
            if len(keys) in (2, 75):
                msg.append(len(keys))
            return len(keys) < 80

        run_until_empty(make_runner(spool, dispose))
        assert len(names) >= 3
        assert keys == [digest_of(filebase)] * 80

    def test_once_is_one_pass(self, spool: Any) -> None:
        spool['in'].enqueue('x')
        runner = make_runner(spool)
        assert runner.run(once=True) == 0
        assert runner.run(once=True) == 0
        assert len(runner.seen) == 1

    def test_a_slice_is_worked_alone(self, spool: Any) -> None:
        spool['in'].enqueue_many(range(30))
        runners = [make_runner(spool, slice=index, numslices=3) for index in range(3)]
        for runner in runners:
            runner.run(until_empty=True)
        shares = [[msg for msg, _ in runner.seen] for runner in runners]
        assert all(shares)
        assert sorted(msg for share in shares for msg in share) == list(range(30))


class TestHooks:
    def test_they_are_called_in_this_order(self, spool: Any) -> None:
        calls: list[str] = []

        class Hooked(Runner):
            def setup(self) -> None:
                calls.append('setup')

            def dispose(self, msg: Any, msgdata: Any) -> None:
                calls.append(f'dispose {msg}')
                if msg == 'bad':
                    raise ValueError('no')

            def on_error(self, msg: Any, msgdata: Any, error: BaseException) -> None:
                calls.append(f'on_error {msg} {error}')

            def periodic(self) -> None:
                calls.append('periodic')

            def snooze(self, filecnt: int) -> None:
                calls.append(f'snooze {filecnt}')
                self.stop()

            def cleanup(self) -> None:
                calls.append('cleanup')

        spool['in'].enqueue_many(['good', 'bad'])
        Hooked(spool, RunnerOptions(name='h', class_path='', queue='in')).run()
        assert calls == [
            *('setup', 'dispose good', 'dispose bad', 'on_error bad no', 'periodic'),
            *('periodic', 'snooze 0', 'cleanup'),
        ]

    def test_cleanup_is_called_when_the_loop_ends_by_an_error(self, spool: Any) -> None:
        cleaned = []

        class Failing(Recorder):
            def periodic(self) -> None:
                raise RuntimeError('periodic')

            def cleanup(self) -> None:
                cleaned.append(True)

        with pytest.raises(RuntimeError, match='periodic'):
            make_runner(spool, cls=Failing).run()
        assert cleaned == [True]

    def test_an_error_in_on_error_changes_nothing(self, spool: Any) -> None:
        class Failing(Recorder):
            def on_error(self, msg: Any, msgdata: Any, error: BaseException) -> None:
                raise KeyError('again')

        filebase = spool['in'].enqueue('x')
        make_runner(spool, fail_with(ValueError('first')), cls=Failing).run(until_empty=True)
        assert 'first' in preserved(spool)[filebase]

    def test_keys_of_its_section_are_read_when_it_is_made(self, spool: Any) -> None:
        class Typed(Recorder):
            settings: ClassVar = {'depth': Setting(int, default=3)}

        assert make_runner(spool, cls=Typed).setting_values == {'depth': 3}
        assert make_runner(spool, cls=Typed, settings={'depth': '5'}).setting_values == {'depth': 5}
        with pytest.raises(ConfigError, match='no such key'):
            make_runner(spool, settings={'depth': '5'})

    def test_it_goes_by_the_clock_of_its_spool(self, tmp_path: Path) -> None:
        clock = FakeClock()
        assert make_runner(Spool(tmp_path / 'spool', 'lazy', clock=clock)).clock is clock

    def test_a_runner_may_have_no_queue(self, spool: Any) -> None:
        beats = []

        class Server(Recorder):
            def periodic(self) -> None:
                beats.append(True)
                if len(beats) == 3:
                    self.stop()

        runner = Server(spool, RunnerOptions(name='s', class_path='', poll_interval_s=0.001))
        assert runner.queue is None
        assert runner.run() == 0
        assert len(beats) == 3


def fail_with(error: BaseException) -> Callable[[Recorder, Any, Any], None]:
    def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
        raise error

    return dispose


class TestFailing:
    def test_an_exception_sends_its_message_to_bad_with_class_text_and_traceback(self, spool: Any) -> None:
        filebase = spool['in'].enqueue({'a': 1}, n=1)
        make_runner(spool, fail_with(ZeroDivisionError('by nothing'))).run(until_empty=True)
        failed, last = spool['bad'].history(filebase)
        assert (failed['event'], failed['error'], failed['message']) == (
            'failed',
            'ZeroDivisionError',
            'by nothing',
        )
        assert 'in dispose\n' in failed['traceback']
        assert failed['traceback'].endswith('ZeroDivisionError: by nothing\n')
        assert (last['event'], last['queue'], last['cause']) == ('preserved', 'in', 'attempts')

    def test_one_bad_message_never_stops_the_rest(self, spool: Any) -> None:
        class Nasty(Exception):
            def __str__(self) -> str:
                raise RuntimeError('cannot be written')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            if msg in errors:
                raise errors[msg]

        errors = {
            1: ValueError('x'),
            3: Nasty(),
            5: RecursionError(),
            7: PermanentFailure('no'),
            8: MemoryError(),
        }
        filebases = spool['in'].enqueue_many(range(10))
        runner = make_runner(spool, dispose)
        runner.run(until_empty=True)
        assert [msg for msg, _ in runner.seen] == list(range(10))
        assert sorted(preserved(spool)) == [filebases[number] for number in sorted(errors)]

    @pytest.mark.parametrize('batch_size', [1, 4])
    def test_it_is_tried_again_later_as_often_as_the_queue_says(
        self, tmp_path: Path, batch_size: int
    ) -> None:
        clock = FakeClock()
        options = QueueOptions(max_attempts=3, retry=RetryPolicy(first_s=60, jitter=0))
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=options)
        filebase = spool['in'].enqueue('x')
        started_ns = clock.monotonic_ns()
        runner = make_runner(spool, fail_with(ValueError('no')), batch_size=batch_size)
        run_until_empty(runner)
        assert len(runner.seen) == 3
        assert 180 <= (clock.monotonic_ns() - started_ns) / 1e9 < 181
        (name,) = spool['bad'].get_files('.psv')
        assert digest_of(name) == digest_of(filebase)
        history = spool['bad'].history(name)
        assert [record.get('attempt') for record in history] == [1, 2, 3, None]

    def test_a_temporary_failure_waits_as_long_as_it_says_and_is_given_up_in_the_end(
        self, tmp_path: Path
    ) -> None:
        clock = FakeClock()
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock, options=QueueOptions(max_retry_time_s=250))
        spool['in'].enqueue('x')
        times: list[float] = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            times.append(round(clock.monotonic_ns() / 1e9))
            raise TemporaryFailure('busy', retry_after_s=100)

        run_until_empty(make_runner(spool, dispose))
        assert [time - times[0] for time in times] == [0, 100, 200, 300]
        (reason,) = preserved(spool).values()
        assert reason.startswith('given up after 4 attempts: TemporaryFailure: busy')

    def test_what_was_changed_of_the_metadata_is_there_at_the_next_try(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=FakeClock(), options=QueueOptions(max_attempts=3))
        spool['in'].enqueue('x', done=[])
        seen = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            seen.append(list(msgdata['done']))
            msgdata['done'].append(len(seen))
            msgdata['not storable'] = object()
            if len(seen) < 3:
                raise ValueError('again')

        run_until_empty(make_runner(spool, dispose))
        assert seen == [[], [1], [1, 2]]
        assert preserved(spool) == {}

    def test_nothing_of_what_it_emitted_is_seen(self, spool: Any) -> None:
        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', 'half done')
            raise ValueError('no')

        spool['in'].enqueue('x')
        make_runner(spool, dispose).run(until_empty=True)
        assert spool['out'].get_files() == []
