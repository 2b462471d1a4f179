"""The files for systemd and its companions, as far as they can be checked without running as them."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.waiting import eventually
from tests.servers.place import ROOT, Place, missing

ETC = ROOT / 'etc'
UNIT = ETC / 'systemd' / 'switchboard.service'


UNITS = (
    'switchboard.service',
    'switchboard-metrics.service',
    'switchboard-desk.service',
    'switchboard-desk.socket',
)


@pytest.mark.parametrize('name', UNITS)
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, name: str) -> None:
    if shutil.which('systemd-analyze') is None:
        missing('systemd-analyze (apt-get install systemd)')
    (tmp_path / 'root').symlink_to(ROOT)  # whose own name may be one that a unit would have to quote
    for each in (ETC / 'systemd').iterdir():
        (tmp_path / each.name).write_text(
            each.read_text().replace('/opt/switchboard', str(tmp_path / 'root'))
        )
    unit = tmp_path / name
    verified = subprocess.run(
        ['systemd-analyze', 'verify', '--man=no', str(unit)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    about_ours = [line for line in verified.stderr.splitlines() if 'switchboard' in line]
    assert about_ours == []
    assert verified.returncode == 0


@pytest.mark.parametrize('name', [name for name in UNITS if name.endswith('.service')])
def test_systemd_counts_few_rights_that_the_unit_leaves(name: str) -> None:
    if shutil.which('systemd-analyze') is None:
        missing('systemd-analyze (apt-get install systemd)')
    unit = ETC / 'systemd' / name
    command = ['systemd-analyze', 'security', '--offline=yes', '--threshold=30', str(unit)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout[-500:] + ran.stderr


def test_the_unit_lets_the_spool_keep_its_group() -> None:
    # Under it no mode with that bit can be set: new directories stayed closed to the group.
    texts = {name: (ETC / 'systemd' / name).read_text() for name in UNITS}
    writing = [name for name, text in texts.items() if '\nReadWritePaths=/var/spool' in text]
    assert writing == ['switchboard.service']
    assert 'RestrictSUIDSGID=yes' not in UNIT.read_text()


def test_the_unit_starts_what_there_is() -> None:
    text = (ETC / 'systemd' / 'switchboard.service').read_text()
    programs = re.findall(r'^Exec\w+=/opt/switchboard/bin/(\S+)', text, re.MULTILINE)
    # A script that every installation makes; in a checkout there is a program of that name.
    assert programs == ['switchboard', 'switchboard']
    assert 'switchboard = switchboard.cli:main' in (ROOT / 'setup.cfg').read_text()
    assert (ROOT / 'bin' / 'switchboard').exists()


class Service:
    """What the unit starts, as a user of the system that has no rights and can get none."""

    def __init__(self, place: Place, user: str, umask: int) -> None:
        self.place = place
        self.umask = umask
        account = pwd.getpwnam(user)
        os.chown(place.spool_directory, account.pw_uid, account.pw_gid)
        self.prefix = [
            *('setpriv', f'--reuid={account.pw_uid}', f'--regid={account.pw_gid}', '--clear-groups'),
            *('--no-new-privs', '--bounding-set=-all', '--inh-caps=-all'),
        ]
        paths = [str(place.checkout), sysconfig.get_path('purelib')]
        self.environment = {
            'PATH': '/usr/bin:/bin',
            'PYTHONPATH': os.pathsep.join(paths),
            'HOME': '/nonexistent',
        }

    def command(self, line: str) -> list[str]:
        """:return: a command of the unit, by an interpreter that the user may run."""
        program, *words = shlex.split(
            line.replace('/etc/switchboard/switchboard.cfg', str(self.place.config))
        )
        assert program == '/opt/switchboard/bin/switchboard'
        return [*self.prefix, interpreter(), '-m', 'switchboard', *words]

    def start(self) -> subprocess.Popen[str]:
        """Run ExecStart."""
        [line] = re.findall('^ExecStart=(.*)$', UNIT.read_text(), re.MULTILINE)
        return subprocess.Popen(
            self.command(line),
            env=self.environment,
            umask=self.umask,
            cwd='/',
            stderr=subprocess.PIPE,
            text=True,
        )

    def reload(self) -> int:
        """:return: the exit status of ExecReload."""
        [line] = re.findall('^ExecReload=(.*)$', UNIT.read_text(), re.MULTILINE)
        command = self.command(line)
        return subprocess.run(command, env=self.environment, timeout=120, check=False).returncode


def interpreter() -> str:
    """:return: a Python of this version that every user may run."""
    own = Path(sys.executable).resolve()
    of_the_system = Path(f'/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}')
    for candidate in (own, of_the_system):
        if candidate.exists() and all(
            each.stat().st_mode & 0o001 for each in (candidate, *candidate.parents)
        ):
            return str(candidate)
    missing(f'a Python {sys.version_info[0]}.{sys.version_info[1]} that every user may run')
    raise AssertionError


@pytest.fixture
def user() -> Iterator[str]:
    if os.geteuid() != 0:
        missing('to be root, because a user is made')
    name = f'swb{os.getpid()}'
    subprocess.run(['useradd', '--system', '--no-create-home', '--user-group', name], check=True, timeout=60)
    uid = pwd.getpwnam(name).pw_uid
    yield name
    # Who was killed together with its master may have a moment to go, and no user is deleted who has a process.
    eventually(
        lambda: all(uid not in (each.info['uids'] or ()) for each in psutil.process_iter(['uids'])), 'gone'
    )
    subprocess.run(['userdel', name], check=True, timeout=60)


def wait_for(line: str, master: subprocess.Popen[str]) -> None:
    assert master.stderr is not None
    seen = []
    for said in master.stderr:
        seen.append(said)
        if line in said:
            return
    raise AssertionError(f'{line!r} was not said: {seen}')


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_what_the_unit_starts_runs_as_its_user_and_answers_as_the_unit_expects(
    somewhere: Place, user: str, umask: int
) -> None:
    somewhere.config.write_text('[switchboard]\nspool = spool\n[runner.in]\nclass = null\nqueue = in\n')
    service = Service(somewhere, user, umask)
    master = service.start()
    try:
        wait_for(' ready slices=1', master)
        assert service.reload() == 0
        queue = (somewhere.spool_directory / 'in').stat()
        assert (stat.S_IMODE(queue.st_mode) & 0o777, pwd.getpwuid(queue.st_uid).pw_name) == (0o770, user)
        second = service.start()
        assert second.wait(120) == 75
        second.communicate()
        somewhere.config.write_text(somewhere.config.read_text() + 'nonsense\n')
        assert service.reload() != 0
    finally:
        master.terminate()
        assert master.wait(120) == 0
        master.communicate()
    third = service.start()
    assert third.wait(120) == 78
    third.communicate()
    # Nothing was somewhere, or made, beside the spool.
    assert {each.name for each in somewhere.directory.iterdir()} <= {'spool', 'switchboard.cfg', 'checkout'}


def test_the_unit_means_by_the_statuses_of_a_master_what_it_says() -> None:
    text = UNIT.read_text()
    assert f'RestartPreventExitStatus={os.EX_CONFIG}\n' in text
    # All others, the one of a master that is not alone among them, are failures that are tried again.
    assert 'Restart=on-failure\n' in text
    assert 'SuccessExitStatus' not in text
    [restart_s] = re.findall(r'^RestartSec=(\d+)s$', text, re.MULTILINE)
    # Slower than systemd's own limit of five starts within ten seconds.
    assert 5 * int(restart_s) > 10
    assert '# 78: ' in text
    assert f' {os.EX_TEMPFAIL}, another master' in text


def test_the_rotation_reaches_the_master_and_nobody_else(tmp_path: Path) -> None:
    text = (ETC / 'logrotate.d' / 'switchboard').read_text()
    script = re.search(r'postrotate\n(.*?)endscript', text, re.DOTALL)
    assert script is not None
    systemctl, asked = tmp_path / 'systemctl', tmp_path / 'asked'
    environment = {'PATH': f'{tmp_path}:/usr/bin:/bin'}
    # What no unit has started is asked by the command.
    command = tmp_path / 'switchboard'
    command.write_text(f'#!/bin/sh\n[ "$*" = reopen ] && touch {asked}\nexit 69\n')
    command.chmod(0o755)
    words = script[1].replace('/opt/switchboard/bin/switchboard', str(command))
    assert words != script[1]
    waiting = subprocess.Popen(
        ['sh', '-c', 'trap "echo reopened; exit 0" USR2; echo ready; sleep 600 & wait'],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == 'ready\n'
        for pid in (0, waiting.pid):
            systemctl.write_text(f'#!/bin/sh\necho MainPID={pid}\n')
            systemctl.chmod(0o755)
            rotated = subprocess.run(['sh', '-ec', words], env=environment, timeout=60, check=False)
            assert rotated.returncode == 0
            assert asked.exists() == (pid == 0)
            asked.unlink(missing_ok=True)
        assert waiting.stdout.readline() == 'reopened\n'
    finally:
        os.killpg(waiting.pid, signal.SIGKILL)
        waiting.communicate()


def test_logrotate_accepts_its_file(tmp_path: Path) -> None:
    program = shutil.which('logrotate') or '/usr/sbin/logrotate'
    if not Path(program).exists():
        missing('logrotate (apt-get install logrotate)')
    text = (ETC / 'logrotate.d' / 'switchboard').read_text()
    sample = tmp_path / 'switchboard'
    sample.write_text(
        text.replace('/var/log/switchboard', str(tmp_path)).replace('switchboard adm', 'root root')
    )
    sample.chmod(0o644)
    (tmp_path / 'master.log').write_text('a line\n')
    result = subprocess.run(
        [program, '--debug', '--state', str(tmp_path / 'state'), str(sample)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 'error' not in result.stderr
    assert result.returncode == 0


def test_every_sample_file_says_where_it_belongs() -> None:
    files = [
        path
        for folder in ('postfix', 'exim', 'systemd', 'tmpfiles.d', 'logrotate.d', 'container')
        for path in (ETC / folder).iterdir()
    ]
    assert len(files) >= 10
    assert [path.name for path in files if not path.read_text().startswith(('#', ';', '"""'))] == []
