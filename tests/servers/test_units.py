"""The files for systemd and its companions, as far as they can be checked without running as them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.place import ROOT, missing

ETC = ROOT / 'etc'


UNITS = ('switchboard.service', 'switchboard-metrics.service')


@pytest.mark.parametrize('name', UNITS)
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, name: str) -> None:
    if shutil.which('systemd-analyze') is None:
        missing('systemd-analyze (apt-get install systemd)')
    unit = tmp_path / name
    text = (ETC / 'systemd' / name).read_text()
    (tmp_path / 'root').symlink_to(ROOT)  # whose own name may be one that a unit would have to quote
    unit.write_text(text.replace('/opt/switchboard', str(tmp_path / 'root')))
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


@pytest.mark.parametrize('name', UNITS)
def test_systemd_counts_few_rights_that_the_unit_leaves(name: str) -> None:
    if shutil.which('systemd-analyze') is None:
        missing('systemd-analyze (apt-get install systemd)')
    unit = ETC / 'systemd' / name
    command = ['systemd-analyze', 'security', '--offline=yes', '--threshold=30', str(unit)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout[-500:] + ran.stderr


def test_the_unit_starts_what_there_is() -> None:
    text = (ETC / 'systemd' / 'switchboard.service').read_text()
    programs = re.findall(r'/opt/switchboard/(\S+)', text)
    assert programs
    assert [name for name in programs if not (ROOT / name).exists()] == []
    # What the master answers when it must not be started again.
    assert 'RestartPreventExitStatus=78' in text


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
        for folder in ('postfix', 'exim', 'systemd', 'tmpfiles.d', 'logrotate.d')
        for path in (ETC / folder).iterdir()
    ]
    assert len(files) >= 10
    assert [path.name for path in files if not path.read_text().startswith('#')] == []
