"""Every act that gives an entry a name, where a file that was put there by hand has that name already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from switchboard.handoff.moving import claim_ready_or_preserved, move
from switchboard.operating.holding import hold, release
from switchboard.queue.recovery import move_to_bad_unread
from switchboard.testing import FakeClock

Act = Callable[[Any, str, str], str]


def put(source: str, target: str, how: str) -> None:
    """Put something under the name that an entry is about to get."""
    if how == 'link':
        os.link(source, target)
    elif how == 'copy':
        shutil.copyfile(source, target)
    else:
        Path(target).write_text('something else')


def give_back(spool: Any, filebase: str, how: str) -> str:
    spool['in'].dequeue(filebase)
    put(spool.path('in', f'{filebase}.bak'), spool.path('in', f'{filebase}.pck'), how)
    return f'in/{spool["in"].release(filebase)}.pck'


def give_back_after_a_failure(spool: Any, filebase: str, how: str) -> str:
    spool['in'].dequeue(filebase)
    put(spool.path('in', f'{filebase}.bak'), spool.path('in', f'{filebase}.pck'), how)
    return f'in/{spool["in"].release(filebase, record={"event": "failed"})}.pck'


def let_go(spool: Any, filebase: str, how: str) -> str:
    held = hold(spool['in'], filebase)
    put(spool.path('in', f'{held}.pck'), spool.path('in', f'{filebase}.pck'), how)
    return f'in/{release(spool["in"], held)}.pck'


def keep_from_being_taken(spool: Any, filebase: str, how: str) -> str:
    held = hold(spool['in'], filebase)
    release(spool['in'], held)
    put(spool.path('in', f'{filebase}.pck'), spool.path('in', f'{held}.pck'), how)
    return f'in/{hold(spool["in"], filebase)}.pck'


def move_away(spool: Any, filebase: str, how: str) -> str:
    put(
        spool.path('in', f'{filebase}.pck'),
        os.path.join(spool['out'].queue_directory, f'{filebase}.pck'),
        how,
    )
    return f'out/{move(claim_ready_or_preserved(spool["in"], filebase), spool["in"], spool["out"])}.pck'


def forward(spool: Any, filebase: str, how: str) -> str:
    put(
        spool.path('in', f'{filebase}.pck'),
        os.path.join(spool['out'].queue_directory, f'{filebase}.pck'),
        how,
    )
    spool['in'].dequeue(filebase)
    transaction = spool.transaction(spool['in'], filebase)
    transaction.forward(spool['out'])
    transaction.commit()
    return 'out/'


def preserve(spool: Any, filebase: str, how: str) -> str:
    put(
        spool.path('in', f'{filebase}.pck'),
        os.path.join(spool['bad'].queue_directory, f'{filebase}.psv'),
        how,
    )
    spool['in'].dequeue(filebase)
    spool['in'].finish(filebase, preserve=True)
    return 'bad/'


def remove(spool: Any, filebase: str, how: str) -> str:
    put(
        spool.path('in', f'{filebase}.pck'),
        os.path.join(spool['trash'].queue_directory, f'{filebase}.psv'),
        how,
    )
    moved = move(
        claim_ready_or_preserved(spool['in'], filebase),
        spool['in'],
        spool['trash'],
        event='removed',
        preserved=True,
    )
    return f'trash/{moved}.psv'


def recover(spool: Any, filebase: str, how: str) -> str:
    spool['in'].dequeue(filebase)
    put(spool.path('in', f'{filebase}.bak'), spool.path('in', f'{filebase}.pck'), how)
    spool['in'].recover()
    return 'in/'


ACTS = [
    give_back,
    give_back_after_a_failure,
    let_go,
    keep_from_being_taken,
    move_away,
    forward,
    preserve,
    remove,
    recover,
]


def everywhere(spool: Any) -> list[str]:
    """:return: all entries, in whatever state, and the files that pass for some."""
    return sorted(
        f'{queue}/{name}'
        for queue in ('in', 'out', 'bad', 'trash')
        for name in os.listdir(spool[queue].queue_directory)
    )


@pytest.mark.parametrize('how', ['link', 'copy', 'other'])
@pytest.mark.parametrize('act', ACTS)
def test_nothing_is_lost_and_nothing_is_there_twice(tmp_path: Path, act: Act, how: str) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy', clock=FakeClock())
    for queue in ('in', 'out', 'bad', 'trash'):
        spool[queue]
    filebase = spool['in'].enqueue('x')
    says = act(spool, filebase, how)
    there = everywhere(spool)
    assert len(there) == (2 if how == 'other' else 1)
    assert any(name.startswith(says) for name in there)
    whole = [name for name in there if b'something else' not in Path(spool.path(name)).read_bytes()]
    assert len(whole) == 1
    assert not whole[0].endswith('.bak')


def test_one_that_is_at_work_stays_at_work(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    filebase = spool['in'].enqueue('x')
    there = os.path.join(spool['out'].queue_directory, f'{filebase}.pck')
    shutil.copyfile(spool.path('in', f'{filebase}.pck'), there)
    opened = spool.disk.open_locked(f'{filebase}.pck', spool['out'].folder.fd)
    assert opened is not None  # its producer's, or of one who is about to take it
    moved = move(claim_ready_or_preserved(spool['in'], filebase), spool['in'], spool['out'])
    assert moved > filebase
    assert spool['out'].get_files() == [filebase, moved]
    spool.disk.unlock_and_close(opened[0])


def test_a_copy_of_what_may_not_be_read_does_not_keep_it_from_the_bad_queue(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool', 'lazy')
    filebase = spool['in'].enqueue('x')
    shutil.copyfile(
        spool.path('in', f'{filebase}.pck'), os.path.join(spool['bad'].queue_directory, f'{filebase}.psv')
    )
    move_to_bad_unread(spool['in'].folder, f'{filebase}.pck', spool['bad'].folder, 'unreadable')
    assert len(spool['bad'].get_files('.psv')) == 2
