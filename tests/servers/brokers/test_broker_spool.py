"""A spool of which one queue is on a real broker: hand-off both ways, dead letters, operators, and runners that are killed."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from switchboard import Runner, Spool
from switchboard.brokers.consumer import OWN_CLAIMS
from switchboard.brokers.transaction import BrokerTransaction, commit_outputs, publish_outputs
from switchboard.errors import (
    BrokerDownError,
    EntryTakenError,
    NotListableError,
    OutputsNeverFitError,
    QueueFullError,
)
from switchboard.handoff.moving import send_back
from switchboard.handoff.publish_many import Publication
from switchboard.message.naming import digest_of
from switchboard.operating.janitor import tidy
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.runner.verdict import judge
from tests.helpers.commands import succeed, switchboard
from tests.helpers.ports import free_port
from tests.helpers.waiting import take_next
from tests.servers.brokers.broker import Broker
from tests.servers.brokers.broker_queues import drain, wait
from tests.servers.brokers.far import Far

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[3]


class Copy(Runner):
    """From ``far`` to ``out``, or from ``in`` to ``far``."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> object:
        if msg == 'again' and 'seen' not in msgdata:
            msgdata['seen'] = True
            return True
        if msg == 'move':
            self.forward('late')
            return None
        self.emit('out' if self.options.queue == 'far' else 'far', msg, msgdata)
        return None


def work(spool: Spool, queue: str, times: int = 1, **options: Any) -> None:
    runner = Copy(spool, RunnerOptions('copy', '', queue, **options))
    for _ in range(times):
        runner.run(until_empty=True)


class TestHandOff:
    def test_there_and_back(self, far: Far) -> None:
        for number in range(5):
            far.spool['in'].enqueue(number, n=number)
        work(far.spool, 'in', batch_size=3)
        assert far.queue.count() == 5
        work(far.another(), 'far', batch_size=2)
        assert far.out() == list(range(5))
        assert far.queue.count() == 0

    def test_what_cannot_be_purged_is_not_said_to_be(self, far: Far) -> None:
        far.queue.enqueue('stays')
        with pytest.raises(NotListableError, match='on a broker'):
            far.spool.purge('far')
        assert far.queue.count() == 1

    def test_the_context_of_a_trace_goes_there_and_back(self, far: Far) -> None:
        trace = pytest.importorskip('opentelemetry.sdk.trace')
        provider = trace.TracerProvider(shutdown_on_exit=False)
        with provider.get_tracer('shop').start_as_current_span('order') as span:
            far.queue.enqueue('x')
        far.spool['in'].enqueue('y', traceparent='00-' + 'ab' * 16 + '-' + 'cd' * 8 + '-01')
        work(far.spool, 'in')
        provider.shutdown()
        found = []
        while (taken := far.queue.take()) is not None:
            found.append(taken.msgdata['traceparent'].split('-')[1])
            far.queue.finish(taken.filebase)
        assert sorted(found) == sorted([f'{span.get_span_context().trace_id:032x}', 'ab' * 16])

    def test_each_span_there_and_back_is_linked_to_where_the_message_was_put_in(self, far: Far) -> None:
        sdk = pytest.importorskip('opentelemetry.sdk.trace')
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        from switchboard.runner.tracing import Tracing

        exporter, provider = InMemorySpanExporter(), sdk.TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))

        class Traced(Copy):
            def _trace(self) -> None:
                self._settler.tracing = Tracing(self.options, '1/1', provider)

        far.spool['in'].enqueue('x', traceparent='00-' + 'ab' * 16 + '-' + 'cd' * 8 + '-01')
        for spool, queue in ((far.spool, 'in'), (far.another(), 'far')):
            Traced(spool, RunnerOptions('copy', '', queue, tracing='link')).run(until_empty=True)
        provider.shutdown()
        found = {span.name: span for span in exporter.get_finished_spans()}
        for queue in ('in', 'far'):
            assert {f'receive {queue}', f'process {queue}', f'ack {queue}'} <= found.keys()
            for word in ('receive', 'process'):
                [link] = found[f'{word} {queue}'].links
                assert link.context.trace_id == int('ab' * 16, 16)

    def test_an_input_that_is_tried_again_has_outputs_of_the_same_identity(self, far: Far) -> None:
        filebase = far.spool['in'].enqueue('x')
        names = []
        for _ in range(2):  # the first time, the process dies after the confirm and before the commit
            far.spool['in'].dequeue(filebase)
            transaction = BrokerTransaction(far.spool, far.spool['in'], filebase)
            names.append(transaction.emit(far.queue, 'x', {}))
            assert publish_outputs([transaction]) == {}
            transaction.discard()
            far.spool['in'].recover()
        assert digest_of(names[0]) == digest_of(names[1])
        assert far.queue.count() == 2
        work(far.another(), 'far')
        assert far.out() == ['x']

    def test_what_was_committed_and_not_acknowledged_is_not_worked_on_again(self, far: Far) -> None:
        far.spool['far'].enqueue('x')
        taken = far.queue.take()
        transaction = BrokerTransaction(far.spool, far.queue, taken.filebase)
        transaction.emit(far.spool['out'], 'x', {})
        commit_outputs(far.spool, transaction)  # and here the process dies
        OWN_CLAIMS.clear()
        far.queue.close()
        other = far.another()
        work(other, 'far')
        assert far.out() == ['x']
        assert far.queue.count() == 0

    def test_a_job_whose_connection_broke_is_done_all_the_same(
        self, rabbitmq_server: Broker, tmp_path: Path
    ) -> None:
        far = Far(rabbitmq_server.url, tmp_path)
        far.queue.enqueue('x')
        taken = far.queue.take()
        transaction = far.spool.transaction(far.queue, taken.filebase)
        transaction.emit(far.spool['out'], 'x', {})
        far.queue.connection.abort()
        transaction.commit()
        work(far.another(), 'far')
        assert far.out() == ['x']
        assert far.queue.count() == 0
        far.close()

    def test_a_full_queue_on_the_broker_leaves_the_input_where_it_is(
        self, server: Broker, tmp_path: Path
    ) -> None:
        far = Far(server.url, tmp_path, 'max_messages = 1')
        filebases = [far.spool['in'].enqueue(number) for number in range(2)]
        for filebase in filebases:
            far.spool['in'].dequeue(filebase)
        transactions = [far.spool.transaction(far.spool['in'], filebase) for filebase in filebases]
        for transaction in transactions:
            transaction.emit(far.queue, 'x', {})
        [(failed, error)] = far.spool.commit_all(transactions).items()
        assert isinstance(error, QueueFullError)
        assert failed is transactions[1]
        assert far.spool['in'].get_files('.bak') == [filebases[1]]
        far.close()

    def test_a_queue_that_is_to_be_there_and_is_not_is_waited_for(
        self, rabbitmq_server: Broker, tmp_path: Path
    ) -> None:
        missing = f'\n[queue.gone]\nurl = {rabbitmq_server.url}?queue={uuid.uuid4().hex}&declare=no'
        far = Far(rabbitmq_server.url, tmp_path, missing)
        filebase = far.spool['in'].enqueue('x')
        far.spool['in'].dequeue(filebase)
        transaction = far.spool.transaction(far.spool['in'], filebase)
        transaction.emit(far.spool['gone'], 'x', {})
        with pytest.raises(BrokerDownError, match='the broker has no queue') as raised:
            transaction.commit()
        assert judge(raised.value, [], QueueOptions(), 0.0).outcome == 'requeued'
        far.spool['gone'].close()
        far.close()

    @pytest.mark.parametrize('way', ['one by one', 'forwarded'])
    def test_more_outputs_than_a_queue_ever_holds_fail_their_message(
        self, server: Broker, tmp_path: Path, way: str
    ) -> None:
        far = Far(server.url, tmp_path, 'max_messages = 2')
        filebase = far.spool['in'].enqueue('x')
        far.spool['in'].dequeue(filebase)
        transaction = far.spool.transaction(far.spool['in'], filebase)
        for _ in range(2):
            transaction.emit(far.queue, 'y', {})
        third = {
            'one by one': lambda: transaction.emit(far.queue, 'y', {}),
            'forwarded': lambda: transaction.forward(far.queue),
        }[way]
        with pytest.raises(OutputsNeverFitError, match='3 outputs or more'):
            third()
        transaction.commit()
        assert drain(far.queue) == ['y', 'y']
        far.close()

    def test_an_input_can_be_kept_and_moved(self, far: Far) -> None:
        far.queue.enqueue_many(['again', 'move'])
        work(far.spool, 'far')
        wait(1.1)  # what is kept is left alone for a second
        work(far.spool, 'far')
        assert far.out() == ['again']
        assert drain(far.spool['late']) == ['move']
        assert far.queue.count() == 0

    def test_one_message_may_go_to_a_directory_and_to_a_broker(self, far: Far) -> None:
        filebase = far.spool['in'].enqueue('x')
        far.spool['in'].dequeue(filebase)
        transaction = far.spool.transaction(far.spool['in'], filebase)
        transaction.emit_all([far.spool['out'], far.queue], 'y', {'n': 1})
        assert far.spool['out'].files == []
        transaction.commit()
        assert far.out() == ['y']
        assert drain(far.queue) == ['y']
        assert far.spool['in'].get_files('.bak') == []

    def test_an_entry_can_be_forwarded_to_a_broker(self, far: Far) -> None:
        filebase = far.spool['in'].enqueue('x', n=1)
        far.spool['in'].dequeue(filebase)
        transaction = far.spool.transaction(far.spool['in'], filebase)
        transaction.forward(far.queue)
        transaction.commit()
        assert far.spool['in'].get_files('.bak') == []
        taken = take_next(far.queue)
        assert (taken.msg, taken.msgdata['n']) == ('x', 1)
        [moved] = far.queue.history(taken.filebase)
        assert (moved['event'], moved['queue'], moved['to']) == ('moved', 'in', 'far')
        far.queue.finish(taken.filebase)

    def test_programs_and_doors_publish_to_both(self, far: Far) -> None:
        outcomes = far.spool.publish_many(
            [
                Publication('a', {}, ['far', 'out']),
                Publication('b', {}, ['out']),
                Publication('c', {}, ['far']),
            ]
        )
        assert [sorted(one) for one in outcomes if isinstance(one, dict)] == [
            ['far', 'out'],
            ['out'],
            ['far'],
        ]
        far.spool.publish('d', routing_key='far')
        assert drain(far.queue) == ['a', 'c', 'd']
        assert sorted(far.out()) == ['a', 'b']


@pytest.fixture
def away(server: Broker, tmp_path: Path) -> Far:
    """As it is while the server is stopped: nobody listens at its port."""
    return Far(server.url.replace(f':{server.port}/', f':{free_port()}/'), tmp_path)


class TestDeadLettersAndOperators:
    def test_what_fails_is_in_this_machines_bad_queue_and_can_be_sent_back(self, far: Far) -> None:
        far.queue.enqueue('fail')
        assert far.run() == 0
        [filebase] = far.spool['bad'].get_files('.psv')
        failed, preserved = far.spool['bad'].history(filebase)
        assert 'no good' in failed['traceback']
        assert preserved['queue'] == 'far'
        send_back(far.spool['bad'], filebase, far.queue)
        assert far.spool['bad'].get_files('.psv') == []
        again = take_next(far.queue)
        assert [one['event'] for one in far.queue.history(again.filebase)][-1] == 'retried'
        assert digest_of(again.filebase) == digest_of(filebase)
        far.queue.finish(again.filebase)

    def test_dead_letters_go_where_the_queue_says(self, server: Broker, tmp_path: Path) -> None:
        far = Far(server.url, tmp_path, 'dead_letter = late')
        far.queue.enqueue('x')
        taken = far.queue.take()
        far.queue.finish(taken.filebase, preserve=True, reason='why')
        late = far.spool['late']
        [filebase] = late.get_files()
        assert late.history(filebase)[-1]['reason'] == 'why'
        assert drain(late) == ['x']
        far.close()

    def test_dead_letters_of_a_directory_may_go_to_a_broker(self, server: Broker, tmp_path: Path) -> None:
        far = Far(server.url, tmp_path, '[queue.near]\nexternal = yes\ndead_letter = far')
        filebase = far.spool['near'].enqueue('x')
        far.spool['near'].dequeue(filebase)
        far.spool['near'].finish(filebase, preserve=True, reason='why')
        assert far.spool['near'].get_files('.bak') == []
        taken = take_next(far.queue)
        assert far.queue.history(taken.filebase)[-1]['reason'] == 'why'
        far.queue.finish(taken.filebase)
        far.close()

    def test_the_command_line_counts_and_does_not_list(self, far: Far) -> None:
        far.queue.enqueue_many(['a', 'b'])
        [counted] = succeed('-C', far.path, 'queues', 'far', '--json').objects
        assert counted['waiting'] == 2
        ran = switchboard('-C', far.path, 'ls', 'far')
        assert ran.status != 0
        assert 'on a broker' in ran.err
        assert succeed('-C', far.path, 'ls', 'in').lines == succeed('-C', far.path, 'ls', 'out').lines
        assert succeed('-C', far.path, 'check').status == 0
        succeed('-C', far.path, 'pause', 'far')
        assert far.queue.take() is None
        succeed('-C', far.path, 'resume', 'far')
        shown = succeed('-C', far.path, 'show', 'far').out + switchboard('-C', far.path, 'status').out
        assert 'far' in shown
        assert 'guest:guest' not in shown

    def test_the_janitor_forgets_what_was_done_long_ago(self, server: Broker, tmp_path: Path) -> None:
        far = Far(server.url, tmp_path, 'dedupe_window = 1ms')
        far.queue.enqueue('x')
        work(far.spool, 'far')
        assert tidy(far.spool).forgotten == 1
        assert far.out() == ['x']
        far.close()

    def test_enqueue_stores_there_what_it_prints(self, far: Far) -> None:
        told = succeed('-C', far.path, 'enqueue', 'far', '--kind', 'text', input=b'hello').out.split()
        taken = take_next(far.queue)
        assert told == [taken.filebase]
        assert taken.msg == 'hello'

    def test_it_stores_and_prints_nothing_when_the_broker_is_away(self, away: Far) -> None:
        ran = switchboard('-C', away.path, 'enqueue', 'far', '--kind', 'text', input=b'lost?')
        assert ran.status != 0
        assert ran.out == ''
        assert 'mistake in this program' not in ran.err

    def test_a_list_says_so_when_the_broker_is_away(self, away: Far) -> None:
        ran = succeed('-C', away.path, 'queues', 'far')
        assert '?' in ran.out
        assert 'ConnectionRefused' in ran.err or 'Error' in ran.err


def test_what_another_process_has_cannot_be_ended(far: Far) -> None:
    filebase = far.queue.enqueue('x')
    far.queue.take()
    held = dict(OWN_CLAIMS)
    OWN_CLAIMS.clear()  # as it is in another process
    other: Any = far.another()['far']
    with pytest.raises(EntryTakenError):
        other.finish(filebase)
    OWN_CLAIMS.update(held)
    far.queue.finish(filebase)
