"""Few failures of tests with other programs are tried once more; what is looked for by chance never is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.plugins.second_try import AGAIN, AT_MOST, SecondTry

SERVER = 'tests/servers/redis/test_it.py::test_it'


def report(nodeid: str, outcome: str = 'failed', when: str = 'call') -> SimpleNamespace:
    return SimpleNamespace(nodeid=nodeid, failed=outcome == 'failed', when=when)


def tried_again(*reports: SimpleNamespace) -> list[str]:
    second_try = SecondTry()
    for each in reports:
        second_try.pytest_runtest_logreport(each)
    return second_try.tests()


def test_what_failed_is_named_once_and_without_its_group() -> None:
    assert tried_again(
        report(f'{SERVER}[a@b]@redis', when='call'),
        report(f'{SERVER}[a@b]@redis', when='teardown'),
        report(f'{SERVER}@redis', when='setup'),
        report('tests/unit/test_it.py::test_it', 'passed'),
    ) == [f'{SERVER}[a@b]', SERVER]


@pytest.mark.parametrize(
    'other',
    [
        'tests/acceptance/storms/test_it.py::test_it',
        'tests/contracts/test_it.py::test_it',
        'tests/faults/test_it.py::test_it',
        'tests/power/test_it.py::test_it',
        'tests/properties/test_it.py::test_it',
        'tests/regressions/test_it.py::test_it',
        'tests/test_house.py::test_it',
    ],
)
def test_nothing_is_tried_again_beside_what_is_found_by_chance_or_by_reading(other: str) -> None:
    assert tried_again(report(other), report(SERVER)) == []


def test_many_failures_have_a_cause() -> None:
    some = [report(f'{SERVER}[{number}]') for number in range(AT_MOST + 1)]
    assert len(tried_again(*some[:-1])) == AT_MOST
    assert tried_again(*some) == []


def test_a_process_that_died_is_not_forgiven() -> None:
    assert tried_again(report(SERVER, when='???')) == []


def test_they_are_written_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AGAIN, str(tmp_path / 'again'))
    second_try = SecondTry()
    second_try.pytest_runtest_logreport(report(f'{SERVER}[one two]'))
    second_try.pytest_sessionfinish()
    assert (tmp_path / 'again').read_text() == f'{SERVER}[one two]\n'


@pytest.mark.parametrize(
    ('again', 'outcome', 'status', 'passed'),
    [
        (True, 'assert True', 0, 'test_it.py::test_it'),
        (True, 'assert False', 1, ''),
        (False, 'assert True', 1, ''),
    ],
)
def test_only_what_passes_alone_is_forgiven_and_it_is_named(
    again: bool, outcome: str, status: int, passed: str, tmp_path: Path
) -> None:
    (tmp_path / 'test_it.py').write_text(f'def test_it():\n    {outcome}\n')
    run = subprocess.run(
        [
            'sh',
            '-uc',
            '. "$root/bin/_setup"; python=$1; passed_again=; shift; with_second_try "$@"; echo "$? $passed_again" >told',
            'sh',
            sys.executable,
            'sh',
            '-c',
            'echo test_it.py::test_it >"$SWITCHBOARD_AGAIN"; exit 1' if again else 'exit 1',
        ],
        cwd=tmp_path,
        env={**os.environ, 'root': str(Path(__file__).parents[2])},
        capture_output=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / 'told').read_text() == f'{status} {passed}\n'
