"""What an operator asks of a running master: reload, restart, scale, stop, reopen; by signals and over the control socket."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.status.scoreboard import ProcessState, Scoreboard
from tests.acceptance.installation import Installation, ends, kill
from tests.helpers.descriptors import open_files
from tests.helpers.waiting import PATIENCE_S, eventually


def send(site: Installation, signum: signal.Signals) -> None:
    site.masters[-1].send_signal(signum)


def reload_error(site: Installation) -> str:
    return Scoreboard.open(site.run / 'scoreboard').master().reload_error


def test_a_reload_restarts_only_what_changed(site: Installation) -> None:
    site.configure({'same': {}, 'changed': {}, 'removed': {}})
    site.start()
    before = site.pids()
    site.configure({'same': {}, 'changed': {'batch_size': 5}, 'added': {'instances': 2}})
    send(site, signal.SIGHUP)
    site.log.wait_for('request finished request=reload')
    after = site.pids()
    assert sorted(after) == ['added 1/2', 'added 2/2', 'changed 1/1', 'same 1/1']
    assert after['same 1/1'] == before['same 1/1']
    assert after['changed 1/1'] != before['changed 1/1']
    assert ends(before['removed 1/1'], 0)
    assert {each.state for each in site.records()} == {ProcessState.RUNNING}


def test_a_reload_with_a_mistake_keeps_everything_as_it_was_and_says_so(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    before = site.pids()
    site.configure({'in': {'instances': 'many'}, 'out': {}})
    answer = site.ask('reload')
    assert answer['ok'] is False
    assert '[runner.in] instances' in answer['errors'][0]
    assert site.pids() == before
    assert reload_error(site) == f'the old configuration is in force: {answer["errors"][0]}'
    site.configure({'in': {}})
    assert site.ask('reload') == {'ok': True, 'errors': [], 'changes': 'nothing changed'}
    assert reload_error(site) == ''
    assert site.pids() == before


def test_a_reload_cannot_move_a_running_master_to_another_spool(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    site.config.write_text(site.config.read_text().replace('/spool\n', '/other\n'))
    answer = site.ask('reload')
    assert 'cannot move to another spool' in answer['errors'][0]


def test_a_changed_runner_that_cannot_start_does_not_take_the_place_of_the_old_one(
    site: Installation,
) -> None:
    site.configure({'in': {'instances': 2}})
    site.start()
    before = site.pids()
    (site.home / 'newer.py').write_text('import nowhere\n')
    site.configure({'in': {'instances': 2, 'class': 'newer:Job'}})
    answer = site.ask('reload')
    assert answer['ok'] is False
    assert 'the old one goes on: [runner.in] class: cannot import newer:Job' in answer['errors'][0]
    assert site.pids() == before
    in_force = 'the new configuration is in force, but not in every runner'
    assert reload_error(site) == f'{in_force}: {answer["errors"][0]}'
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    # It was a class that was missing: now it is there, and the same words work.
    (site.home / 'newer.py').write_text('from jobs import Job\n')
    assert site.ask('restart', runner='in')['ok']
    assert set(site.pids().values()).isdisjoint(before.values())


def test_a_reload_tries_again_what_had_given_up(site: Installation) -> None:
    site.configure({'in': {'class': 'later:Job'}, 'out': {}})
    site.start()
    assert site.record('in').state is ProcessState.FATAL
    before = site.record('out').pid
    (site.home / 'later.py').write_text('from jobs import Job\n')
    assert site.ask('reload')['ok']
    assert site.record('in').state is ProcessState.RUNNING
    assert site.record('out').pid == before


def test_a_new_class_of_the_same_name_is_used_after_a_restart(site: Installation) -> None:
    (site.home / 'mine.py').write_text('from jobs import Job, tell\nclass Mine(Job): pass\n')
    site.configure({'in': {'class': 'mine:Mine'}})
    site.start()
    (site.home / 'mine.py').write_text(
        'from jobs import Job, tell\nclass Mine(Job):\n    def setup(self):\n        tell("second edition")\n'
    )
    assert site.ask('restart', runner='in')['ok']
    site.told.wait_for('second edition')


def test_a_change_of_the_exchanges_reaches_every_runner_and_restarts_none(site: Installation) -> None:
    site.configure({'in': {'class': 'jobs:Sender'}, 'out': {}, 'long': {}})
    site.start()
    site.put('long', 'wait')
    site.told.wait_for('begin long .* wait')
    before = site.pids()
    (site.home / 'exchange.cfg').write_text('[exchange.x]\ntype = fanout\nbindings =\n    -> out\n')
    assert site.ask('plan')['plan'] == []
    answer = site.ask('reload')
    # Whoever publishes after the answer goes by the new table, at whatever moment it looked last.
    assert answer == {'ok': True, 'errors': [], 'changes': 'changed exchanges x'}
    assert site.pids() == before
    site.put('in', 'sent by way of x')
    site.told.wait_for('end out .* sent by way of x')
    # One that is started again by itself publishes by what is in force now, too.
    os.kill(before['in 1/1'], signal.SIGKILL)
    site.log.wait_for('running runner="in 1/1"')
    site.put('in', 'sent again')
    site.told.wait_for('end out .* sent again')
    site.open_gate()
    site.told.wait_for('end long .* wait')


def test_a_change_of_one_queue_restarts_its_runner_and_no_other_and_says_so_before(
    site: Installation,
) -> None:
    site.configure({'in': {}, 'out': {}, 'more': {}})
    site.start()
    before = site.pids()
    with site.config.open('a') as configuration:
        configuration.write('[queue.out]\nmax_messages = 10\n[runner.new]\nclass = jobs:Job\nqueue = more\n')
    plan = [
        {'runner': 'new', 'act': 'start', 'reason': 'its section is new'},
        {'runner': 'out', 'act': 'restart', 'reason': 'the options of queue out have changed'},
    ]
    assert site.ask('plan')['plan'] == plan
    assert site.pids() == before
    assert site.ask('reload')['ok']
    assert site.log.said(
        'reload planned act=restart runner=out reason="the options of queue out have changed"'
    )
    after = site.pids()
    assert {name for name in before if before[name] != after[name]} == {'out 1/1'}


def test_usr1_restarts_the_runners_one_by_one(site: Installation) -> None:
    site.configure({'in': {'instances': 3}, 'out': {}})
    site.start()
    before = site.pids()
    send(site, signal.SIGUSR1)
    site.log.wait_for('request finished request=restart')
    after = site.pids()
    assert sorted(after) == sorted(before)
    assert set(after.values()).isdisjoint(before.values())
    events = [
        match.groups()
        for line in site.log.seen
        if (match := re.search(r' (running|ended) runner="(.+?)"', line))
    ]
    # One has gone and its successor runs before the next one is asked to go.
    for gone, come in zip(events[4::2], events[5::2], strict=True):
        assert (gone[0], come[0], gone[1]) == ('ended', 'running', come[1])


def test_a_restart_waits_for_the_message_at_work_and_only_then_the_successor_begins(
    site: Installation,
) -> None:
    site.configure({'in': {}})
    site.start()
    old = site.record('in').pid
    site.put('in', 'wait')
    site.told.wait_for('begin in .* wait')
    site.put('in', 'after')
    send(site, signal.SIGUSR1)
    site.log.wait_for('stopping')
    states = {each.pid: each.state for each in site.records('in')}
    assert states.pop(old) is ProcessState.STOPPING
    [(new, state)] = states.items()
    assert state is ProcessState.STARTING
    assert not site.told.said('begin in .* after')
    site.open_gate()
    assert site.told.wait_for(r'begin in (\d+) after')[1] == str(new)
    site.log.wait_for('request finished')
    record = site.record('in')
    assert record.pid == new
    # The counters are the slice's, not the process's.
    eventually(lambda: site.record('in').done == 2, 'two done')


def test_usr2_reopens_the_logs_of_the_master_and_of_its_runners(site: Installation) -> None:
    log = site.home / 'switchboard.log'
    site.configure({'in': {'class': 'logging_job:Job'}}, log_file=log)
    (site.home / 'logging_job.py').write_text(
        'import jobs, logging\nclass Job(jobs.Job):\n    def dispose(self, msg, msgdata):\n'
        '        logging.getLogger("switchboard.runner").info("got %s", msg)\n        jobs.tell("logged")\n'
    )
    site.start(ready=False)
    site.told.wait_for('setup')
    rotated = log.rename(log.with_suffix('.1'))
    assert site.ask('reopen')['ok']
    eventually(lambda: str(log) in open_files(site.record('in').pid).values(), 'reopened')
    site.put('in', 'hello')
    site.told.wait_for('logged')
    send(site, signal.SIGUSR2)
    site.stop()
    assert 'got hello' in log.read_text()
    assert 'stopped' in log.read_text()
    assert 'got hello' not in rotated.read_text()
    assert 'started' in rotated.read_text()


def test_ttin_and_ttou_give_the_first_runner_with_a_queue_a_slice_more_or_less(site: Installation) -> None:
    site.configure({'server': {'queue': ''}, 'in': {}})
    site.start()
    for signum, titles in (
        (signal.SIGTTIN, ['in 1/2', 'in 2/2']),
        (signal.SIGTTIN, ['in 1/3', 'in 2/3', 'in 3/3']),
        (signal.SIGTTOU, ['in 1/2', 'in 2/2']),
    ):
        send(site, signum)
        site.log.wait_for('request finished request="scale in=')
        assert [each.title for each in site.records('in')] == titles


def test_ttou_never_takes_the_last_slice(site: Installation) -> None:
    site.configure({'in': {}, 'out': {'instances': 2}}, scale_runner='out')
    site.start()
    for _ in range(3):
        send(site, signal.SIGTTOU)
        site.log.wait_for('signal received signal=SIGTTOU')
    assert site.ask('scale', runner='out', instances=1)['ok']
    assert [each.title for each in site.records('out')] == ['out 1/1']


def test_messages_are_handled_once_each_while_the_slices_change(site: Installation) -> None:
    site.configure({'in': {}})
    site.start()
    messages = [f'm{number}' for number in range(300)]
    for position, count in enumerate((3, 5, 2)):
        site.put('in', *messages[position * 100 : position * 100 + 100])
        assert site.ask('scale', runner='in', instances=count)['ok']
    eventually(lambda: site.count('in') == 0, 'empty')
    site.told.said('end')
    done = [line.split()[-1] for line in site.told.seen if line.startswith('end')]
    assert sorted(done) == sorted(messages)
    assert site.count('bad') == 0
    eventually(lambda: sum(each.done for each in site.records('in')) == 300, '300 counted')


def test_a_count_that_was_changed_while_running_survives_a_reload_that_does_not_speak_of_it(
    site: Installation,
) -> None:
    site.configure({'in': {}, 'out': {}})
    site.start()
    site.ask('scale', runner='in', instances=2)
    site.configure({'in': {}, 'out': {'batch_size': 3}})
    site.ask('reload')
    assert len(site.records('in')) == 2
    site.configure({'in': {'instances': 3}, 'out': {'batch_size': 3}})
    assert site.ask('reload')['changes'] == 'scaled runners in'
    assert len(site.records('in')) == 3


def test_a_runner_can_be_stopped_and_started_by_name(site: Installation) -> None:
    site.configure({'in': {}, 'out': {}})
    site.start()
    assert site.ask('stop', runner='in') == {'ok': True, 'errors': [], 'runner': 'in'}
    assert (site.record('in').state, site.record('in').pid) == (ProcessState.EXITED, 0)
    # It stays so, whatever happens to the others.
    assert site.ask('restart')['ok']
    assert site.record('in').state is ProcessState.EXITED
    assert site.record('out').state is ProcessState.RUNNING
    assert site.ask('start', runner='in')['ok']
    assert site.record('in').state is ProcessState.RUNNING
    assert site.ask('start', runner='in')['ok']


def test_scaling_to_none_ends_a_runner_and_it_can_come_back(site: Installation) -> None:
    site.configure({'in': {'instances': 2}})
    site.start()
    assert site.ask('scale', runner='in', instances=0)['ok']
    assert site.records() == []
    assert site.ask('start', runner='in')['ok']
    assert [each.title for each in site.records('in')] == ['in 1/2', 'in 2/2']


def test_a_restart_that_fails_says_so(site: Installation) -> None:
    site.configure({'in': {'class': 'nowhere:Job'}})
    site.start()
    answer = site.ask('restart', runner='in')
    assert answer['ok'] is False
    assert 'cannot import nowhere:Job' in answer['errors'][0]
    assert site.record('in').state is ProcessState.FATAL


def test_a_replacement_that_is_killed_while_it_waits_is_replaced_itself(site: Installation) -> None:
    site.configure({'in': {'restart': '10ms..10ms'}})
    site.start()
    old = site.record('in').pid
    site.put('in', 'wait')
    site.told.wait_for('begin in .* wait')
    send(site, signal.SIGUSR1)
    site.log.wait_for('stopping')
    kill(next(each.pid for each in site.records('in') if each.pid != old))
    site.log.wait_for('ended .*SIGKILL')
    site.open_gate()
    site.log.wait_for('running')
    site.put('in', 'hello')
    site.told.wait_for('end in .* hello')
    assert len(site.records('in')) == 1


@pytest.mark.parametrize(
    'act',
    [
        'restart',
        'stop',
        'restart where the path leads through a link',
        'restart beside a backup by hard links',
    ],
)
def test_a_job_that_is_killed_on_request_is_noted_and_not_counted(site: Installation, act: str) -> None:
    act, _, how = act.partition(' ')
    if how.endswith('a link'):
        (site.home / 'disk').mkdir()
        site.spool_directory.symlink_to('disk')
    site.configure({'in': {'stop_timeout': '100ms'}})
    site.start()
    site.put('in', 'wait')
    backups: dict[Path, bytes] = {}
    for number in range(4):  # one more than may die
        site.told.wait_for('begin in .* wait')
        if how.endswith('hard links'):
            [claimed] = (site.spool_directory / 'in').glob('*.bak')
            backup = site.home / f'backup{number}'
            backup.hardlink_to(claimed)
            backups[backup] = backup.read_bytes()
        assert site.ask(act, runner='in')['ok']
        if act == 'stop':
            assert site.ask('start', runner='in')['ok']
    site.told.wait_for('begin in .* wait')
    [claimed] = (site.spool_directory / 'in').glob('*.bak')
    queue = Spool.from_config(site.config)['in']
    events = [record['event'] for record in queue.history(claimed.stem)]
    assert events == ['interrupted'] * 4
    assert {path: path.read_bytes() for path in backups} == backups
    site.open_gate()
    site.told.wait_for('end in .* wait')
    assert site.count('bad') == 0
    assert site.stop() == 0


def test_a_second_interrupt_that_kills_is_noted_and_not_counted(site: Installation) -> None:
    site.configure({'in': {'stop_timeout': '1h'}})
    site.put('in', 'wait')
    for _ in range(4):  # one more than may die
        master = site.start()
        site.told.wait_for('begin in .* wait')
        master.send_signal(signal.SIGINT)
        site.log.wait_for('stop requested')
        master.send_signal(signal.SIGINT)
        site.log.wait_for('ended .*SIGKILL')
        master.wait(PATIENCE_S)
    [entry] = [*(site.spool_directory / 'in').glob('*.bak'), *(site.spool_directory / 'in').glob('*.pck')]
    events = [record['event'] for record in Spool.from_config(site.config)['in'].history(entry.stem)]
    assert events == ['interrupted'] * 4
    assert site.count('bad') == 0
