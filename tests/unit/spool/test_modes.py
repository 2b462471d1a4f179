"""Whoever may use a spool may use all of it: files are 0660 and directories 0770, whatever the umask of the one who made them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.brokers.delivery_counts import DeliveryCounts
from switchboard.config.config import Config
from switchboard.declared.exchangestore import DeclaredExchange
from switchboard.drop.program import Drop
from switchboard.drop.request import DropRequest
from switchboard.errors import QueueFullError
from switchboard.operating.audit import Operator, note_act
from switchboard.operating.editing import Editing
from switchboard.operating.holding import hold, release
from switchboard.operating.janitor import tidy
from switchboard.spool.active_config import activate
from switchboard.spool.replies import Replies
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from tests.helpers.processes import NOBODY, in_child

SECTIONS = """
[switchboard]
spool = {spool}
[queue.in]
max_messages = 3
accept = mail, text, bytes, json
[queue.out]
[queue.letters]
maildir = yes
accept_eml_files = yes
[queue.late]
dead_letter = out
durability = lazy
"""


def use(path: Path) -> None:
    """Use everything that a spool has, once."""
    config_file = path / 'switchboard.cfg'
    config_file.write_text(SECTIONS.format(spool=path / 'spool'))
    config = Config.load(str(config_file))
    spool = Spool.from_config(config)
    activate(config)
    filebase = spool['in'].enqueue('x', dedupe_key='k')
    assert spool['in'].enqueue('x', dedupe_key='k') == filebase
    spool.publish('y', routing_key='in')
    with pytest.raises(QueueFullError):
        spool['in'].enqueue_many(['1', '2', '3'])
    spool.pause('out', 'why')
    spool.resume('out')
    spool.drain('late')
    spool.pause('late')
    taken = spool['in'].take()
    transaction = spool.transaction(spool['in'], taken.filebase)
    transaction.emit(spool['out'], 'z', {})
    transaction.emit(spool['letters'], 'z', {'dedupe_key': 'k'})
    spool.commit_all([transaction])
    second = spool['in'].take()
    spool['in'].finish(second.filebase, preserve=True)
    release(spool['out'], hold(spool['out'], spool['out'].files[0]))
    with Editing(spool, 'out', spool['out'].files[0]) as editing:
        editing.store({'key': 'value'}, b'other')
    spool.declare('declared', owner=spool.declared.owner)
    spool.declare('lasting')
    spool.declared.exchanges.declare(DeclaredExchange('exchange', 'direct'))
    spool['declared'].enqueue('x')
    consumer = spool.register_consumer('lasting')
    Replies(spool)
    (path / 'spool' / 'letters' / 'a.eml').write_text('Subject: a\n\nb\n')
    while spool['letters'].take() is not None:
        pass
    door = Drop(DropRequest(['in']), str(path / 'spool'), Disk())
    door.check()
    reading, writing = os.pipe()
    os.write(writing, b'Subject: a\n\nb\n')
    os.close(writing)
    door.read(reading)
    door.write_metadata({})
    door.store(lambda: None)
    note_act(path / 'spool', Operator('somebody'), 'hold', 'in')
    delivery_counts = DeliveryCounts(Folder(spool.path('.held@in'), spool.disk), spool.disk, spool.clock)
    delivery_counts.note_claimed('0' * 40)
    delivery_counts.add_death('1' * 40)
    spool['in'].wake_consumers()
    tidy(spool)
    assert left(path) == []
    consumer.close()


def left(path: Path) -> list[str]:
    """:return: what has another mode than it should."""
    wrong = []
    for place, directories, files in os.walk(path / 'spool'):
        for name in directories + files:
            status = os.lstat(os.path.join(place, name))
            mode = stat.S_IMODE(status.st_mode) & 0o777
            if mode != (0o770 if stat.S_ISDIR(status.st_mode) else 0o660):
                wrong.append(f'{os.path.relpath(os.path.join(place, name), path)} {mode:o}')
    return wrong


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_all_that_is_made_may_be_used_by_the_group(umask: int, tmp_path: Path) -> None:
    def act() -> list[str]:
        os.umask(umask)
        use(tmp_path)
        return left(tmp_path)

    assert in_child(act) == []
    assert (tmp_path / 'spool/.run/declared/.lock').exists()
    assert (tmp_path / 'spool/.run/room/in').exists()
    assert list((tmp_path / 'spool').glob('.dedupe@in/.lock*'))


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')
@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_what_root_makes_in_a_users_spool_is_that_users(umask: int, tmp_path: Path) -> None:
    def act() -> set[tuple[int, int]]:
        os.umask(umask)
        root = tmp_path / 'spool'
        root.mkdir()
        os.chown(root, NOBODY, NOBODY)
        use(tmp_path)
        made = [os.path.join(place, name) for place, *names in os.walk(root) for name in names[0] + names[1]]
        return {(os.lstat(each).st_uid, os.lstat(each).st_gid) for each in made}

    assert in_child(act) == {(NOBODY, NOBODY)}


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_a_second_user_of_the_group_can_declare(umask: int) -> None:
    if os.geteuid() != 0:
        pytest.skip('only root can be somebody else')
    with tempfile.TemporaryDirectory(prefix='open-') as name:
        Path(name).chmod(0o777)

        def first() -> None:
            os.umask(umask)
            os.setgid(NOBODY)
            Spool(Path(name) / 'spool').declare('mine')

        def second() -> str:
            os.umask(umask)
            return Spool(Path(name) / 'spool').declare('yours').name

        in_child(first)
        assert in_child(second, NOBODY) == 'yours'
