"""Hand-off: an input and what is made from it, as one step."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from switchboard import Spool
from switchboard.errors import (
    ContentDisallowedError,
    DurabilityError,
    EntryTakenError,
    MessageTooLargeError,
    OutputsNeverFitError,
    QueueError,
    QueueFullError,
)
from switchboard.handoff.commit import commit_all
from switchboard.handoff.stage import COMMIT
from switchboard.handoff.transaction import Transaction
from switchboard.interfaces import ISpool, ITransaction
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions
from switchboard.queue.switchboard import Switchboard
from switchboard.store.claims import OWN_CLAIMS
from switchboard.store.disk import Disk
from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME
from switchboard.store.publishing import DRAFT_OWNERS, PreparedEntry
from switchboard.testing.faults import FaultyDisk
from tests.helpers.processes import in_child


def begin(spool: Any, msg: Any = 'input', **metadata: Any) -> Any:
    """Claim an input and begin a transaction."""
    filebase = spool['in'].enqueue(msg, metadata)
    spool['in'].dequeue(filebase)
    return spool.transaction(spool['in'], filebase)


def begin_first(spool: Spool) -> Transaction:
    """Claim the first of two inputs of one order key."""
    for msg in ('first', 'second'):
        spool['in'].enqueue(msg, order_key='k')
    taken = spool['in'].take()
    assert taken is not None
    return spool.transaction(spool['in'], taken.filebase)


def contents(spool: Any, name: str) -> list[Any]:
    """The messages that are ready in a queue."""
    queue = spool[name]
    messages = []
    for filebase in queue.files:
        messages.append(queue.dequeue(filebase)[0])
        queue.release(filebase)
    return messages


def claimed(spool: Any) -> list[str]:
    names: list[str] = spool['in'].get_files('.bak')
    return names


class TestOverAnySpool:
    def test_spool_and_transaction_keep_their_contracts(self, spool: Any) -> None:
        assert verifyObject(ISpool, spool)
        assert verifyObject(ITransaction, begin(spool))

    def test_outputs_are_seen_with_the_end_of_the_input_and_not_before(self, spool: Any) -> None:
        transaction = begin(spool)
        filebases = [transaction.emit(spool[name], f'to {name}', {'n': 1}) for name in ('out', 'audit')]
        assert (contents(spool, 'out'), contents(spool, 'audit'), len(claimed(spool))) == ([], [], 1)
        transaction.commit()
        assert (contents(spool, 'out'), contents(spool, 'audit')) == (['to out'], ['to audit'])
        assert (spool['in'].files, claimed(spool)) == ([], [])
        assert [spool['out'].files, spool['audit'].files] == [[name] for name in filebases]

    def test_without_outputs_it_is_the_end_of_the_input(self, spool: Any) -> None:
        begin(spool).commit()
        assert (spool['in'].files, claimed(spool)) == ([], [])

    def test_what_is_discarded_is_never_seen_and_the_input_stays_claimed(self, spool: Any) -> None:
        transaction = begin(spool)
        transaction.emit(spool['out'], 'x', {})
        transaction.discard()
        assert (contents(spool, 'out'), claimed(spool)) == ([], [transaction.filebase])

    def test_an_output_may_go_back_to_the_inputs_own_queue(self, spool: Any) -> None:
        transaction = begin(spool)
        transaction.emit(spool['in'], 'again', {})
        transaction.commit()
        assert contents(spool, 'in') == ['again']

    def test_an_input_that_is_not_held_cannot_be_committed(self, spool: Any) -> None:
        transaction = begin(spool)
        transaction.emit(spool['out'], 'x', {})
        spool['in'].release(transaction.filebase)
        with pytest.raises(EntryTakenError):
            transaction.commit()
        assert (contents(spool, 'in'), contents(spool, 'out')) == (['input'], [])

    def test_many_are_committed_together_and_each_fails_alone(self, spool: Any) -> None:
        transactions = [begin(spool, number) for number in range(4)]
        for number, transaction in enumerate(transactions[:3]):
            transaction.emit(spool['out'], number, {})
        spool['in'].release(transactions[1].filebase)
        failed = spool.commit_all(transactions)
        assert set(failed) == {transactions[1]}
        assert isinstance(failed[transactions[1]], EntryTakenError)
        assert (contents(spool, 'out'), contents(spool, 'in'), claimed(spool)) == ([0, 2], [1], [])

    @pytest.mark.parametrize('others', [0, 1])
    def test_forwarding_keeps_content_metadata_and_history(self, spool: Any, others: int) -> None:
        transaction = begin(spool, 'input', n=1)
        spool['in'].annotate(transaction.filebase, {'event': 'seen'})
        queues = ['out', 'audit'][: others + 1]
        transaction.forward(*(spool[name] for name in queues))
        assert contents(spool, 'out') == []
        transaction.commit()
        for name in queues:
            (filebase,) = spool[name].files
            assert spool[name].dequeue(filebase) == ('input', {'n': 1, 'version': 3, '_parsemsg': False})
            assert spool[name].history(filebase)[0]['event'] == 'seen'
            assert (digest_of(filebase) == digest_of(transaction.filebase)) is (len(queues) == 1)
        assert claimed(spool) == []

    def test_forwarding_beside_other_outputs_in_any_order(self, spool: Any) -> None:
        transaction = begin(spool)
        transaction.forward(spool['a'])
        transaction.emit(spool['b'], 'made', {})
        transaction.forward(spool['c'])
        transaction.commit()
        assert [contents(spool, name) for name in 'abc'] == [['input'], ['made'], ['input']]

    def test_forwarding_into_bad_preserves(self, spool: Any) -> None:
        transaction = begin(spool)
        transaction.forward(spool['bad'])
        transaction.commit()
        assert spool['bad'].get_files('.psv') == [transaction.filebase]
        assert spool['bad'].files == []


class TestKeeping:
    def test_nothing_changed_leaves_no_trace(self, spool: Any) -> None:
        transaction = begin(spool, 'input', n=1)
        transaction.emit(spool['out'], 'x', {})
        assert transaction.keep('input', {'n': 1, 'version': 3, '_volatile': 1}) == transaction.filebase
        assert spool['in'].files == [transaction.filebase]
        assert spool['in'].history(transaction.filebase) == []
        assert contents(spool, 'out') == []

    def test_changed_metadata_are_a_record(self, spool: Any) -> None:
        first = begin(spool, 'input', n=1, old=1)
        assert first.keep('input', {'n': 2}) == first.filebase
        assert spool['in'].dequeue(first.filebase)[1] == {'n': 2, 'version': 3, '_parsemsg': False}
        assert [record['event'] for record in spool['in'].history(first.filebase)] == ['kept']

    def test_a_changed_message_takes_its_place_and_its_history(self, spool: Any) -> None:
        msg = Message()
        msg['Subject'] = 'first'
        filebases = [spool['in'].enqueue(each, n=0) for each in (msg, 'next')]
        changed, msgdata = spool['in'].dequeue(filebases[0])
        spool['in'].annotate(filebases[0], {'event': 'failed', 'set': {'n': 1}})
        del changed['subject']
        changed['Subject'] = 'second'
        msgdata['n'] = 2
        kept = spool.transaction(spool['in'], filebases[0]).keep(changed, msgdata)
        assert kept.partition('+')[0] == filebases[0].partition('+')[0]
        assert spool['in'].files == [kept, filebases[1]]
        back, msgdata = spool['in'].dequeue(kept)
        assert (back['subject'], msgdata['n']) == ('second', 2)
        assert [record['event'] for record in spool['in'].history(kept)] == ['failed', 'noted']

    def test_there_is_room_for_it_in_a_full_queue(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        queue = Switchboard('in', spool.path('in'), options=QueueOptions(max_messages=1), pool=spool.pool)
        filebase = queue.enqueue([1])
        msg, msgdata = queue.dequeue(filebase)
        msg.append(2)
        kept = spool.transaction(queue, filebase).keep(msg, msgdata)
        assert queue.dequeue(kept)[0] == [1, 2]


class TestOnDisk:
    def test_one_rename_forwards_an_input(self, spool: Spool) -> None:
        transaction = begin(spool)
        path = Path(spool.path('in', f'{transaction.filebase}.bak'))
        number = path.stat().st_ino
        transaction.forward(spool['out'])
        transaction.commit()
        assert Path(spool.path('out', f'{transaction.filebase}.pck')).stat().st_ino == number
        (record,) = spool['out'].history(transaction.filebase)
        assert (record['event'], record['queue'], record['to']) == ('moved', 'in', 'out')

    def test_a_forward_that_fails_leaves_the_input_claimed(self, tmp_path: Path) -> None:
        disk = FaultyDisk(0, errno.EIO, calls=('renameat2',))
        spool = Spool(tmp_path, 'lazy', disk=disk)
        transaction = begin(spool)
        transaction.forward(spool['out'])
        disk.arm(1)
        with pytest.raises(DurabilityError):
            transaction.commit()
        assert claimed(spool) == [transaction.filebase]
        spool['in'].finish(transaction.filebase)

    @pytest.mark.parametrize('outputs', ['none', 'one', 'the input', 'the input, and one'])
    def test_it_is_over_where_somebody_has_taken_away_the_input_s_file(
        self, spool: Spool, outputs: str
    ) -> None:
        transaction = begin(spool)
        if 'one' in outputs and outputs != 'none':
            transaction.emit(spool['out'], 'x', {})
        if 'input' in outputs:
            transaction.forward(spool['out'])
        Path(spool.path('in', f'{transaction.filebase}.bak')).unlink()
        with pytest.raises(EntryTakenError, match='its file is gone'):
            transaction.commit()
        assert contents(spool, 'out') == []
        assert os.listdir(spool.path('.stage')) == []
        assert not any(claim.filebase == transaction.filebase for claim in OWN_CLAIMS.values())

    def test_nothing_is_left_in_the_stage_and_everything_becomes_a_spare(self, spool: Spool) -> None:
        transaction = begin(spool)
        transaction.emit(spool['out'], 'x', {})
        transaction.commit()
        assert os.listdir(spool.path('.stage')) == []
        assert len(os.listdir(spool.path('.spare'))) == 1  # what was the input

    def test_a_queue_that_does_not_accept_the_kind_refuses(self, spool: Spool) -> None:
        transaction = begin(spool, {'a': 1})
        picky = Switchboard('out', spool.path('out'), options=QueueOptions(accept=('mail',)))
        for forward in (lambda: transaction.forward(picky), lambda: transaction.emit(picky, {}, {})):
            with pytest.raises(ContentDisallowedError):
                forward()
        assert claimed(spool) == [transaction.filebase]

    def test_outputs_of_which_one_is_refused_are_thrown_away_and_those_before_them_stay(
        self, spool: Spool
    ) -> None:
        picky = Switchboard('picky', spool.path('picky'), options=QueueOptions(accept=('mail',)))
        transaction = begin(spool)
        with pytest.raises(ContentDisallowedError):
            transaction.emit_all([spool['out'], picky], 'x', {'dedupe_key': 'k'})
        assert (transaction.items, transaction.deduped, transaction in DRAFT_OWNERS) == ([], [], False)
        transaction.emit(spool['out'], 'before', {'dedupe_key': 'k'})
        with pytest.raises(ContentDisallowedError):
            transaction.forward(spool['audit'], picky)
        assert (len(transaction.deduped), transaction in DRAFT_OWNERS) == (1, True)
        transaction.commit()
        assert (contents(spool, 'out'), contents(spool, 'audit')) == (['before'], [])
        assert transaction not in DRAFT_OWNERS

    @pytest.mark.parametrize(
        ('fsync_scope', 'call', 'number'),
        [
            *((CONTENT_ONLY, 'fdatasync', n) for n in (1, 2)),
            *((CONTENT_ONLY, 'fsync', n) for n in range(1, 4)),
            *((WITH_NAME, 'fsync', n) for n in range(1, 6)),
            *((WITH_ALL_NAMES, 'fsync', n) for n in range(1, 4)),
            *(
                (fsync_scope, 'rename', n)
                for fsync_scope in (CONTENT_ONLY, WITH_NAME, WITH_ALL_NAMES)
                for n in range(1, 6)
            ),
        ],
    )
    def test_a_commit_that_fails_leaves_the_input_and_no_output_or_is_finished_by_recovery(
        self, tmp_path: Path, fsync_scope: int, call: str, number: int
    ) -> None:
        disk = FaultyDisk(0, errno.EIO, calls=(call,), fsync_scope=fsync_scope)
        spool = Spool(tmp_path, 'full', disk=disk)
        transaction = begin(spool)
        for name in ('a', 'b'):
            transaction.emit(spool[name], name, {})
        disk.arm(number)
        failed = commit_all([transaction])
        assert disk.failed_call == call
        disk.arm(0)
        spool.recover()
        if failed:
            assert isinstance(failed[transaction], QueueError)
            spool['in'].release(transaction.filebase)
        assert (contents(spool, 'in'), contents(spool, 'a'), contents(spool, 'b')) == (
            (['input'], [], []) if failed else ([], ['a'], ['b'])
        )

    def test_what_dies_before_the_commit_leaves_its_input_and_no_output(self, spool: Spool) -> None:
        def die() -> None:
            transaction = begin(spool)
            transaction.emit(spool['out'], 'x', {})
            transaction.stage_outputs()

        in_child(die)
        assert len(os.listdir(spool.path('.stage'))) == 1
        assert spool.recover() == 1
        assert spool['in'].recover() == spool['in'].files
        assert (contents(spool, 'in'), contents(spool, 'out')) == (['input'], [])

    def test_what_dies_after_it_is_rolled_forward(self, spool: Spool) -> None:
        def die() -> None:
            transaction = begin(spool)
            for number in range(3):
                transaction.emit(spool['out'], number, {})
            transaction.stage_outputs()
            transaction.rename_input()

        in_child(die)
        assert (spool['in'].files, claimed(spool), spool['out'].files) == ([], [], [])
        assert spool.recover() == 1
        assert contents(spool, 'out') == [0, 1, 2]
        assert os.listdir(spool.path('.stage')) == []

    def test_what_lives_is_left_alone(self, spool: Spool) -> None:
        transaction = begin(spool)
        transaction.emit(spool['out'], 'x', {})
        transaction.stage_outputs()
        assert spool.recover() == 0
        transaction.rename_input()
        assert spool.recover() == 0
        transaction.publish_outputs()
        transaction.remove_record()
        transaction.unlock()
        assert contents(spool, 'out') == ['x']

    def test_each_transaction_has_a_name_of_its_own(self, spool: Spool) -> None:
        names = {Transaction(spool.stage).name for _ in range(10)}
        assert len(names) == 10


class TestOrder:
    """Messages of one order key never pass each other on their way through hand-offs."""

    STRICT = QueueOptions(strict_order=True)

    @pytest.mark.parametrize(
        ('fsync_scope', 'numbers'),
        [(CONTENT_ONLY, range(1, 4)), (WITH_NAME, range(1, 6)), (WITH_ALL_NAMES, range(1, 4))],
    )
    def test_an_input_whose_commit_fails_still_has_its_key(
        self, tmp_path: Path, fsync_scope: int, numbers: range
    ) -> None:
        for number in numbers:
            disk = FaultyDisk(0, errno.EIO, calls=('fsync',), fsync_scope=fsync_scope)
            spool = Spool(tmp_path / str(number), disk=disk, options=self.STRICT)
            transaction = begin_first(spool)
            transaction.emit(spool['out'], 'x', {})
            disk.arm(number)
            failed = commit_all([transaction])
            disk.arm(0)
            other = Spool(tmp_path / str(number), options=self.STRICT)['in']
            if not failed:
                continue
            assert claimed(spool) == [transaction.filebase]
            assert transaction.claim.order_fd >= 0
            assert other.take() is None
            spool['in'].release(transaction.filebase)
            taken = other.take()
            assert taken is not None
            assert taken.msg == 'first'

    def test_nothing_of_its_key_is_taken_before_its_outputs_are_there(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path, 'lazy', options=self.STRICT)
        transaction = begin_first(spool)
        transaction.emit(spool['out'], 'x', {})
        other = Spool(tmp_path, 'lazy', options=self.STRICT)['in']
        steps = (
            *(transaction.stage_outputs, transaction.rename_input, transaction.publish_outputs),
            transaction.remove_record,
        )
        for step in steps:
            assert other.take() is None
            step()
        transaction.unlock()
        other.has_ready()
        assert spool['in'].has_ready()
        taken = spool['in'].take()
        assert taken is not None
        assert taken.msg == 'second'

    def hand_on(self, spool: Spool, *queues: str) -> None:
        taken = spool['in'].take()
        transaction = spool.transaction(spool['in'], taken.filebase)
        transaction.forward(*(spool[queue] for queue in queues))
        for error in spool.commit_all([transaction]).values():
            raise error

    def test_forwarding_to_one_and_to_several_queues_keeps_it(self, spool: Spool) -> None:
        for number in range(1, 5):
            spool['in'].enqueue(str(number), order_key='k')
        for queues in (('a', 'b'), ('a',), ('a', 'b'), ('a',)):
            self.hand_on(spool, *queues)
        assert contents(spool, 'a') == ['1', '2', '3', '4']
        assert contents(spool, 'b') == ['1', '3']

    def test_what_is_forwarded_does_not_pass_what_could_not_be_published(self, tmp_path: Path) -> None:
        disk = Refusing()
        spool = Spool(tmp_path, 'lazy', disk=disk)
        [first] = self.emitting(spool, 'a')
        disk.refused = first.items[0].filebase

        def forwarding(body: str) -> Transaction:
            spool['in'].enqueue(body, order_key='k')
            transaction = spool.transaction(spool['in'], spool['in'].take().filebase)
            transaction.forward(spool['out'])
            return transaction

        second = forwarding('b')
        failed = spool.commit_all([first, second])
        assert list(failed) == [second], 'in the same commit'
        third = forwarding('c')
        assert list(spool.commit_all([third])) == [third], 'and in a later one'
        assert contents(spool, 'out') == []
        disk.refused = ''
        second.forward(spool['out'])
        third.forward(spool['out'])
        assert spool.commit_all([second, third]) == {}
        assert sorted(contents(spool, 'out')) == ['a', 'b', 'c']

    def emitting(self, spool: Spool, *bodies: str) -> list[Transaction]:
        transactions = []
        for body in bodies:
            spool['in'].enqueue(body)
            taken = spool['in'].take()
            transaction = spool.transaction(spool['in'], taken.filebase)
            transaction.emit(spool['out'], body, {'order_key': 'k'})
            transactions.append(transaction)
        return transactions

    def test_a_publish_that_fails_once_is_done_again_at_once(self, tmp_path: Path) -> None:
        disk = Refusing()
        spool = Spool(tmp_path, 'lazy', disk=disk)
        transactions = self.emitting(spool, 'a', 'b', 'c')
        disk.refusals = 1
        assert spool.commit_all(transactions) == {}
        assert contents(spool, 'out') == ['a', 'b', 'c']
        assert os.listdir(spool.path('.stage')) == []

    def test_while_it_fails_none_of_its_key_passes_and_others_do(self, tmp_path: Path) -> None:
        disk = Refusing()
        spool = Spool(tmp_path, 'lazy', disk=disk)
        [first, second] = self.emitting(spool, 'a', 'b')
        disk.refused = first.items[0].filebase
        assert spool.commit_all([first, second]) == {}
        assert contents(spool, 'out') == []
        [late] = self.emitting(spool, 'c')
        spool['in'].enqueue('other')
        other = spool.transaction(spool['in'], spool['in'].take().filebase)
        other.emit(spool['out'], 'other', {'order_key': 'another key'})
        failed = spool.commit_all([late, other])
        assert isinstance(failed[late], DurabilityError)
        assert list(failed) == [late]
        assert contents(spool, 'out') == ['other']
        disk.refused = ''
        spool['in'].release(late.filebase)
        [again] = [spool.transaction(spool['in'], spool['in'].take().filebase)]
        again.emit(spool['out'], 'c', {'order_key': 'k'})
        assert spool.commit_all([again]) == {}
        assert sorted(contents(spool, 'out')) == ['a', 'b', 'c', 'other']
        order = contents(spool, 'out')
        assert [body for body in order if body != 'other'] == ['a', 'b', 'c']

    def test_nor_while_another_process_tries_to_publish_it(self, tmp_path: Path) -> None:
        disk = Refusing()
        spool = Spool(tmp_path, 'lazy', disk=disk)
        [first] = self.emitting(spool, 'a')
        disk.refused = first.items[0].filebase
        assert spool.commit_all([first]) == {}
        [record] = (name for name in os.listdir(spool.path('.stage')) if name.endswith(COMMIT))
        with open(spool.path('.stage', record)) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            [late] = self.emitting(spool, 'b')
            assert list(spool.commit_all([late])) == [late]
        assert contents(spool, 'out') == []


class Refusing(Disk):
    """Refuses to publish: some times, or one entry for as long as it is said."""

    refusals = 0
    refused = ''

    def rename(self, source: str, target: str, **keys: int) -> None:
        if ':' in source and target.endswith('.pck') and (self.refusals or target == f'{self.refused}.pck'):
            self.refusals = max(0, self.refusals - 1)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.rename(source, target, **keys)


def test_a_commit_of_thousands_looks_no_list_through(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comparison of two transactions or outputs would be one of a search: there are none."""
    compared: list[object] = []

    def compare(self: object, other: object) -> bool:
        compared.append(other)
        return self is other

    for kind in (Transaction, PreparedEntry):
        monkeypatch.setattr(kind, '__eq__', compare, raising=False)
        monkeypatch.setattr(kind, '__hash__', object.__hash__, raising=False)
    transactions = []
    for number in range(50):
        spool['in'].enqueue(str(number))
        transaction = spool.transaction(spool['in'], spool['in'].take().filebase)
        for key in ('k', 'k', str(number)):
            transaction.emit(spool['out'], 'x', {'dedupe_key': key})
        transactions.append(transaction)
    assert spool.commit_all(transactions) == {}
    assert len(contents(spool, 'out')) == 51
    assert compared == []


def test_the_history_of_a_message_that_is_kept_for_ever_stays_short(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 'lazy')
    queue = spool['in']
    queue.enqueue(b'the body', order_key='a', round=0)
    taken = queue.take()
    assert taken is not None
    queue.annotate(taken.filebase, {'event': 'noted', 'what': 'something else'})
    filebase = taken.filebase
    for number in range(1, 300):
        transaction = spool.transaction(queue, filebase)
        filebase = transaction.keep(b'the body', {**taken.msgdata, 'round': number})
        msg, msgdata = queue.dequeue(filebase)
        assert (msg, msgdata['round']) == (b'the body', number)
        assert len(queue.history(filebase)) < 70
    events = [record['event'] for record in queue.history(filebase)]
    # Of ours, and of the name that it came with.
    assert events.count('noted') == 2
    kept = [record.get('times', 1) for record in queue.history(filebase) if record['event'] == 'kept']
    assert 299 - len(kept) <= sum(kept) <= 299
    assert filebase.partition('+')[0] == taken.filebase.partition('+')[0]


class TestOutputsThatCanNeverFit:
    """Trouble passes; what can never be is a failure of its message, or the same first one would be tried for ever."""

    def begin(self, tmp_path: Path, section: str) -> tuple[Spool, Transaction]:
        config = tmp_path / 'switchboard.cfg'
        config.write_text(f'[switchboard]\nspool = {tmp_path / "s"}\n[queue.in]\n[queue.out]\n{section}\n')
        spool = Spool.from_config(str(config))
        spool['in'].enqueue('input')
        return spool, spool.transaction(spool['in'], spool['in'].take().filebase)

    def test_more_than_a_queue_may_hold(self, tmp_path: Path) -> None:
        spool, transaction = self.begin(tmp_path, 'max_messages = 2')
        transaction.emit(spool['out'], '1', {})
        transaction.emit(spool['out'], '2', {})
        with pytest.raises(OutputsNeverFitError, match='max_messages is 2'):
            transaction.emit(spool['out'], '3', {})
        transaction.discard()

    def test_but_one_that_waits_for_others_is_only_refused_for_now(self, tmp_path: Path) -> None:
        spool, transaction = self.begin(tmp_path, 'max_messages = 2')
        spool['out'].enqueue('another')
        transaction.emit(spool['out'], '1', {})
        with pytest.raises(QueueFullError):
            transaction.emit(spool['out'], '2', {})
        transaction.discard()

    @pytest.mark.parametrize('sizes', [(60_000, 60_000), (200_000,)])
    def test_more_bytes_than_a_queue_may_hold(self, sizes: tuple[int, ...], tmp_path: Path) -> None:
        spool, transaction = self.begin(tmp_path, 'max_bytes = 100k')
        for size in sizes[:-1]:
            transaction.emit(spool['out'], b'x' * size, {})
        with pytest.raises(MessageTooLargeError):
            transaction.emit(spool['out'], b'x' * sizes[-1], {})
        transaction.discard()

    def test_more_than_files_may_be_open(self, tmp_path: Path) -> None:
        def act() -> str:
            # Other tests of this process may have left some open; its own are to be more than half.
            inherited = len(os.listdir('/proc/self/fd'))
            most = 2 * inherited + 200
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            spool, transaction = self.begin(tmp_path, '')
            try:
                for number in range(most):
                    transaction.emit(spool['out'], str(number), {})
            except OutputsNeverFitError as error:
                transaction.discard()
                return str(error)
            return 'all went in'

        assert 'files may be open: this can never be stored' in in_child(act)
