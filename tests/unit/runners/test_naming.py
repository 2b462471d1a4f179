"""How a section names a runner: by a short name, by its class, and as it was done before."""

from __future__ import annotations

import configparser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from switchboard.config.keys import SHIPPED_RUNNERS
from switchboard.errors import ConfigError
from switchboard.master.loading import find_class
from switchboard.options import RunnerOptions
from tests.helpers.processes import Child

ROOT = Path(__file__).resolve().parents[3]


def found(class_path: str, queue: str = 'in') -> tuple[str, str]:
    cls = find_class(RunnerOptions('r', class_path, queue))
    # The classes of the bridge stand in files of their own.
    return cls.__module__.replace('bridge_in', 'bridge'), cls.__name__


@pytest.mark.parametrize('name', sorted(SHIPPED_RUNNERS))
def test_a_shipped_runner_has_a_short_name_and_the_spelling_from_before(name: str) -> None:
    queue = '' if name in ('lmtp', 'from-broker', 'metrics', 'web') else 'in'
    module, _, cls = SHIPPED_RUNNERS[name].partition(':')
    assert found(name, queue) == (module, cls)
    assert found(SHIPPED_RUNNERS[name], queue) == (module, cls)
    assert found(SHIPPED_RUNNERS[name].removeprefix('switchboard.'), queue) == (module, cls)


def test_each_file_of_shipped_runners_has_a_name_and_the_installed_names_are_the_same() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    text = setup['options.entry_points']['switchboard.runners']
    assert dict(line.split(' = ') for line in text.split('\n') if line) == SHIPPED_RUNNERS


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no runner called 'stmp'; there are: .*smtp"):
        found('stmp')


def test_another_distribution_names_its_runners_in_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str) -> Any:
        assert group == 'switchboard.runners'
        return [SimpleNamespace(name='theirs', value='switchboard.runners.null:Null')]

    monkeypatch.setattr('importlib.metadata.entry_points', entry_points)
    assert found('theirs') == ('switchboard.runners.null', 'Null')


OWN = """
from switchboard import Runner
class Mine(Runner):
    def dispose(self, msg, msgdata):
        pass
"""


@pytest.mark.parametrize('has_init', [True, False])
def test_a_package_of_the_users_own_that_is_called_runners_is_found_and_hides_none(
    tmp_path: Path, has_init: bool
) -> None:
    (tmp_path / 'runners').mkdir()
    (tmp_path / 'runners' / 'mine.py').write_text(OWN)
    (tmp_path / 'runners' / 'retry.py').write_text(OWN)
    if has_init:
        (tmp_path / 'runners' / '__init__.py').write_text('IS_MINE = True\n')

    def load() -> None:
        import sys

        from switchboard.master.loading import extend_path

        for name in [name for name in sys.modules if name.partition('.')[0] == 'runners']:
            del sys.modules[name]
        extend_path([str(tmp_path)])
        assert found('runners.mine:Mine') == ('runners.mine', 'Mine')
        assert found('runners.null:Null') == ('switchboard.runners.null', 'Null')
        assert found('switchboard.runners.retry:Retry') == ('switchboard.runners.retry', 'Retry')
        assert found('retry') == ('switchboard.runners.retry', 'Retry')
        if has_init:  # a package as it should be: what it holds is what is meant
            assert found('runners.retry:Mine') == ('runners.retry', 'Mine')

    with Child(load) as child:
        child.join()
