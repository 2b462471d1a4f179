"""The same message only once: exact across processes and crashes."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path

import pytest

from switchboard import Spool, Switchboard
from switchboard.errors import DurabilityError, LockTimeoutError, QueueError, QueueFullError
from switchboard.handoff.deduplication import BUCKETS
from switchboard.message.naming import key_digest
from switchboard.options import QueueOptions
from switchboard.store.disk import Disk
from tests.helpers.processes import Child
from tests.helpers.runs import make_runner


def test_a_second_message_with_the_same_key_is_not_stored(spool):
    first = spool['in'].enqueue('one', dedupe_key='key')
    assert spool['in'].enqueue('two', dedupe_key='key') == first
    assert [spool['in'].dequeue(one)[0] for one in spool['in'].files] == ['one']


def test_a_key_stays_taken_after_its_message_is_finished(spool):
    first = spool['in'].enqueue('one', dedupe_key='key')
    spool['in'].dequeue(first)
    spool['in'].finish(first)
    assert spool['in'].enqueue('two', dedupe_key='key') == first
    assert spool['in'].get_files() == []


def test_other_keys_and_other_queues_are_other_messages(spool):
    spool['in'].enqueue('one', dedupe_key='key')
    spool['in'].enqueue('two', dedupe_key='another')
    spool['out'].enqueue('three', dedupe_key='key')
    assert len(spool['in'].files) == 2
    assert len(spool['out'].files) == 1


def test_a_key_is_free_again_when_the_window_is_over(spool, clock):
    first = spool['in'].enqueue('one', dedupe_key='key')
    clock.advance(86_399)
    assert spool['in'].enqueue('two', dedupe_key='key') == first
    clock.advance(2)
    assert spool['in'].enqueue('three', dedupe_key='key') != first


def test_many_producers_at_once_store_each_key_once(tmp_path):
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            queue = Spool(tmp_path, 'lazy')['in']
            for number in range(50):
                queue.enqueue(os.getpid(), dedupe_key=f'key {number}')
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert len(Spool(tmp_path)['in'].files) == 50


class DiesAtRename(Disk):
    """Ends its process before the n-th rename."""

    def __init__(self, number: int) -> None:
        self.left = number

    def rename(self, *args, **keys):
        self.left -= 1
        if self.left == 0:
            os._exit(9)
        os.rename(*args, **keys)


def enqueue_and_die(home, number, msg, **keys):
    """:return: the status with which a producer of its own process ended, which dies at the n-th rename."""
    child = os.fork()
    if child == 0:
        Spool(home, 'lazy', disk=DiesAtRename(number), **keys)['in'].enqueue(msg, dedupe_key='key')
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_producer_that_dies_at_any_rename_has_stored_the_message_with_its_key_or_neither(tmp_path):
    died = 0
    for number in range(1, 20):
        home = tmp_path / str(number)
        died += enqueue_and_die(home, number, 'first') != 0
        spool = Spool(home, 'lazy')
        spool['in'].enqueue('second', dedupe_key='key')
        spool['in'].enqueue('third', dedupe_key='key')
        assert len(spool['in'].files) == 1, f'died at rename {number}'
    assert died >= 4


class StopsAtRename(Disk):
    """Stops before its first rename, until it may go on."""

    def __init__(self):
        super().__init__()
        self.stopped = threading.Event()
        self.may_go_on = threading.Event()

    def rename(self, *args, **keys):
        self.stopped.set()
        assert self.may_go_on.wait(60)
        os.rename(*args, **keys)


class Impatient(Disk):
    lock_timeout_s = 0.01


def recover_and_say_so(home, disk):
    Spool(home, 'lazy', disk=disk).recover()
    disk.stopped.set()


def test_a_key_is_not_new_while_another_process_publishes_what_a_dead_one_has_committed(tmp_path):
    waited = 0
    for number in range(1, 20):
        home = tmp_path / str(number)
        enqueue_and_die(home, number, 'first')
        disk = StopsAtRename()
        other = threading.Thread(target=recover_and_say_so, args=(home, disk), daemon=True)
        other.start()
        assert disk.stopped.wait(60)
        try:
            Spool(home, 'lazy', disk=Impatient())['in'].enqueue('second', dedupe_key='key')
        except LockTimeoutError as error:
            waited += error.queue == 'in'
        disk.may_go_on.set()
        other.join(60)
        spool = Spool(home, 'lazy')
        spool['in'].enqueue('third', dedupe_key='key')
        assert len(spool['in'].files) == 1, f'died at rename {number}'
    assert waited >= 2


class OthersRecover(Disk):
    """Before it removes anything, another process recovers."""

    def unlink(self, *args, **keys):
        Spool(self.home, 'lazy').recover()
        os.unlink(*args, **keys)


def test_the_janitor_forgets_no_key_that_another_process_stores_anew(tmp_path, clock):
    for number in range(1, 20):
        home = tmp_path / str(number)
        spool = Spool(home, 'lazy', clock=clock, disk=OthersRecover())
        spool.disk.home = home
        spool['in'].enqueue('first', dedupe_key='key')
        clock.advance(90_000)
        enqueue_and_die(home, number, 'second', clock=clock)
        spool.dedupe_keys(spool['in']).remove_expired()
        spool['in'].enqueue('third', dedupe_key='key')
        assert len(spool['in'].files) == 2, f'died at rename {number}'


def markers(spool):
    return sorted(Path(spool.directory, '.dedupe@in').glob('*.pck'))


def test_a_marker_that_cannot_be_removed_keeps_no_other(spool, clock):
    for number in range(5):
        spool['in'].enqueue(number, dedupe_key=number)
    first = markers(spool)[0]
    first.unlink()
    first.mkdir()
    clock.advance(90_000)
    assert spool.dedupe_keys(spool['in']).remove_expired() == 4
    assert markers(spool) == [first]


class CountsWaits(Disk):
    waits = 0

    def lock_when_free(self, fd, what, **keys):
        self.waits += 1
        raise LockTimeoutError(f'{what}: locked by another process')


def test_a_bucket_that_another_process_keeps_is_waited_for_once(tmp_path, clock):
    disk = CountsWaits()
    spool, same = Spool(tmp_path, 'lazy', clock=clock), Spool(tmp_path, 'lazy', clock=clock, disk=disk)
    for number in range(300):
        spool['in'].enqueue(number, dedupe_key=number)
    clock.advance(90_000)
    assert same.dedupe_keys(same['in']).remove_expired() == 0
    assert disk.waits <= BUCKETS < len(markers(spool))


class RefusesToPublish(Disk):
    """Lets no marker into its directory."""

    def rename(self, *args, **keys):
        if str(args[1]).endswith('.pck') and '+' not in str(args[1]):
            raise OSError(5, 'Input/output error')
        os.rename(*args, **keys)


def test_a_key_that_is_committed_and_cannot_be_remembered_is_not_stored_twice(tmp_path):
    spool = Spool(tmp_path, 'lazy', disk=RefusesToPublish())
    spool['in'].enqueue('first', dedupe_key='key')
    for disk in (RefusesToPublish(), RefusesToPublish()):
        with pytest.raises(DurabilityError, match='committed'):
            Spool(tmp_path, 'lazy', disk=disk)['in'].enqueue('second', dedupe_key='key')
    Spool(tmp_path, 'lazy')['in'].enqueue('third', dedupe_key='key')
    assert [spool['in'].dequeue(one)[0] for one in spool['in'].files] == ['first']


class Full(Disk):
    """Has no room for what is longer than a header."""

    def pwrite(self, fd, content, offset):
        raise OSError(28, 'No space left on device')


def test_a_message_that_could_not_be_stored_leaves_its_key_free(tmp_path):
    with pytest.raises(QueueFullError):
        Spool(tmp_path, 'lazy', disk=Full())['in'].enqueue('one', dedupe_key='key')
    spool = Spool(tmp_path, 'lazy')
    spool['in'].enqueue('two', dedupe_key='key')
    assert [spool['in'].dequeue(one)[0] for one in spool['in'].files] == ['two']


def test_a_damaged_marker_lets_the_message_in(spool):
    spool['in'].enqueue('one', dedupe_key='key')
    [marker] = Path(spool.path('.dedupe@in')).glob('*.pck')
    marker.write_bytes(b'\xff\x00')
    spool['in'].enqueue('two', dedupe_key='key')
    assert len(spool['in'].files) == 2


def test_through_exchanges_each_queue_is_asked_for_itself(spool):
    assert spool.publish('one', routing_key='in', dedupe_key='key') == spool.publish(
        'two', routing_key='in', dedupe_key='key'
    )


def test_a_queue_without_a_spool_does_not_pretend(tmp_path):
    queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(durability='lazy'))
    with pytest.raises(QueueError, match='Spool'):
        queue.enqueue('one', dedupe_key='key')
    assert queue.get_files() == []


def test_the_directories_of_markers_are_no_queues(spool):
    spool['in'].enqueue('one', dedupe_key='key')
    assert spool.queue_names() == ['bad', 'in']


def emitting(spool, *keys, queue='out', **options):
    """Run a runner that sends each of its messages on, with these keys one after the other."""

    def dispose(runner, msg, msgdata):
        for key in keys:
            runner.emit(queue, f'{msg} {key}', msgdata, dedupe_key=key)

    make_runner(spool, dispose, **options).run(until_empty=True)


def contents(spool, queue):
    return [spool[queue].take().msg for _ in spool[queue].files]


@pytest.mark.parametrize('batch_size', [1, 8])
def test_what_runners_emit_with_a_key_is_stored_once(tmp_path, batch_size):
    spool = Spool(tmp_path / 'spool', 'lazy')
    spool['out'].enqueue('before', dedupe_key='b')
    spool['in'].enqueue_many(['one', 'two'])
    emitting(spool, 'a', 'b', 'c', 'a', batch_size=batch_size)
    assert contents(spool, 'out') == ['before', 'one a', 'one c']
    assert spool['in'].get_files() == []
    spool['out'].enqueue('later', dedupe_key='c')
    assert spool['out'].get_files() == []


def test_the_key_of_an_input_is_not_handed_down_to_what_is_made_from_it(spool):
    """Or of many messages made from one, only the first would be stored."""
    spool['in'].enqueue('x', dedupe_key='key')

    def dispose(runner, msg, msgdata):
        for number in range(3):
            runner.emit('out', number, msgdata)

    make_runner(spool, dispose).run(until_empty=True)
    assert contents(spool, 'out') == [0, 1, 2]


def test_runners_that_emit_the_same_keys_in_other_orders_do_not_wait_for_each_other(tmp_path):
    queue = Spool(tmp_path, 'lazy')['in']
    queue.enqueue_many(range(100))

    def work(keys):
        emitting(Spool(tmp_path, 'lazy'), *keys, batch_size=5)

    keys = [str(number) for number in range(30)]
    with Child(lambda: work(keys)) as one, Child(lambda: work(keys[::-1])) as other:
        one.join()
        other.join()
    assert len(Spool(tmp_path)['out'].files) == 30


def test_a_runner_that_dies_at_any_rename_has_finished_its_input_and_stored_message_and_key_or_neither(
    tmp_path,
):
    died = 0
    for number in range(1, 24):
        home = tmp_path / str(number)
        Spool(home, 'lazy')['in'].enqueue('x')
        with Child(partial(emit_and_die, home, number)) as child:
            child.wait()
            died += child.status != 0
        spool = Spool(home, 'lazy')
        spool.recover()
        spool['in'].recover()
        emitting(spool, 'a', 'b')
        spool['out'].enqueue('x a', dedupe_key='a')
        assert sorted(contents(spool, 'out')) == ['x a', 'x b'], f'died at rename {number}'
    assert died >= 6


def emit_and_die(home, number):
    emitting(Spool(home, 'lazy', disk=DiesAtRename(number)), 'a', 'b')


def test_a_message_with_a_key_goes_to_all_queues_of_an_exchange_or_to_none(tmp_path, clock):
    (tmp_path / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = spool\n[queue.a]\n[queue.b]\nmax_messages = 1\n'
    )
    (tmp_path / 'exchange.cfg').write_text('[exchange.x]\ntype = fanout\nbindings = -> a, b\n')
    spool = Spool.from_config(tmp_path / 'switchboard.cfg', clock=clock)
    spool['b'].enqueue('there already')
    with pytest.raises(QueueFullError):
        spool.publish('one', exchange='x', dedupe_key='key')
    assert spool['a'].files == []
    assert spool['b'].take().msg == 'there already'
    spool['b'].recover(include_own=True)
    spool['b'].finish(spool['b'].files[0])
    first = spool.publish('one', exchange='x', dedupe_key='key')
    assert sorted(first) == ['a', 'b']
    assert spool.publish('two', exchange='x', dedupe_key='key') == first
    assert [contents(spool, queue) for queue in 'ab'] == [['one'], ['one']]


def test_a_marker_in_a_file_that_another_process_has_used_first_is_read(tmp_path):
    class Slow(Disk):
        """Between the making and the locking of a file another producer takes it for a spare, writes into it, and dies."""

        def open_file(self, name, flags, dir_fd=None):
            fd = super().open_file(name, flags, dir_fd)
            if flags & os.O_EXCL:
                os.write(fd, b'x' * 4096)
            return fd

    spool = Spool(tmp_path, 'lazy', disk=Slow())
    assert spool['a'].enqueue('one', dedupe_key='key') == spool['a'].enqueue('two', dedupe_key='key')
    assert contents(spool, 'a') == ['one']


def test_a_key_that_cannot_be_looked_for_keeps_the_input(tmp_path):
    class Deaf(Disk):
        def lock_when_free(self, fd, what, **options):
            if what.startswith('a key'):
                raise OSError(5, 'Input/output error')
            return super().lock_when_free(fd, what, **options)

    spool = Spool(tmp_path, 'lazy', disk=Deaf())
    spool['in'].enqueue('x')
    runner = make_runner(spool, lambda runner, msg, _: runner.emit('out', msg, dedupe_key='k') and None)
    runner.run(once=True)
    assert spool['out'].get_files() == []
    assert len(spool['in'].get_files()) == 1


class TestWhatAPowerCutLeaves:
    """With ``lazy``, names may be there without what the files said: a producer that tries again is not to be told that its message is stored."""

    def marker(self, spool, key):
        return Path(spool.path(f'.dedupe@in/{key_digest(key)}.pck'))

    def stored(self, spool):
        return [spool['in'].dequeue(one)[0] for one in spool['in'].files]

    def test_a_marker_that_was_not_written_and_tells_of_another_key_does_not_count(self, spool):
        first = spool['in'].enqueue('one', dedupe_key='one')
        self.marker(spool, 'one').rename(self.marker(spool, 'two'))
        assert spool['in'].enqueue('two', dedupe_key='two') != first
        assert self.stored(spool) == ['one', 'two']

    @pytest.mark.parametrize(
        'content', [b'', b'1700000000.5 17', b'../../x+0 1700000000000000000', b'\0' * 80]
    )
    def test_a_damaged_marker_does_not_count(self, spool, content):
        first = spool['in'].enqueue('one', dedupe_key='one')
        self.marker(spool, 'one').write_bytes(content)
        assert spool['in'].enqueue('again', dedupe_key='one') != first

    @pytest.mark.parametrize('size', [0, 50])
    def test_the_marker_of_a_message_that_was_not_written_does_not_count(self, spool, size):
        first = spool['in'].enqueue('one' * 100, dedupe_key='one')
        os.truncate(spool.path(f'in/{first}.pck'), size)
        again = spool['in'].enqueue('again', dedupe_key='one')
        assert again != first
        assert spool['in'].take().msg == 'again'
        assert spool['in'].enqueue('again', dedupe_key='one') == again

    def test_neither_does_that_of_one_that_was_found_damaged_and_put_into_the_bad_queue(self, spool):
        first = spool['in'].enqueue('one', dedupe_key='one')
        os.truncate(spool.path(f'in/{first}.pck'), 50)
        assert spool['in'].take() is None
        assert spool['bad'].get_files('.psv') == [first]
        assert spool['in'].enqueue('again', dedupe_key='one') != first

    def test_one_at_work_or_in_the_bad_queue_that_is_whole_was_stored(self, spool):
        first = spool['in'].enqueue('one', dedupe_key='one')
        spool['in'].dequeue(first)
        assert spool['in'].enqueue('again', dedupe_key='one') == first
        spool['in'].finish(first, preserve=True)
        assert spool['in'].enqueue('again', dedupe_key='one') == first

    def test_one_that_is_finished_while_it_is_looked_at_was_stored(self, tmp_path):
        class Finishes(Disk):
            """Has a message finished, and its file written again, between its opening and its reading."""

            def open(self, path, flags, mode=0o777, *, dir_fd=None):
                fd = os.open(path, flags, mode, dir_fd=dir_fd)
                if armed and path == f'{first}.pck':
                    armed.pop()()
                return fd

        armed = []
        spool = Spool(tmp_path / 'spool', 'lazy')
        first = spool['in'].enqueue('one', dedupe_key='one')
        looking = Spool(tmp_path / 'spool', 'lazy', disk=Finishes())

        def finish():
            spool['in'].finish(spool['in'].take().filebase)
            spool['in'].enqueue('another')

        armed.append(finish)
        assert looking['in'].enqueue('again', dedupe_key='one') == first
        assert not armed
        assert self.stored(spool) == ['another']

    def test_a_marker_without_a_name_of_its_own_counts(self, spool):
        first = spool['in'].enqueue('one', dedupe_key='one')
        file = self.marker(spool, 'one')
        file.write_bytes(file.read_bytes().rpartition(b' ')[0])
        assert spool['in'].enqueue('again', dedupe_key='one') == first
