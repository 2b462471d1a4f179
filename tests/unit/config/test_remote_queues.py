"""A spool loads what knows brokers only for a queue that is on one, and says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.brokers.queue import BrokerQueue
from switchboard.errors import BrokerDownError, ConfigError, UnknownQueueError
from tests.helpers.configurations import load

AWAY = '[queue.far]\nurl = redis://127.0.0.1:1/0\n[queue.near]\nexternal = yes\n'
LOADS = """
import sys
from switchboard import Spool
spool = Spool.from_config(sys.argv[1])
spool['near'].enqueue('x')
print('kombu' in sys.modules)
spool['far']
print('kombu' in sys.modules)
"""


def test_kombu_is_loaded_with_the_first_queue_that_needs_it(tmp_path: Path) -> None:
    load(tmp_path, AWAY)
    ran = subprocess.run(
        [sys.executable, '-c', LOADS, str(tmp_path / 'switchboard.cfg')],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert ran.stdout.split() == ['False', 'True']


@pytest.mark.parametrize(
    ('url', 'library', 'extra'),
    [('amqp://h', 'kombu', 'kombu'), ('redis://h', 'kombu', 'redis'), ('redis://h', 'redis', 'redis')],
)
def test_without_a_library_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, library: str, extra: str
) -> None:
    spool = Spool.from_config(load(tmp_path, f'[queue.far]\nurl = {url}\n'))
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ConfigError, match=rf"the library {library}, which is not installed: .*pip install .*\[{extra}\]'"
    ) as caught:
        spool['far']
    assert (caught.value.section, caught.value.key) == ('queue.far', 'url')


def test_a_broker_that_is_away_is_an_error_of_its_own(tmp_path: Path) -> None:
    spool = Spool.from_config(load(tmp_path, AWAY))
    queue: object = spool['far']
    assert isinstance(queue, BrokerQueue)
    with pytest.raises(BrokerDownError) as caught:
        queue.enqueue('x')
    assert caught.value.retry_after_s > 0
    assert not queue.has_ready()
    assert not (tmp_path / 's' / 'far').exists()
    # What is on the disk goes on.
    spool['near'].enqueue('x')
    assert spool.publish('y', routing_key='near')


def test_an_input_stays_where_it_is_when_an_output_cannot_be_published(tmp_path: Path) -> None:
    spool = Spool.from_config(load(tmp_path, AWAY))
    filebase = spool['near'].enqueue('x')
    spool['near'].dequeue(filebase)
    transaction = spool.transaction(spool['near'], filebase)
    transaction.emit(spool['far'], 'x', {})
    [error] = spool.commit_all([transaction]).values()
    assert isinstance(error, BrokerDownError)
    assert spool['near'].get_files('.bak') == [filebase]


def test_a_program_cannot_declare_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(ConfigError, match='only the configuration'):
        spool.declare('far', options={'url': 'redis://h/0'})
    assert 'far' not in spool


def test_mail_servers_have_no_door_to_it(tmp_path: Path) -> None:
    from switchboard.spool.active_config import publish_queue_options
    from switchboard.store.disk import Disk
    from switchboard.store.published_options import read_published_options

    config = load(tmp_path, AWAY)
    publish_queue_options(config)
    assert read_published_options(str(config.spool), 'near', Disk()) is not None
    with pytest.raises(UnknownQueueError):
        read_published_options(str(config.spool), 'far', Disk())
