"""The page about production, typed as root into a machine with systemd: a container whose process 1 is this machine's systemd, with the shipped unit.

Nothing is fetched: the machine is made of this one's packages, and pip takes the wheels of the tests.  Without an engine for containers the files are
checked by ``test_units`` all the same.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.released.wheel import ROOT, built_once
from tests.helpers.waiting import eventually
from tests.servers.machine.engine import Engine, engine
from tests.test_documentation import blocks_of, commands_of

pytestmark = pytest.mark.timeout(900)

PAGE = (ROOT / 'docs' / 'howto' / 'production.md').read_text()
PACKAGES = ('dbus', 'logrotate', 'mount', 'procps', 'python3-venv', 'systemd', 'systemd-sysv', 'util-linux')
NAME = 'localhost/machine'
CONFIG = '/etc/switchboard/switchboard.cfg'
LOG = '/var/log/switchboard/master.log'


class Machine:
    """One machine, and root at its prompt."""

    def __init__(self, podman: Engine, wheels: Path, umask: str) -> None:
        self._podman = podman
        self._umask = umask
        podman.do(
            *(
                'run',
                '--detach',
                '--name',
                'machine',
                *podman.run_options,
                '--privileged',
                '--systemd=always',
            ),
            *('--volume', f'{wheels}:/wheels:ro', '--env', 'container=podman', NAME, '/sbin/init'),
        )
        eventually(
            lambda: self.ask('systemctl is-system-running').strip() in ('running', 'degraded'),
            lambda: f'up: {self.ask("systemctl --failed")}',
        )

        self._wait_until_up()

    def _wait_until_up(self) -> None:
        eventually(
            lambda: self.ask('systemctl is-system-running').strip() in ('running', 'degraded'),
            lambda: f'up: {self.ask("systemctl --failed")}',
        )

    def restart(self) -> None:
        """Turn it off and on again."""
        self._podman.do('restart', '--time', '60', 'machine')
        self._wait_until_up()

    def ask(self, command: str) -> str:
        """:return: what a command says, however it ends."""
        done = self._podman.ask('exec', 'machine', 'sh', '-c', command)
        return done.stdout + done.stderr

    def do(self, command: str, status: int = 0, input: str = '') -> str:
        """:return: what a command says that ends with this status."""
        words = f'umask {self._umask}; export PIP_FIND_LINKS=/wheels; {command}'
        done = self._podman.ask('exec', '--interactive', 'machine', 'sh', '-ec', words, input=input)
        assert done.returncode == status, f'{command}: {done.returncode}\n{done.stdout}{done.stderr}'
        return done.stdout

    def follow(self, page: str) -> None:
        """Type a part of the page: its commands, in one shell as a person has it, and its settings into the configuration."""
        typed: list[str] = []
        for block in blocks_of(page):
            if block.language == 'console':
                typed += [command for _, command, _ in commands_of(block)]
            elif block.language == 'ini':
                self.do('\n'.join(typed))
                typed.clear()
                self._set(block.text)
        self.do('\n'.join(typed))

    def _set(self, settings: str) -> None:
        text = self.do(f'cat {CONFIG}')
        section = ''
        for line in settings.splitlines():
            if line.startswith('['):
                section = line
            elif line:
                text = with_setting(text, section, line)
        self.do(f'cat > {CONFIG}', input=text)

    def shown(self, name: str) -> str:
        """:return: what systemd knows of the unit by this name."""
        return self.do(f'systemctl show --value --property={name} switchboard').strip()

    def main_pid(self) -> int:
        """:return: the process that systemd takes for the master."""
        return int(self.shown('MainPID'))

    def wait_until_active(self, other_than: int = 0) -> None:
        """Wait until the unit is up, with another process than that one."""
        eventually(
            lambda: self.shown('ActiveState') == 'active' and self.main_pid() not in (0, other_than),
            lambda: f'active: {self.ask("systemctl status switchboard; tail -n 20 " + LOG)}',
        )


def typed(page: str) -> str:
    """:return: the commands of a part of a page."""
    blocks = [block for block in blocks_of(page) if block.language == 'console']
    return '\n'.join(command for block in blocks for _, command, _ in commands_of(block))


def with_setting(text: str, section: str, line: str) -> str:
    """:return: a configuration with a key set in a section, in the place of the line that a sample has for it."""
    if f'\n{section}\n' not in text:
        return f'{text}\n{section}\n{line}\n'
    before, header, rest = text.partition(f'\n{section}\n')
    inside, *further = re.split(r'^(?=\[)', rest, maxsplit=1, flags=re.MULTILINE)
    key = re.escape(line.partition(' =')[0])
    inside, found = re.subn(rf'^[;#]? ?{key} =.*$', line, inside, count=1, flags=re.MULTILINE)
    return before + header + ('' if found else f'{line}\n') + inside + ''.join(further)


@pytest.fixture(scope='module')
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    of_debian = os.path.basename(os.path.realpath('/usr/bin/python3'))
    if of_debian != f'python{sys.version_info[0]}.{sys.version_info[1]}':
        pytest.skip(f"needs Debian's Python to be that of the tests, for their wheels: it is {of_debian}")
    home = tmp_path_factory.mktemp('machines')
    with engine(home, NAME, PACKAGES) as made:
        _, wheel = built_once(tmp_path_factory)
        yield made, wheel.parent


# The umask decides whom the files are for, and that is looked at with both.  All else is looked at where root keeps his files to himself.
kept_to_himself = pytest.mark.parametrize('machine', ['077'], indirect=True)


@pytest.fixture(scope='module', params=['022', '077'])
def machine(request: pytest.FixtureRequest, podman: tuple[Engine, Path]) -> Iterator[Machine]:
    """A machine on which the page was followed up to the service, by a root with this umask."""
    made = Machine(*podman, request.param)
    try:
        made.follow(PAGE.partition('## 5.')[0])
        yield made
    finally:
        podman[0].ask('rm', '--force', '--time', '0', 'machine')


def test_the_service_runs_as_its_user_and_says_how_it_is(machine: Machine) -> None:
    assert machine.shown('ActiveState') == 'active'
    assert re.fullmatch(r'\d+ runners: \d+ running', machine.shown('StatusText'))
    assert machine.do(f'stat --format=%U /proc/{machine.main_pid()}').strip() == 'switchboard'
    assert machine.do('systemctl is-enabled switchboard').strip() == 'enabled'
    assert machine.do('stat --format="%a %U %G" /var/spool/switchboard/in').split() == [
        '2770',
        'switchboard',
        'switchboard',
    ]


def test_a_member_of_the_group_puts_messages_in_and_nobody_else_does(machine: Machine) -> None:
    machine.do('switchboard pause archive')
    mail = 'Subject: hello\n\nbody\n'
    machine.do(
        'runuser -u www-data -- /opt/switchboard/bin/switchboard-drop archive -s /var/spool/switchboard',
        input=mail,
    )
    [line] = machine.do('runuser -u switchboard -- switchboard ls archive --json').splitlines()
    assert json.loads(line)['kind'] == 'mail'
    machine.do(
        'runuser -u nobody -- /opt/switchboard/bin/switchboard-drop archive -s /var/spool/switchboard',
        status=75,
        input=mail,
    )
    assert machine.do('stat --format=%a /var/spool/switchboard/archive/*.pck').split() == ['660']
    machine.do('switchboard resume archive')
    eventually(lambda: machine.do('switchboard ls archive --count').strip() == '0', 'taken by the service')


@kept_to_himself
def test_a_reload_takes_a_change_over_and_refuses_a_mistake(machine: Machine) -> None:
    before = machine.main_pid()
    machine.do('systemctl reload switchboard')
    machine.do(f'cp {CONFIG} /srv/good.cfg; echo nonsense >> {CONFIG}')
    try:
        assert machine.ask('systemctl reload switchboard; echo $?').split()[-1] != '0'
        assert machine.shown('ActiveState') == 'active'
        assert 'reload failed' in machine.shown('StatusText')
    finally:
        machine.do(f'cat /srv/good.cfg > {CONFIG}; systemctl reload switchboard')
    assert machine.main_pid() == before


@kept_to_himself
def test_a_rotation_loses_nothing_and_goes_on_in_the_new_file(machine: Machine) -> None:
    machine.do('logrotate --force /etc/logrotate.d/switchboard')
    machine.do('systemctl reload switchboard')
    eventually(lambda: 'reload' in machine.do(f'cat {LOG}'), 'written to the new file')
    assert machine.do(f'stat --format="%U %G %a" {LOG}').split() == ['switchboard', 'adm', '640']
    assert ' ready ' in machine.do(f'cat {LOG}.1')


@kept_to_himself
def test_a_member_of_adm_reads_the_log_before_and_after_a_rotation(machine: Machine) -> None:
    read = f'setpriv --reuid=nobody --regid=nogroup --groups=adm cat {LOG}'
    machine.do(f'systemctl stop switchboard; rm {LOG}*; systemctl start switchboard')
    assert ' ready ' in machine.do(read)
    machine.do('logrotate --force /etc/logrotate.d/switchboard; systemctl reload switchboard')
    eventually(lambda: 'reload' in machine.do(read), 'written to the new file')


@kept_to_himself
def test_a_socket_of_another_process_is_there_after_a_restart(machine: Machine) -> None:
    machine.do(
        'touch /run/switchboard/desk.sock; systemctl restart switchboard; rm /run/switchboard/desk.sock'
    )


@kept_to_himself
def test_an_upgrade_by_the_page_leaves_a_service_that_works(machine: Machine) -> None:
    before = machine.main_pid()
    page = (ROOT / 'docs' / 'explanation' / 'versions.md').read_text()
    # There is one version here.
    machine.do(
        'cd /srv; cat > upgrade.sh', input=typed(page.partition('## Upgrade')[2].partition('\n## ')[0])
    )
    machine.do('cd /srv; export PIP_FORCE_REINSTALL=1; . ./upgrade.sh')
    machine.wait_until_active(other_than=before)
    machine.do(
        'runuser -u www-data -- switchboard-drop out -s /var/spool/switchboard', input='Subject: x\n\n'
    )


@kept_to_himself
def test_a_program_has_its_set_user_id_where_the_page_allows_it_and_else_not(machine: Machine) -> None:
    page = (ROOT / 'docs' / 'reference' / 'runners.md').read_text()
    machine.do('cp /usr/bin/id /srv/id; chmod 4755 /srv/id; chmod 755 /srv')
    machine.do(f'cp {CONFIG} /srv/good.cfg')
    machine.do(
        f'cat >> {CONFIG}',
        input='[runner.ids]\nclass = command\nqueue = ids\ncommand = sh -c "/srv/id -u >&2; exit 1"\n',
    )
    said = []
    for command in (
        'systemctl restart switchboard',
        typed(page.partition('### Programs with more rights')[2]),
    ):
        machine.do(command)
        machine.do('switchboard enqueue ids', input='a message')
        eventually(lambda: machine.do('switchboard ls bad --count').strip() == '1', 'tried')
        said += re.findall(r'status 1: (\d+)', machine.do('switchboard ls bad --json'))
        machine.do('switchboard rm --queue bad --all --no-trash --yes')
    assert said == [machine.do('id -u switchboard').strip(), '0']
    machine.do(f'cat /srv/good.cfg > {CONFIG}; rm -r /etc/systemd/system/switchboard.service.d')
    machine.do('systemctl daemon-reload; systemctl restart switchboard')


@kept_to_himself
def test_another_spool_has_a_service_of_its_own(machine: Machine) -> None:
    first = machine.main_pid()
    machine.do(typed(PAGE.partition('## Another spool')[2].partition('\n## ')[0]))
    machine.do('switchboard -C /etc/shop/switchboard.cfg enqueue out', input='a message')
    machine.do(
        'systemctl restart shop; switchboard -C /etc/shop/switchboard.cfg status; ls -d /run/switchboard'
    )
    assert ' ready ' in machine.do('journalctl --unit shop')
    machine.do("pkill -KILL --full '^switchboard: .*out'")
    eventually(lambda: ' ended ' in machine.do('journalctl --unit shop --priority warning'), 'told')
    assert ' ready ' not in machine.do('journalctl --unit shop --priority warning')
    machine.do('systemctl disable --now shop')
    assert machine.main_pid() == first


@kept_to_himself
def test_a_master_that_is_killed_or_hangs_is_started_again(machine: Machine) -> None:
    machine.do(
        'mkdir -p /run/systemd/system/switchboard.service.d; systemctl daemon-reload; '
        'printf "[Service]\\nWatchdogSec=2s\\nRestartSec=100ms\\n" > /run/systemd/system/switchboard.service.d/quick.conf; '
        'systemctl daemon-reload; systemctl restart switchboard'
    )
    for signal in ('KILL', 'STOP'):
        before = machine.main_pid()
        machine.do(f'kill -{signal} {before}')
        machine.wait_until_active(other_than=before)
    machine.do(
        'rm -r /run/systemd/system/switchboard.service.d; systemctl daemon-reload; systemctl restart switchboard'
    )


@kept_to_himself
def test_a_wrong_configuration_is_not_tried_again_and_another_master_is(machine: Machine) -> None:
    machine.do(f'systemctl stop switchboard; cp {CONFIG} /srv/good.cfg; echo nonsense >> {CONFIG}')
    machine.ask('systemctl start switchboard')
    eventually(
        lambda: machine.shown('ActiveState') == 'failed', lambda: machine.ask('systemctl status switchboard')
    )
    assert machine.shown('ExecMainStatus') == str(os.EX_CONFIG)
    assert 'nonsense' in machine.do('journalctl --unit switchboard --priority err')
    machine.do(f'cat /srv/good.cfg > {CONFIG}; systemctl reset-failed switchboard')
    other = f'{CONFIG.replace("switchboard.cfg", "other.cfg")}'
    machine.do(f'sed s,^log_file.*,, {CONFIG} > {other}; chgrp switchboard {other}; chmod 640 {other}')
    machine.do(f'runuser -u switchboard -- switchboard -C {other} start')
    machine.ask('systemctl start --no-block switchboard')
    eventually(
        lambda: machine.shown('ExecMainStatus') == str(os.EX_TEMPFAIL),
        lambda: machine.ask('systemctl status switchboard'),
    )
    machine.do('runuser -u switchboard -- switchboard -C ' + other + ' stop')
    machine.wait_until_active()


@kept_to_himself
def test_the_check_is_green_and_has_been_seen_red(machine: Machine) -> None:
    [script] = [block.text for block in blocks_of(PAGE) if block.mark == 'file: check-switchboard.sh']
    machine.do('cat > /srv/check.sh', input=script)
    machine.do('[ "$(systemctl is-active switchboard)" = active ] || systemctl start switchboard')
    assert machine.do('sh /srv/check.sh') == 'well\n'
    machine.do('systemctl stop switchboard')
    assert 'not running' in machine.do('sh /srv/check.sh', status=2)
    machine.do('systemctl start switchboard')


@kept_to_himself
def test_the_sandbox_leaves_the_spool_and_the_log_and_nothing_else(machine: Machine) -> None:
    pid = machine.main_pid()
    enter = f'nsenter --mount --target {pid} setpriv --reuid=switchboard --regid=switchboard --clear-groups sh -c '
    machine.do(enter + shlex.quote('touch /var/spool/switchboard/.trial /var/log/switchboard/trial'))
    machine.do('rm /var/spool/switchboard/.trial /var/log/switchboard/trial')
    for place in ('/etc/switchboard', '/opt/switchboard', '/usr', '/home', '/var/lib'):
        machine.do(enter + shlex.quote(f'! touch {place}/trial 2>/dev/null'))


@kept_to_himself
def test_after_a_reboot_it_is_there_without_anybody(machine: Machine) -> None:
    before = machine.do('systemctl show --value --property=ActiveEnterTimestampMonotonic switchboard')
    machine.restart()
    machine.wait_until_active()
    assert machine.do('systemctl show --value --property=ActiveEnterTimestampMonotonic switchboard') != before
    machine.do('switchboard status')
