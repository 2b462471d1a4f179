"""The third part of the suite: what a runner needs of its queue besides claims.  See ``conformance``."""

from __future__ import annotations

import threading
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest

from switchboard.errors import UnserializableError
from switchboard.message.naming import digest_of, slice_digits
from switchboard.options import QueueOptions
from switchboard.testing import Signal
from tests.contracts.queue import Backend, mail


@pytest.mark.needs('slices')
class TestSlices:
    @pytest.mark.parametrize('count', [1, 2, 3, 5, 7, 16])
    def test_each_entry_is_in_exactly_one_slice(self, backend: Backend, count: int) -> None:
        everything = backend.queue()
        # So many that no slice is empty by chance.
        filebases = [everything.enqueue(number) for number in range(100 + 25 * count)]
        slices = [backend.queue(slice=index, numslices=count) for index in range(count)]
        shares = [queue.files for queue in slices]
        assert sorted(chain.from_iterable(shares)) == filebases
        assert [queue.get_files() for queue in slices] == shares
        assert all(shares)
        taken = chain.from_iterable(iter(queue.take, None) for queue in slices)
        assert sorted(one.filebase for one in taken) == filebases
        assert everything.files == []

    def test_one_order_key_is_in_one_slice_in_order(self, backend: Backend) -> None:
        queues = [backend.queue(slice=index, numslices=7) for index in range(7)]
        for number in range(40):
            queues[0].enqueue(number, order_key=f'list-{number % 4}')
        for key in range(4):
            (holder,) = (queue for queue in queues if key in map(self.key_of(queue), queue.files))
            mine = [fb for fb in holder.files if self.key_of(holder)(fb) == key]
            assert [holder.dequeue(filebase)[0] for filebase in mine] == list(range(key, 40, 4))
            holder.recover_backup_files()

    @staticmethod
    def key_of(queue: Any) -> Any:
        def key(filebase: str) -> int:
            number = queue.dequeue(filebase)[0]
            queue.release(filebase)
            return int(number) % 4

        return key

    def test_a_queue_can_have_an_order_key_of_its_own(self, backend: Backend) -> None:
        queue = backend.queue(options=QueueOptions(order_key='list'))
        slices = {digest_of(queue.enqueue(number, list='a'))[:8] for number in range(9)}
        assert len(slices) == 1

    def test_the_order_key_that_a_message_has_of_its_own_goes_before_the_queues(
        self, backend: Backend
    ) -> None:
        queue, plain = backend.queue(options=QueueOptions(order_key='list')), slice_digits('mine')
        own = {digest_of(queue.enqueue(each, list=each, order_key='mine'))[:8] for each in 'ab'}
        own |= {digest_of(one)[:8] for one in queue.enqueue_many([('c', {'list': 'c', 'order_key': 'mine'})])}
        assert own == {plain}

    @pytest.mark.parametrize(('index', 'count'), [(0, 0), (-1, 2), (2, 2)])
    def test_a_slice_that_cannot_be_is_refused(self, backend: Backend, index: int, count: int) -> None:
        with pytest.raises(ValueError, match='slice'):
            backend.queue(slice=index, numslices=count)

    def test_of_one_slice_any_index_is_that_slice(self, backend: Backend) -> None:
        queue = backend.queue(slice=1, numslices=1)
        queue.enqueue('x')
        assert queue.take().msg == 'x'


class TestWhatIsChanged:
    @pytest.fixture
    def held(self, queue: Any) -> Any:
        filebase = queue.enqueue(mail(), tries=1, to=['a'], old=None)
        msg, msgdata = queue.dequeue(filebase)
        return SimpleNamespace(queue=queue, filebase=filebase, msg=msg, msgdata=msgdata)

    def test_nothing(self, held: Any) -> None:
        assert held.queue.metadata_changes(held.filebase, held.msgdata) == {}
        assert not held.queue.is_message_changed(held.filebase, held.msg)

    def test_metadata_and_also_what_is_inside_of_a_value(self, held: Any) -> None:
        held.msgdata['tries'] += 1
        held.msgdata['to'].append('b')
        held.msgdata['_volatile'] = object()
        del held.msgdata['old']
        assert held.queue.metadata_changes(held.filebase, held.msgdata) == {
            'set': {'tries': 2, 'to': ['a', 'b']},
            'drop': ['old'],
        }

    def test_what_cannot_be_stored_is_named_or_left_out(self, held: Any) -> None:
        held.msgdata |= {'seen': {1j}, 'tries': 5}
        with pytest.raises(UnserializableError, match='seen'):
            held.queue.metadata_changes(held.filebase, held.msgdata)
        assert held.queue.metadata_changes(held.filebase, held.msgdata, strict=False) == {'set': {'tries': 5}}

    def test_looking_into_a_mail_does_not_change_it(self, held: Any) -> None:
        assert held.msg.get_payload() == 'hello\n'
        assert [part.get_content_type() for part in held.msg.walk()] == ['text/plain']
        assert not held.queue.is_message_changed(held.filebase, held.msg)

    def test_a_header_more_does(self, held: Any) -> None:
        held.msg['X-Seen'] = 'yes'
        assert held.queue.is_message_changed(held.filebase, held.msg)


class TestWakeUp:
    def test_a_sleeper_is_woken_by_a_message_from_another_thread(self, backend: Backend) -> None:
        wakeup, asleep, woken = backend.queue().make_wakeup(), Signal(), []

        def sleep() -> None:
            wakeup.arm()
            asleep.set()
            woken.append(wakeup.wait(30))
            wakeup.disarm()

        thread = threading.Thread(target=sleep)
        thread.start()
        asleep.wait_or_timeout()
        backend.queue().enqueue('x')
        thread.join(30)
        assert woken == [True]
