"""What every implementation of `ISwitchboard` has to do: one suite, run over each of them.

A test module imports the classes and gives a fixture ``backend``, an object of a class derived from :class:`Backend`.  What an
implementation cannot have by its nature it declares in ``cannot``, and the tests that need it are skipped, by name.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage, Message
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from zope.interface.verify import verifyObject

from switchboard.clock import Clock
from switchboard.errors import (
    ContentDisallowedError,
    MessageTooLargeError,
    QueueFullError,
    UnserializableError,
)
from switchboard.interfaces import ISwitchboard
from switchboard.message.typed_json import is_equal
from switchboard.options import QueueOptions
from switchboard.testing import FakeClock

NOBODYS = '1732242000.000000001+0123456789012345678901234567890123456789'


class Backend:
    """One implementation.

    ``cannot`` names what it has not: ``delay``, ``history``, ``limits``, ``priority``, ``slices``, ``clock`` (it goes by a clock of
    its own).
    """

    cannot: ClassVar[frozenset[str]] = frozenset()

    def queue(
        self,
        name: str = 'in',
        slice: int | None = None,
        numslices: int = 1,
        *,
        options: QueueOptions | None = None,
        clock: Clock | None = None,
    ) -> Any:
        """:return: another object for a queue; those of one name see the same entries."""
        raise NotImplementedError

    def preserved(self) -> Any:
        """:return: an object for the bad queue; its entries have the suffix ``.psv``."""
        raise NotImplementedError


@pytest.fixture(autouse=True)
def leave_out_what_cannot_be(request: pytest.FixtureRequest) -> None:
    # A class says what all of it needs, and a test of it what that needs besides.
    needed = {need for marker in request.node.iter_markers('needs') for need in marker.args}
    missing = needed & request.getfixturevalue('backend').cannot
    if missing:
        pytest.skip(f'this implementation has no {", ".join(sorted(missing))}')


@pytest.fixture
def queue(backend: Backend) -> Any:
    return backend.queue()


def mail(text: str = 'hello', message_class: type[Message] = Message) -> Message:
    msg = message_class()
    msg['Subject'] = text
    msg['To'] = 'someone@example.com'
    msg.set_payload(f'{text}\n')
    return msg


def drain(queue: Any) -> list[Any]:
    """Take all that is due and finish it."""
    messages = []
    while (taken := queue.take()) is not None:
        messages.append(taken.msg)
        queue.finish(taken.filebase)
    return messages


class TestTheContract:
    def test_the_object_provides_all_that_the_interface_names(self, queue: Any) -> None:
        assert verifyObject(ISwitchboard, queue)

    def test_the_queue_knows_its_name_and_its_options(self, backend: Backend) -> None:
        queue = backend.queue('other', options=QueueOptions(max_attempts=7))
        assert (queue.name, queue.options.max_attempts) == ('other', 7)


class TestAMessageComesBackEqual:
    @pytest.mark.parametrize(
        'msg',
        [
            b'',
            b'\0\xff\r\n',
            '',
            'h\u00e4\udcff\n',
            None,
            True,
            0,
            -1.5,
            [],
            [1, [2, {}]],
            {'a': {'b': ['c']}},
        ],
        ids=repr,
    )
    def test_a_plain_value_keeps_its_value_and_its_type(self, queue: Any, msg: Any) -> None:
        back, _ = queue.dequeue(queue.enqueue(msg))
        assert back == msg
        assert type(back) is type(msg)

    @pytest.mark.parametrize('message_class', [Message, EmailMessage])
    def test_a_mail_keeps_its_bytes_and_its_class(self, queue: Any, message_class: type[Message]) -> None:
        msg = mail(message_class=message_class)
        back, _ = queue.dequeue(queue.enqueue(msg))
        assert isinstance(back, message_class)
        assert isinstance(back, EmailMessage) is (message_class is EmailMessage)
        assert back.as_bytes() == msg.as_bytes()
        assert back['subject'] == 'hello'

    def test_a_mail_that_was_changed_after_it_was_enqueued_comes_out_as_it_went_in(self, queue: Any) -> None:
        msg = mail('before')
        filebase = queue.enqueue(msg)
        msg.replace_header('Subject', 'after')
        assert queue.dequeue(filebase)[0]['subject'] == 'before'

    def test_an_empty_body_is_a_message_like_any_other(self, queue: Any) -> None:
        queue.enqueue('')
        assert drain(queue) == ['']


class TestMetadata:
    def test_the_version_and_the_parse_flag_are_always_there(self, queue: Any) -> None:
        assert queue.dequeue(queue.enqueue('x'))[1] == {'version': 3, '_parsemsg': False}

    def test_keywords_win_over_the_mapping_which_is_not_changed(self, queue: Any) -> None:
        metadata = {'list': 'a', 'tries': 1}
        _, msgdata = queue.dequeue(queue.enqueue('x', metadata, list='b', other=None))
        assert msgdata == {'list': 'b', 'tries': 1, 'other': None, 'version': 3, '_parsemsg': False}
        assert metadata == {'list': 'a', 'tries': 1}

    def test_keys_with_an_underscore_are_dropped(self, queue: Any) -> None:
        _, msgdata = queue.dequeue(queue.enqueue('x', {'_secret': object(), 'version': 7}, _parsemsg=True))
        assert msgdata == {'version': 3, '_parsemsg': False}

    def test_what_a_taker_does_to_the_metadata_is_not_in_the_queue(self, queue: Any) -> None:
        filebase = queue.enqueue('x', list=['a'])
        queue.dequeue(filebase)[1]['list'].append('b')
        queue.release(filebase)
        assert queue.dequeue(filebase)[1]['list'] == ['a']

    @pytest.mark.needs('delay')
    def test_a_delay_is_used_up(self, queue: Any) -> None:
        assert 'delay' not in queue.dequeue(queue.enqueue('x', delay=0))[1]


class TestTypes:
    def test_values_that_json_does_not_have_come_back_equal_and_of_the_same_type(self, queue: Any) -> None:
        values = {
            'time': datetime(2026, 11, 28, 18, tzinfo=UTC),
            'amount': Decimal('1.50'),
            'recipients': {'a@example.com', 'b@example.com'},
            'raw': (b'\xff', [uuid.UUID(int=1)], timedelta(1)),
            'tag': {'__type__': 'set', '__value__': [1]},
        }
        msg, msgdata = queue.dequeue(queue.enqueue(values, values))
        assert is_equal(msg, values)
        assert is_equal({key: msgdata[key] for key in values}, values)


class TestWhatCannotBeStored:
    @pytest.mark.parametrize(
        ('msg', 'metadata', 'culprit'),
        [
            ('x', {'recipients': {1j}}, 'recipients'),
            ('x', {'when': range(2)}, 'when'),
            ('x', {'ratio': float('nan')}, 'ratio'),
            ('x', {1: 'one'}, 'the key 1'),
            ({'a': [0, 1j]}, {}, r"\['a'\]\[1\]"),
            (object(), {}, 'object'),
            (range(2), {}, 'range'),
        ],
    )
    def test_the_error_names_the_key_or_the_type_and_nothing_is_stored(
        self, queue: Any, msg: Any, metadata: dict[Any, Any], culprit: str
    ) -> None:
        with pytest.raises(UnserializableError, match=culprit):
            queue.enqueue(msg, metadata)
        assert queue.get_files() == []

    def test_a_value_that_contains_itself_is_refused(self, queue: Any) -> None:
        loop: list[Any] = []
        loop.append(loop)
        with pytest.raises(UnserializableError, match='contains itself'):
            queue.enqueue(loop)

    def test_a_kind_that_the_queue_does_not_accept_is_refused(self, backend: Backend) -> None:
        queue = backend.queue(options=QueueOptions(accept=('mail',)))
        with pytest.raises(ContentDisallowedError) as caught:
            queue.enqueue(b'x')
        assert (caught.value.kind, caught.value.queue) == ('bytes', 'in')
        assert queue.get_files() == []

    def test_a_body_that_is_too_long_is_refused(self, backend: Backend) -> None:
        queue = backend.queue(options=QueueOptions(max_body_bytes=3))
        queue.enqueue(b'abc')
        with pytest.raises(MessageTooLargeError):
            queue.enqueue(b'abcd')
        assert drain(queue) == [b'abc']

    @pytest.mark.needs('limits', 'clock')
    def test_a_full_queue_refuses_and_takes_again_when_there_is_room(self, backend: Backend) -> None:
        clock = FakeClock()
        queue = backend.queue(options=QueueOptions(max_messages=2), clock=clock)
        queue.enqueue('a')
        queue.enqueue('b')
        with pytest.raises(QueueFullError, match='max_messages is 2'):
            queue.enqueue('c')
        assert drain(queue) == ['a', 'b']
        clock.advance(2)  # a queue may believe its last count for a second
        queue.enqueue('c')
        assert drain(queue) == ['c']


@pytest.mark.needs('limits', 'clock')
@pytest.mark.parametrize('overflow', ['drop-oldest', 'dead-letter'])
class TestMakingRoom:
    """A full queue whose oldest entries make room: for all that comes in together, or for none of it."""

    def full(self, backend: Backend, overflow: Any, **limits: int) -> Any:
        queue = backend.queue(options=QueueOptions(overflow=overflow, **limits), clock=FakeClock())
        for number in range(4):
            queue.enqueue(f'{number}' + 'x' * 299)
        return queue

    @staticmethod
    def first_letters(queue: Any) -> str:
        return ''.join(msg[0] for msg in drain(queue))

    def test_as_many_go_as_are_needed(self, backend: Backend, overflow: str) -> None:
        queue = self.full(backend, overflow, max_messages=4)
        queue.enqueue_many('ab')
        assert self.first_letters(queue) == '23ab'
        assert len(backend.preserved().get_files('.psv')) == (2 if overflow == 'dead-letter' else 0)

    def test_more_messages_than_fit_together_push_nothing_out(self, backend: Backend, overflow: str) -> None:
        queue = self.full(backend, overflow, max_messages=4)
        with pytest.raises(QueueFullError, match='max_messages is 4'):
            queue.enqueue_many('abcde')
        assert self.first_letters(queue) == '0123'

    def test_more_bytes_than_fit_together_push_nothing_out(self, backend: Backend, overflow: str) -> None:
        queue = self.full(backend, overflow, max_bytes=4000)
        with pytest.raises(QueueFullError, match='max_bytes is 4000'):
            queue.enqueue_many(['a' * 3000, 'b' * 3000])
        assert self.first_letters(queue) == '0123'

    def test_a_block_that_raises_pushes_nothing_out(self, backend: Backend, overflow: str) -> None:
        queue = self.full(backend, overflow, max_messages=4)

        def fail() -> None:
            with queue.batch():
                queue.enqueue('a')
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert self.first_letters(queue) == '0123'

    @pytest.mark.needs('delay')
    def test_what_is_at_work_or_not_due_makes_no_room(self, backend: Backend, overflow: str) -> None:
        queue = self.full(backend, overflow, max_messages=6)
        queue.enqueue('later', delay=60)
        taken = queue.take()
        with pytest.raises(QueueFullError):
            queue.enqueue_many('abcde')
        assert len(queue.files) == 3
        queue.enqueue_many('abcd')
        assert taken is not None
        queue.finish(taken.filebase)
        assert self.first_letters(queue) == 'abcd'

    def test_a_message_larger_than_the_queue_pushes_nothing_out(
        self, backend: Backend, overflow: str
    ) -> None:
        queue = self.full(backend, overflow, max_bytes=4000)
        with pytest.raises(MessageTooLargeError):
            queue.enqueue('x' * 5000)
        assert self.first_letters(queue) == '0123'


class TestOrder:
    def test_messages_come_out_as_they_went_in(self, queue: Any) -> None:
        filebases = [queue.enqueue(number) for number in range(50)]
        assert queue.files == queue.get_files() == filebases
        assert drain(queue) == list(range(50))

    def test_no_two_entries_have_one_name(self, queue: Any) -> None:
        assert len({queue.enqueue('the same') for _ in range(200)}) == 200

    @pytest.mark.needs('clock')
    def test_a_clock_that_stands_still_changes_nothing(self, backend: Backend) -> None:
        queue = backend.queue(clock=FakeClock())
        filebases = [queue.enqueue(number) for number in range(20)]
        assert len(set(filebases)) == 20
        assert drain(queue) == list(range(20))

    @pytest.mark.needs('clock')
    def test_a_clock_that_is_set_back_changes_nothing(self, backend: Backend) -> None:
        clock = FakeClock()
        queue = backend.queue(clock=clock)
        before = [queue.enqueue(number) for number in range(5)]
        clock.set_back(3600)
        after = [queue.enqueue(number) for number in range(5, 10)]
        assert queue.files == before + after
        assert drain(queue) == list(range(10))

    @pytest.mark.needs('priority')
    def test_a_higher_priority_goes_first_and_each_priority_is_in_order(self, queue: Any) -> None:
        for number, priority in enumerate([0, 9, 0, 5, 9, 5]):
            queue.enqueue(number, priority=priority)
        assert drain(queue) == [1, 4, 3, 5, 0, 2]

    @pytest.mark.needs('priority')
    @pytest.mark.parametrize('priority', [-1, 10])
    def test_a_priority_outside_the_scale_is_refused(self, queue: Any, priority: int) -> None:
        with pytest.raises(UnserializableError, match='priority'):
            queue.enqueue('x', priority=priority)

    def test_a_priority_in_words_ranks_nothing_and_is_kept(self, queue: Any) -> None:
        queue.enqueue(1)
        filebase = queue.enqueue(2, priority='high')
        assert queue.files[-1] == filebase
        assert queue.dequeue(filebase)[1]['priority'] == 'high'


@pytest.mark.needs('delay', 'clock')
class TestDelay:
    @pytest.fixture
    def timed(self, backend: Backend) -> Any:
        clock = FakeClock()
        return SimpleNamespace(clock=clock, queue=backend.queue(clock=clock))

    def test_a_delayed_entry_is_there_but_not_due(self, timed: Any) -> None:
        filebase = timed.queue.enqueue('x', delay=60)
        assert timed.queue.files == []
        assert timed.queue.get_files() == [filebase]
        assert timed.queue.take() is None
        assert timed.queue.wait_s() == pytest.approx(60)

    def test_it_is_due_when_its_time_has_come(self, timed: Any) -> None:
        timed.queue.enqueue('late', delay=60)
        timed.queue.enqueue('soon', not_before=timed.clock.time_ns() / 1e9 + 30)
        timed.queue.enqueue('now')
        assert drain(timed.queue) == ['now']
        timed.clock.advance(30.001)
        assert drain(timed.queue) == ['soon']
        timed.clock.advance(30)
        assert drain(timed.queue) == ['late']

    def test_a_time_that_is_past_is_no_delay(self, timed: Any) -> None:
        timed.queue.enqueue(1)
        timed.queue.enqueue(2, not_before=1.5, delay=-60)
        timed.queue.enqueue(3)
        assert drain(timed.queue) == [1, 2, 3]

    def test_those_that_wait_for_the_same_moment_stay_in_order(self, timed: Any) -> None:
        at_s = timed.clock.time_ns() / 1e9 + 60
        for number in range(20):
            timed.queue.enqueue(number, not_before=at_s)
        timed.clock.advance(61)
        assert drain(timed.queue) == list(range(20))

    def test_a_delay_counts_from_the_clock_as_it_is_after_it_was_set_back(self, timed: Any) -> None:
        timed.queue.enqueue('x')
        timed.clock.set_back(3600)
        timed.queue.enqueue('later', delay=60)
        assert drain(timed.queue) == ['x']
        assert timed.queue.wait_s() == pytest.approx(60)

    @pytest.mark.parametrize('delay', ['60', float('nan'), float('inf'), True, 1e300, 10**400, [60]])
    def test_what_is_no_number_of_seconds_is_refused(self, timed: Any, delay: Any) -> None:
        with pytest.raises(UnserializableError, match='delay'):
            timed.queue.enqueue('x', delay=delay)
        assert timed.queue.get_files() == []


class TestMany:
    def test_they_are_stored_in_order_with_their_metadata(self, queue: Any) -> None:
        filebases = queue.enqueue_many(['a', ('b', {'n': 2}), b'c'])
        assert queue.files == filebases
        assert [queue.dequeue(filebase) for filebase in filebases][1] == (
            'b',
            {'n': 2, 'version': 3, '_parsemsg': False},
        )

    def test_an_error_leaves_nothing_of_a_short_list(self, queue: Any) -> None:
        with pytest.raises(UnserializableError) as caught:
            queue.enqueue_many(['a', object(), 'b'])
        assert queue.get_files() == []
        assert not hasattr(caught.value, '__notes__')

    def test_of_a_long_list_the_error_names_what_is_stored(self, queue: Any) -> None:
        def messages() -> Any:
            yield from range(1000)
            raise UnserializableError('the source has dried up')

        with pytest.raises(UnserializableError) as caught:
            queue.enqueue_many(messages())
        notes = ' '.join(getattr(caught.value, '__notes__', []))
        assert sorted(word for word in notes.split() if '+' in word) == queue.get_files()
