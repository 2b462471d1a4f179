"""The master and its runners: starting, ending, dying, and who survives whom.  Real processes, signals and kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from switchboard.master.control import ask, signal_master
from switchboard.status.alive import master_alive
from switchboard.status.scoreboard import ProcessState
from tests.acceptance.installation import Installation, ends, kill
from tests.helpers.waiting import PATIENCE_S, eventually


def test_a_stop_lets_the_message_at_work_be_finished(site: Installation) -> None:
    site.configure({'in': {}})
    master = site.start()
    site.put('in', 'wait')
    site.told.wait_for('begin in .* wait')
    site.put('in', 'next')
    master.terminate()
    site.log.wait_for('stopping')
    assert site.record('in').state is ProcessState.STOPPING
    site.open_gate()
    site.told.wait_for('end in .* wait')
    site.told.wait_for('cleanup')
    assert master.wait(PATIENCE_S) == 0
    assert site.record('in').state is ProcessState.EXITED
    assert not site.told.said('next')
    assert site.count('in') == 1
    assert not master_alive(site.spool_directory)
    assert not (site.run / 'master.pid').exists()
    assert not (site.run / 'control').exists()


def test_who_does_not_stop_in_time_is_killed_with_all_that_it_started(site: Installation) -> None:
    site.configure({'in': {'stop_timeout': '100ms'}})
    master = site.start()
    site.put('in', 'stubborn')
    program = int(site.told.wait_for(r'program (\d+)')[1])
    master.terminate()
    assert master.wait(PATIENCE_S) == 0
    assert ends(program)
    assert site.count('in') == 1


def test_a_second_interrupt_does_not_wait(site: Installation) -> None:
    site.configure({'in': {'stop_timeout': '1h'}})
    master = site.start()
    site.put('in', 'stubborn')
    program = int(site.told.wait_for(r'program (\d+)')[1])
    master.send_signal(signal.SIGINT)
    site.log.wait_for('stop requested')
    master.send_signal(signal.SIGINT)
    assert master.wait(PATIENCE_S) == 0
    assert ends(program)


def test_kill_9_of_the_master_ends_all_runners_at_once(site: Installation) -> None:
    # Mailman leaves them alive, and the next start then needs --force.
    site.configure({'idle': {'instances': 4}, 'one': {}, 'two': {}})
    master = site.start()
    site.put('one', 'stubborn')
    program = int(site.told.wait_for(r'program (\d+)')[1])
    site.put('two', 'c code')
    site.told.wait_for('in c')
    pids = [*site.pids().values(), program]
    kill(master.pid)
    # The kernel kills them: none of our timers does, the shortest of which takes a minute.
    give_up_s = time.monotonic() + 50
    for pid in pids:
        assert ends(pid, max(0, give_up_s - time.monotonic()))
    assert not master_alive(site.spool_directory)


def test_after_kill_9_of_the_master_a_new_start_needs_no_force(site: Installation) -> None:
    site.configure({'in': {}})
    master = site.start()
    pid = site.pids()['in 1/1']
    kill(master.pid)
    master.wait(PATIENCE_S)
    assert (site.run / 'master.pid').exists()
    # Whatever the pid file says, only the lock counts.
    (site.run / 'master.pid').write_text(f'{os.getpid()}\n')
    site.start()
    assert site.pids()['in 1/1'] != pid
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')


def test_a_second_master_is_refused_and_names_the_first(site: Installation) -> None:
    site.configure({'in': {}})
    first = site.start()
    second = site.start(ready=False)
    assert second.wait(PATIENCE_S) == os.EX_TEMPFAIL
    assert site.log.wait_for('already running')[0]
    assert site.log.said(f'pid {first.pid}')
    assert first.poll() is None


@pytest.mark.slow
def test_asking_whether_a_master_lives_never_keeps_one_from_starting(site: Installation) -> None:
    site.configure({})
    site.run.mkdir(parents=True)
    (site.run / 'master.lock').touch()
    code = (
        'import sys; from switchboard.status.alive import master_alive\nwhile True: master_alive(sys.argv[1])'
    )
    asker = subprocess.Popen([sys.executable, '-c', code, str(site.spool_directory)])
    try:
        for _ in range(5):
            site.start()
            assert site.stop() == 0
    finally:
        asker.kill()
        asker.wait()


def test_kill_9_of_a_runner_loses_nothing_and_it_is_back(site: Installation) -> None:
    site.configure({'in': {'restart': '50ms..50ms'}})
    site.start()
    site.put('in', 'wait')
    pid = int(site.told.wait_for(r'begin in (\d+) wait')[1])
    kill(pid)
    site.log.wait_for('ended .*how="killed by SIGKILL"')
    site.log.wait_for('running')
    site.told.wait_for('begin in .* wait')
    site.open_gate()
    site.told.wait_for('end in .* wait')
    record = site.record('in')
    assert record.restarts == 1
    assert record.pid not in (0, pid)


def test_a_runner_that_somebody_terminates_is_back_at_once(site: Installation) -> None:
    # Mailman never restarts it.
    site.configure({'in': {'restart': '1h..1h', 'stable_after': '2h'}})
    site.start()
    for _ in range(2):
        os.kill(site.pids()['in 1/1'], signal.SIGTERM)
        site.log.wait_for('ended .*status 0')
        site.log.wait_for('running')


def test_the_programs_of_a_killed_runner_go_with_it(site: Installation) -> None:
    site.configure({'in': {'restart': '1h..1h'}})
    site.start()
    site.put('in', 'program')
    program = int(site.told.wait_for(r'program (\d+)')[1])
    kill(site.pids()['in 1/1'])
    assert ends(program)


def test_a_runner_that_keeps_dying_waits_longer_each_time_and_is_given_up_with_a_reason(
    site: Installation,
) -> None:
    # Mailman restarts ten times without a delay and then says one line.
    site.configure(
        {'bad': {'class': 'jobs:Crash', 'queue': 'x', 'restart': '10ms..40ms', 'max_restarts': 3}, 'in': {}}
    )
    site.start(ready=False)
    site.log.wait_for('gave up')  # before or after the other one is ready
    record = site.record('bad')
    assert record.state is ProcessState.FATAL
    assert record.reason == 'ended 4 times within 600 s, gave up: killed by SIGKILL'
    assert len([line for line in site.told.seen if line.startswith('crash')]) in (0, 4)
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    assert site.record('in').restarts == 0
    assert site.stop() == os.EX_UNAVAILABLE


def test_a_runner_that_died_shows_when_it_will_be_started_again(site: Installation) -> None:
    site.configure({'bad': {'class': 'jobs:Crash', 'queue': 'x', 'restart': '1h..1h'}})
    site.start()
    record = site.record('bad')
    assert (record.state, record.pid, record.reason) == (ProcessState.BACKOFF, 0, 'killed by SIGKILL')
    assert record.next_restart_ns - record.started_ns > 3000e9
    assert site.stop() == 0
    assert site.record('bad').state is ProcessState.EXITED


@pytest.mark.parametrize(
    ('class_path', 'reason'),
    [
        ('nowhere:Job', "cannot import nowhere:Job: ModuleNotFoundError: No module named 'nowhere'"),
        (
            'jobs:Nobody',
            "cannot import jobs:Nobody: AttributeError: module 'jobs' has no attribute 'Nobody' ({home}/jobs.py)",
        ),
        ('jobs:tell', 'jobs:tell is not a Runner'),
        ('leaves:Job', 'leaves:Job ends the program with no licence'),
    ],
)
def test_a_class_that_cannot_be_had_is_fatal_at_once_and_its_siblings_go_on(
    site: Installation, class_path: str, reason: str
) -> None:
    (site.home / 'leaves.py').write_text('raise SystemExit("no licence")')
    site.configure({'bad': {'class': class_path, 'queue': 'x'}, 'in': {}})
    site.start()
    record = site.record('bad')
    assert (record.state, record.restarts) == (ProcessState.FATAL, 0)
    assert record.reason == f'[runner.bad] class: {reason.format(home=site.home)}'
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    assert site.stop() == os.EX_UNAVAILABLE


ENDS = """
import sys
from switchboard import Runner

class Init(Runner):
    def __init__(self, *args, **keys):
        super().__init__(*args, **keys)
        sys.exit({code})

    def dispose(self, msg, msgdata):
        pass

class Run(Runner):
    def run(self, **keys):
        self.slot.heartbeat()
        return {code}

    def dispose(self, msg, msgdata):
        pass
"""


@pytest.mark.parametrize(
    ('place', 'code'),
    [
        ('Init', 2**40),
        ('Init', 'no licence'),
        ('Init', 0),
        ('Init', 78),
        ('Run', 2**40),
        ('Run', None),
        ('Run', 'text'),
    ],
)
def test_whatever_a_class_ends_its_process_with_it_ends_and_its_siblings_go_on(
    site: Installation, place: str, code: object
) -> None:
    (site.home / 'ends.py').write_text(ENDS.format(code=repr(code)))
    keys = {'class': f'ends:{place}', 'restart': '50ms..50ms', 'max_restarts': 2}
    site.configure({'bad': keys, 'in': {}})
    site.start()
    pid = site.pids()['in 1/1']
    is_refused = (place, code) == ('Init', 78)
    eventually(lambda: site.log.count('ended .*bad 1/1') >= (1 if is_refused else 3), 'ended')
    if place == 'Init':
        eventually(lambda: site.record('bad').state is ProcessState.FATAL, 'given up')
        assert site.record('bad').last_error == f'SystemExit: {code}'
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    assert site.pids()['in 1/1'] == pid
    assert site.record('in').restarts == 0
    assert not site.log.count('mistake|master failed|killed by')
    assert site.ask('status')['ok']


def test_runner_classes_are_found_where_the_configuration_says(site: Installation) -> None:
    (site.home / 'lib').mkdir()
    (site.home / 'lib' / 'elsewhere.py').write_text(
        'from switchboard import Runner\nclass Job(Runner):\n    def dispose(self, msg, msgdata): pass\n'
    )
    site.configure({'in': {'class': 'elsewhere:Job'}}, python_path='lib')
    site.start()
    assert site.record('in').state is ProcessState.RUNNING


def test_a_configuration_with_a_mistake_is_refused_with_its_place(site: Installation) -> None:
    site.configure({'in': {'instances': 'many'}})
    master = site.start(ready=False)
    assert master.wait(PATIENCE_S) == os.EX_CONFIG
    site.log.wait_for(r'switchboard.cfg:\d+ \[runner.in\] instances: ')


def test_a_master_without_runners_waits_to_be_told_what_to_do(site: Installation) -> None:
    site.configure({})
    site.start()
    assert site.ask('status') == {'ok': True, 'errors': [], 'under_way': [], 'is_foreground': True}
    assert site.stop() == 0


@pytest.mark.parametrize('length', [0, 100, 5000])
def test_a_scoreboard_that_is_cut_ends_nobody_and_is_whole_again(site: Installation, length: int) -> None:
    site.configure({'in': {}, 'out': {}})
    master = site.start()
    pids = site.pids()
    os.truncate(site.run / 'scoreboard', length)
    site.put('in', 'x')
    site.told.wait_for('end in')
    assert site.ask('status')['ok']
    site.log.wait_for('scoreboard mended')
    assert site.pids() == pids
    assert site.stop() == 0
    assert master.returncode == 0


@pytest.mark.parametrize('what', ['spool', 'spool/.run/master'])
def test_a_master_whose_directory_is_removed_stops_since_nobody_could_find_it(
    site: Installation, what: str
) -> None:
    site.configure({'in': {}, 'out': {}})
    master = site.start()
    pids = site.pids()
    shutil.rmtree(site.home / what)
    os.kill(master.pid, signal.SIGCHLD)  # its loop turns at once, and not only in some seconds
    assert master.wait(PATIENCE_S) == os.EX_NOINPUT
    site.log.wait_for('directory removed')
    assert all(ends(pid) for pid in pids.values())


# The disk's refusal, without a disk: the descriptor of the directory is away from the last line of the log to the next one.
REFUSED_AT_THE_END = """
import logging, os, sys
from switchboard.config.config import Config
from switchboard.master.master import Master

config = Config.load(sys.argv[1])
own = os.path.join(config.spool, '.run', 'master')

class Refusing(logging.Handler):
    kept = fd = -1

    def emit(self, record):
        if self.kept >= 0:
            os.dup2(self.kept, self.fd, False)
            os.close(self.kept)
            self.kept = -1
        elif record.getMessage().startswith('stopped'):
            is_own = lambda fd: os.path.realpath(f'/proc/self/fd/{fd}') == own
            self.fd = next(int(fd) for fd in os.listdir('/proc/self/fd') if is_own(fd))
            self.kept = os.dup(self.fd)
            os.close(self.fd)

logger = logging.getLogger('switchboard.master')
logger.setLevel(logging.INFO)
logger.addHandler(Refusing())
master = Master(config, on_ready=lambda records: master.stop())
sys.exit(master.run())
"""


def test_a_master_that_cannot_ask_for_its_directory_at_the_end_has_stopped_all_the_same(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    command = [sys.executable, '-c', REFUSED_AT_THE_END, str(site.config)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ran.returncode == os.EX_OK, ran.stderr


def test_a_master_that_does_not_answer_is_stopped_by_a_signal_to_it_and_to_nobody_else(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    assert not signal_master(site.spool_directory, signal.SIGTERM)
    master = site.start()
    stranger = subprocess.Popen(['sleep', '600'])
    try:
        (site.run / 'master.pid').write_text(f'{stranger.pid}\n')
        master.send_signal(signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            ask(site.spool_directory, {'do': 'status'}, 0.2)
        assert signal_master(site.spool_directory, signal.SIGTERM)
        master.send_signal(signal.SIGCONT)
        assert master.wait(PATIENCE_S) == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.slow
def test_who_waits_without_a_limit_is_told_that_the_master_does_not_answer(site: Installation) -> None:
    site.configure({'in': {}})
    master = site.start()
    master.send_signal(signal.SIGSTOP)
    try:
        programs = [
            subprocess.Popen(
                [sys.executable, '-m', 'switchboard', '-C', str(site.config), *words],
                stderr=subprocess.PIPE,
                text=True,
            )
            for words in (
                ['restart'],
                ['restart', '--master'],
                ['reload', '--timeout', '1s'],
                ['stop'],
                ['reload'],
                ['reopen'],
            )
        ]
        status = subprocess.run(
            [sys.executable, '-m', 'switchboard', '-C', str(site.config), 'status'],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        said = [program.communicate(timeout=120)[1] for program in programs]
    finally:
        master.send_signal(signal.SIGCONT)
    assert f'`kill -CONT {master.pid}` lets it go on' in status
    assert [program.returncode for program in programs] == [75] * len(programs)
    for text in (said[0], said[1], *said[3:]):
        assert f'the master (pid {master.pid}) does not answer: it is stopped, or hangs' in text
        assert 'kill -CONT' in text
    # It does what it was asked for as soon as it can.
    assert master.wait(PATIENCE_S) == 0


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_a_master_that_is_told_to_stop_while_it_starts_stops(
    site: Installation, signum: signal.Signals
) -> None:
    (site.home / 'early.py').write_text('import jobs\njobs.tell("early")\njobs.wait_at_gate()\n')
    site.configure({'in': {}}, preload='early')
    master = site.start(ready=False)
    site.told.wait_for('early')
    assert master_alive(site.spool_directory)
    master.send_signal(signum)
    assert master.wait(PATIENCE_S) == 0
    assert not (site.run / 'master.pid').exists()
    assert not site.told.said('setup')


def test_a_master_that_is_told_to_stop_before_its_runners_are_ready_stops(site: Installation) -> None:
    site.configure({'in': {'class': 'jobs:SlowStart'}})
    master = site.start(ready=False)
    site.told.wait_for('starting')
    master.terminate()
    site.log.wait_for('stop requested')
    site.open_gate()
    assert master.wait(PATIENCE_S) == 0


def test_a_daemon_that_a_runner_has_started_is_gone_before_its_message_is_tried_again(
    site: Installation,
) -> None:
    site.configure({'in': {}, 'other': {}})
    site.start()
    site.put('other', 'daemon')
    other = int(site.told.wait_for(r'daemon (\d+)')[1])
    site.put('in', 'daemon')
    daemon = int(site.told.wait_for(r'daemon (\d+)')[1])
    kill(site.pids()['in 1/1'])
    again = int(site.told.wait_for(r'daemon (\d+)')[1])
    assert ends(daemon, 0)
    assert alive(other)
    assert alive(again)
    site.open_gate()
    site.open_gate()
    assert site.stop() == 0


def test_what_a_killed_master_has_left_is_ended_by_the_next_one_before_anything_is_tried_again(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    master = site.start()
    site.put('in', 'daemon')
    daemon = int(site.told.wait_for(r'daemon (\d+)')[1])
    runner = site.record('in').pid
    kill(master.pid)
    master.wait()
    assert ends(runner)
    assert alive(daemon)
    site.start(ready=False)
    site.log.wait_for('orphans killed number=1')
    again = int(site.told.wait_for(r'daemon (\d+)')[1])
    assert ends(daemon)
    assert alive(again)
    site.open_gate()
    assert site.stop() == 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
