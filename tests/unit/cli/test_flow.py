"""``hold``, ``release``, ``edit``, ``drain --wait``, ``tidy`` and ``scale``: what operators do to what waits."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.commands.edit import RULE, from_text, to_text
from switchboard.cli.exits import Exit
from switchboard.message.naming import ON_HOLD_PREFIX
from tests.helpers.commands import at_work, fail, succeed, switchboard


class TestHold:
    def test_a_held_entry_is_taken_by_nobody_until_it_is_released_to_its_old_place(
        self, spool: Spool
    ) -> None:
        first, second = spool['in'].enqueue('first'), spool['in'].enqueue('second')
        ran = succeed('-s', spool.directory, 'hold', first, '--reason', 'ask Ann')
        held = ran.out.rpartition('/')[2].strip()
        assert held.startswith(ON_HOLD_PREFIX)
        queue = Spool(spool.directory, durability='lazy')['in']
        taken = queue.take()
        assert taken is not None
        assert taken.msg == 'second'
        assert queue.take() is None
        queue.release(second)
        assert succeed('-s', spool.directory, 'release', held).out == f'in/{held} -> in/{first}\n'
        assert spool['in'].files == [first, second]
        events = [(one['event'], one.get('reason')) for one in spool['in'].history(first)]
        assert events == [('held', 'ask Ann'), ('let go', None)]

    def test_it_is_shown_as_held(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        spool['in'].enqueue('y', delay=60)
        succeed('-s', spool.directory, 'hold', filebase)
        counted = succeed('-s', spool.directory, 'queues', '--json').objects[0]
        assert (counted['held'], counted['delayed'], counted['waiting']) == (1, 1, 0)
        assert counted['next_due_s'] < 61
        shown = succeed('-s', spool.directory, 'ls', 'in', '--state', 'held', '--json').objects
        assert [one['state'] for one in shown] == ['held']
        assert 'held' in succeed('-s', spool.directory, 'show', ON_HOLD_PREFIX).out

    def test_a_delayed_entry_is_delayed_again_afterwards(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('later', delay=60)
        succeed('-s', spool.directory, 'hold', filebase)
        succeed('-s', spool.directory, 'release', '--all', '-y')
        assert spool['in'].get_files() == [filebase]
        assert spool['in'].take() is None

    def test_a_selection_holds_what_waits_and_releases_what_is_held(self, spool: Spool) -> None:
        for number in range(3):
            spool['in'].enqueue(number, sender='eve' if number else 'ann')
        succeed('-s', spool.directory, 'hold', '-q', 'in', '-m', 'sender=eve', '-y')
        assert len(spool['in'].files) == 1
        assert (
            succeed('-s', spool.directory, 'release', '--all', '-y').err
            == 'switchboard: released 2 entries\n'
        )
        assert len(spool['in'].files) == 3

    def test_retrying_all_does_not_let_go_what_somebody_holds(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        succeed('-s', spool.directory, 'hold', filebase)
        succeed('-s', spool.directory, 'retry', '--all', '-q', 'in', '-y')
        assert spool['in'].files == []

    def test_it_outlives_its_time_while_it_is_held(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x', ttl=0)
        succeed('-s', spool.directory, 'hold', filebase)
        assert json.loads(succeed('-s', spool.directory, 'tidy', '--json').out)['expired'] == 0
        succeed('-s', spool.directory, 'release', '--all', '-y')
        assert spool['in'].take() is None
        assert spool['bad'].get_files('.psv') == [filebase]

    def test_what_is_at_work_is_not_held_and_what_is_not_held_not_released(self, spool: Spool) -> None:
        with at_work(spool, 'in', 'x') as filebase:
            ran = switchboard('-s', spool.directory, 'hold', filebase)
            assert ran.status == Exit.TEMPORARY
            assert 'a process is working on it' in ran.err
        ready = spool['in'].enqueue('y')
        assert 'it is not held' in switchboard('-s', spool.directory, 'release', ready).err
        held = succeed('-s', spool.directory, 'hold', ready).out.rpartition('/')[2].strip()
        assert 'held already' in switchboard('-s', spool.directory, 'hold', held).err


class TestEdit:
    def test_metadata_are_set_and_taken_out_and_the_entry_keeps_its_place(self, spool: Spool) -> None:
        first = spool['in'].enqueue('first', colour='red', size=3)
        spool['in'].enqueue('second')
        ran = succeed('-s', spool.directory, 'edit', first, '--set', 'size:=4', '--unset', 'colour')
        again = ran.out.rpartition('/')[2].strip()
        assert spool['in'].files[0] == again
        msg, msgdata = spool['in'].dequeue(again)
        assert (msg, msgdata['size'], 'colour' in msgdata) == ('first', 4, False)
        (record,) = spool['in'].history(again)
        assert (record['event'], record['metadata'], record['body']) == ('edited', ['colour', 'size'], False)

    def test_a_body_comes_from_a_file_byte_by_byte(self, spool: Spool, tmp_path: Path) -> None:
        filebase = spool['in'].enqueue(b'old')
        (tmp_path / 'new').write_bytes(b'\xff\r\nnew')
        succeed('-s', spool.directory, 'edit', filebase, '--body', tmp_path / 'new')
        [again] = spool['in'].files
        assert spool['in'].dequeue(again)[0] == b'\xff\r\nnew'

    def test_a_body_that_no_runner_could_read_is_a_mistake_of_the_editor_and_not_of_the_entry(
        self, spool: Spool
    ) -> None:
        filebase = spool['in'].enqueue({'a': 1})
        ran = switchboard('-s', spool.directory, 'edit', filebase, '--body', '-', input=b'{"a": 2')
        assert ran.status == Exit.DATA
        assert ran.err.startswith('switchboard: in: this is no json any more: body: ')
        assert 'show --raw' not in ran.err
        assert spool['in'].files == [filebase]

    def test_a_text_whose_body_no_runner_could_read_is_kept_whole(
        self, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filebase = spool['in'].enqueue({'a': 1}, dog='Rex')
        script = tmp_path / 'ed'
        script.write_text('#!/bin/sh\necho "}}" >> "$1"\n')
        script.chmod(0o755)
        monkeypatch.setenv('VISUAL', str(script))
        ran = switchboard('-s', spool.directory, 'edit', filebase)
        assert (ran.status, ran.err.count('no json any more')) == (Exit.DATA, 1)
        assert 'Rex' in Path(ran.err.rpartition(' ')[2].strip()).read_text()

    def test_one_of_the_bad_queue_goes_back_with_its_failures_forgiven(self, spool: Spool) -> None:
        filebase = fail(spool, 'in', {'to': 'anne@wrong.example'})
        succeed('-s', spool.directory, 'edit', filebase, '--body', '-', input=b'{"to": "anne@example.com"}')
        assert spool['bad'].get_files('.psv') == []
        [again] = spool['in'].files
        assert spool['in'].dequeue(again)[0] == {'to': 'anne@example.com'}
        assert [one['event'] for one in spool['in'].history(again)] == [
            'failed',
            'preserved',
            'edited',
            'retried',
        ]

    def test_one_whose_time_was_over_does_not_come_back_at_once(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x', ttl=0)
        assert spool['in'].take() is None
        succeed('-s', spool.directory, 'edit', filebase, '--set', 'a=b')
        taken = spool['in'].take()
        assert taken is not None
        assert taken.msgdata['a'] == 'b'

    def test_a_delayed_or_held_entry_stays_so(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x', delay=60)
        succeed('-s', spool.directory, 'edit', filebase, '--set', 'a=b')
        assert spool['in'].take() is None
        succeed('-s', spool.directory, 'hold', '--all', '-y')
        succeed('-s', spool.directory, 'edit', ON_HOLD_PREFIX, '--set', 'a=c')
        assert succeed('-s', spool.directory, 'ls', 'in', '--json').objects[0]['state'] == 'held'
        assert spool['in'].take() is None
        [back] = [
            line.rpartition('/')[2]
            for line in succeed('-s', spool.directory, 'release', ON_HOLD_PREFIX).lines
        ]
        assert back.partition('+')[0] == filebase.partition('+')[0]

    def test_a_priority_moves_it(self, spool: Spool) -> None:
        spool['in'].enqueue('first')
        second = spool['in'].enqueue('second')
        succeed('-s', spool.directory, 'edit', second, '--set', 'priority:=9')
        taken = spool['in'].take()
        assert taken is not None
        assert taken.msg == 'second'

    def test_what_no_runner_could_read_is_refused_and_everything_is_as_it_was(self, spool: Spool) -> None:
        filebase = fail(spool, 'in', {'a': 1})
        ran = switchboard('-s', spool.directory, 'edit', filebase, '--body', '-', input=b'{"a":')
        assert ran.status == Exit.DATA
        assert spool['bad'].get_files('.psv') == [filebase]
        succeed('-s', spool.directory, 'retry', filebase)

    def test_an_editor_gets_metadata_and_body(
        self, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filebase = spool['in'].enqueue('Walk at four?', dog='Rex')
        script = tmp_path / 'ed'
        script.write_text("#!/bin/sh\nsed -i -e 's/Rex/Ada/' -e 's/four/five/' \"$1\"\n")
        script.chmod(0o755)
        monkeypatch.setenv('VISUAL', str(script))
        succeed('-s', spool.directory, 'edit', filebase)
        [again] = spool['in'].files
        msg, msgdata = spool['in'].dequeue(again)
        assert (msg, msgdata['dog']) == ('Walk at five?', 'Ada')

    def test_an_editor_that_changes_nothing_changes_nothing(
        self, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filebase = fail(spool, 'in', 'x')
        other = spool['in'].enqueue('y')
        monkeypatch.setenv('VISUAL', 'true')
        for one in (filebase, other):
            assert succeed('-s', spool.directory, 'edit', one).err == 'switchboard: nothing was changed\n'
        assert spool['bad'].get_files('.psv') == [filebase]
        assert spool['in'].files == [other]
        monkeypatch.setenv('VISUAL', 'false')
        assert switchboard('-s', spool.directory, 'edit', other).status != 0
        assert spool['in'].files == [other]

    @pytest.mark.parametrize(
        'body', [b'', b'\n', b'text', b'text\n', b'a\r\nb\n\n', b'\xff\x00', RULE.encode()]
    )
    def test_what_an_editor_leaves_alone_comes_back(self, body: bytes) -> None:
        text = to_text({'a': [1, '\u00e4']}, 'bytes', body)
        metadata, back = from_text(text if text.endswith('\n') else text + '\n', body)
        assert metadata == {'a': [1, '\u00e4']}
        assert back in (None, body)
        assert (back is None) == (body == b'\xff\x00')

    def test_a_text_that_cannot_be_read_any_more_is_kept(
        self, spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filebase = spool['in'].enqueue('x', dog='Rex')
        script = tmp_path / 'ed'
        script.write_text('#!/bin/sh\nsed -i -e \'s/Rex"/Ada/\' "$1"\n')
        script.chmod(0o755)
        monkeypatch.setenv('VISUAL', str(script))
        ran = switchboard('-s', spool.directory, 'edit', filebase)
        assert ran.status == Exit.DATA
        assert ran.err.count('cannot be stored so') == 1
        kept = Path(ran.err.rpartition(' ')[2].strip())
        assert '"Ada' in kept.read_text()
        assert spool['in'].files == [filebase]

    def test_an_editor_that_fails_or_is_not_there_is_no_missing_entry(
        self, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filebase = spool['in'].enqueue('x')
        for command in ('false', '/nowhere/to/be/found', '"unclosed'):
            monkeypatch.setenv('VISUAL', command)
            ran = switchboard('-s', spool.directory, 'edit', filebase)
            assert ran.status == Exit.UNAVAILABLE, command
            assert 'nothing was changed' in ran.err
            assert spool['in'].files == [filebase]

    def test_who_edited_and_why_is_in_the_history(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        succeed('-s', spool.directory, 'edit', filebase, '--set', 'a=b', '--reason', 'a slip')
        (record,) = spool['in'].history(spool['in'].files[0])
        assert (record['via'], record['reason']) == ('cli', 'a slip')

    def test_what_is_at_work_is_not_edited(self, spool: Spool) -> None:
        with at_work(spool, 'in', 'x') as filebase:
            ran = switchboard('-s', spool.directory, 'edit', filebase, '--set', 'a=b')
            assert ran.status == Exit.TEMPORARY


class TestDrain:
    def test_it_waits_until_the_queue_is_empty(self, spool: Spool) -> None:
        filebase = spool['in'].enqueue('x')
        worker = threading.Timer(0.3, lambda: spool['in'].finish(filebase))
        worker.start()
        ran = succeed('-s', spool.directory, 'drain', 'in', '--wait')
        worker.join()
        assert ran.lines[0] == 'in: draining'
        assert ran.lines[1].startswith('empty after ')

    def test_it_says_what_is_left_when_its_time_is_over(self, spool: Spool) -> None:
        spool['in'].enqueue('x', delay=3600)
        spool.pause('in')
        ran = switchboard('-s', spool.directory, 'drain', 'in', '--wait', '--timeout', '100ms')
        assert ran.status == Exit.TEMPORARY
        assert 'in is paused' in ran.err
        assert 'not empty yet: in: 1 delayed, next in 59m' in ran.err
        assert spool.flags.is_set('draining', 'in')


def test_a_pause_is_shown_by_status_and_show(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    spool.pause('in', 'the server is moved')
    assert ': the server is moved' in switchboard('-s', spool.directory, 'status').out
    objects = switchboard('-s', spool.directory, 'status', '--json').objects
    [flagged] = [each for each in objects if each['type'] == 'queue' and each['queue'] == 'in']
    assert list(flagged['flags']) == ['paused']
    assert 'queue     in: paused since ' in succeed('-s', spool.directory, 'show', filebase).out
    (shown,) = succeed('-s', spool.directory, 'show', filebase, '--json').objects
    assert shown['queue_flags']['paused']['reason'] == 'the server is moved'


def test_tidy_does_what_the_janitor_does(spool: Spool) -> None:
    assert succeed('-s', spool.directory, 'tidy').out == 'nothing to do\n'
    spool['in'].enqueue('x', ttl=0)
    assert succeed('-s', spool.directory, 'tidy').out == 'expired 1\n'


def test_tidy_tells_of_what_failed_and_does_the_rest(spool: Spool) -> None:
    spool['in'].enqueue('over', ttl=0)
    spool['out'].enqueue('once', dedupe_key='key')
    [keys] = Path(spool.directory).glob('.dedupe@out')
    shutil.rmtree(keys)
    keys.write_text('in the place of a directory')
    ran = switchboard('-s', spool.directory, 'tidy')
    assert (ran.status, ran.out) == (1, 'expired 1\n')
    assert '.dedupe@out: Not a directory' in ran.err
    ran = switchboard('-s', spool.directory, 'tidy', '--json')
    assert (ran.status, json.loads(ran.out)['expired']) == (1, 0)
    assert '.dedupe@out' in json.loads(ran.err)['error']


@pytest.mark.parametrize('word', ['in', 'in=', 'in=-1', '=3', 'in=two', 'in=²', 'in=' + '9' * 5000])
def test_scaling_wants_a_runner_and_a_number(spool: Spool, word: str) -> None:
    ran = switchboard('-s', spool.directory, 'scale', word)
    assert ran.status == Exit.USAGE
    assert 'is not RUNNER=NUMBER' in ran.err


def test_scaling_wants_a_master(spool: Spool) -> None:
    assert switchboard('-s', spool.directory, 'scale', 'in=2').status == Exit.UNAVAILABLE


def test_a_held_entry_is_found_by_the_name_that_it_had_and_says_since_when(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    succeed('-s', spool.directory, 'hold', filebase)
    assert ' held 0.' in succeed('-s', spool.directory, 'ls', 'in').lines[1]
    (entry,) = succeed('-s', spool.directory, 'ls', 'in', '--json', '--younger', '1m').objects
    assert 0 <= entry['age_s'] < 60
    succeed('-s', spool.directory, 'release', filebase[:25])
    assert spool['in'].files == [filebase]


def test_an_entry_is_found_by_each_whole_name_that_it_had(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    spool['in'].enqueue('y')
    for _ in range(2):
        held = succeed('-s', spool.directory, 'hold', filebase).out.rpartition('/')[2].strip()
        assert held.startswith(ON_HOLD_PREFIX)
        assert succeed('-s', spool.directory, 'show', f'in/{filebase}').lines[0] == f'in/{held}'
        succeed('-s', spool.directory, 'release', f'in/{filebase}')
        assert succeed('-s', spool.directory, 'show', held).lines[0] == f'in/{filebase}'


def test_what_lies_in_bad_need_not_be_held_and_the_error_says_so(spool: Spool) -> None:
    ran = switchboard('-s', spool.directory, 'hold', fail(spool, 'in', 'x'))
    assert 'waits for nobody' in ran.err
    assert 'look again' not in ran.err


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('hold --queue bad --all', 'a preserved one waits for nobody'),
        ('release --queue in --all', 'none of them is held'),
        ('retry --queue in --all', 'a waiting entry keeps its place'),
        ('mv --queue in --all in', 'they are in that queue'),
    ],
)
def test_a_selection_for_which_an_act_is_not_says_why(spool: Spool, line: str, reason: str) -> None:
    fail(spool, 'in', 'x')
    spool['in'].enqueue('y')
    ran = succeed('-s', spool.directory, *line.split(), '--yes')
    assert ran.err.startswith(f'switchboard: 1 entry fits, and none is for `{line.split()[0]}`: ')
    assert reason in ran.err


def test_an_entry_is_not_moved_to_where_it_is(spool: Spool) -> None:
    preserved, waiting = fail(spool, 'in', 'x'), spool['in'].enqueue('y')
    removed = spool['in'].enqueue('z')
    succeed('-s', spool.directory, 'rm', removed, '--yes')
    for words in (['mv', preserved, 'bad'], ['mv', waiting, 'in'], ['restore', removed, '--to', 'trash']):
        ran = switchboard('-s', spool.directory, *words)
        assert ran.status == Exit.UNAVAILABLE
        assert ran.err.endswith(': it is in that queue\n')
    assert spool['in'].files == [waiting]


def test_a_celery_message_is_shown_as_its_task(spool: Spool) -> None:
    headers = {'task': 'shop.pay', 'id': '7f', 'argsrepr': '(3,)', 'kwargsrepr': '{}'}
    body = {'body': 'W1szXSwge30sIHt9XQ==', 'headers': headers, 'properties': {}}
    filebase = spool['in'].enqueue(body)
    spool['in'].enqueue({'task': 'not a task'})
    out = succeed('-s', spool.directory, 'ls', 'in', '--columns', 'task,id,args,kind').lines
    assert [line.split() for line in out[1:]] == [
        ['shop.pay', '7f', '(3,)', 'json'],
        ['-', '-', '-', 'json'],
    ]
    assert '  task      shop.pay' in succeed('-s', spool.directory, 'show', filebase).lines


@pytest.mark.parametrize('encoding', ['base64', ''])
def test_a_message_of_celerys_first_protocol_is_shown_as_its_task(spool: Spool, encoding: str) -> None:
    told = json.dumps({'task': 'shop.pay', 'id': '7f', 'args': [3], 'kwargs': {'a': 1}})
    body = base64.b64encode(told.encode()).decode() if encoding else told
    properties = {'body_encoding': encoding} if encoding else {}
    for kind in ('application/json', 'application/x-python-serialize'):
        spool['in'].enqueue({'body': body, 'content-type': kind, 'headers': {}, 'properties': properties})
    out = succeed('-s', spool.directory, 'ls', 'in', '--columns', 'task,id,args,kwargs').lines
    assert [line.split(maxsplit=3) for line in out[1:]] == [['shop.pay', '7f', '[3]', "{'a': 1}"], ['-'] * 4]


def test_columns_are_named_as_people_see_them_and_a_name_that_is_none_is_told(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x', sender='ann', size='large')
    ran = succeed(
        '-s', spool.directory, 'ls', 'in', '--columns', 'ENTRY, Last error,sender,entri,metadata.size'
    )
    assert ran.lines[1].split() == [filebase, '-', 'ann', '-', 'large']
    assert ran.err == "switchboard: none of these has 'entri' in its metadata; did you mean entry?\n"


def test_columns_are_members_of_objects_too(spool: Spool) -> None:
    spool['in'].enqueue('x', sender='ann')
    (entry,) = succeed('-s', spool.directory, 'ls', 'in', '--json', '--columns', 'sender,subject').objects
    assert entry['columns'] == {'sender': 'ann', 'subject': None}
    assert switchboard('-s', spool.directory, 'ls', 'in', '--names', '--columns', 'age').status == Exit.USAGE


def test_a_column_is_known_by_its_name_of_before(spool: Spool) -> None:
    spool['in'].enqueue('x')
    taken = spool['in'].take()
    spool['in'].annotate(taken.filebase, {'event': 'retried'})
    spool['in'].release(taken.filebase)
    now, before = (
        succeed('-s', spool.directory, 'ls', 'in', '--columns', name).lines
        for name in ('sent_back', 'retried')
    )
    assert (now, before) == (['SENT BACK', '       1x'], ['RETRIED', '     1x'])
