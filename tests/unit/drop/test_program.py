"""The mail servers' door, without a process of its own: what is asked, what is stored, and every failure of the disk."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switchboard import Spool, drop_errors, errors
from switchboard.config import inifile
from switchboard.drop.program import Drop, main
from switchboard.drop.request import DropRequest, find_spool, spool_value
from switchboard.errors import (
    ConfigError,
    ContentDisallowedError,
    MessageTooLargeError,
    QueueDrainingError,
    QueueFullError,
    SwitchboardError,
    UnknownQueueError,
)
from switchboard.message.entry_header import JOINED_BYTES
from switchboard.message.naming import SLICE_DIGITS, digest_of, parse_filebase, slice_digits
from switchboard.spool.active_config import publish_queue_options
from switchboard.store.disk import Disk
from switchboard.testing.faults import FaultyDisk
from tests.helpers.configurations import load
from tests.helpers.processes import in_child, is_asleep
from tests.helpers.waiting import eventually

ROOT = Path(__file__).resolve().parents[3]
RAW = b'Subject: x\r\n\r\nbinary \0\xff\rno end'


@contextmanager
def source(raw: bytes, directory: Path) -> Iterator[int]:
    path = directory / 'message'
    path.write_bytes(raw)
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def drop(
    directory: Path,
    raw: bytes,
    *arguments: str,
    environment: Mapping[bytes, bytes] | None = None,
    disk: Disk | None = None,
) -> str:
    """Do what the program does, and return the entry's filebase."""
    door = Drop(DropRequest(['in', *arguments]), str(directory / 's'), disk or Disk())
    door.check()
    with source(raw, directory) as stdin:
        door.read(stdin)
    door.write_metadata(environment or {})
    door.store(lambda: None)
    return door.filebase


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / 's')
    made['in']
    return made


def stored(spool: Spool, queue: str = 'in') -> tuple[Any, dict[str, Any]]:
    [filebase] = spool[queue].files
    return spool[queue].dequeue(filebase)


def test_the_message_is_stored_byte_for_byte_as_a_mail(spool: Spool, tmp_path: Path) -> None:
    filebase = drop(tmp_path, RAW)
    assert spool['in'].peek(filebase).kind == 'mail'
    msg, msgdata = stored(spool)
    assert msg.as_bytes() == RAW
    assert msgdata == {'version': 3, '_parsemsg': False}


@pytest.mark.parametrize('size', [0, 1, JOINED_BYTES, JOINED_BYTES + 1, 3_000_000])
def test_messages_of_any_size_are_whole(spool: Spool, tmp_path: Path, size: int) -> None:
    raw = os.urandom(size)
    filebase = drop(tmp_path, raw)
    assert spool['in'].peek(filebase).body == raw
    assert spool['in'].peek(filebase).damage is None


def test_the_from_line_goes_into_the_metadata_and_the_rest_stays(spool: Spool, tmp_path: Path) -> None:
    drop(tmp_path, b'From anna@x Sun Nov 22 03:00:00 2026\nFrom is a word\n' + RAW)
    _, msgdata = stored(spool)
    assert msgdata['from_line'] == 'From anna@x Sun Nov 22 03:00:00 2026'
    assert msgdata['sender'] == 'anna@x'
    assert spool['in'].peek(spool['in'].get_files('.bak')[0]).body == b'From is a word\n' + RAW


def test_the_file_is_what_python_writes_for_the_same_message(spool: Spool, tmp_path: Path) -> None:
    filebase = drop(tmp_path, RAW, '-f', 'ä@x', '-r', 'b@y', '-m', 'list=l')
    entry = spool['in'].peek(filebase)
    metadata = {'sender': 'ä@x', 'recipients': ['b@y'], 'list': 'l'}
    assert entry.metadata == json.dumps(metadata, separators=(',', ':')).encode()


def test_the_environment_is_kept(spool: Spool, tmp_path: Path) -> None:
    drop(tmp_path, RAW, environment={b'SENDER': b'\xff@x', b'RECIPIENT': b'b@y'})
    assert stored(spool)[1] | {'version': 3} == {
        'sender': '\\xff@x',
        'recipients': ['b@y'],
        'version': 3,
        '_parsemsg': False,
    }


def test_an_order_key_chooses_the_slice_as_it_does_in_python(spool: Spool, tmp_path: Path) -> None:
    first, second = (drop(tmp_path, raw, '-m', 'order_key=garden') for raw in (b'a', b'b'))
    assert digest_of(first)[:SLICE_DIGITS] == digest_of(second)[:SLICE_DIGITS] == slice_digits('garden')
    assert first < second


def test_times_and_priorities_are_kept_by_the_name(spool: Spool, tmp_path: Path) -> None:
    before_ns = time.time_ns()
    name = parse_filebase(drop(tmp_path, RAW, '-m', 'delay=3600', '-m', 'priority=7'))
    assert name is not None
    assert 3599 < (name.when_ns - before_ns) / 1e9 < 3700
    assert name.priority == 7
    assert spool['in'].files == []
    name = parse_filebase(drop(tmp_path, RAW, '-m', 'not_before=4000000000'))
    assert name is not None
    assert name.when_ns == 4_000_000_000 * 10**9


def test_a_time_to_live_becomes_a_time_of_expiry(spool: Spool, tmp_path: Path) -> None:
    filebase = drop(tmp_path, RAW, '-m', 'ttl=60')
    expires = json.loads(spool['in'].peek(filebase).metadata)['expires']
    assert 50 < expires - time.time() < 70


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['-x', 'in'],
        ['--help'],
        ['in', '-f'],
        ['in', '--sender'],
        ['in', '-m', 'novalue'],
        ['in', '-m', '=x'],
        ['in', '-m', '_private=x'],
        ['in', '-m', 'version=4'],
        ['in', '-m', 'priority=10'],
        ['in', '-m', 'delay=soon'],
        ['in', '-m', 'delay=nan'],
        ['in', '-m', 'ttl=-1'],
        ['../etc'],
        ['.run'],
        [''],
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SwitchboardError):
        DropRequest(arguments)


def test_options_may_be_written_as_mail_servers_do() -> None:
    request = DropRequest(
        ['in', '-fa@x', '--recipient=b@x', '-r', '-odd@x', '--sender=', '--', '-c@x', 'd@x']
    )
    assert request.sender == ''
    assert request.recipients == ['b@x', '-odd@x', '-c@x', 'd@x']
    assert DropRequest(['-f', '', 'in']).sender == ''
    assert DropRequest(['in']).sender is None


def test_bytes_in_arguments_that_are_no_utf8_become_readable() -> None:
    assert DropRequest(['in', '-f', os.fsdecode(b'\xff@x')]).sender == '\\xff@x'


def test_the_spool_is_named_or_found_through_the_configuration(tmp_path: Path) -> None:
    def found(*arguments: str, **environment: str) -> str:
        encoded = {key.encode(): value.encode() for key, value in environment.items()}
        return find_spool(DropRequest(['in', *arguments]), encoded, str(tmp_path), Disk())

    (tmp_path / 'etc').mkdir()
    (tmp_path / 'etc' / 'switchboard.cfg').write_text('[switchboard]\nspool = ../default\n')
    (tmp_path / 'other.cfg').write_text('[switchboard]\nspool = /other\n')
    other = str(tmp_path / 'other.cfg')
    assert found() == f'{tmp_path}/default'
    assert found(SWITCHBOARD_CONFIG=other) == '/other'
    assert found(SWITCHBOARD_CONFIG=other, SWITCHBOARD_SPOOL='/from-environment') == '/from-environment'
    assert found('-C', other, SWITCHBOARD_SPOOL='/from-environment') == '/other'
    assert found('-s', '/argument', '-C', other, SWITCHBOARD_SPOOL='/x') == '/argument'


@pytest.mark.parametrize(
    'text',
    [
        '[switchboard]\nspool = x',
        '\ufeff; a comment\n[other]\nspool = no\n[ switchboard ]\n  # spool = no\n  spool=x  ; here\n',
        '[switchboard]\nspools = no\nspool\t=\t./x\r\n',
        '[switchboard]\nspool =\n    x\n',
        '[switchboard]\nspool = x\t;\there\n',
        '[switchboard]\nspool =\t; here\n\t# and\n\n\tx ;\n',
        '[switchboard]\ndurability =\n  spool = no\nspool = x\n',
    ],
)
def test_the_configuration_is_read_as_the_configuration_reads_itself(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'switchboard.cfg'
    path.write_text(text)
    assert find_spool(DropRequest(['in', '-C', str(path)]), {}, '', Disk()) == str(tmp_path / 'x')


@given(
    st.lists(
        st.tuples(
            st.sampled_from(['', '', ' ', '\t', '    ']),
            st.sampled_from(
                [
                    '[switchboard]',
                    '[other]',
                    '[ switchboard ]',
                    'spool = x',
                    'spool=',
                    'spool',
                    'x',
                    'y;z',
                    ';',
                    '# no',
                    'a = b',
                    '[',
                    ']',
                ]
            ),
            st.sampled_from(['', ' ; c', '\t;', ';c', ' ;c', '\t;\tc', ' \\; d', '\r', ' ']),
        ).map(''.join),
        max_size=8,
    ).map('\n'.join)
)
def test_the_door_reads_the_key_as_the_configuration_does(text: str) -> None:
    problems = inifile.Problems()
    sections = {section.name: section for section in inifile.parse_ini(text.encode(), 'x', problems)}
    option = sections['switchboard'].options.get('spool') if 'switchboard' in sections else None
    if not problems.errors and (option is None or len(option.lines) <= 1):  # the master takes no other
        assert spool_value(text.encode()) == ((option.value or None) if option else None)


def test_the_sample_configuration_names_the_same_spool_to_both(tmp_path: Path) -> None:
    config = load(tmp_path, '', head=(ROOT / 'etc' / 'switchboard.cfg').read_text())
    assert find_spool(DropRequest(['in', '-C', str(config.path)]), {}, '', Disk()) == str(config.spool)


@pytest.mark.parametrize(
    'text', ['', 'spool = x', '[other]\nspool = x', '[switchboard]\nspool =\n', '\0\xff']
)
def test_a_configuration_that_names_no_spool_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / 'switchboard.cfg'
    path.write_text(text, encoding='latin-1')
    with pytest.raises(ConfigError):
        find_spool(DropRequest(['in', '-C', str(path)]), {}, '', Disk())


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo], ids=['directory', 'pipe'])
def test_a_configuration_that_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    place = tmp_path / 'switchboard.cfg'
    make(place)
    with pytest.raises(ConfigError, match=f'^{place}: cannot be read: '):
        find_spool(DropRequest(['in', '-C', str(place)]), {}, '', Disk())


def test_where_no_configuration_is_named_or_found_it_says_how_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'switchboard.cfg').write_text('[switchboard]\nspool = spool\n')
    monkeypatch.chdir(tmp_path)  # which is not searched
    with pytest.raises(ConfigError, match=r'no other is named: give -C CONFIG or -s SPOOL$'):
        find_spool(DropRequest(['in']), {}, str(tmp_path / 'checkout'), Disk())


def test_a_queue_that_is_declared_is_made_and_others_are_refused(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\n'))
    drop(tmp_path, RAW)
    assert len(list((tmp_path / 's' / 'in').iterdir())) == 1
    publish_queue_options(load(tmp_path, '[queue.other]\n'))
    with pytest.raises(UnknownQueueError):
        drop(tmp_path, RAW)


def test_without_a_configuration_a_queue_must_be_there(spool: Spool, tmp_path: Path) -> None:
    door = Drop(DropRequest(['out']), spool.directory, Disk())
    with pytest.raises(UnknownQueueError):
        door.check()
    assert not (tmp_path / 's' / 'out').exists()


def test_nothing_can_be_dropped_into_bad(spool: Spool) -> None:
    spool['bad']
    with pytest.raises(UnknownQueueError):
        Drop(DropRequest(['bad']), spool.directory, Disk()).check()


def test_a_queue_that_accepts_no_mail_gets_none(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\naccept = json\n'))
    with pytest.raises(ContentDisallowedError):
        drop(tmp_path, RAW)


def test_a_queue_that_is_drained_lets_nothing_in_and_one_that_is_paused_does(
    spool: Spool, tmp_path: Path
) -> None:
    spool.drain('in')
    with pytest.raises(QueueDrainingError):
        drop(tmp_path, RAW)
    spool.resume('in')
    spool.pause('in')
    drop(tmp_path, RAW)
    assert len(spool['in'].get_files()) == 1


def test_a_message_that_is_too_long_is_refused_before_it_is_read_to_its_end(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\nmax_body = 100000\n'))
    door = Drop(DropRequest(['in']), str(tmp_path / 's'), Disk())
    door.check()
    with source(b'x' * 10_000_000, tmp_path) as stdin:
        with pytest.raises(MessageTooLargeError):
            door.read(stdin)
        assert os.lseek(stdin, 0, os.SEEK_CUR) < 1_000_000


def test_a_message_may_be_as_long_as_the_limit_and_the_from_line_does_not_count(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, '[queue.in]\nmax_body = 100\n'))
    drop(tmp_path, b'From a@x Sun Nov 22 03:00:00 2026\n' + b'x' * 100)
    with pytest.raises(MessageTooLargeError):
        drop(tmp_path, b'From a@x Sun Nov 22 03:00:00 2026\n' + b'x' * 101)


@pytest.mark.parametrize('limit', ['max_messages = 1', 'max_bytes = 200', 'min_free_space = 1000T'])
def test_a_queue_that_is_full_refuses(tmp_path: Path, limit: str) -> None:
    config = load(tmp_path, f'[queue.in]\n{limit}\n')
    publish_queue_options(config)

    def fill() -> None:
        for _ in range(2):
            drop(tmp_path, b'x' * 60)

    with pytest.raises(QueueFullError):
        fill()
    assert len(Spool.from_config(config)['in'].files) < 2


@pytest.mark.parametrize('overflow', ['reject', 'drop-oldest', 'dead-letter'])
def test_what_could_never_fit_is_refused_before_anything_makes_room_for_it(
    tmp_path: Path, overflow: str
) -> None:
    config = load(tmp_path, f'[queue.in]\nmax_bytes = 1000\noverflow = {overflow}\n')
    publish_queue_options(config)
    for _ in range(5):
        drop(tmp_path, b'x' * 60)
    with pytest.raises(MessageTooLargeError):
        drop(tmp_path, b'x' * 2000)
    assert len(Spool.from_config(config)['in'].files) == 5


@pytest.mark.parametrize('size', [10, JOINED_BYTES * 2])
@pytest.mark.parametrize('error', [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_whatever_call_fails_the_message_is_not_stored_or_the_answer_is_success(
    tmp_path: Path, size: int, error: int
) -> None:
    for number in itertools.count(1):
        home = tmp_path / str(number)
        home.mkdir()
        spool = Spool(home / 's', durability='lazy')
        spool['in']
        disk = FaultyDisk(fail_at=number, error=error)
        try:
            answer = drop(home, b'x' * size, disk=disk)
        except (SwitchboardError, OSError):
            answer = ''
        assert spool['in'].get_files() == ([answer] if answer else []), f'call {number}: {disk.failed_call}'
        if answer:
            assert spool['in'].peek(answer).damage is None
        if not disk.failed_call:
            break
    assert number > 15


@pytest.mark.parametrize(('option', 'named'), [('-s', 's'), ('-C', 'switchboard.cfg')])
def test_whatever_call_fails_a_relative_spool_is_named_as_an_absolute_one_is(
    tmp_path: Path, option: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(number: int, home: Path, path: str | Path) -> tuple[str, str]:
        """:return: what is said, and which call it was that failed."""
        _ = Spool(home / 's', durability='lazy')['in']
        (home / 'switchboard.cfg').write_text('[switchboard]\nspool = s\n')
        monkeypatch.chdir(home)
        disk = FaultyDisk()
        request = DropRequest(['in', option, str(path)])
        place = find_spool(request, {}, '', disk)
        disk.arm(number)
        try:
            door = Drop(request, place, disk)
            door.check()
            door.write_metadata({})
            door.store(lambda: None)
        except (SwitchboardError, OSError) as error:
            said = str(error).replace(str(home), 'HOME')
            return re.sub(r'\d+[.\d]*\+\w+|[0-9a-f]{16,}', 'NAME', said), disk.failed_call
        return '', disk.failed_call

    for number in itertools.count(1):
        relative, absolute = tmp_path / f'{number}', tmp_path / f'{number} absolute'
        said = refused(number, relative, named)
        assert said == refused(number, absolute, absolute / named)
        if said == ('', ''):
            break
    assert number > 15


def test_a_relative_spool_is_named_where_there_is_no_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'gone').mkdir()
    monkeypatch.chdir(tmp_path / 'gone')
    (tmp_path / 'gone').rmdir()
    with pytest.raises(FileNotFoundError, match=r"'s'$"):
        Drop(DropRequest(['in']), 's', Disk())


def test_what_must_not_be_is_taken_back_at_the_last_moment(spool: Spool, tmp_path: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    door = Drop(DropRequest(['in']), spool.directory, Disk())
    door.check()
    with source(RAW, tmp_path) as stdin:
        door.read(stdin)
    door.write_metadata({})
    with pytest.raises(KeyboardInterrupt):
        door.store(stop)
    assert spool['in'].get_files() == []


def test_a_mail_for_a_spool_without_spares_loads_nothing_more(tmp_path: Path) -> None:
    assert Spool(tmp_path / 'spool')['in'].files == []
    code = (
        'import os, sys; from switchboard.drop.program import main; before = set(sys.modules); '
        'line = main(sys.argv[1:], root="", shell=os.getppid()); print([line, *sorted(set(sys.modules) - before)])'
    )
    run = subprocess.run(
        [sys.executable, '-c', code, 'in', '-s', str(tmp_path / 'spool')],
        input='x',
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert run.stdout.strip() == "['']"


def test_it_loads_nothing_that_is_slow_to_load() -> None:
    code = 'import sys; before = set(sys.modules); import switchboard.drop.program; print(*sorted(set(sys.modules) - before))'
    run = subprocess.run(
        [sys.executable, '-I', '-S', '-c', f'import sys; sys.path.insert(0, {str(ROOT)!r}); {code}'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 'switchboard.store.limits' not in run.stdout.split(), 'few queues have limits'
    assert 'switchboard.errors' not in run.stdout.split(), 'to make a class takes long'
    loaded = {name for name in run.stdout.split() if not name.startswith('switchboard')}
    assert loaded <= {
        *('__future__', '_collections_abc', '_json', '_stat', 'errno', 'fcntl', 'genericpath', 'itertools'),
        *('os', 'os.path', 'posixpath', 'stat', 'zlib', '_signal'),
        *('_abc', 'abc'),  # of `os`, which Python 3.14 has not loaded by itself
    }


def test_each_error_that_the_door_makes_is_one_that_it_may_meet_and_is_found_with_all_others() -> None:
    made = {name for name, each in vars(drop_errors).items() if isinstance(each, type)}
    modules = [
        path for room in ('drop', 'store', 'message') for path in (ROOT / 'switchboard' / room).glob('*.py')
    ]
    texts = [text for path in modules if 'switchboard.drop_errors' in (text := path.read_text())]
    assert {name for name in made if any(name in text for text in texts)} == made
    everywhere = {name: each for name, each in vars(errors).items() if isinstance(each, type)}
    assert made < set(everywhere)
    assert {each.__module__ for each in everywhere.values()} == {'switchboard.errors'}


def test_a_signal_that_interrupts_no_read_is_heard_in_it(tmp_path: Path) -> None:
    def drop_and_wait() -> str:
        reading, _writing = os.pipe()
        program, is_deaf = threading.get_native_id(), threading.Event()

        def is_reading() -> bool:
            return is_asleep(program) and signal.getsignal(signal.SIGTERM) != signal.SIG_DFL

        def end() -> None:
            is_deaf.wait()
            # It is taken in this thread, as one that comes before the read is taken before it: the kernel wakes nobody.
            eventually(is_reading, 'reading')
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=end).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        is_deaf.set()
        return main(['in'], stdin=reading, environment={b'SWITCHBOARD_SPOOL': os.fsencode(tmp_path)})

    (tmp_path / 'in').mkdir()
    assert in_child(drop_and_wait) == 'stopped before the message was stored'
