"""What a process writes to its descriptors, read by another."""

from __future__ import annotations

import json
import os
import selectors
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard.status import log
from switchboard.status.captured_output import LAST_BYTES, OutputPipes
from tests.helpers.descriptors import Opened
from tests.helpers.processes import few_descriptors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log.configure(tmp_path / 'log', as_json=True)
    return tmp_path / 'log'


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


@pytest.fixture
def output(selector: selectors.BaseSelector) -> Iterator[OutputPipes]:
    made = OutputPipes(selector, 'in 1/2')
    made.pid = 4711
    yield made
    made.close()
    made.close_ends()


def turn(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(0):
        key.data.on_readable(0.0)


def said(path: Path) -> list[str]:
    return [json.loads(line)['text'] for line in path.read_text().splitlines()]


def test_a_line_is_an_event_of_the_process_that_wrote_it(
    path: Path, output: OutputPipes, selector: selectors.BaseSelector
) -> None:
    stdout, stderr = output.ends()
    os.write(stdout, b'half ')
    turn(selector)
    assert said(path) == []
    os.write(stdout, b'a line\n\n \n')
    os.write(stderr, b'trouble\xff\n')
    turn(selector)
    one, other = (json.loads(line) for line in path.read_text().splitlines())
    assert (one['process'], one['pid'], one['level'], one['text']) == ('in 1/2', 4711, 'info', 'half a line')
    assert (other['stream'], other['level'], other['text']) == ('stderr', 'warning', 'trouble\\xff')


def test_the_end_of_the_process_ends_its_last_line(
    path: Path, output: OutputPipes, selector: selectors.BaseSelector
) -> None:
    os.write(output.ends()[0], b'last words')
    output.close_ends()
    turn(selector)
    turn(selector)
    assert said(path) == ['last words']
    assert not selector.get_map()


def test_what_is_still_there_when_the_process_is_gone_is_said_and_no_more_is_waited_for(
    path: Path, output: OutputPipes
) -> None:
    line = 'x' * 31
    lines = LAST_BYTES // len(f'{line}\n')
    os.write(output.ends()[0], f'{line}\n'.encode() * lines)
    os.write(output.ends()[1], b'no end')  # a program that it has started may have it open for ever
    output.close()
    assert said(path) == [*[line] * lines, 'no end']
    assert output.descriptors() == []


def test_what_was_readable_and_is_closed_by_then_is_no_mistake(
    path: Path, output: OutputPipes, selector: selectors.BaseSelector
) -> None:
    os.write(output.ends()[0], b'a line\n')
    found = selector.select(0)
    output.close()
    for key, _ in found:
        key.data.on_readable(0.0)
    assert said(path) == ['a line']


def test_a_line_without_end_is_said_in_pieces(
    path: Path, output: OutputPipes, selector: selectors.BaseSelector
) -> None:
    os.write(output.ends()[0], b'y' * (2 * log.MAX_CHARACTERS + 5))
    turn(selector)
    output.close()
    assert [len(text) for text in said(path)] == [log.MAX_CHARACTERS, log.MAX_CHARACTERS, 5]


def test_without_descriptors_nothing_is_left_open(selector: selectors.BaseSelector) -> None:
    opened = Opened()
    with few_descriptors(3), pytest.raises(OSError, match='Too many open files'):
        OutputPipes(selector, 'in 1/1')
    assert opened() == []
    assert not selector.get_map()
