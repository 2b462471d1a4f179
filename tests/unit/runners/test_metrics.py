"""The exporter as a runner: it answers while it runs, and lets its place go."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.errors import ConfigError
from switchboard.options import RunnerOptions
from switchboard.runners.metrics import Metrics


def runner(tmp_path: Path, **settings: str) -> Metrics:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x')
    return Metrics(spool, RunnerOptions('metrics', 'metrics', queue='', settings=settings))


def test_it_answers_with_the_numbers_of_its_spool_until_it_ends(tmp_path: Path) -> None:
    made = runner(tmp_path, listen='127.0.0.1:0')
    made.setup()
    assert made.exporter.counted.wait(60)
    url = f'http://127.0.0.1:{made.listener.port}/metrics'
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert b'switchboard_queue_entries{queue="in",state="waiting"} 1.0' in answer.read()
    made.cleanup()
    with pytest.raises(OSError, match='refused'):
        urllib.request.urlopen(url, timeout=60)


def test_a_place_that_is_taken_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    first = runner(tmp_path, listen='127.0.0.1:0')
    first.setup()
    second = runner(tmp_path, listen=f'127.0.0.1:{first.listener.port}')
    with pytest.raises(ConfigError, match='in use'):
        second.setup()
    first.cleanup()


def test_a_place_for_all_needs_names(tmp_path: Path) -> None:
    made = runner(tmp_path, listen='0.0.0.0:0')
    with pytest.raises(ConfigError, match='names'):
        made.setup()
