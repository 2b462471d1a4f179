"""The place of a spool, and whose the directories in it are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.config.spool_place import directories_in, some, why_not_alone


def test_all_that_a_spool_makes_is_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path / 'spool')
    for name in ('in', 'out'):
        spool[name].enqueue('x', dedupe_key='k')
    for _ in spool['empty'].files:
        pass
    taken = spool['out'].take()
    assert taken is not None
    spool['out'].finish(taken.filebase, preserve=True)
    found = directories_in(spool.directory)
    assert found.others == []
    assert set(found.ours) == {path.name for path in Path(spool.directory).iterdir()}
    assert set(found.undeclared) == {'in', 'out', 'empty'}
    assert directories_in(spool.directory, ['in', 'out', 'empty']).undeclared == []


@pytest.mark.parametrize('suffix', ['.pck', '.bak', '.psv'])
def test_a_directory_with_an_entry_in_any_state_is_a_queue(tmp_path: Path, suffix: str) -> None:
    (tmp_path / 'orders').mkdir()
    (tmp_path / 'orders' / f'1732242000.123456789+{"0" * 40}{suffix}').touch()
    (tmp_path / 'backups').mkdir()
    (tmp_path / 'backups' / f'nginx{suffix}').touch()
    assert directories_in(tmp_path)[:2] == (['orders'], ['backups'])


@pytest.mark.parametrize(
    ('mode', 'is_ours'), [(0o770, True), (0o2770, True), (0o755, False), (0o2775, False)]
)
@pytest.mark.parametrize('inner', [(), ('tmp', 'new', 'cur')], ids=['empty', 'a maildir'])
def test_a_directory_without_entries_is_a_queue_if_it_was_made_as_one(
    tmp_path: Path, mode: int, is_ours: bool, inner: tuple[str, ...]
) -> None:
    (tmp_path / 'mail').mkdir()
    for name in inner:
        (tmp_path / 'mail' / name).mkdir()
    (tmp_path / 'mail').chmod(mode)
    (tmp_path / 'mail' / '.wake').touch()
    assert directories_in(tmp_path)[:2] == ((['mail'], []) if is_ours else ([], ['mail']))


def test_what_is_hidden_or_the_file_systems_is_no_queue_and_not_ours(tmp_path: Path) -> None:
    for name in ('.ssh', 'lost+found', '.spare-parts'):
        (tmp_path / name).mkdir(mode=0o700)
    assert directories_in(tmp_path) == ([], ['.spare-parts', '.ssh'], [], [])
    assert why_not_alone(tmp_path) == ''


def test_links_of_others_are_nobodys_business(tmp_path: Path) -> None:
    for name in ('in', 'log'):
        (tmp_path / name).symlink_to('/')
    assert directories_in(tmp_path, ['in']).links == ['in', 'log']
    (tmp_path / 'cron').mkdir(mode=0o700)
    assert directories_in(tmp_path, ['in']).links == ['in']


def test_a_directory_that_is_not_there_is_alone(tmp_path: Path) -> None:
    assert why_not_alone(tmp_path / 'spool') == ''


def test_names_are_shown_so_that_they_act_on_no_terminal(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in (b'bell\a\r', b'two words', b'torn\xff', b'4', b'5')]
    assert some(names) == r"'bell\x07\r', two words, 'torn\udcff' and 2 more"
