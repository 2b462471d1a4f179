"""The janitor: what is repaired and expired where no runner looks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import psutil
import pytest

from switchboard import Spool
from switchboard.master.housekeeping import REST_SHARE, Housekeeping
from switchboard.operating.janitor import LOOKED_AT, tidy
from switchboard.testing.clock import FakeClock
from tests.acceptance.installation import Installation
from tests.helpers.waiting import eventually

CONFIGURATION = """
[switchboard]
spool = spool
durability = lazy

[queue.in]
ttl = 10s
[queue.out]
[queue.bad]
ttl = 1d
"""


@pytest.fixture
def spool(make_spool: Callable[..., Spool], clock: FakeClock) -> Spool:
    return make_spool(CONFIGURATION, clock=clock)


def test_entries_expire_in_a_queue_that_nobody_takes_from(spool, clock):
    spool['in'].enqueue('old')
    clock.advance(11)
    fresh = spool['in'].enqueue('fresh')
    assert tidy(spool).expired == 1
    assert spool['in'].get_files() == [fresh]
    assert len(spool['bad'].get_files('.psv')) == 1
    assert tidy(spool).expired == 0


def test_what_dead_processes_held_is_ready_again(spool):
    filebase = spool['out'].enqueue('orphan')
    child = os.fork()
    if child == 0:
        Spool(spool.directory, config=spool.config)['out'].dequeue(filebase)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert tidy(spool).recovered == 1
    assert spool['out'].get_files() == [filebase]


def test_what_this_process_holds_is_left_alone(spool):
    filebase = spool['out'].enqueue('at work')
    spool['out'].dequeue(filebase)
    assert tidy(spool).recovered == 0
    assert spool['out'].get_files('.bak') == [filebase]


def test_keys_are_forgotten_when_their_window_is_over(spool, clock):
    first = spool['out'].enqueue('once', dedupe_key='key')
    assert spool['out'].enqueue('twice', dedupe_key='key') == first
    assert tidy(spool).forgotten == 0
    clock.advance(86401)
    assert tidy(spool).forgotten == 1
    assert spool['out'].enqueue('again', dedupe_key='key') != first


def test_damaged_entries_do_not_stop_a_round(spool, clock, tmp_path):
    torn = spool['in'].enqueue('torn')
    path = tmp_path / 'spool' / 'in' / f'{torn}.pck'
    path.write_bytes(path.read_bytes()[:20])
    spool['in'].enqueue('old')
    clock.advance(11)
    assert tidy(spool).expired == 1


def test_all_that_has_expired_goes_in_one_round_however_much_it_is(spool, clock):
    with spool['in'].batch():
        for number in range(2 * LOOKED_AT + 1):
            spool['in'].enqueue(number)
    clock.advance(11)
    assert tidy(spool).expired == 2 * LOOKED_AT + 1


def test_entries_with_a_time_of_their_own_are_found_behind_many_that_have_none(spool, clock):
    with spool['out'].batch():
        for number in range(LOOKED_AT + 10):
            spool['out'].enqueue(number)
    spool['out'].enqueue('short', ttl=1)
    clock.advance(5)
    assert tidy(spool).expired == 1


def test_what_failed_is_kept_until_the_bad_queues_own_time_is_over(spool, clock):
    first = spool['out'].enqueue('old and preserved late')
    clock.advance(2 * 86400)
    spool['out'].finish(first, preserve=True)
    clock.advance(86000)
    second = spool['out'].enqueue('younger')
    spool['out'].finish(second, preserve=True)
    assert tidy(spool).removed == 0
    clock.advance(500)
    assert tidy(spool).removed == 1
    assert spool['bad'].get_files('.psv') == [second]


def test_without_a_time_of_its_own_the_bad_queue_keeps_everything(tmp_path, clock):
    spool = Spool(tmp_path, clock=clock)
    filebase = spool['in'].enqueue('failed')
    spool['in'].finish(filebase, preserve=True)
    clock.advance(10 * 365 * 86400)
    assert tidy(spool).removed == 0
    assert spool['bad'].get_files('.psv') == [filebase]


def test_the_longer_a_round_takes_the_rarer_it_is():
    def live(_config, writing):
        os.write(writing, b'2.0')
        os._exit(0)

    broom = Housekeeping(lambda: None, 60.0, 0.0, live, deadline_s=300.0)
    broom.tick(60.0)
    os.waitpid(broom.pid, 0)
    broom.tick(120.0)
    assert broom.due_s() == 60.0 + 2.0 * (1 + REST_SHARE)
    broom.tick(broom.due_s())
    os.waitpid(broom.pid, 0)
    assert broom.due_s() == 60.0 + 2.0 * (1 + REST_SHARE) + 60.0


@pytest.fixture
def janitors():
    """Lists the children that this process has got since; servers that other tests have started are its children, too."""

    def children():
        return [each.pid for each in psutil.Process().children()]

    before = set(children())
    return lambda: [pid for pid in children() if pid not in before]


def test_a_janitor_that_is_still_at_work_or_has_died_stops_nothing(janitors):
    def live(_config, _writing):
        signal.pause()
        os._exit(0)

    broom = Housekeeping(lambda: None, 60.0, 0.0, live, deadline_s=300.0)
    broom.tick(60.0)
    [child] = janitors()
    broom.tick(120.0)
    assert janitors() == [child]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    broom.tick(180.0)
    [child] = janitors()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_janitor_that_hangs_is_killed_and_replaced_even_if_it_is_stopped(janitors):
    def live(_config, _writing):
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)

    broom = Housekeeping(lambda: None, 60.0, 0.0, live, deadline_s=100.0)
    broom.tick(60.0)
    broom.tick(120.0)
    [first] = janitors()
    broom.tick(180.0)
    assert os.waitpid(first, 0)[1] == signal.SIGKILL
    [second] = janitors()
    broom.tick(300.0)  # it has twice as long
    assert janitors() == [second]
    broom.tick(390.0)
    assert os.waitpid(second, 0)[1] == signal.SIGKILL
    [third] = janitors()
    os.kill(third, signal.SIGKILL)
    os.waitpid(third, 0)
    broom.close()


def test_where_rounds_take_long_they_may_take_ten_times_as_long(janitors):
    def first(_config, answer):
        os.write(answer, b'40.000 {}')
        os._exit(0)

    def second(_config, _answer):
        signal.pause()
        os._exit(0)

    live = [first]
    broom = Housekeeping(lambda: None, 60.0, 0.0, lambda *args: live[-1](*args), deadline_s=100.0)
    broom.tick(60.0)
    [child] = janitors()
    os.waitpid(child, 0)
    live.append(second)
    broom.tick(120.0)  # it has taken forty seconds, and rests
    broom.tick(60.0 + 40.0 * 51)
    [child] = janitors()
    broom.tick(60.0 + 40.0 * 51 + 399.0)
    assert janitors() == [child]
    broom.tick(60.0 + 40.0 * 51 + 460.0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for other in janitors():
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    broom.close()


def test_the_janitor_writes_to_the_log_and_to_nothing_else(site: Installation):
    site.configure(
        {'jobs': {}}, maintenance_interval='100ms', log_level='debug', log_file=site.home / 'switchboard.log'
    )
    (site.home / 'switchboard.log').touch()
    site.start(ready=False)
    eventually(lambda: 'janitor[' in (site.home / 'switchboard.log').read_text(), 'the janitor has logged')
    lines = (site.home / 'switchboard.log').read_text().splitlines()
    assert any(' debug master janitor[' in line and ' tidied ' in line for line in lines)
    assert site.stop() == 0


def test_the_master_sends_the_janitor(site: Installation):
    site.configure({'jobs': {}}, maintenance_interval='100ms')
    with site.config.open('a') as configuration:
        configuration.write('[queue.in]\nttl = 100ms\n')
    site.start()
    site.put('in', 'soon too old')
    eventually(lambda: site.count('bad') == 1, 'the entry is in the bad queue')
    assert site.count('in') == 0
    assert site.stop() == 0


def of_the_janitor(site: Installation, word: str) -> list[str]:
    lines = (site.home / 'switchboard.log').read_text().splitlines()
    return [line for line in lines if 'janitor[' in line and word in line]


def test_janitors_tell_of_a_foreign_file_once(site: Installation):
    site.configure(
        {'jobs': {}}, maintenance_interval='100ms', log_level='debug', log_file=site.home / 'switchboard.log'
    )
    site.start(ready=False)
    log = site.home / 'switchboard.log'
    log.touch()
    eventually(lambda: ' ready slices=' in log.read_text(), 'the runners are there')
    foreign = site.home / 'spool' / 'jobs' / 'README.txt'
    foreign.write_text('not an entry')
    eventually(lambda: of_the_janitor(site, 'README.txt'), 'a janitor has seen it')
    rounds = len(of_the_janitor(site, ' tidied '))
    eventually(lambda: len(of_the_janitor(site, ' tidied ')) > rounds + 5, 'others have been there since')
    assert len(of_the_janitor(site, 'README.txt')) == 1
    assert site.stop() == 0


def test_a_frozen_janitor_is_replaced_by_one_that_works(site: Installation):
    site.configure(
        {'jobs': {}},
        maintenance_interval='100ms',
        maintenance_timeout='1s',
        log_file=site.home / 'switchboard.log',
    )
    with site.config.open('a') as configuration:
        configuration.write('[queue.in]\nttl = 100ms\n')
    log = site.home / 'switchboard.log'
    log.touch()
    master = psutil.Process(site.start(ready=False).pid)
    frozen: list[psutil.Process] = []

    def is_frozen() -> bool:
        for child in master.children():
            try:
                if child.cmdline()[:1] == ['switchboard: janitor']:
                    child.suspend()
                    frozen.append(child)
                    return child.status() == psutil.STATUS_STOPPED
            except psutil.Error:
                continue  # it was faster
        return False

    eventually(is_frozen, 'a janitor is stopped in the middle of its round')
    eventually(lambda: f'janitor killed pid={frozen[-1].pid}' in log.read_text(), 'the master has ended it')
    site.put('in', 'soon too old')
    eventually(lambda: site.count('bad') == 1, 'another one does its work')
    assert site.stop() == 0
