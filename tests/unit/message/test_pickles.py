"""Nothing that a file says is executed: pickles are read where they are named, and make listed classes only."""

from __future__ import annotations

import email
import email.policy
import pickle
import subprocess
import sys
from datetime import datetime, timedelta
from email.message import EmailMessage, Message
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from switchboard import Switchboard
from switchboard.errors import ConfigError, ContentDisallowedError, CorruptEntryError, UnserializableError
from switchboard.message.entry import read_entry
from switchboard.message.pickles import MailmanSerializer, PickleSerializer
from switchboard.options import QueueOptions

FILEBASE = '1732242000.5+0123456789012345678901234567890123456789'


class Job:
    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


class Bomb:
    """Its pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), 'w')


JOB = f'{__name__}:Job'


def mailman_file(msg: Any, metadata: Any, protocol: int = 4) -> bytes:
    return pickle.dumps(msg, protocol) + pickle.dumps(metadata, protocol)


def drop(path: Path, content: bytes) -> str:
    path.mkdir(exist_ok=True)
    (path / f'{FILEBASE}.pck').write_bytes(content)
    return FILEBASE


class TestNothingIsExecuted:
    @pytest.fixture
    def trace(self, tmp_path: Path) -> Path:
        return tmp_path / 'trace'

    @pytest.fixture
    def bomb(self, trace: Path) -> bytes:
        content = pickle.dumps(Bomb(trace))
        subprocess.run(
            [sys.executable, '-c', 'import sys, pickle; pickle.loads(sys.stdin.buffer.read())'],
            input=content,
            check=True,
        )
        trace.unlink()  # so it does make a file, where it is executed
        return content

    @pytest.mark.parametrize('accept', [('mail',), ('mail', 'mailman'), ('mail', 'pickle', 'mailman')])
    def test_a_dropped_pickle_goes_to_bad_and_runs_in_no_step_of_its_life(
        self, tmp_path: Path, bomb: bytes, trace: Path, accept: tuple[str, ...]
    ) -> None:
        filebase = drop(tmp_path / 'in', bomb + pickle.dumps({}))
        queue = Switchboard('in', tmp_path / 'in', options=QueueOptions(accept=accept))
        assert queue.files == [filebase]
        assert queue.history(filebase) == []
        assert queue.peek(filebase).kind == 'mailman'
        with pytest.raises(CorruptEntryError if 'mailman' in accept else ContentDisallowedError):
            queue.dequeue(filebase)
        bad = Switchboard('bad', tmp_path / 'bad')
        assert bad.get_files('.psv') == [filebase]
        assert bad.peek(filebase).body.startswith(bomb)
        assert not trace.exists()

    def test_nor_does_it_in_recovery(self, tmp_path: Path, bomb: bytes, trace: Path) -> None:
        filebase = drop(tmp_path / 'in', bomb + bomb)
        (tmp_path / 'in' / f'{filebase}.pck').rename(tmp_path / 'in' / f'{filebase}.bak')
        queue = Switchboard('in', tmp_path / 'in', recover=True)
        assert queue.files == [filebase]
        assert not trace.exists()

    @pytest.mark.parametrize('name', ['os:system', 'builtins:eval', 'builtins:getattr', 'builtins:object'])
    def test_no_function_is_called_and_no_other_class_is_made(self, name: str) -> None:
        module, _, function = name.partition(':')
        content = f'c{module}\n{function}\n(S"0"\ntR.'.encode()
        for serializer in (PickleSerializer(), PickleSerializer((JOB,)), MailmanSerializer()):
            with pytest.raises(CorruptEntryError, match='not among the listed'):
                serializer.loads(content)

    def test_a_listed_name_must_be_a_class(self) -> None:
        with pytest.raises(CorruptEntryError, match='not a class'):
            PickleSerializer(('os:getcwd',)).loads(b'cos\ngetcwd\n(tR.')

    def test_a_module_that_is_not_listed_is_not_imported(self) -> None:
        with pytest.raises(CorruptEntryError):
            PickleSerializer().loads(b'cantigravity\nfly\n(tR.')
        assert 'antigravity' not in sys.modules

    def test_persistent_references_are_not_read(self) -> None:
        with pytest.raises(CorruptEntryError, match='persistent'):
            PickleSerializer().loads(b'Pname\n.')


class TestPickle:
    def test_listed_classes_and_plain_values_come_back(self, tmp_path: Path) -> None:
        options = QueueOptions(accept=('pickle', 'json'), pickle_classes=(JOB,))
        queue = Switchboard('in', tmp_path / 'in', options=options)
        for msg in (Job('a'), (1, 'a', None), (Job('b'), [1, {2.5: b'x'}])):
            assert queue.dequeue(queue.enqueue(msg))[0] == msg

    def test_what_could_not_be_read_is_not_accepted(self) -> None:
        serializer = PickleSerializer((JOB,))
        for msg in (Fraction(1, 2), lambda: None, [Job('x'), Fraction(1)]):
            with pytest.raises(UnserializableError, match='cannot be pickled here'):
                serializer.dumps(msg)

    @pytest.mark.parametrize('content', [b'', b'x', pickle.dumps([1])[:-1], b'\x80\x04\x95' + b'\xff' * 8])
    def test_a_torn_pickle_is_damage(self, content: bytes) -> None:
        with pytest.raises(CorruptEntryError):
            PickleSerializer().loads(content)

    @pytest.mark.parametrize('name', ['Job', 'a.b.Job', ':Job', 'a:'])
    def test_a_class_is_named_by_module_and_class(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r'package\.module:Class') as caught:
            PickleSerializer((name,))
        assert caught.value.key == 'pickle_classes'


class TestMailmansFiles:
    @pytest.fixture
    def queue(self, tmp_path: Path) -> Switchboard:
        (tmp_path / 'in').mkdir()
        return Switchboard('in', tmp_path / 'in', options=QueueOptions(accept=('mail', 'mailman')))

    @pytest.mark.parametrize('protocol', [2, 3, 4, 5])
    @pytest.mark.parametrize('message_class', [Message, EmailMessage])
    def test_message_and_metadata_are_read(
        self, queue: Switchboard, tmp_path: Path, protocol: int, message_class: type[Message]
    ) -> None:
        modern = message_class is EmailMessage
        policy = email.policy.default if modern else email.policy.compat32
        msg = email.message_from_bytes(b'Subject: moved over\n\nbody\n', policy=policy)
        metadata: dict[str, Any] = {'listid': 'a.example.com', 'version': 2, 'recipients': {'b'}}
        if protocol > 2:  # before, bytes are made by a call
            metadata['received_time'] = datetime(2024, 1, 1)  # noqa: DTZ001  as Mailman has it
        back, msgdata = queue.dequeue(drop(tmp_path / 'in', mailman_file(msg, metadata, protocol)))
        assert type(back) is message_class
        assert back['subject'] == 'moved over'
        assert msgdata == {**metadata, 'version': 3, '_parsemsg': False}

    def test_a_message_that_was_stored_as_text_is_parsed(self, queue: Switchboard, tmp_path: Path) -> None:
        for content in ('Subject: x\n\nbody', b'Subject: x\n\nbody'):
            filebase = drop(tmp_path / 'in', mailman_file(content, {'_parsemsg': True}))
            assert queue.dequeue(filebase)[0]['subject'] == 'x'
            queue.finish(filebase)

    def test_mailmans_own_class_is_read_as_the_standard_librarys(self) -> None:
        content = pickle.dumps(Message(), 2).replace(b'cemail.message\n', b'cmailman.email.message\n')
        assert b'mailman' in content
        assert type(MailmanSerializer().loads(content + pickle.dumps({}))) is Message

    @pytest.mark.parametrize(
        'content',
        [
            pickle.dumps(Message()),
            mailman_file(Message(), ['no dictionary']),
            mailman_file(Message(), {})[:-1],
            mailman_file(Message(), {'wait': timedelta(1), 'x': Fraction(1)}),
        ],
    )
    def test_what_is_not_whole_or_holds_more_goes_to_bad(
        self, queue: Switchboard, tmp_path: Path, content: bytes
    ) -> None:
        filebase = drop(tmp_path / 'in', content)
        with pytest.raises(CorruptEntryError):
            queue.dequeue(filebase)
        assert Switchboard('bad', tmp_path / 'bad').get_files('.psv') == [filebase]

    def test_they_get_a_history_and_are_still_read(self, queue: Switchboard, tmp_path: Path) -> None:
        filebase = drop(tmp_path / 'in', mailman_file(Message(), {'tries': 1}))
        queue.dequeue(filebase)
        queue.release(filebase, record={'event': 'kept', 'set': {'tries': 2}})
        assert queue.dequeue(filebase)[1]['tries'] == 2
        assert [record['event'] for record in queue.history(filebase)] == ['kept']
        assert queue.metadata_changes(filebase, {'tries': 3}) == {'set': {'tries': 3}}

    def test_none_is_written(self) -> None:
        with pytest.raises(UnserializableError, match='read, not written'):
            MailmanSerializer().dumps(Message())

    def test_a_file_that_starts_like_one_is_told_by_two_bytes(self) -> None:
        assert read_entry(FILEBASE, b'\x80\x04x').kind == 'mailman'
        assert read_entry(FILEBASE, b'\x80\x01x').kind == read_entry(FILEBASE, b'\x04\x80').kind == 'unknown'
