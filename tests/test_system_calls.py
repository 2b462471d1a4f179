"""The page of system calls says what strace counts."""

from __future__ import annotations

import shutil

import pytest

from tests import flushes, system_calls
from tests.helpers.accelerator import steps
from tests.servers.place import missing


@pytest.mark.slow
def test_the_page_of_system_calls_is_what_strace_counts() -> None:
    if shutil.which('strace') is None:
        missing('strace')
    page = system_calls.PAGE.read_text()
    assert system_calls.PART.search(page)
    assert page == system_calls.written(page), (
        f'the page is stale: run `{system_calls.COMMAND}` and commit it'
    )


@pytest.mark.slow
@pytest.mark.parametrize('durability', ['lazy', 'full'])
def test_the_accelerator_makes_the_calls_that_python_makes(durability: str) -> None:
    if shutil.which('strace') is None:
        missing('strace')
    steps()
    # Whether the directory is still the one at its path is asked ten times a second: once more or less by chance.
    made, wanted = (
        {name: [call for call in calls if call != 'stat'] for name, calls in found.items()}
        for found in (system_calls.traced(durability, True), system_calls.traced(durability))
    )
    read = 'open fcntl fcntl getdents getdents close'.split()
    walked = 'open fcntl fcntl fcntl getdents getdents lseek close close'.split()
    assert wanted['take'][: len(walked)] == walked
    wanted['take'][: len(walked)] = read
    assert made == wanted


@pytest.mark.slow
def test_the_table_of_flushes_is_what_strace_counts() -> None:
    if shutil.which('strace') is None:
        missing('strace')
    page = flushes.PAGE.read_text()
    assert flushes.PART.search(page)
    assert page == flushes.written(page), f'the page is stale: run `{flushes.COMMAND}` and commit it'


def test_of_an_operation_that_was_done_twice_the_shorter_is_shown() -> None:
    lines = []
    for name in system_calls.OPERATIONS:
        for calls in (['openat', 'pwrite64', 'pwrite64'], ['openat', 'pwrite64']):
            lines.append(f'7 access("{system_calls.MARK}/{name}", F_OK) = -1 ENOENT')
            lines.extend(f'7 {call}(3) = 0' for call in [*calls, 'brk'])
    assert set(map(tuple, system_calls.operations_of(lines).values())) == {('open', 'pwrite')}


def test_what_comes_several_times_in_a_row_is_counted() -> None:
    assert system_calls.shown(['stat', 'stat', 'open']) == '3: `stat`x2 `open`'
    assert system_calls.shown(['open', *(['flock', 'close'] * 3)]) == '7: `open` (`flock` `close`)x3'
