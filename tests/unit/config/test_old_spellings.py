"""Keys by the names that they had before: read as before."""

from pathlib import Path

import pytest

from switchboard.config.config import Config
from switchboard.config.keys import MASTER_KEYS, OLD_SPELLINGS, QUEUE_KEYS, RUNNER_KEYS, SWITCHBOARD_KEYS
from switchboard.errors import ConfigErrors
from switchboard.operating.queue_info import read_options

KEYS = {'switchboard': SWITCHBOARD_KEYS, 'master': MASTER_KEYS, 'runner': RUNNER_KEYS, 'queue': QUEUE_KEYS}
VALUES = {
    'scale_runner': 'a',
    'consumed_externally': 'yes',
    'accept_eml_files': 'no',
    'min_free_space': '7M',
    'directory_sync': 'always',
    'max_messages_per_process': '7',
    'max_process_memory': '7M',
}
BOTH = [(kind, old, new) for kind, names in OLD_SPELLINGS.items() for old, new in names.items()]


def read(tmp_path: Path, kind: str, *lines: str) -> Config:
    sections = {
        'switchboard': ['[switchboard]', 'spool = s'],
        'master': ['[master]'],
        'runner': ['[runner.a]', 'class = null'],
        'queue': ['[queue.a]'],
    }
    sections[kind] += lines
    text = '\n'.join([*(line for part in sections.values() for line in part), ''])
    path = tmp_path / 'switchboard.cfg'
    path.write_text(text)
    return Config.load(path)


@pytest.mark.parametrize(('kind', 'old', 'new'), BOTH)
class TestEach:
    def test_is_no_key_of_today_and_names_one(self, kind: str, old: str, new: str) -> None:
        assert old not in KEYS[kind]
        assert new in KEYS[kind]

    def test_means_the_same(self, kind: str, old: str, new: str, tmp_path: Path) -> None:
        value = VALUES.get(new, '7m')
        by_old, by_new = (read(tmp_path, kind, f'{key} = {value}') for key in (old, new))
        assert (by_old.master, by_old.runners) == (by_new.master, by_new.runners)
        assert by_old.alert_command == by_new.alert_command
        assert by_old.queue_options('a') == by_new.queue_options('a')
        assert read(tmp_path, kind) != by_old

    def test_is_an_error_beside_the_new_one(self, kind: str, old: str, new: str, tmp_path: Path) -> None:
        value = VALUES.get(new, '7m')
        with pytest.raises(ConfigErrors, match=f'{old}: is the old name of `{new}`'):
            read(tmp_path, kind, f'{old} = {value}', f'{new} = {value}')


def test_a_program_that_declares_a_queue_may_use_them(tmp_path: Path) -> None:
    assert read_options({'give_up': '1h'}) == read_options({'max_retry_time': '1h'})


@pytest.mark.parametrize(('old', 'new'), [('one', 'auto'), ('two', 'always'), ('TWO', 'Always')])
def test_the_values_of_an_old_key_are_read_too(old: str, new: str, tmp_path: Path) -> None:
    assert read_options({'flush': old}) == read_options({'directory_sync': new})
    by_old, by_new = (
        read(tmp_path, 'switchboard', line) for line in (f'flush = {old}', f'directory_sync = {new}')
    )
    assert by_old.queue_options('a') == by_new.queue_options('a')
