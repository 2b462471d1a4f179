"""Configurations that tests write into a directory of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard.config.config import Config
from switchboard.errors import ConfigErrors


def load(
    directory: Path, text: str, exchanges: str | None = None, *, head: str = '[switchboard]\nspool = s\n'
) -> Config:
    if exchanges is not None:
        (directory / 'exchange.cfg').write_text(exchanges)
    path = directory / 'switchboard.cfg'
    path.write_text(head + text)
    return Config.load(path)


def errors(
    directory: Path, text: str, exchanges: str | None = None, *, head: str = '[switchboard]\nspool = s\n'
) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(directory, text, exchanges, head=head)
    return [
        str(error).removeprefix(f'{directory}/').removeprefix('switchboard.cfg:')
        for error in caught.value.errors
    ]


def warnings(config: Config) -> list[str]:
    return [str(warning).removeprefix(f'{config.path}:') for warning in config.warnings]
