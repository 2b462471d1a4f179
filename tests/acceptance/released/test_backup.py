"""The recipes of the page on backups, with producers and runners at work."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import QueueDrainingError
from switchboard.testing import Signal
from tests.faults.harness.world import observe
from tests.helpers.processes import Child
from tests.helpers.runs import make_runner
from tests.helpers.waiting import eventually
from tests.servers.place import missing

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[3] / 'docs/howto/backup-and-restore.md'
KEPT = 100
PLAIN = 'mkdir "$target" && cp -a "$links/." "$target"\n'


@pytest.fixture(autouse=True)
def _rsync() -> None:
    if shutil.which('rsync') is None:
        missing('rsync')


def block(name: str) -> str:
    """:return: a file that the page shows."""
    found = re.search(rf'<!-- file: {name} -->\n```sh\n(.*?)```', PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def make_script(path: Path, last_line: str = PLAIN) -> Path:
    script = block('backup-switchboard.sh')
    assert script.endswith(PLAIN)
    path.write_text(script.removesuffix(PLAIN) + last_line)
    return path


def back_up(script: Path, spool: Path, target: Path) -> None:
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
    subprocess.run(['sh', script, spool, target], env=environment, check=True)


def test_directories_that_are_no_queues_are_left_out_and_a_copy_that_is_there_stays(tmp_path: Path) -> None:
    script, spool, copy = make_script(tmp_path / 'backup.sh'), tmp_path / 'a spool', tmp_path / 'a copy'
    own = Spool(spool, 'lazy')
    filebase = own['in'].enqueue('a message')
    # A file system's own, and anybody's.
    for name in ('lost+found', 'no queue', 'trash'):
        (spool / name).mkdir()
    back_up(script, spool, copy)
    assert {each.name for each in copy.iterdir()} == {'.run', 'in', 'bad', 'trash'}
    own['in'].enqueue('a newer message')
    with pytest.raises(subprocess.CalledProcessError):
        back_up(script, spool, copy)
    assert own['in'].enqueue('goes on')
    assert Spool(copy, 'lazy')['in'].files == [filebase]


def put(spool: Spool, number: int) -> None:
    def is_put() -> bool:
        try:
            spool['in'].enqueue(f'{number}:{"x" * (number % 7000)}', dedupe_key=str(number))
        except QueueDrainingError:
            return False
        return True

    eventually(is_put, 'going on: the queue')


def produce(directory: Path, begun: Signal) -> None:
    spool = Spool(directory, 'lazy')
    for number in range(1, 1_000_000):
        put(spool, number)
        if number == KEPT:
            begun.set()
        eventually(lambda: len(spool['in'].get_files()) <= KEPT, f'down to {KEPT} entries')


def hand_on(directory: Path) -> None:
    def dispose(runner: Any, msg: str, msgdata: dict[str, Any]) -> bool:
        number = int(msg.partition(':')[0])
        # Slower than the producer, so that there is something to copy.
        time.sleep(0.002 if len(runner.spool['in'].get_files()) > KEPT // 2 else 0.1)
        if number % 3 == 0 and len(runner.spool['out'].get_files()) < KEPT:
            runner.emit('out', msg, msgdata)
            return False
        return random.random() < 0.1  # kept, or finished

    make_runner(Spool(directory, 'lazy'), dispose).run()


@contextmanager
def at_work(directory: Path) -> Iterator[None]:
    Spool(directory, 'lazy')
    begun = Signal()
    with ExitStack() as stack:
        for work in (lambda: produce(directory, begun), lambda: hand_on(directory)):
            stack.enter_context(Child(work))
        begun.wait_or_timeout()
        yield


def numbers(directory: Path) -> Counter[int]:
    """Start a spool, and look which messages it has."""
    return Counter(int(text.partition(':')[0]) for texts in observe(directory).values() for text in texts)


def assert_good(copy: Path, work: Path) -> None:
    """A copy has each message once, and no producer's retry adds one."""
    shutil.copytree(copy, work, symlinks=True)
    found = numbers(work)
    assert len(found) >= KEPT // 3
    assert set(found.values()) == {1}
    spool = Spool(work, 'lazy')
    for number in found:
        put(spool, number)
    spool.close()
    assert numbers(work) == found


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob('*') if file.is_file()
    }


@pytest.mark.every_second_day(0)
def test_each_night_holds_each_message_once_and_stays_what_it_was(tmp_path: Path) -> None:
    script = make_script(tmp_path / 'backup.sh', block('rsync-nightly.txt'))
    spool, target = tmp_path / 'spool', tmp_path / 'nights'
    target.mkdir()
    with at_work(spool):
        for _ in range(3):
            back_up(script, spool, target)
            second = int(time.time())
            eventually(lambda second=second: int(time.time()) > second, 'the next night has come')
    nights = sorted(each for each in target.iterdir() if not each.is_symlink())
    assert len(nights) == 3
    for night in nights:
        assert_good(night, tmp_path / f'restored {night.name}')
    before = content(nights[1])
    assert any(file.stat().st_nlink > 1 for file in nights[2].rglob('*.pck'))
    used = Spool(nights[2], 'lazy')
    while (taken := used['in'].take()) is not None:
        used['in'].release(taken.filebase, delay_s=60, record={'event': 'failed', 'error': 'tried'})
    while (taken := used['out'].take()) is not None:
        used['out'].finish(taken.filebase)
    for number in range(2_000_000, 2_000_100):
        put(used, number)
    used.close()
    assert content(nights[1]) == before


@pytest.mark.every_second_day(1)
def test_one_copy_that_is_brought_up_to_date_holds_each_message_once(tmp_path: Path) -> None:
    script = make_script(tmp_path / 'backup.sh', block('rsync.txt'))
    spool = tmp_path / 'spool'
    with at_work(spool):
        for _ in range(3):
            back_up(script, spool, tmp_path / 'copy')
    assert_good(tmp_path / 'copy', tmp_path / 'restored')


def test_a_used_spool_becomes_what_the_copy_is(tmp_path: Path) -> None:
    script, spool, copy = make_script(tmp_path / 'backup.sh'), tmp_path / 'spool', tmp_path / 'copy'
    with at_work(spool):
        back_up(script, spool, copy)
        copied = set(Spool(copy, 'lazy')['in'].files)
        eventually(
            lambda: set(Spool(spool, 'lazy')['in'].files) - copied,
            'there are newer messages than the copy has',
        )
    subprocess.run(['rsync', '-a', '--delete', f'{copy}/', f'{spool}/'], check=True)
    assert_good(spool, tmp_path / 'restored')
    assert numbers(spool) == numbers(copy)
