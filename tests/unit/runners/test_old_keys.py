"""Keys of shipped runners by the names that they had before: read as before."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from switchboard.config.keys import RUNNER_KEYS, SHIPPED_RUNNERS
from switchboard.options import RunnerOptions
from switchboard.runner.settings import Setting, read_settings

CONFIGURATION = Path(__file__).resolve().parents[3] / 'docs' / 'reference' / 'configuration.md'

VALUES = {
    'environment_colour': 'red',
    'allow_edit': 'yes',
    'max_buffer_memory': '7M',
    'format': 'kombu',
    'own_messages': 'skip',
}


def settings_of(name: str) -> dict[str, Setting]:
    module, _, class_name = SHIPPED_RUNNERS[name].partition(':')
    found: dict[str, Setting] = dict(getattr(importlib.import_module(module), class_name).settings)
    return found


RENAMED = [
    (name, key, setting)
    for name in sorted(SHIPPED_RUNNERS)
    for key, setting in settings_of(name).items()
    if setting.old_name
]


@pytest.mark.parametrize(
    ('name', 'key', 'setting'), RENAMED, ids=[f'{name} {setting.old_name}' for name, _, setting in RENAMED]
)
def test_an_old_key_means_the_same(name: str, key: str, setting: Setting) -> None:
    assert setting.old_name not in settings_of(name).keys() | RUNNER_KEYS.keys()

    def read(given: str) -> object:
        options = RunnerOptions('a', '', settings={given: VALUES.get(key, '7s')})
        return read_settings({key: setting}, options, name)[key]

    assert read(setting.old_name) == read(key) != setting.default


@pytest.mark.parametrize(
    ('name', 'key', 'setting'), RENAMED, ids=[f'{name} {setting.old_name}' for name, _, setting in RENAMED]
)
def test_the_page_of_the_configuration_has_an_old_key_beside_the_new_one(
    name: str, key: str, setting: Setting
) -> None:
    [rows] = re.findall('^## Old names of keys\n(.*?)^## ', CONFIGURATION.read_text(), re.M | re.S)
    [row] = [line.split('|') for line in rows.splitlines() if f'`class = {name}`' in line]
    old, new = (re.findall(r'`(\w+)`', cell) for cell in row[2:4])
    assert (setting.old_name, key) in zip(old, new, strict=True)


def test_every_runner_that_has_some_was_looked_at() -> None:
    assert {name for name, *_ in RENAMED} >= {
        'command',
        'retry',
        'smtp',
        'lmtp',
        'metrics',
        'web',
        'from-broker',
    }
