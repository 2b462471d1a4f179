"""The samples of etc/ are in every installation."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import succeed, switchboard

ETC = Path(__file__).resolve().parents[3] / 'etc'


def test_all_files_of_etc_are_listed() -> None:
    files = {str(path.relative_to(ETC)) for path in ETC.rglob('*') if path.is_file()}
    assert set(succeed('sample').lines) == files
    assert {'switchboard.cfg', 'systemd/switchboard.service', 'postfix/main.cf'} <= files


def test_a_sample_is_written_as_it_is() -> None:
    assert succeed('sample', 'switchboard.cfg').out == (ETC / 'switchboard.cfg').read_text()


def test_a_name_that_is_none_gets_a_hint() -> None:
    ran = switchboard('sample', 'switchbord.cfg')
    assert ran.status == 2
    assert 'switchboard.cfg' in ran.err
