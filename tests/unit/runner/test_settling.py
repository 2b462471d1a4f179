"""What a runner does with a message when the disk does not take what became of it: hold it, and forget nothing."""

from __future__ import annotations

import errno
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.errors import (
    DurabilityError,
    PermanentFailure,
    QueueDrainingError,
    QueueFullError,
    TemporaryFailure,
)
from switchboard.message.naming import digest_of
from switchboard.store.claims import OWN_CLAIMS
from switchboard.testing.faults import FaultyDisk
from tests.helpers.runs import Recorder, make_runner


class Sender:
    """Sends to each recipient; `b` takes it at the second attempt only, and `c` never.

    :param disk: the disk, which refuses from the end of the first sending on.
    :param fail_at: which of its calls is the first that it refuses.
    """

    def __init__(self, disk: FaultyDisk, fail_at: int, *, keeps: bool = False) -> None:
        self.sent: list[str] = []
        self._disk = disk
        self._fail_at = fail_at
        self._keeps = keeps

    def __call__(self, runner: Recorder, msg: Any, msgdata: dict[str, Any]) -> object:
        again = [one for one in msgdata['recipients'] if one == 'b' and 'b' not in self.sent]
        never = [one for one in msgdata['recipients'] if one == 'c']
        is_first = not self.sent
        self.sent += msgdata['recipients']
        if is_first:
            self._disk.arm(self._fail_at)
        if again or never:
            msgdata['recipients'] = again + never
        if again and self._keeps:
            return True
        if again:
            raise TemporaryFailure('not now', retry_after_s=0)
        if never:
            raise PermanentFailure('never')
        return None


def heal(disk: FaultyDisk) -> None:
    disk.fail_at = 0
    disk.failed_call = ''


@pytest.mark.parametrize('durability', ['lazy', 'full'])
@pytest.mark.parametrize('persistent', [False, True])
@pytest.mark.parametrize('keeps', [False, True])
@pytest.mark.parametrize('recipients', [['a'], ['a', 'b'], ['a', 'c']])
def test_whatever_the_disk_refuses_nobody_gets_a_mail_again(
    tmp_path: Path, recipients: list[str], keeps: bool, persistent: bool, durability: Any
) -> None:
    for number in itertools.count(1):
        disk = FaultyDisk(error=errno.ENOSPC, persistent=persistent)
        spool = Spool(tmp_path / f'spool{number}', durability, disk=disk)
        filebase = spool['in'].enqueue('mail', {'recipients': recipients})
        sender = Sender(disk, number, keeps=keeps)
        runner = make_runner(spool, sender)
        runner.run(once=True)
        was_struck = disk.failed_call
        heal(disk)
        for _ in range(3):
            spool['in'].has_ready()
            make_again(runner)
        assert sender.sent.count('a') == 1, (number, was_struck)
        assert spool['in'].get_files('.bak') == []
        if 'c' in recipients:
            bad = spool['bad'].get_files('.psv')
            assert [digest_of(one) for one in bad] == [digest_of(filebase)]
            entry = spool['bad'].peek(bad[0])
            assert entry.msgdata(spool['bad'].serializers)['recipients'] == ['c']
            assert [record['event'] for record in entry.records].count('failed') == 1
        if not was_struck:
            break
    assert number > 3


def make_again(runner: Any) -> None:
    """Have the runner look after what it holds, as it does when its trouble is over."""
    runner._loop.settler.settle_stuck()
    runner._loop.trouble.reset()
    runner.run(once=True)


def test_what_is_held_is_nobody_elses(tmp_path: Path) -> None:
    disk = FaultyDisk(error=errno.ENOSPC, persistent=True, calls={'pwrite'})
    spool = Spool(tmp_path / 'spool', 'lazy', disk=disk)
    filebase = spool['in'].enqueue('mail', {'recipients': ['a', 'b']})
    make_runner(spool, Sender(disk, 1)).run(once=True)
    assert spool['in'].get_files('.bak') == [filebase]
    assert spool['in'].recover(include_own=False) == []
    assert spool['in'].get_files('.bak') == [filebase]
    assert any(claim.filebase == filebase for claim in OWN_CLAIMS.values())


@pytest.mark.parametrize(
    ('error', 'level'),
    [
        (QueueDrainingError('it is being drained'), 'INFO'),
        (QueueFullError('full'), 'WARNING'),
        (QueueFullError('full', is_disk_full=True), 'ERROR'),
        (DurabilityError('io', step='rename'), 'ERROR'),
    ],
)
def test_a_queue_that_lets_nothing_in_for_now_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, level: str
) -> None:
    spool = Spool(tmp_path)
    spool['in'].enqueue('x')

    def dispose(_runner: Recorder, _msg: Any, _msgdata: Any) -> None:
        raise error

    with caplog.at_level(logging.INFO):
        make_runner(spool, dispose).run(once=True)
    assert [one.levelname for one in caplog.records if one.members['event'] == 'requeued'] == [level]
