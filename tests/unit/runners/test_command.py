"""The runner that hands messages to programs."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.errors import ConfigError
from switchboard.runner.control_group import cgroup_of, delegated_cgroup
from switchboard.runners.command import (
    LEFT_RUNNING,
    MAX_COMPLAINT_BYTES,
    Command,
    ProcessTree,
    Program,
    program_environment,
)
from tests.acceptance.installation import ends
from tests.helpers.processes import Child
from tests.helpers.waiting import eventually, shell_until
from tests.unit.runners.pipelines import Pipeline, mail

PROGRAM = 'import os, signal, sys, time\n'


class Bench:
    """A queue whose messages go to a program that is written here, in Python."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.case: Pipeline

    def program(self, text: str, keys: str = '', queue: str = '') -> Pipeline:
        (self.directory / 'program.py').write_text(PROGRAM + text)
        command = shlex.join([sys.executable, '-I', '-S', str(self.directory / 'program.py'), 'two words'])
        section = f'[runner.do]\nclass = runners.command:Command\nqueue = in\ncommand = {command}\n{keys}'
        self.case = Pipeline(self.directory, f'{section}\n[queue.in]\n{queue}\n[queue.out]\n')
        return self.case

    def run(self, text: str, keys: str = '', queue: str = '') -> Pipeline:
        case = self.program(text, keys, queue)
        case.spool['in'].enqueue(mail(), sender='a@x')
        case.work(Command, 'do')
        return case

    def kept(self) -> str:
        return (self.directory / 'kept').read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def keep(what: str) -> str:
    return f'open(os.path.dirname(os.path.abspath(__file__)) + "/kept", "wb").write({what})\n'


def test_the_program_reads_the_bytes_of_the_mail_and_its_own_arguments(bench: Bench) -> None:
    case = bench.program(keep('sys.stdin.buffer.read() + sys.argv[1].encode()'))
    case.spool['in'].enqueue(mail(b'A: \xff\r\n\r\n\0no end'))
    case.work(Command, 'do')
    assert (bench.directory / 'kept').read_bytes() == b'A: \xff\r\n\r\n\0no endtwo words'
    assert case.waiting('in') == case.spool['bad'].get_files('.psv') == []


@pytest.mark.parametrize(
    ('message', 'raw'), [('Grüße', 'Grüße'.encode()), (b'\0\xff', b'\0\xff'), ({'a': [1]}, b'{"a":[1]}')]
)
def test_other_messages_come_as_they_are_stored(bench: Bench, message: object, raw: bytes) -> None:
    case = bench.program(keep('sys.stdin.buffer.read()'))
    case.spool['in'].enqueue(message)
    case.work(Command, 'do')
    assert (bench.directory / 'kept').read_bytes() == raw


@pytest.mark.parametrize('status', [64, 65, 66, 67, 68, 69, 70, 76, 77, 78])
def test_what_is_the_messages_fault_goes_to_bad_at_once(bench: Bench, status: int) -> None:
    case = bench.run(f'print("no such user", file=sys.stderr)\nsys.exit({status})', queue='max_attempts = 5')
    assert f'exit status {status} EX_' in case.reason()
    assert 'no such user' in case.reason()


@pytest.mark.parametrize('status', [71, 72, 73, 74, 75])
def test_what_is_the_systems_trouble_is_tried_again(bench: Bench, status: int) -> None:
    case = bench.run(f'sys.exit({status})')
    assert len(case.waiting('in')) == 1
    assert case.history('in')[-1]['error'] == 'TemporaryFailure'


@pytest.mark.parametrize('status', [1, 2, 100, 126, 127, 255])
def test_any_other_status_is_tried_as_often_as_the_queue_says(bench: Bench, status: int) -> None:
    case = bench.run(f'sys.exit({status})', queue='max_attempts = 2\nretry = 1s')
    assert case.history('in')[-1]['error'] == 'CommandError'
    case.clock.advance(2)
    case.work(Command, 'do')
    assert f'exit status {status}' in case.reason()


@pytest.mark.parametrize(
    ('number', 'name'),
    [
        (signal.SIGKILL, 'SIGKILL'),
        (signal.SIGRTMIN, 'SIGRTMIN'),
        (signal.SIGRTMIN + 1, f'signal {signal.SIGRTMIN + 1}'),
    ],
)
def test_a_program_that_is_killed_is_tried_again(bench: Bench, number: int, name: str) -> None:
    case = bench.run(f'os.kill(os.getpid(), {number:d})')
    assert case.history('in')[-1]['error'] == 'TemporaryFailure'
    assert f'killed by {name}' in case.history('in')[-1]['message']


@pytest.mark.slow
def test_a_program_that_takes_too_long_is_ended_with_all_it_started(bench: Bench) -> None:
    text = """
import subprocess
child = subprocess.Popen(['sleep', '600'])
open(sys.argv[0] + '.child', 'w').write(str(child.pid))
time.sleep(600)
"""
    case = bench.run(text, 'timeout = 6s\n')  # in which it has written, wherever it runs
    assert 'has not ended within 6 s' in case.reason()
    assert ends(int((bench.directory / 'program.py.child').read_text())), 'the child of the program lives'


@pytest.mark.slow
def test_a_program_that_will_not_end_when_asked_is_killed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('switchboard.runners.command.GRACE_S', 0.1)
    case = bench.run('signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)', 'timeout = 1s\n')
    assert 'has not ended within 1 s' in case.reason()


def test_what_a_program_says_on_both_channels_is_kept_for_its_failure(bench: Bench) -> None:
    case = bench.run('print("out", flush=True)\nprint("err", file=sys.stderr)\nsys.exit(70)')
    assert case.reason().endswith(': out\nerr')


def test_of_a_long_standard_error_the_end_is_kept(bench: Bench) -> None:
    case = bench.run('sys.stderr.write("x" * 1000000 + "the end")\nsys.exit(70)')
    assert case.reason().endswith('x' * 100 + 'the end')
    assert len(case.reason()) <= MAX_COMPLAINT_BYTES


def test_a_program_that_does_not_read_is_not_waited_for(bench: Bench) -> None:
    case = bench.program('sys.exit(0)')
    case.spool['in'].enqueue(b'x' * 5_000_000)
    case.work(Command, 'do')
    assert case.waiting('in') == []


def test_large_messages_go_in_and_out_at_the_same_time(bench: Bench) -> None:
    case = bench.program(
        'while part := sys.stdin.buffer.read(1000): sys.stdout.buffer.write(part.upper())',
        'output_queue = out\n',
    )
    case.spool['in'].enqueue(b'x' * 3_000_000)
    case.work(Command, 'do')
    assert case.take('out')[0] == b'X' * 3_000_000


def test_a_daemon_that_keeps_the_pipes_open_is_not_waited_for(bench: Bench) -> None:
    text = """
import subprocess
child = subprocess.Popen(['sleep', '600'])
open(sys.argv[0] + '.child', 'w').write(str(child.pid))
"""
    case = bench.run(text, 'timeout = 30s\n')
    os.kill(int((bench.directory / 'program.py.child').read_text()), signal.SIGKILL)
    assert case.waiting('in') == case.spool['bad'].get_files('.psv') == []


def test_the_output_goes_on_as_a_message_of_the_same_kind(bench: Bench) -> None:
    text = 'raw = sys.stdin.buffer.read()\nprint("noise", file=sys.stderr)\nsys.stdout.buffer.write(b"X-Seen: yes\\n" + raw)'
    case = bench.run(text, 'output_queue = out\n')
    msg, msgdata = case.take('out')
    assert msg['X-Seen'] == 'yes'
    assert msg.as_bytes() == b'X-Seen: yes\n' + mail().as_bytes()
    assert msgdata['sender'] == 'a@x'


def test_output_that_is_not_of_the_kind_is_a_failure(bench: Bench) -> None:
    case = bench.program('print("no JSON")', 'output_queue = out\n')
    case.spool['in'].enqueue({'a': 1})
    case.work(Command, 'do')
    assert 'CorruptEntryError' in case.reason()
    assert case.waiting('out') == []


def test_no_output_is_a_failure_where_some_is_to_go_on(bench: Bench) -> None:
    case = bench.run('pass', 'output_queue = out\n')
    assert 'wrote nothing' in case.reason()


def test_output_without_end_is_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('switchboard.runners.command.MAX_OUTPUT_BYTES', 100_000)
    case = bench.run('while True: sys.stdout.write("x" * 1000)', 'output_queue = out\n')
    assert 'wrote more than 100000 bytes' in case.reason()


def test_a_failed_program_sends_nothing_on(bench: Bench) -> None:
    case = bench.run('print("half")\nsys.exit(1)', 'output_queue = out\n')
    assert case.waiting('out') == []


def test_the_metadata_are_in_the_environment(bench: Bench) -> None:
    case = bench.program(
        'import json\n'
        + keep('json.dumps({k: v for k, v in os.environ.items() if k[:12] == "SWITCHBOARD_"}).encode()')
    )
    metadata = {'recipients': ['a@x', 'b@y'], 'sender': '', 'number': 7, 'map': {'a': 1}, 'odd key-é': 'ü'}
    case.spool['in'].enqueue('x', metadata)
    case.work(Command, 'do')
    kept = json.loads(bench.kept())
    assert kept['SWITCHBOARD_META_RECIPIENTS'] == 'a@x\nb@y'
    assert kept['SWITCHBOARD_META_SENDER'] == ''
    assert kept['SWITCHBOARD_META_NUMBER'] == '7'
    assert kept['SWITCHBOARD_META_ODD_KEY__'] == 'ü'
    assert 'SWITCHBOARD_META_MAP' not in kept
    assert json.loads(kept['SWITCHBOARD_METADATA'])['map'] == {'a': 1}
    assert (kept['SWITCHBOARD_QUEUE'], kept['SWITCHBOARD_RUNNER']) == ('in', 'do')
    assert len(kept['SWITCHBOARD_ID']) == 40


def test_what_no_environment_holds_is_left_out_or_written_otherwise() -> None:
    made = program_environment(
        {'long': 'x' * 40_000, 'nul': 'a\0b', 'odd': '\ud800', 'queue': 'not mine'}, QUEUE='in'
    )
    assert b'SWITCHBOARD_META_LONG' not in made
    assert b'SWITCHBOARD_METADATA' not in made
    assert made[b'SWITCHBOARD_META_NUL'] == b'ab'
    assert made[b'SWITCHBOARD_META_ODD'] == b'\\ud800'
    assert made[b'SWITCHBOARD_QUEUE'] == b'in'
    assert made[b'SWITCHBOARD_META_QUEUE'] == b'not mine'


def test_a_program_that_cannot_be_started_for_now_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = bench.program('pass', 'directory = /nonexistent\n')
    case.spool['in'].enqueue('x')
    case.work(Command, 'do')
    assert 'could not be started' in case.history('in')[-1]['message']


@pytest.mark.parametrize('command', ['', '"unclosed'])
def test_a_command_that_cannot_be_split_is_an_error_of_the_configuration(
    tmp_path: Path, command: str
) -> None:
    text = f'[runner.do]\nclass = runners.command:Command\nqueue = in\ncommand = {command}\n'
    with pytest.raises(ConfigError) as caught:
        Pipeline(tmp_path, text).runner(Command, 'do')
    assert caught.value.key == 'command'


@pytest.mark.parametrize(
    ('keys', 'key'),
    [
        ('command = /nonexistent/program', 'command'),
        ('command = cat\noutput_queue = nowhere', 'output_queue'),
        ('command = cat\noutput = nowhere', 'output'),
    ],
)
def test_what_is_not_there_is_found_before_the_first_message(tmp_path: Path, keys: str, key: str) -> None:
    text = f'[runner.do]\nclass = runners.command:Command\nqueue = in\n{keys}\n'
    with pytest.raises(ConfigError) as caught:
        Pipeline(tmp_path, text).work(Command, 'do')
    assert caught.value.key == key


def test_a_program_dies_with_its_runner() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            program = Program(['sleep', '600'], {b'PATH': os.environb[b'PATH']}, None, b'', listens=False)
            os.write(writing, str(program.process.pid).encode())
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    program_pid = int(os.read(reading, 20))
    os.close(reading)
    os.waitpid(pid, 0)
    assert ends(program_pid)


LEAVES_A_DAEMON = """
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open(sys.argv[0] + '.child', 'w').write(str(os.getpid()))
        os.write(writing, b'x')
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(reading, 1)
"""


def daemon_of(bench: Bench) -> int:
    return int((bench.directory / 'program.py.child').read_text())


def test_what_a_program_that_fails_leaves_behind_is_ended_whatever_session_it_leads(bench: Bench) -> None:
    case = bench.run(LEAVES_A_DAEMON + 'sys.exit(75)')
    assert case.history('in')[-1]['error'] == 'TemporaryFailure'
    assert ends(daemon_of(bench))


def test_what_a_program_that_ends_well_leaves_behind_is_its_own_affair(bench: Bench) -> None:
    bench.run(LEAVES_A_DAEMON)
    os.kill(daemon_of(bench), signal.SIGKILL)  # it is there


def check_is_ended_before_the_next_try(bench: Bench, case: Pipeline, left: int) -> None:
    case.spool['in'].recover(include_own=False)
    (bench.directory / 'program.py').write_text(
        PROGRAM + f'sys.exit(os.path.exists("/proc/{left}/fd/0") and 70)'
    )
    case.work(Command, 'do')
    assert case.waiting('in') == case.spool['bad'].get_files('.psv') == []
    assert ends(left)


def test_what_a_killed_runner_has_begun_is_ended_before_its_message_is_tried_again(bench: Bench) -> None:
    case = bench.program(LEAVES_A_DAEMON + 'os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)')
    case.spool['in'].enqueue(mail())
    with Child(lambda: case.work(Command, 'do')) as child:
        child.wait()
    left = daemon_of(bench)
    check_is_ended_before_the_next_try(bench, case, left)


@pytest.mark.parametrize(
    'command',
    [
        'env -i {python} -c {code} &',
        'env -i setsid {python} -c {code} </dev/null >/dev/null 2>&1 &',
        'setsid {python} -c {popen} </dev/null &',
    ],
    ids=['environment emptied', 'streams given up', 'descriptors closed'],
)
def test_what_has_emptied_its_environment_is_ended_as_well(bench: Bench, command: str) -> None:
    child = bench.directory / 'child'
    code = f'import os, time; open({str(child)!r}, "w").write(str(os.getpid())); time.sleep(600)'
    popen = f'import subprocess, sys; subprocess.run([sys.executable, "-c", {code!r}], env={{}})'
    words = {'python': sys.executable, 'code': shlex.quote(code), 'popen': shlex.quote(popen)}
    shell = f'{command.format(**words)}\n{shell_until(f"[ -s {child} ]")}\nkill -9 $PPID; sleep 600'
    case = bench.program(f'os.execv("/bin/sh", ["sh", "-c", {shell!r}])')
    case.spool['in'].enqueue(mail())
    with Child(lambda: case.work(Command, 'do')) as runner:
        runner.wait()
    left = int(child.read_text())
    check_is_ended_before_the_next_try(bench, case, left)


def test_a_message_waits_for_what_cannot_be_ended_and_it_is_told_for_whom(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, signum: int) -> None:
        raise PermissionError(errno.EPERM, 'not yours')

    monkeypatch.setattr('switchboard.runners.command.GRACE_S', 0.1)
    case = bench.program(LEAVES_A_DAEMON + 'open(sys.argv[0] + ".runs", "a").write("x")\nsys.exit(1)')
    case.spool['in'].enqueue(mail())
    runner = case.runner(Command, 'do')
    told: list[str] = []
    monkeypatch.setattr(runner.slot, 'error', told.append)
    monkeypatch.setattr(os, 'kill', refuse)
    for _ in range(2):
        runner.run(until_empty=True)
    assert f'pid {daemon_of(bench)}' in told[-1]
    assert (bench.directory / 'program.py.runs').read_text() == 'x'
    assert len(case.waiting('in')) == 1
    monkeypatch.undo()  # a process that is killed has the usual time to go
    runner.run(until_empty=True)
    assert (bench.directory / 'program.py.runs').read_text() == 'xx'
    assert 'exit status 1' in case.reason()


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which('setpriv') is None, reason='needs root and setpriv')
@pytest.mark.parametrize('in_time', [True, False])
def test_a_message_waits_for_a_program_that_has_become_another_users(
    monkeypatch: pytest.MonkeyPatch, *, in_time: bool
) -> None:
    monkeypatch.setattr('switchboard.runners.command.GRACE_S', 0.1)
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        become_root = Path(name, 'setpriv')
        shutil.copy(str(shutil.which('setpriv')), become_root)
        become_root.chmod(0o4755)
        # The program tells its number, and is root's from then on: with its whole identity, as what `sudo` starts.
        script = f'echo $$ >> {name}/pids; exec sleep 600'
        command = f'{become_root} --reuid 0 --regid 0 --clear-groups sh -c {shlex.quote(script)}'
        if in_time:
            until_begun = shell_until(f'[ -s {name}/pids ]')
            command = f'sh -c {shlex.quote(f"{command} & {until_begun}; exit 75")}'

        def work() -> tuple[int, list[str], bool]:
            section = f'[runner.do]\nclass = runners.command:Command\nqueue = in\ncommand = {command}\n'
            keys = '' if in_time else 'timeout = 3s\n'  # in which it has begun
            case = Pipeline(Path(name), f'{section}{keys}[queue.in]\n')
            case.spool['in'].enqueue(mail())
            runner = case.runner(Command, 'do')
            told: list[str] = []
            monkeypatch.setattr(runner.slot, 'error', told.append)
            for _ in range(2):
                runner.run(until_empty=True)
            return len(case.waiting('in')), told, bool(case.spool['bad'].get_files('.psv'))

        try:
            with Child(work, uid=NOBODY) as child:
                waiting, told, is_bad = child.join()
            pids = Path(name, 'pids').read_text().split()
            assert len(pids) == 1, 'it was begun again beside the first'
            assert (waiting, is_bad) == (1, False)
            assert f'pid {pids[0]}' in told[-1]
        finally:
            for pid in Path(name, 'pids').read_text().split() if Path(name, 'pids').exists() else ():
                os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A control group that has been handed over to somebody without rights of his own."""
    below = cgroup_of()
    place = None if below is None else Path(below, f'switchboard-tests-{os.getpid()}')
    try:
        assert place is not None, 'no cgroup v2 is mounted'
        place.mkdir()
        for name in ('', 'cgroup.procs', 'cgroup.threads', 'cgroup.subtree_control'):  # as systemd does
            os.chown(place / name, NOBODY, NOBODY)
    except (OSError, AssertionError) as error:
        pytest.skip(f'no control group can be made here: {error}')
    yield place
    Path(place, 'cgroup.kill').write_text('1')
    for each in (*(one for one in place.iterdir() if one.is_dir()), place):
        eventually(lambda each=each: not (each / 'cgroup.procs').read_text(), 'empty')
        each.rmdir()


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which('setpriv') is None, reason='needs root and setpriv')
@pytest.mark.parametrize('kills_runner', [False, True])
def test_what_has_become_another_users_ends_with_its_control_group(
    delegated: Path, *, kills_runner: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        become_root = Path(name, 'setpriv')
        shutil.copy(str(shutil.which('setpriv')), become_root)
        become_root.chmod(0o4755)
        script = f'echo $$ >> {name}/pids; exec sleep 600'
        command = f'{become_root} --reuid 0 --regid 0 --clear-groups sh -c {shlex.quote(script)}'
        end = 'kill -9 $PPID; sleep 600' if kills_runner else 'exit 1'
        until_begun = shell_until(f'[ -s {name}/pids ]')
        command = f'sh -c {shlex.quote(f"{command} & {until_begun}; {end}")}'
        section = (
            f'[runner.do]\nclass = runners.command:Command\nqueue = in\ncommand = {command}\n[queue.in]\n'
        )

        def live() -> None:
            case = Pipeline(Path(name), section)
            case.spool['in'].recover(include_own=False)
            case.runner(Command, 'do').run(until_empty=True)

        def begin(uid_root: Path) -> Child:
            reading, writing = os.pipe()

            def child() -> None:
                os.close(writing)
                os.read(reading, 1)
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                live()

            made = Child(child)
            (uid_root / 'cgroup.procs').write_text(str(made.pid))
            os.close(reading)
            os.close(writing)
            return made

        def fill() -> None:
            Pipeline(Path(name), section).spool['in'].enqueue(mail())

        Child(fill, uid=NOBODY).join()
        with begin(delegated) as first:
            first.wait()
        pids = Path(name, 'pids').read_text().split()
        assert len(pids) == 1
        if kills_runner:
            assert not ends(int(pids[0]), 0.0)
            [group] = [one for one in delegated.iterdir() if one.is_dir()]
            Path(name, 'pids').write_text('')
            with begin(delegated) as second:
                second.wait()
            assert not group.exists() or str(pids[0]) not in (group / 'cgroup.procs').read_text()
        assert ends(int(pids[0]))


def test_without_a_group_of_its_own_a_runner_makes_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr('switchboard.runner.control_group.cgroup_of', lambda: str(tmp_path))
    assert delegated_cgroup() is None  # the root of all groups, which has no such files
    (tmp_path / 'cgroup.kill').touch()
    (tmp_path / 'cgroup.procs').touch()
    given = delegated_cgroup()
    assert given == str(tmp_path) or os.path.isdir('/run/systemd/system')


def test_too_much_environment_is_the_messages_fault(bench: Bench) -> None:
    case = bench.program('pass')
    case.spool['in'].enqueue('x', {f'key{number}': 'x' * 30_000 for number in range(200)})
    case.work(Command, 'do')
    assert 'Argument list too long' in case.reason()


def test_a_file_that_is_no_program_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / 'nothing').write_bytes(b'\x7fnothing')
    (tmp_path / 'nothing').chmod(0o755)
    case = Pipeline(
        tmp_path, f'[runner.do]\nclass = command\nqueue = in\ncommand = {tmp_path}/nothing\n[queue.in]\n'
    )
    case.spool['in'].enqueue('x')
    case.work(Command, 'do')
    assert 'Exec format error' in case.reason()


@pytest.mark.parametrize('pid', [10**30, 1 << 31, (1 << 31) - 1, 1, 0, -1, True, 1.5, '7', None])
def test_a_history_that_names_no_process_ends_none(pid: object) -> None:
    for process in ([pid, 0], [pid], pid):
        ProcessTree(b'').end_earlier([{LEFT_RUNNING: [process]}])
