"""Starting in the background, and running one runner by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from switchboard.master.control import signal_master
from switchboard.status.alive import master_alive
from switchboard.status.scoreboard import ProcessState
from tests.acceptance.installation import Installation, ends
from tests.helpers.waiting import PATIENCE_S, eventually

BACKGROUND = """
    import sys
    from switchboard.master import programs as launch
    from switchboard.config.config import Config
    try:
        outcome = launch.background(Config.load(sys.argv[1]))
        print(outcome.ready, outcome.pid, outcome.report['slices'] if outcome.ready else outcome.error)
        for failed in outcome.report.get('failed', ()):
            print(failed['title'], failed['state'], failed['reason'])
    except Exception as error:
        print(type(error).__name__, error)
"""


def background(site: Installation) -> str:
    """:return: what a process prints that starts a master in the background."""
    arguments = [sys.executable, '-c', textwrap.dedent(BACKGROUND), str(site.config)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


def test_a_start_in_the_background_returns_when_the_runners_are_ready(site: Installation) -> None:
    site.configure({'in': {'instances': 2}})
    ready, pid, slices = background(site).split()
    assert (ready, slices) == ('True', '2')
    assert {each.state for each in site.records()} == {ProcessState.RUNNING}
    daemon = psutil.Process(int(pid))
    assert daemon.terminal() is None
    assert daemon.cwd() == '/'
    assert os.getsid(daemon.pid) not in (daemon.pid, os.getsid(0))
    site.put('in', 'print')
    site.told.wait_for('end in .* print')
    # What a runner prints is not lost.
    log = site.run / 'master.log'
    eventually(lambda: 'printed by a runner' in log.read_text(), 'logged')
    daemon.terminate()
    assert ends(daemon.pid)
    assert 'stopped' in (site.run / 'master.log').read_text()


def test_the_start_tells_which_runners_failed(site: Installation) -> None:
    site.configure({'in': {}, 'bad': {'class': 'nowhere:Job'}})
    first, second = background(site).splitlines()
    assert first.startswith('True ')
    assert second.startswith('bad 1/1 FATAL [runner.bad] class: cannot import nowhere:Job')


def test_a_second_start_in_the_background_is_refused_and_names_the_first(site: Installation) -> None:
    site.configure({'in': {}})
    _, pid, _ = background(site).split()
    assert background(site) == f'AlreadyRunningError a master is already running (pid {pid})\n'


def test_runners_that_are_not_ready_in_time_do_not_keep_the_start_waiting(site: Installation) -> None:
    site.configure({'in': {'class': 'jobs:SlowStart'}}, ready_timeout='300ms')
    assert background(site) == 'None 0 the program has not said in time that it is ready\n'
    site.told.wait_for('starting')
    assert master_alive(site.spool_directory)


def test_a_stop_while_runners_start_is_told_to_who_waits(site: Installation) -> None:
    site.configure({'in': {'class': 'jobs:SlowStart', 'stop_timeout': '100ms'}})
    with ThreadPoolExecutor() as pool:
        said = pool.submit(background, site)
        site.told.wait_for('starting')
        signal_master(site.spool_directory, signal.SIGTERM)
        assert said.result(PATIENCE_S) == 'MasterError the master was stopped while it started\n'


def test_a_module_that_cannot_be_preloaded_is_told_to_who_waits(site: Installation) -> None:
    site.configure({'in': {}}, preload='nowhere')
    assert background(site).startswith('ConfigError ')
    assert 'cannot import nowhere' in background(site)


def test_trouble_with_the_disk_is_told_to_who_waits(site: Installation) -> None:
    site.configure({'in': {}}, log_file=site.home / 'no' / 'such' / 'directory.log')
    assert background(site).startswith('FileNotFoundError [Errno 2] ')


def test_a_runner_that_does_not_start_is_told_of_with_its_own_error(site: Installation) -> None:
    site.configure({'in': {'class': 'broken:Job'}})
    (site.home / 'broken.py').write_text(RAISES.format(hook='setup(self)', error='OSError("no database")'))
    assert 'in 1/1 BACKOFF exited with status 70: OSError: no database\n' in background(site)


def runner(site: Installation, *arguments: str) -> subprocess.Popen[str]:
    code = 'from switchboard.master.programs import runner; runner()'
    return subprocess.Popen(
        [sys.executable, '-c', code, '-C', str(site.config), *arguments], stderr=subprocess.PIPE, text=True
    )


def test_one_runner_by_hand_works_until_its_queue_is_empty(site: Installation) -> None:
    site.configure({'in': {}})
    site.put('in', *(f'm{number}' for number in range(5)))
    with runner(site, 'in', '--until-empty') as process:
        assert process.wait(PATIENCE_S) == 0
    assert site.count('in') == 0
    site.told.wait_for('cleanup')


RAISES = """
import sys
from switchboard import Runner

class Job(Runner):
    def {hook}:
        raise {error}

    def dispose(self, msg, msgdata):
        pass
"""


@pytest.mark.parametrize(
    'hook', ['setup(self)', 'periodic(self)', 'cleanup(self)', '__init__(self, *args, **keys)']
)
@pytest.mark.parametrize(
    'error',
    [
        'OSError("no database")',
        'OSError(5, "no", 7)',
        'PermissionError(13, "no", "/db")',
        'TimeoutError()',
        'ValueError(1)',
    ],
)
def test_what_a_class_raises_by_hand_is_told_as_under_a_master_and_not_as_trouble_of_this_program(
    site: Installation, hook: str, error: str
) -> None:
    site.configure({'in': {'class': 'broken:Job'}})
    (site.home / 'broken.py').write_text(RAISES.format(hook=hook, error=error))
    with runner(site, 'in', '--until-empty') as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == os.EX_SOFTWARE
    assert ' runner failed runner=in\n' in said
    assert f'broken.py", line 7, in {hook.partition("(")[0]}\n' in said
    assert said.splitlines()[-1].strip().startswith(error.partition('(')[0])


def test_what_the_users_own_loggers_say_by_hand_is_in_the_log_as_under_a_master(site: Installation) -> None:
    site.configure({'in': {'class': 'talks:Job'}})
    (site.home / 'talks.py').write_text(TALKS)
    site.put('in', 'one')
    with runner(site, 'in', '--until-empty') as process:
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
        assert process.wait(PATIENCE_S) == 0
    assert [line.partition('Z ')[2] for line in lines] == [f'info shop in 1/1[{process.pid}] is open']


TALKS = """
import logging
from switchboard import Runner

class Job(Runner):
    def setup(self):
        logging.getLogger('shop').info('is open')

    def dispose(self, msg, msgdata):
        pass
"""


@pytest.mark.parametrize('place', ['module', 'class'])
def test_a_class_that_ends_the_program_by_hand_is_refused_in_words(site: Installation, place: str) -> None:
    site.configure({'in': {'class': 'broken:Job'}})
    text = RAISES.format(hook='__init__(self, *args, **keys)', error='SystemExit(0)')
    (site.home / 'broken.py').write_text('raise SystemExit(0)' if place == 'module' else text)
    with runner(site, 'in', '--until-empty') as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == os.EX_CONFIG
    assert said == '[runner.in] class: broken:Job ends the program with 0\n'


def test_a_spool_that_cannot_be_read_is_no_fault_of_the_class(site: Installation) -> None:
    site.configure({'in': {}})
    site.put('in', 'one')
    (site.spool_directory / '.spare').rename(site.home / 'away')
    (site.spool_directory / '.spare').write_text('')
    with runner(site, 'in', '--until-empty') as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == os.EX_SOFTWARE
    assert len(said.splitlines()) == 1
    assert str(site.spool_directory / '.spare') in said


def test_slices_by_hand_are_counted_from_one_and_cover_the_queue(site: Installation) -> None:
    site.configure({'in': {}})
    site.put('in', *(f'm{number}' for number in range(30)))
    for number in (1, 2, 3):
        with runner(site, f'in:{number}/3', '--once') as process:
            assert process.wait(PATIENCE_S) == 0
        assert (site.count('in') == 0) is (number == 3)


def test_one_runner_by_hand_stops_when_told_to(site: Installation) -> None:
    site.configure({'in': {}})
    with runner(site, 'in') as process:
        site.put('in', 'wait')
        site.told.wait_for('begin in .* wait')
        process.terminate()
        site.open_gate()
        assert process.wait(PATIENCE_S) == 0
    assert site.count('in') == 0


@pytest.mark.parametrize(
    ('arguments', 'status', 'reason'),
    [
        (['nobody'], os.EX_CONFIG, "there is no runner 'nobody'; there are: in"),
        (['in:0/2'], 2, 'slices are counted from 1 to 2'),
        (['in:3/2'], 2, 'slices are counted from 1 to 2'),
        (['in:x'], 2, 'RUNNER or RUNNER:SLICE/COUNT'),
    ],
)
def test_a_runner_that_cannot_be_is_refused_in_words(
    site: Installation, arguments: list[str], status: int, reason: str
) -> None:
    site.configure({'in': {}})
    with runner(site, *arguments) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(PATIENCE_S) == status
    assert reason in said
