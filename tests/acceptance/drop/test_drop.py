"""The contract of ``bin/drop``: 0 and the message is stored, or 75 and it is not."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.message.naming import parse_filebase
from switchboard.spool.active_config import publish_queue_options
from tests.acceptance.drop.dropping import BODY, DROP, RAW, Door, refused
from tests.helpers.configurations import load
from tests.helpers.waiting import PATIENCE_S


def test_a_message_is_stored_and_nothing_is_said(door: Door) -> None:
    result = door.drop()
    assert (result.returncode, result.stdout, result.stderr) == (0, b'', b'')
    assert door.stored() == BODY
    [path] = door.entries()
    assert path.stat().st_mode & 0o777 == 0o660
    assert parse_filebase(path.stem) is not None


def test_an_empty_message_is_a_message(door: Door) -> None:
    assert door.drop(b'').returncode == 0
    assert door.stored() == b''


@pytest.mark.parametrize('umask', ['000', '022', '077', '777'])
def test_the_umask_changes_nothing(door: Door, umask: str) -> None:
    if umask == '777' and os.geteuid() != 0:
        pytest.skip('only root can open what it has closed to itself')
    assert door.drop(preexec_fn=lambda: os.umask(int(umask, 8)) and None).returncode == 0
    [path] = door.entries()
    assert path.stat().st_mode & 0o777 == 0o660


def test_closed_outputs_do_not_matter(door: Door) -> None:
    assert door.drop(preexec_fn=lambda: os.closerange(1, 3)).returncode == 0
    assert door.stored() == BODY
    assert door.drop(RAW, '-x', preexec_fn=lambda: os.closerange(1, 3)).returncode == 75


def test_a_reader_that_has_gone_does_not_matter(door: Door) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert door.drop(RAW, '-x', stderr=writing, stdout=writing).returncode == 75
        assert door.drop(RAW, stderr=writing, stdout=writing).returncode == 0
    finally:
        os.close(writing)


def test_a_closed_input_is_no_message(door: Door) -> None:
    with door.start(stdin=None, preexec_fn=lambda: os.close(0)) as process:
        _, err = process.communicate()
    assert process.returncode == 75
    assert err.startswith(b'4.3.0 ')
    assert door.entries() == []


def test_an_input_that_does_not_wait_is_waited_for(door: Door) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with door.start(stdin=reading) as process:
        os.close(reading)
        os.write(writing, b'first ')
        os.write(writing, b'second')
        os.close(writing)
        assert process.wait(PATIENCE_S) == 0
    assert door.stored() == b'first second'


@pytest.mark.parametrize(
    ('arguments', 'because'),
    [
        (['--help'], 'usage'),
        (['-s', '/nonexistent/spool'], 'no such queue'),
        (['-s', ''], 'needs'),
        (['-C', '/nonexistent/switchboard.cfg'], 'No such file'),
        (['-m', 'x'], 'KEY=VALUE'),
    ],
)
def test_a_mistake_in_the_arguments_defers(door: Door, arguments: list[str], because: str) -> None:
    if arguments == ['-s', '']:
        door.environment.pop('SWITCHBOARD_SPOOL')
        arguments, because = ['-C', str(door.spool / 'in')], 'Is a directory'
    assert refused(door.drop(RAW, *arguments), because)
    assert door.entries() == []


def test_an_unknown_queue_defers(tmp_path: Path, door: Door) -> None:
    publish_queue_options(load(tmp_path, '[queue.other]\n', head=f'[switchboard]\nspool = {door.spool}\n'))
    assert refused(door.drop(), 'no such queue is declared')


def test_a_configuration_under_repair_does_not_matter(tmp_path: Path, door: Door) -> None:
    config = load(tmp_path, '[queue.in]\n', head=f'[switchboard]\nspool = {door.spool}\n')
    publish_queue_options(config)
    config.path.write_text(config.path.read_text() + '[queue.in\nhalf a li')
    assert door.drop(RAW, '-C', str(config.path)).returncode == 0
    assert door.stored() == BODY


def test_it_works_through_a_symbolic_link_and_from_any_directory(door: Door, tmp_path: Path) -> None:
    link = tmp_path / 'link'
    link.symlink_to(DROP)
    door.program = link
    assert door.drop(cwd='/').returncode == 0
    door.program = Path('drop')
    assert door.drop(cwd=DROP.parent, executable='./drop').returncode == 0
    assert len(door.entries()) == 2


def test_it_works_without_an_environment_of_its_own_and_with_an_empty_one(door: Door) -> None:
    door.environment = {'SWITCHBOARD_SPOOL': str(door.spool), 'SWITCHBOARD_VENV': '/nonexistent'}
    assert door.drop(env={'PATH': str(Path(sys.executable).resolve().parent)}).returncode == 0
    assert door.stored() == BODY


def test_what_python_is_told_by_the_environment_is_not_heard(door: Door, tmp_path: Path) -> None:
    (tmp_path / 'os.py').write_text('raise SystemExit(0)')
    lies = {'PYTHONPATH': str(tmp_path), 'PYTHONHOME': '/nonexistent', 'PYTHONSTARTUP': '/nonexistent'}
    assert door.drop(env=lies, cwd=tmp_path).returncode == 0
    assert door.stored() == BODY


def test_a_message_without_end_is_refused_with_bounded_memory(tmp_path: Path, door: Door) -> None:
    config = load(tmp_path, '[queue.in]\nmax_body = 2M\n', head=f'[switchboard]\nspool = {door.spool}\n')
    publish_queue_options(config)
    with Path('/dev/zero').open('rb') as endless:
        started = door.start(stdin=endless)
        _, err = started.communicate()
    assert started.returncode == 75
    assert b'longer than the 2097152 bytes' in err
    assert door.entries() == []


@pytest.mark.slow
def test_a_gigabyte_is_refused_with_the_memory_of_the_limit(door: Door) -> None:
    limit = 200 * 1024 * 1024
    with door.start(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) as process:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            for _ in range(1024):
                process.stdin.write(b'x' * 1024 * 1024)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(PATIENCE_S) == 75
        assert process.stderr is not None
        assert b'longer than the' in process.stderr.read()
    assert door.entries() == []


def test_many_at_once_all_get_in(door: Door) -> None:
    processes = [door.start() for _ in range(24)]
    for number, process in enumerate(processes):
        process.communicate(b'%d' % number)
        assert process.returncode == 0
    queue = Spool(door.spool)['in']
    assert sorted(int(queue.peek(filebase).body) for filebase in queue.files) == list(range(24))
    assert len(list((door.spool / '.spare').iterdir())) == 0
