"""A queue on a real broker: what is confirmed, what is redelivered, and what a lost connection leaves."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection

from switchboard.brokers import connect
from switchboard.brokers.encode import encode
from switchboard.brokers.queue import BrokerQueue
from switchboard.errors import (
    ConfigError,
    MessageTooLargeError,
    NoRouteError,
    NotListableError,
    QueueFullError,
    QueueMismatchError,
    UnknownExchangeError,
    UnknownQueueError,
)
from switchboard.message.naming import digest_of
from tests.helpers.waiting import take_next
from tests.servers.brokers.broker_queues import OnBroker, drain, queue_of, unacked, wait

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


class TestWhatABrokerCannotDo:
    def test_what_is_ready_is_not_listed_but_counted(self, place: OnBroker) -> None:
        queue = queue_of(place)
        queue.enqueue_many(['a', 'b', 'c'])
        for look in (lambda: queue.files, queue.get_files):
            with pytest.raises(NotListableError, match='counted, not listed'):
                look()
        assert queue.count() == 3
        taken = queue.take()
        assert taken is not None
        assert queue.get_files('.bak') == [taken.filebase]
        assert queue.count() == 2

    @pytest.mark.parametrize(
        'options',
        [{'strict_order': True}, {'min_free_space_bytes': 1}, {'scrub': True}, {'overflow': 'dead-letter'}],
    )
    def test_an_option_that_would_not_hold_is_an_error(
        self, place: OnBroker, options: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigError):
            queue_of(place, **options)

    def test_a_key_for_deduplication_is_refused(self, place: OnBroker) -> None:
        with pytest.raises(Exception, match='dedupe_key'):
            queue_of(place).enqueue('x', dedupe_key='1')


class TestPublishing:
    def test_a_full_queue_refuses_and_takes_again_when_there_is_room(self, place: OnBroker) -> None:
        queue = queue_of(place, max_messages=2)
        queue.enqueue_many(['a', 'b'])
        with pytest.raises(QueueFullError):
            queue.enqueue('c')
        assert queue.count() == 2
        taken = queue.take()
        assert taken is not None
        queue.finish(taken.filebase)
        queue.enqueue('c')
        assert drain(queue) == ['b', 'c']

    def test_the_oldest_makes_room_where_the_broker_does_that(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq, max_messages=2, overflow='drop-oldest')
        queue.enqueue_many(['a', 'b', 'c'])
        assert drain(queue) == ['b', 'c']

    @pytest.mark.parametrize('overflow', ['reject', 'drop-oldest'])
    @pytest.mark.parametrize('slices', [1, 2])
    def test_what_could_never_fit_is_refused_and_pushes_nothing_out(
        self, rabbitmq: OnBroker, overflow: str, slices: int
    ) -> None:
        queue = queue_of(rabbitmq, f'&slices={slices}', max_bytes=4000 * slices, overflow=overflow)
        queue.enqueue_many('0123')
        with pytest.raises(MessageTooLargeError, match='max_bytes'):
            queue.enqueue(b'x' * 5000)
        with pytest.raises(MessageTooLargeError, match='max_bytes'):
            queue.enqueue(b'x' * 5000, delay=60)
        stranger = rabbitmq.spool['other']
        taken = stranger.dequeue(stranger.enqueue(b'x' * 5000))
        assert taken is not None
        with pytest.raises(MessageTooLargeError, match='max_bytes'):
            queue.reserve_for(stranger.claim_of(stranger.get_files('.bak')[0]).read())
        assert sorted(drain(queue)) == list('0123')
        queue.enqueue(b'x' * 4000)
        assert drain(queue) == [b'x' * 4000]

    def test_a_body_larger_than_its_queue_takes_is_not_moved_there(self, place: OnBroker) -> None:
        queue = queue_of(place, max_body_bytes=1000)
        stranger = place.spool['other']
        stranger.dequeue(stranger.enqueue(b'x' * 1001))
        with pytest.raises(MessageTooLargeError, match='takes 1000'):
            queue.reserve_for(stranger.claim_of(stranger.get_files('.bak')[0]).read())

    def test_a_body_larger_than_its_queue_takes_is_not_worked_on_whoever_has_sent_it(
        self, place: OnBroker
    ) -> None:
        queue_of(place).enqueue_many([b'x' * 1001, b'x' * 1000])
        queue = queue_of(place, max_body_bytes=1000)
        assert drain(queue) == [b'x' * 1000]
        [filebase] = place.preserved().get_files('.psv')
        [record] = place.preserved().history(filebase)
        assert (record['cause'], record['error']) == ('disallowed', 'MessageTooLargeError')
        assert place.preserved().peek(filebase).body == b'x' * 1001

    def test_a_queue_that_must_be_there_and_is_not_is_an_error(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq, '&declare=no')
        with pytest.raises(UnknownQueueError, match='no queue'):
            queue.enqueue('x')
        with pytest.raises(UnknownQueueError):
            queue.take()

    def test_a_queue_that_was_deleted_meanwhile_is_made_again(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq)
        queue.enqueue('a')
        queue.connection.delete_queue(queue.all_queues[0])
        queue.enqueue('b')
        assert drain(queue) == ['b']

    def test_a_queue_that_is_there_with_other_arguments_is_a_mismatch(self, rabbitmq: OnBroker) -> None:
        queue_of(rabbitmq, max_messages=5).enqueue('x')
        with pytest.raises(QueueMismatchError, match='max-length'):
            queue_of(rabbitmq, max_messages=6).enqueue('x')
        queue_of(rabbitmq, '&declare=no', max_messages=6).enqueue('x')

    def test_what_no_queue_is_for_is_returned(self, place: OnBroker) -> None:
        connection = connect(place.url)
        outgoing = encode('x', {}, message_id='1')
        exchange = f'{place.prefix}.ex'
        with pytest.raises((UnknownExchangeError, NoRouteError)):
            connection.publish(outgoing, exchange=exchange, routing_key='a')
        connection.declare_exchange(exchange, 'topic')
        connection.declare_queue(f'{place.prefix}.in')
        connection.bind(f'{place.prefix}.in', exchange, 'a.#')
        with pytest.raises(NoRouteError):
            connection.publish(outgoing, exchange=exchange, routing_key='b')
        outcomes = connection.publish_many([(outgoing, exchange, key) for key in ('a.b', 'b', 'a.c')])
        assert [type(one) for one in outcomes] == [type(None), NoRouteError, type(None)]
        assert connection.count(f'{place.prefix}.in') == 2
        connection.delete_queue(f'{place.prefix}.in')
        connection.close()

    def test_many_are_confirmed_together(self, place: OnBroker) -> None:
        queue = queue_of(place)
        filebases = queue.enqueue_many(range(1000))
        assert queue.count() == len(set(filebases)) == 1000
        assert drain(queue) == list(range(1000))

    def test_a_quorum_queue_does_as_well(self, rabbitmq: OnBroker) -> None:
        queue = queue_of(rabbitmq, '&type=quorum')
        queue.enqueue_many(['a', 'b'])
        taken = queue.take()
        assert taken is not None
        queue.release(taken.filebase, record={'event': 'failed'})
        assert drain(queue) == ['b', 'a']


class TestTaking:
    def test_nothing_is_fetched_ahead(self, place: OnBroker) -> None:
        one, other = queue_of(place), queue_of(place)
        one.enqueue_many(range(5))
        first = one.take()
        assert first is not None
        assert unacked(one.connection) == 1
        assert drain(other) == [1, 2, 3, 4]
        one.finish(first.filebase)

    def test_a_batch_is_written_as_that_of_a_directory(self, place: OnBroker) -> None:
        queue = queue_of(place)
        with queue.batch() as batch:
            batch.enqueue('a')
            batch.enqueue('b')
        assert sorted(drain(queue)) == ['a', 'b']

    def test_a_message_that_was_published_twice_is_worked_on_once_while_it_is(self, place: OnBroker) -> None:
        queue = queue_of(place)
        prepared = queue.producer.prepare('x', {})
        for _ in range(2):
            queue.producer.declare([prepared.queue])
            queue.connection.publish(prepared.outgoing, routing_key=prepared.queue)
        taken = queue.take()
        assert taken is not None
        assert queue.take() is None
        queue.finish(taken.filebase)
        assert queue.count() == 0

    def test_metadata_of_every_kind_come_back_equal(self, place: OnBroker) -> None:
        metadata = {
            'none': None,
            'true': True,
            'small': -1,
            'large': 2**63 - 1,
            'huge': 2**70,
            'float': 0.1,
            'whole': 1.0,
            'text': 'h\u00e4\0\U0001f600',
            'odd': '\udcff',
            'list': [[], {}, None, [1, {'a': [True]}]],
            'table': {'': 1, 'b': {'c': None}},
            '': 'empty',
            'x-death': 'ours',
            'k' * 300: 'long',
            'long': 'x' * 20_000,
        }
        queue = queue_of(place)
        _, msgdata = queue.dequeue(queue.enqueue('x', metadata))
        assert msgdata == {**metadata, 'version': 3, '_parsemsg': False}
        assert isinstance(msgdata['whole'], float)
        assert msgdata['true'] is True

    def test_what_a_paused_queue_has_stays_there(self, place: OnBroker) -> None:
        queue = queue_of(place, paused=True)
        queue.enqueue('x')
        assert queue.take() is None
        assert not queue.has_ready()
        assert queue.count() == 1

    def test_a_message_of_kombus_is_read_and_ours_is_by_kombu(self, place: OnBroker) -> None:
        queue = queue_of(place)
        name = queue.all_queues[0]
        queue.producer.declare([name])
        with Connection(place.url) as connection:
            producer = connection.Producer(auto_declare=False)
            producer.publish(
                {'a': [1]},
                routing_key=name,
                serializer='json',
                headers={'task': 'add'},
                correlation_id='7',
                compression='zlib',
            )
            taken = take_next(queue)
            assert taken.msg == {'a': [1]}
            assert (taken.msgdata['task'], taken.msgdata['correlation_id']) == ('add', '7')
            queue.finish(taken.filebase)
            queue.enqueue({'b': 2}, list='x')
            message = connection.default_channel.basic_get(name)
            found = connection.default_channel.message_to_python(message)
            assert (found.payload, found.headers['list']) == ({'b': 2}, 'x')
            found.ack()

    def test_what_cannot_be_read_goes_to_bad_and_the_next_is_taken(self, place: OnBroker) -> None:
        queue = queue_of(place)
        name = queue.all_queues[0]
        queue.producer.declare([name])
        outgoing = encode('x', {}, message_id='1')
        outgoing.headers['x-switchboard-kind'] = 'json'
        queue.connection.publish(outgoing, routing_key=name)
        forbidden = encode('x', {}, message_id='2')
        forbidden.headers['x-switchboard-kind'] = 'pickle'
        queue.connection.publish(forbidden, routing_key=name)
        queue.enqueue('good')
        assert drain(queue) == ['good']
        bad = place.preserved()
        causes = [bad.history(one)[-1]['cause'] for one in bad.get_files('.psv')]
        assert sorted(causes) == ['corrupt', 'disallowed']


class TestLater:
    def test_a_delay_is_kept_by_the_broker(self, place: OnBroker) -> None:
        queue = queue_of(place)
        queue.enqueue('much later', delay=3600)
        queue.enqueue('now')
        assert drain(queue) == ['now']
        queue.enqueue('late', delay=0.3)
        queue.close()  # whoever asked for it may be gone
        assert take_next(queue).msg == 'late'

    def test_a_message_whose_time_is_over_is_a_dead_letter(self, place: OnBroker) -> None:
        queue = queue_of(place)
        filebase = queue.enqueue('x', ttl=0.2)
        wait(0.3)
        assert queue.take() is None
        assert place.preserved().history(filebase)[-1]['cause'] == 'expired'

    def test_a_retry_comes_back_with_its_history(self, place: OnBroker) -> None:
        queue = queue_of(place)
        filebase, other = queue.enqueue('x', n=1), queue.enqueue('y')
        for _ in range(2):
            queue.take()
        queue.release(other, delay_s=3600)
        assert queue.take() is None
        queue.release(filebase, delay_s=0.3, record={'event': 'failed', 'error': 'Oops', 'set': {'n': 2}})
        again = take_next(queue)
        assert digest_of(again.filebase) == digest_of(filebase)
        assert again.msgdata['n'] == 2
        assert [one['error'] for one in queue.history(again.filebase)] == ['Oops']

    @pytest.mark.parametrize('tracebacks', ['yes', 'no'])
    def test_tracebacks_go_along_unless_the_url_says_otherwise(
        self, place: OnBroker, tracebacks: str
    ) -> None:
        queue = queue_of(place, f'&tracebacks={tracebacks}')
        filebase = queue.enqueue('x')
        queue.take()
        queue.release(filebase, record={'event': 'failed', 'error': 'Oops', 'traceback': 'line 1'})
        (failed,) = queue.history(take_next(queue).filebase)
        assert failed['error'] == 'Oops'
        assert ('traceback' in failed) == (tracebacks == 'yes')


class TestPreserving:
    def test_it_is_in_bad_with_reason_and_history_and_then_acknowledged(self, place: OnBroker) -> None:
        queue = queue_of(place)
        filebase = queue.enqueue('x')
        queue.take()
        queue.annotate(filebase, {'event': 'failed', 'traceback': 'line 1'})
        queue.finish(filebase, preserve=True, reason='no such user', cause='attempts')
        assert queue.count() == 0
        assert queue.get_files('.bak') == []
        failed, preserved = place.preserved().history(filebase)
        assert failed['traceback'] == 'line 1'
        assert (preserved['queue'], preserved['reason'], preserved['cause']) == (
            'in',
            'no such user',
            'attempts',
        )

    def test_the_bad_queue_may_be_on_the_broker(self, place: OnBroker) -> None:
        queue = place.queue(cls=BrokerQueue, bad=place.queue('bad', cls=BrokerQueue))
        filebase = queue.enqueue('x')
        queue.take()
        queue.finish(filebase, preserve=True, reason='why')
        assert queue.count() == 0
        bad: Any = queue.bad
        taken = bad.take()
        assert (taken.filebase, taken.msg) == (filebase, 'x')
        assert bad.history(filebase)[-1]['reason'] == 'why'
        bad.finish(filebase)


class TestSlices:
    def test_each_key_is_in_one_of_the_brokers_queues_in_order(self, place: OnBroker) -> None:
        queues = [
            place.queue(slice=index, numslices=2, cls=BrokerQueue, url_options='&slices=4')
            for index in range(2)
        ]
        for number in range(60):
            queues[number % 2].enqueue(number, order_key=f'list-{number % 6}')
        assert [len(queue.broker_queues) for queue in queues] == [2, 2]
        assert set(queues[0].broker_queues).isdisjoint(queues[1].broker_queues)
        shares = [drain(queue) for queue in queues]
        assert sorted(shares[0] + shares[1]) == list(range(60))
        for key in range(6):
            mine = [[number for number in share if number % 6 == key] for share in shares]
            assert sorted(mine) == [[], list(range(key, 60, 6))]

    def test_more_runners_than_queues_share_them(self, place: OnBroker) -> None:
        queues = [
            place.queue(slice=index, numslices=4, cls=BrokerQueue, url_options='&slices=2')
            for index in range(4)
        ]
        assert queues[0].broker_queues == queues[1].broker_queues != queues[2].broker_queues
        queues[0].enqueue_many(range(20))
        assert sorted(number for queue in queues for number in drain(queue)) == list(range(20))
