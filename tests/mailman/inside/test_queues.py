"""Mailman's queues on this switchboard, in a process that has Mailman's configuration."""

from __future__ import annotations

import datetime
import fcntl
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_string
from email.header import Header
from pathlib import Path
from typing import Any

import pytest
from mailman.config import config
from mailman.core import runner as mailman_runner
from mailman.core import switchboard as mailman_switchboard
from mailman.core.initialize import initialize_1
from mailman.email.message import Message, UserNotification

from switchboard.errors import EntryTakenError
from switchboard.mailman import Plugin, install
from switchboard.mailman.export import export
from switchboard.mailman.queue import MailmanQueue

Theirs = mailman_switchboard.Switchboard

POST = 'From: anne@example.org\nTo: list@example.com\nSubject: a post\nMessage-ID: <1>\n\nhello\n'


@pytest.fixture(scope='session')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    var = tmp_path_factory.mktemp('site') / 'var'
    file = var.with_name('mailman.cfg')
    file.write_text(f'[mailman]\nlayout: here\n[paths.here]\nvar_dir: {var}\n')
    initialize_1(str(file))
    config.create_paths = True
    return var


@pytest.fixture
def queues(site: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory of queues, with ours in Mailman's place."""
    names = ('in', 'out', 'shunt', 'bad')
    for name in names:
        (tmp_path / name).mkdir()
    config.switchboards.clear()
    for name in names:
        config.switchboards[name] = Theirs(name, str(tmp_path / name))
    install()
    yield tmp_path
    for module in (mailman_switchboard, mailman_runner):
        module.Switchboard = Theirs


def post(text: str = POST) -> Message:
    return message_from_string(text, Message)


def cli(queues: Path, *words: str) -> str:
    command = [sys.executable, '-m', 'switchboard', '-s', str(queues), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_class_is_replaced_wherever_mailman_has_it_and_nothing_else_is(queues: Path) -> None:
    assert mailman_switchboard.Switchboard is MailmanQueue
    assert mailman_runner.Switchboard is MailmanQueue
    assert {type(queue) for queue in config.switchboards.values()} == {MailmanQueue}


# Every name in every module of Mailman's, and in every class of its modules, before and after.
NAMES = """
import sys
from mailman.core.initialize import initialize_1
initialize_1(sys.argv[1])
import mailman.bin.master, mailman.bin.runner, mailman.commands.cli_unshunt, mailman.rest.queues, mailman.runners.lmtp

def names():
    found = {}
    for module in [each for name, each in sys.modules.items() if name.partition('.')[0] == 'mailman']:
        for name, value in vars(module).items():
            found[module.__name__, name] = value
            if isinstance(value, type) and value.__module__ == module.__name__:
                found |= {(module.__name__, name, key): each for key, each in vars(value).items()}
    return found

def ours():
    return sorted(name for name in sys.modules if name.partition('.')[0] == 'switchboard')

assert ours() == [], ours()
before = names()
from switchboard.mailman import install
install()
after = names()
changed = {key[:2] for key in before if before[key] is not after.get(key)}
print(*sorted(map('.'.join, changed)))
"""


def test_no_other_name_of_mailmans_is_changed_and_without_the_plugin_nothing_of_ours_is_loaded(
    site: Path,
) -> None:
    command = [sys.executable, '-c', NAMES, str(site.with_name('mailman.cfg'))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['mailman.core.runner.Switchboard', 'mailman.core.switchboard.Switchboard']


def test_a_second_installation_changes_nothing(queues: Path) -> None:
    before = dict(config.switchboards)
    install()
    Plugin().pre_hook()
    assert config.switchboards == before


def test_a_message_comes_back_as_mailmans_class_with_what_stood_beside_it(queues: Path) -> None:
    queue = config.switchboards['in']
    msg = post()
    msg.original_size = 77
    msg.set_unixfrom('anne@example.org')
    beside = {
        'received_time': datetime.datetime(2026, 11, 28, 12, 0, tzinfo=datetime.UTC),
        'recipients': {'a@example.org', 'b@example.org'},
        'rule_hits': ['x'],
    }
    filebase = queue.enqueue(
        msg, beside, listid='list.example.com', original_subject=Header('Grüße', 'utf-8')
    )
    assert queue.files == [filebase]
    back, metadata = queue.dequeue(filebase)
    assert isinstance(back, Message)
    assert (back['subject'], back.original_size, back.get_unixfrom()) == ('a post', 77, 'anne@example.org')
    assert metadata == {
        **beside,
        'listid': 'list.example.com',
        'original_subject': 'Grüße',
        'version': 3,
        '_parsemsg': False,
    }
    queue.finish(filebase)
    assert (queue.files, queue.get_files('.bak')) == ([], [])


def test_a_notification_keeps_its_recipients(queues: Path) -> None:
    queue = config.switchboards['in']
    queue.enqueue(UserNotification('a@example.org', 'b@example.org', 'subject', 'text'))
    back, _ = queue.dequeue(queue.files[0])
    assert back.recipients == {'a@example.org'}


def test_a_field_that_is_a_header_object_comes_back_as_one(queues: Path) -> None:
    queue = config.switchboards['in']
    msg = post()
    del msg['subject']
    msg['Subject'] = Header(
        'Grüße an diese sehr lange Liste von Leuten, an ihre Nachbarn und deren Freunde', 'utf-8'
    )
    queue.enqueue(msg)
    back, metadata = queue.dequeue(queue.files[0])
    assert isinstance(back['subject'], Header)
    assert str(back['subject']) == str(msg['subject'])
    assert 'header_objects' not in metadata


def shunt(queue: Any) -> str:
    """What Mailman's runner does with an error that nobody has caught."""
    [filebase] = queue.files
    msg, metadata = queue.dequeue(filebase)
    try:
        raise ValueError('no such template')
    except ValueError:
        metadata['whichq'] = queue.name
        shunted: str = config.switchboards['shunt'].enqueue(msg, metadata)
    queue.finish(filebase)
    return shunted


def test_what_is_shunted_says_why_and_goes_back_where_it_came_from(queues: Path) -> None:
    queue = config.switchboards['in']
    queue.enqueue(post())
    shunted = shunt(queue)
    assert 'ValueError' in cli(queues, 'ls', 'shunt')
    shown = cli(queues, 'show', shunted)
    assert 'no such template' in shown
    assert 'Traceback' in shown
    cli(queues, 'retry', '-q', 'shunt', '--where', 'error:ValueError*', '--yes')
    assert config.switchboards['shunt'].files == []
    back, metadata = queue.dequeue(queue.files[0])
    assert (back['message-id'], metadata['whichq']) == ('<1>', 'in')


def test_what_is_shunted_without_an_error_or_a_queue_goes_back_where_unshunt_would_put_it(
    queues: Path,
) -> None:
    """A runner shunts so what is for a list that is gone."""
    config.switchboards['out'].enqueue(post())
    msg, metadata = config.switchboards['out'].dequeue(config.switchboards['out'].files[0])
    shunted = config.switchboards['shunt'].enqueue(msg, metadata)
    shown = cli(queues, 'show', shunted)
    assert 'without an error' in shown
    assert 'out' in shown
    cli(queues, 'retry', '-q', 'shunt', '--all', '--yes')
    assert config.switchboards['shunt'].files == []
    assert len(config.switchboards['in'].files) == 1


def test_a_retry_finds_a_queue_whose_directory_has_another_name(queues: Path, tmp_path: Path) -> None:
    config.switchboards['in'] = MailmanQueue('in', str(tmp_path / 'incoming'))
    config.switchboards['in'].enqueue(post())
    shunt(config.switchboards['in'])
    cli(queues, 'retry', '-q', 'shunt', '--all', '--yes')
    assert len(config.switchboards['in'].files) == 1


def test_what_mailman_has_shunted_before_is_taken_over_by_any_runner_that_starts(queues: Path) -> None:
    """No runner works on the shunt queue."""
    old = Theirs('shunt', str(queues / 'shunt'))
    old.enqueue(post(), whichq='out')
    old.enqueue(post())
    MailmanQueue('in', str(queues / 'in'), recover=True)
    shown = cli(queues, 'show', config.switchboards['shunt'].files[0])
    assert 'a post' in shown
    assert 'before' in shown
    cli(queues, 'retry', '-q', 'shunt', '--all', '--yes')
    assert [len(config.switchboards[name].files) for name in ('shunt', 'out', 'in')] == [0, 1, 1]


def test_preserved_messages_lie_in_bad(queues: Path) -> None:
    queue = config.switchboards['in']
    filebase = queue.enqueue(post())
    queue.dequeue(filebase)
    queue.finish(filebase, preserve=True)
    assert config.switchboards['bad'].get_files('.psv') == [filebase]


def test_what_another_process_has_is_not_preserved_by_a_runner_that_was_refused_it(queues: Path) -> None:
    queue = config.switchboards['in']
    filebase = queue.enqueue(post())
    with open(queues / 'in' / f'{filebase}.pck', 'rb+') as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EntryTakenError):
            queue.dequeue(filebase)
    queue.finish(filebase, preserve=True)
    assert queue.files == [filebase]
    assert config.switchboards['bad'].get_files('.psv') == []
    queue.dequeue(filebase)
    queue.finish(filebase)
    assert queue.files == []


def test_a_failing_finish_is_logged_and_not_raised(queues: Path) -> None:
    config.switchboards['in'].finish('1795889548.744580706+9ec8596c37b2acc42f0f07bd00000000000008fd')


def test_what_mailman_wrote_is_taken_over_once_in_its_place(queues: Path) -> None:
    old = Theirs('in', str(queues / 'in'))
    first = old.enqueue(
        post(POST.replace('<1>', '<old>')),
        recipients={'a@example.org'},
        received_time=datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC),
    )
    config.switchboards['in'].enqueue(post(POST.replace('<1>', '<new>')))
    interrupted = old.enqueue(post(POST.replace('<1>', '<interrupted>')))
    old.dequeue(interrupted)
    queue = MailmanQueue('in', str(queues / 'in'), 1, 1, True)
    assert first not in queue.files
    found = [queue.dequeue(filebase) for filebase in queue.files]
    assert {msg['message-id'] for msg, _ in found} == {'<old>', '<new>', '<interrupted>'}
    msg, metadata = next(each for each in found if each[0]['message-id'] == '<old>')
    assert isinstance(msg, Message)
    assert metadata['recipients'] == {'a@example.org'}
    assert metadata['received_time'] == datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC)


class Evil:
    """What a stranger may leave in a queue's directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ('touch /nonexistent/never',)


def test_a_pickle_that_would_run_something_goes_to_bad_unread(queues: Path) -> None:
    name = '1795889548.7445807+9ec8596c37b2acc42f0f07bd00000000000008fd'
    (queues / 'in' / f'{name}.pck').write_bytes(pickle.dumps(Evil()) + pickle.dumps({}))
    queue = MailmanQueue('in', str(queues / 'in'), recover=True)
    assert queue.files == []
    assert config.switchboards['bad'].get_files('.psv') == [name]


def test_the_way_back_writes_what_mailman_reads(queues: Path) -> None:
    msg = post()
    msg.original_size = 9
    config.switchboards['in'].enqueue(msg, recipients={'a@example.org'})
    assert export(queues)['in'] == 1
    assert export(queues)['in'] == 0
    old = Theirs('in', str(queues / 'in'))
    [filebase] = old.files
    back, metadata = old.dequeue(filebase)
    assert type(back) is Message
    assert (back.as_string(), back.original_size) == (POST, 9)
    assert (metadata['recipients'], metadata['version'], metadata['_parsemsg']) == (
        {'a@example.org'},
        3,
        False,
    )


def test_the_verb_for_the_way_back_says_what_it_wrote(queues: Path) -> None:
    config.switchboards['in'].enqueue(post())
    assert cli(queues, 'export-mailman') == 'in 1 entry\n'
