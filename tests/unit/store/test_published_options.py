"""The part of the configuration that `drop` reads."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest

from switchboard.errors import ConfigError, UnknownQueueError
from switchboard.options import QueueOptions
from switchboard.queue_defaults import QueueDefaults
from switchboard.spool.active_config import publish_queue_options
from switchboard.store.disk import Disk
from switchboard.store.published_options import read_published_options
from switchboard.testing.faults import FaultyDisk
from tests.helpers.configurations import load

KNOWN = QueueDefaults.__annotations__.keys()

QUEUES = """
[queue.in]
durability = lazy
accept = mail, json
max_body = 10M
max_messages = 7
max_bytes = 1G
min_free_space = 1M
priority = 3
ttl = 90s
order_key = the list; 100% = "all" ü
[queue.out]
"""


def find(directory: Path, queue: str) -> QueueDefaults | None:
    return read_published_options(str(directory / 's'), queue, Disk())


def test_published_options_say_what_the_configuration_says(tmp_path: Path) -> None:
    config = load(tmp_path, QUEUES)
    assert publish_queue_options(config)
    options = config.queue_options('in')
    published = find(tmp_path, 'in')
    assert published is not None
    for name in KNOWN:
        assert getattr(published, name) == getattr(options, name), name
    assert published.order_key == 'the list; 100% = "all" ü'


def test_defaults_are_those_of_the_configuration(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    published = find(tmp_path, 'out')
    assert published is not None
    for name in KNOWN:
        assert getattr(published, name) == getattr(QueueOptions(), name), name


def test_every_field_of_a_door_is_one_of_the_options() -> None:
    assert set(KNOWN) <= set(QueueOptions._fields)


def test_a_queue_that_is_not_declared_is_unknown(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    for name in ('i', 'inn', 'bad', 'end', 'switchboard-doors/1'):
        with pytest.raises(UnknownQueueError):
            find(tmp_path, name)


def test_without_a_copy_there_is_nothing_to_know(tmp_path: Path) -> None:
    assert find(tmp_path, 'in') is None
    (tmp_path / 's' / '.run').mkdir(parents=True)
    assert find(tmp_path, 'in') is None


def test_a_copy_that_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    config = load(tmp_path, QUEUES)
    assert publish_queue_options(config)
    before = (tmp_path / 's/.run/queues').stat()
    assert not publish_queue_options(config)
    after = (tmp_path / 's/.run/queues').stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert publish_queue_options(load(tmp_path, '[queue.other]\n'))
    assert find(tmp_path, 'other') is not None


def test_the_copy_may_be_read_by_the_group_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        publish_queue_options(load(tmp_path, QUEUES))
    finally:
        os.umask(before)
    assert (tmp_path / 's/.run/queues').stat().st_mode & 0o777 == 0o660
    assert (tmp_path / 's/.run').stat().st_mode & 0o777 == 0o770


@pytest.mark.parametrize('cut', [0, 1, 30, -2])
def test_a_copy_that_is_cut_short_is_damaged_and_not_believed(tmp_path: Path, cut: int) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    copy = tmp_path / 's/.run/queues'
    copy.write_bytes(copy.read_bytes()[:cut])
    with pytest.raises(ConfigError, match='damaged'):
        find(tmp_path, 'in')


def test_a_value_that_cannot_be_read_is_damage_with_its_line(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    copy = tmp_path / 's/.run/queues'
    copy.write_text(copy.read_text().replace('max_messages=7', 'max_messages=seven'))
    with pytest.raises(ConfigError, match='damaged') as caught:
        find(tmp_path, 'in')
    assert caught.value.line == 2


def test_an_option_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    copy = tmp_path / 's/.run/queues'
    content = copy.read_text()
    copy.write_text(content.replace('max_messages=7', 'flush=two'))
    published = find(tmp_path, 'in')
    assert published is not None
    assert published.directory_sync == 'always'
    copy.write_text(content.replace('max_messages=7', 'flush=three'))
    with pytest.raises(ConfigError, match=r'damaged.*flush=three'):
        find(tmp_path, 'in')


def test_an_option_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    copy = tmp_path / 's/.run/queues'
    copy.write_text(copy.read_text().replace('max_messages=7', 'colour=blue'))
    published = find(tmp_path, 'in')
    assert published is not None
    assert published.max_messages is None


def test_a_failure_at_any_call_leaves_the_last_good_copy(tmp_path: Path) -> None:
    publish_queue_options(load(tmp_path, QUEUES))
    new = load(tmp_path, '[queue.new]\n')
    copy = tmp_path / 's/.run/queues'
    good = copy.read_bytes()
    for number in itertools.count(1):
        disk = FaultyDisk(fail_at=number, error=errno.ENOSPC)
        try:
            publish_queue_options(new, disk)
        except OSError:
            pass  # the call that failed may be any
        if not disk.failed_call:
            break
        if disk.failed_call not in (
            'close',
            'flock',
            'fsync',
            'mkdir',
        ):  # by then the name leads to the new one, or all went well
            assert copy.read_bytes() == good, disk.failed_call
        assert not list(copy.parent.glob('.new-*')), disk.failed_call
        copy.write_bytes(good)
    assert number > 8
    assert find(tmp_path, 'new') is not None
