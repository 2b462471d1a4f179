"""What a runner sends on, and what it gives back."""

from __future__ import annotations

from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import NoRouteError, QueueFullError, UnknownExchangeError, UnserializableError
from switchboard.options import QueueOptions
from switchboard.routing.bindings import Binding, Exchange, Target
from switchboard.routing.exchange import ExchangeTable
from switchboard.testing import FakeClock, run_until_empty
from tests.helpers.runs import Recorder, make_runner, preserved


def contents(spool: Any, queue: str) -> list[Any]:
    return [spool[queue].dequeue(filebase)[0] for filebase in spool[queue].files]


class WithExchanges:
    """A spool, but for its exchanges."""

    def __init__(self, spool: Any, exchanges: ExchangeTable) -> None:
        self._spool = spool
        self.exchanges = exchanges

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spool, name)

    def __getitem__(self, name: str) -> Any:
        return self._spool[name]


class TestEmitting:
    def test_it_is_seen_when_the_input_is_finished_and_not_before(self, spool: Any) -> None:
        seen = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            filebases = runner.emit('out', f'made of {msg}', msgdata, n=2)
            assert list(filebases) == ['out']
            seen.append(spool['out'].get_files())

        spool['in'].enqueue('x', {'n': 1, 'list': 'a'})
        make_runner(spool, dispose).run(until_empty=True)
        assert seen == [[]]
        (filebase,) = spool['out'].files
        assert spool['out'].dequeue(filebase) == (
            'made of x',
            {'n': 2, 'list': 'a', 'version': 3, '_parsemsg': False},
        )

    def test_several_outputs_in_several_queues(self, spool: Any) -> None:
        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            for queue in ('a', 'b', 'a'):
                runner.emit(queue, f'{queue}{msg}')

        spool['in'].enqueue_many([1, 2])
        make_runner(spool, dispose, batch_size=2).run(until_empty=True)
        assert (contents(spool, 'a'), contents(spool, 'b')) == (['a1', 'a1', 'a2', 'a2'], ['b1', 'b2'])

    def test_to_several_queues_it_is_all_or_nothing(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', options=QueueOptions(max_messages=1))
        spool['full'].enqueue('there already')
        table = ExchangeTable([Exchange('both', 'fanout', (Binding('', (Target('out'), Target('full'))),))])

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            try:
                runner.emit('', msg, exchange='both')
            except QueueFullError:
                runner.emit('instead', msg)

        spool['in'].enqueue('x')
        runner = make_runner(WithExchanges(spool, table), dispose)
        run_until_empty(runner)
        assert [contents(spool, queue) for queue in ('out', 'full', 'instead')] == [
            [],
            ['there already'],
            ['x'],
        ]

    def test_an_input_that_was_handed_on_still_goes_when_a_later_copy_finds_no_room(
        self, tmp_path: Path
    ) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', options=QueueOptions(max_messages=1))
        spool['full'].enqueue('there already')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.forward('out')
            with pytest.raises(QueueFullError):
                runner.forward('more', 'full')
            with pytest.raises(QueueFullError):
                runner.emit('full', 'another')

        spool['in'].enqueue('x')
        run_until_empty(make_runner(spool, dispose))
        assert [contents(spool, queue) for queue in ('out', 'more', 'full', 'in')] == [
            ['x'],
            [],
            ['there already'],
            [],
        ]

    def test_it_may_be_delayed(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=FakeClock())
        spool['in'].enqueue('x')
        make_runner(spool, lambda runner, msg, msgdata: runner.emit('out', msg, delay=60) and None).run(
            until_empty=True
        )
        assert (spool['out'].files, len(spool['out'].get_files())) == ([], 1)

    def test_what_cannot_be_stored_is_the_messages_failure(self, spool: Any) -> None:
        filebase = spool['in'].enqueue('x')
        make_runner(spool, lambda runner, msg, msgdata: runner.emit('out', object())).run(until_empty=True)
        assert UnserializableError.__name__ in preserved(spool)[filebase]

    def test_so_is_what_has_no_route(self, spool: Any) -> None:
        filebase = spool['in'].enqueue('x')
        make_runner(spool, lambda runner, msg, msgdata: runner.emit('key', msg, exchange='post')).run(
            until_empty=True
        )
        reason = preserved(spool)[filebase]
        assert reason.startswith((UnknownExchangeError.__name__, NoRouteError.__name__))

    def test_outside_of_dispose_it_is_published_at_once(self, spool: Any) -> None:
        class Periodic(Recorder):
            def periodic(self) -> None:
                self.emit('out', 'a report', n=1)

        make_runner(spool, cls=Periodic).run(once=True)
        assert contents(spool, 'out') == ['a report']

    def test_what_a_hook_tells_of_a_failure_is_published_whatever_becomes_of_the_message(
        self, spool: Any
    ) -> None:
        class Tells(Recorder):
            def on_error(self, msg: Any, msgdata: Any, error: BaseException) -> None:
                self.emit('out', f'{msg}: {error}')

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', 'not to be seen')
            raise ValueError('no good')

        spool['in'].enqueue('x')
        make_runner(spool, dispose, cls=Tells).run(until_empty=True)
        assert contents(spool, 'out') == ['x: no good']

    def test_a_changed_message_does_not_change_what_was_emitted(self, spool: Any) -> None:
        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> None:
            runner.emit('out', msg, msgdata)
            msg['a'] = 'changed'
            msgdata['n'] = 'changed'

        spool['in'].enqueue({'a': 1}, n=1)
        make_runner(spool, dispose).run(until_empty=True)
        (filebase,) = spool['out'].files
        msg, msgdata = spool['out'].dequeue(filebase)
        assert (msg, msgdata['n']) == ({'a': 1}, 1)


class TestForwarding:
    def test_the_input_goes_on_as_it_is(self, spool: Any) -> None:
        filebase = spool['in'].enqueue('x', n=1)
        make_runner(spool, lambda runner, msg, msgdata: runner.forward('out')).run(until_empty=True)
        assert spool['out'].files == [filebase]
        assert spool['out'].dequeue(filebase)[1]['n'] == 1

    def test_to_several_it_goes_as_copies(self, spool: Any) -> None:
        spool['in'].enqueue('x')
        make_runner(spool, lambda runner, msg, msgdata: runner.forward('a', 'b')).run(until_empty=True)
        assert (contents(spool, 'a'), contents(spool, 'b')) == (['x'], ['x'])

    def test_it_is_for_use_in_dispose(self, spool: Any) -> None:
        with pytest.raises(RuntimeError, match='dispose'):
            make_runner(spool).forward('out')


class TestKeeping:
    def test_a_true_value_keeps_the_message_in_its_place(self, spool: Any) -> None:
        filebases = spool['in'].enqueue_many(['a', 'b'])
        runner = make_runner(spool, lambda runner, msg, msgdata: msg == 'a')
        runner.run(until_empty=True)
        assert spool['in'].files == filebases[:1]
        assert [msg for msg, _ in runner.seen] == ['a', 'b']
        assert spool['in'].history(filebases[0]) == []

    def test_it_is_left_alone_for_a_moment_so_that_nothing_spins(self, tmp_path: Path) -> None:
        clock = FakeClock()
        spool = Spool(tmp_path / 'spool', 'lazy', clock=clock)
        spool['in'].enqueue('x')
        runner = make_runner(spool, lambda runner, msg, msgdata: len(runner.seen) < 5)
        started_ns = clock.monotonic_ns()
        run_until_empty(runner)
        assert len(runner.seen) == 5
        assert 15 <= (clock.monotonic_ns() - started_ns) / 1e9 < 16

    def test_what_it_emitted_is_thrown_away(self, spool: Any) -> None:
        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> bool:
            runner.emit('out', msg)
            return True

        spool['in'].enqueue('x')
        make_runner(spool, dispose).run(until_empty=True)
        assert spool['out'].get_files() == []

    def test_changes_inside_of_metadata_and_message_are_kept(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=FakeClock())
        msg = Message()
        msg['Subject'] = 'x'
        spool['in'].enqueue(msg, done=[])
        subjects = []

        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> bool:
            msgdata['done'].append(len(runner.seen))
            if len(runner.seen) == 2:
                msg.replace_header('Subject', 'changed')
            subjects.append((msg['subject'], list(msgdata['done'])))
            return len(runner.seen) < 4

        run_until_empty(make_runner(spool, dispose))
        assert subjects == [
            ('x', [1]),
            ('changed', [1, 2]),
            ('changed', [1, 2, 3]),
            ('changed', [1, 2, 3, 4]),
        ]

    def test_a_poison_count_survives_a_keep(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path / 'spool', 'lazy', clock=FakeClock())
        filebase = spool['in'].enqueue([1])
        for times in range(3):
            msg, msgdata = spool['in'].dequeue(filebase)
            spool['in'].recover_backup_files()
            if times < 2:
                msg, msgdata = spool['in'].dequeue(filebase)
                msg.append(times)
                filebase = spool.transaction(spool['in'], filebase).keep(msg, msgdata)
        assert spool['bad'].get_files('.psv') == [filebase]

    def test_what_cannot_be_stored_any_more_is_its_failure(self, spool: Any) -> None:
        def dispose(runner: Recorder, msg: Any, msgdata: Any) -> bool:
            msgdata['seen'] = object()
            return True

        filebase = spool['in'].enqueue('x')
        make_runner(spool, dispose).run(until_empty=True)
        assert 'seen' in preserved(spool)[filebase]
