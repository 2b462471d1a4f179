"""Hand-off: an input and what is made from it, as one step."""

from __future__ import annotations

import errno
import os
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from zope.interface.verify import verifyObject

from switchboard import Spool
from switchboard.errors import ContentDisallowedError, DurabilityError, EntryTakenError, QueueError
from switchboard.handoff.transaction import Transaction, commit_all
from switchboard.interfaces import ISpool, ITransaction
from switchboard.message.naming import digest_of
from switchboard.options import QueueOptions
from switchboard.queue.switchboard import Switchboard
from switchboard.store.publishing import HOLDERS
from switchboard.testing import MemorySpool
from switchboard.testing.faults import FaultyDisk
from tests.processes import in_child


@pytest.fixture(params=[Spool, MemorySpool])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return Spool(tmp_path / 'spool', 'lazy') if request.param is Spool else MemorySpool()


@pytest.fixture
def disk_spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / 'spool', 'lazy')


def begin(spool: Any, msg: Any = 'input', **metadata: Any) -> Any:
    """Claim an input and begin a transaction."""
    filebase = spool['in'].enqueue(msg, metadata)
    spool['in'].dequeue(filebase)
    return spool.transaction(spool['in'], filebase)


def contents(spool: Any, name: str) -> list[Any]:
    """The messages that are ready in a queue."""
    board = spool[name]
    messages = []
    for filebase in board.files:
        messages.append(board.dequeue(filebase)[0])
        board.release(filebase)
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
        assert [record['event'] for record in spool['in'].history(kept)] == ['failed']

    def test_there_is_room_for_it_in_a_full_queue(self, tmp_path: Path) -> None:
        spool = Spool(tmp_path)
        board = Switchboard('in', spool.path('in'), options=QueueOptions(max_messages=1), pool=spool.spares)
        filebase = board.enqueue([1])
        msg, msgdata = board.dequeue(filebase)
        msg.append(2)
        kept = spool.transaction(board, filebase).keep(msg, msgdata)
        assert board.dequeue(kept)[0] == [1, 2]


class TestOnDisk:
    def test_one_rename_forwards_an_input(self, disk_spool: Spool) -> None:
        transaction = begin(disk_spool)
        path = Path(disk_spool.path('in', f'{transaction.filebase}.bak'))
        number = path.stat().st_ino
        transaction.forward(disk_spool['out'])
        transaction.commit()
        assert Path(disk_spool.path('out', f'{transaction.filebase}.pck')).stat().st_ino == number
        (record,) = disk_spool['out'].history(transaction.filebase)
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

    def test_nothing_is_left_in_the_stage_and_everything_becomes_a_spare(self, disk_spool: Spool) -> None:
        transaction = begin(disk_spool)
        transaction.emit(disk_spool['out'], 'x', {})
        transaction.commit()
        assert os.listdir(disk_spool.path('.stage')) == []
        assert len(os.listdir(disk_spool.path('.spare'))) == 1  # what was the input

    def test_a_queue_that_does_not_accept_the_kind_refuses(self, disk_spool: Spool) -> None:
        transaction = begin(disk_spool, {'a': 1})
        picky = Switchboard('out', disk_spool.path('out'), options=QueueOptions(accept=('mail',)))
        for forward in (lambda: transaction.forward(picky), lambda: transaction.emit(picky, {}, {})):
            with pytest.raises(ContentDisallowedError):
                forward()
        assert claimed(disk_spool) == [transaction.filebase]

    def test_outputs_of_which_one_is_refused_are_thrown_away_and_those_before_them_stay(
        self, disk_spool: Spool
    ) -> None:
        picky = Switchboard('picky', disk_spool.path('picky'), options=QueueOptions(accept=('mail',)))
        transaction = begin(disk_spool)
        with pytest.raises(ContentDisallowedError):
            transaction.emit_all([disk_spool['out'], picky], 'x', {'dedupe_key': 'k'})
        assert (transaction.items, transaction.keyed, transaction in HOLDERS) == ([], [], False)
        transaction.emit(disk_spool['out'], 'before', {'dedupe_key': 'k'})
        with pytest.raises(ContentDisallowedError):
            transaction.forward(disk_spool['audit'], picky)
        assert (len(transaction.keyed), transaction in HOLDERS) == (1, True)
        transaction.commit()
        assert (contents(disk_spool, 'out'), contents(disk_spool, 'audit')) == (['before'], [])
        assert transaction not in HOLDERS

    @pytest.mark.parametrize(
        ('call', 'number'),
        [
            ('fdatasync', 1),
            ('fdatasync', 2),
            *(('rename', n) for n in range(1, 6)),
            *(('fsync', n) for n in range(1, 4)),
        ],
    )
    def test_a_commit_that_fails_leaves_the_input_and_no_output_or_is_finished_by_recovery(
        self, tmp_path: Path, call: str, number: int
    ) -> None:
        disk = FaultyDisk(0, errno.EIO, calls=(call,))
        spool = Spool(tmp_path, 'full', disk=disk)
        transaction = begin(spool)
        for name in ('a', 'b'):
            transaction.emit(spool[name], name, {})
        disk.arm(number)
        failed = commit_all([transaction])
        assert disk.struck == call
        disk.arm(0)
        spool.recover()
        if failed:
            assert isinstance(failed[transaction], QueueError)
            spool['in'].release(transaction.filebase)
        assert (contents(spool, 'in'), contents(spool, 'a'), contents(spool, 'b')) == (
            (['input'], [], []) if failed else ([], ['a'], ['b'])
        )

    def test_what_dies_before_the_commit_leaves_its_input_and_no_output(self, disk_spool: Spool) -> None:
        def die() -> None:
            transaction = begin(disk_spool)
            transaction.emit(disk_spool['out'], 'x', {})
            transaction.stage_outputs()

        in_child(die)
        assert len(os.listdir(disk_spool.path('.stage'))) == 1
        assert disk_spool.recover() == 1
        assert disk_spool['in'].recover() == disk_spool['in'].files
        assert (contents(disk_spool, 'in'), contents(disk_spool, 'out')) == (['input'], [])

    def test_what_dies_after_it_is_rolled_forward(self, disk_spool: Spool) -> None:
        def die() -> None:
            transaction = begin(disk_spool)
            for number in range(3):
                transaction.emit(disk_spool['out'], number, {})
            transaction.stage_outputs()
            transaction.rename_input()

        in_child(die)
        assert (disk_spool['in'].files, claimed(disk_spool), disk_spool['out'].files) == ([], [], [])
        assert disk_spool.recover() == 1
        assert contents(disk_spool, 'out') == [0, 1, 2]
        assert os.listdir(disk_spool.path('.stage')) == []

    def test_what_lives_is_left_alone(self, disk_spool: Spool) -> None:
        transaction = begin(disk_spool)
        transaction.emit(disk_spool['out'], 'x', {})
        transaction.stage_outputs()
        assert disk_spool.recover() == 0
        transaction.rename_input()
        assert disk_spool.recover() == 0
        transaction.publish_outputs()
        transaction.remove_record()
        transaction.let_go()
        assert contents(disk_spool, 'out') == ['x']

    def test_each_transaction_has_a_name_of_its_own(self, disk_spool: Spool) -> None:
        names = {Transaction(disk_spool.stage).name for _ in range(10)}
        assert len(names) == 10
