"""What a master makes before it forks, and what is left for its children to do: memory that they write to is shared no longer."""

from __future__ import annotations

import gc
import importlib
import re
import sys
import tempfile
from importlib.machinery import PathFinder
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from switchboard.config.config import Config
from switchboard.master.child import PreforkObjects
from switchboard.master.loading import (
    extend_path,
    find_class,
    make_runner,
    prepare_before_fork,
    run_before_fork,
)
from switchboard.message.naming import reset_process_number
from switchboard.queue.ready_queue import ReadyQueue
from switchboard.runner.loop import Loop
from switchboard.runner.runner import Runner
from switchboard.runners.null import Null
from switchboard.status.scoreboard import NullSlot
from tests.helpers.descriptors import Opened
from tests.helpers.processes import Child

OWN = """
from pathlib import Path
Path(__file__).with_name('has-run').touch()
from switchboard import Runner
class Mine(Runner):
    def dispose(self, msg, msgdata):
        pass
"""


def configuration(home: Path, class_path: str) -> Config:
    path = home / 'switchboard.cfg'
    path.write_text(
        f'[switchboard]\nspool = {home / "spool"}\n[runner.r]\nclass = {class_path}\nqueue = in\ninstances = 2\n'
    )
    return Config.load(path)


def prepare(home: Path, class_path: str = 'null') -> PreforkObjects:
    return prepare_before_fork(configuration(home, class_path))


@pytest.mark.parametrize('class_path', ['null', 'runners.null:Null', 'switchboard.runners.null:Null'])
def test_a_forked_runner_of_a_shipped_class_imports_inspects_compiles_and_makes_nothing(
    tmp_path: Path, class_path: str
) -> None:
    prefork = prepare(tmp_path, class_path)

    def live() -> None:
        loaded, called = set(sys.modules), set()

        def note(frame: FrameType, what: str, _argument: Any) -> None:
            if what == 'call':
                called.add(frame.f_code.co_filename)

        sys.setprofile(note)
        try:
            runner = make_runner(
                prefork.config, prefork.config.runners['r'], 1, 2, NullSlot(), prefork=prefork
            )
            runner.run(until_empty=True)
        finally:
            sys.setprofile(None)
        assert type(runner) is Null
        assert set(sys.modules) == loaded
        assert any(each.endswith('loading.py') for each in called)
        assert not [each for each in called if re.search(r'importlib|/inspect\.py|/re/|/posixpath\.py', each)]

    with Child(live) as child:
        child.join()


def test_a_rehearsal_makes_the_code_that_a_runner_runs_anew_in_one_go_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / 'away'
    away.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(away))
    config, detached = configuration(tmp_path, 'null'), tmp_path / 'detached'

    def live() -> None:
        gc.unfreeze()  # which tests are, and a master is not yet
        opened = Opened()
        functions = (
            Loop.sleep,
            Runner._run,
            ReadyQueue.scan,
            reset_process_number,
            find_class,
            Loop.stop,
            Runner.reply,
        )
        before = [each.__code__ for each in functions]
        run_before_fork(config, {Null}, detached.touch)
        after = [each.__code__ for each in functions]
        assert before == after
        assert [old is new for old, new in zip(before, after, strict=True)] == [False] * 6 + [True]
        assert detached.exists()
        assert not list(away.iterdir())
        assert not (tmp_path / 'spool').exists()
        gc.collect()  # as the master does before it forks
        assert not opened()

    with Child(live) as child:
        child.join()


def test_a_master_without_a_temporary_directory_starts_without_a_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'nowhere'))
    before = id(Loop.sleep.__code__)
    run_before_fork(configuration(tmp_path, 'null'), [], lambda: None)
    assert id(Loop.sleep.__code__) == before


def test_a_class_that_cannot_be_loaded_is_left_to_the_child_to_tell_of(tmp_path: Path) -> None:
    assert not prepare(tmp_path, 'switchboard.runners.nowhere:Runner').classes
    assert not prepare(tmp_path, 'switchboard.runners.null:Nothing').classes


@pytest.mark.parametrize('has_init', [True, False])
def test_the_master_runs_nothing_of_a_users_own_package_called_runners(
    tmp_path: Path, has_init: bool
) -> None:
    package = tmp_path / 'runners'
    package.mkdir()
    (package / 'mine.py').write_text(OWN)
    if has_init:
        (package / '__init__.py').write_text(OWN)

    def live() -> None:
        for name in [name for name in sys.modules if name.partition('.')[0] == 'runners']:
            del sys.modules[name]
        extend_path([str(tmp_path)])
        assert not prepare(tmp_path, 'runners.mine:Mine').classes
        assert not (package / 'has-run').exists()
        assert prepare(tmp_path, 'null').classes == {'r': Null}

    with Child(live) as child:
        child.join()


@pytest.mark.parametrize('class_path', ['mine:Mine', 'pack.mine:Mine', 'pack.under.mine:Mine'])
def test_a_class_of_ones_own_is_found_and_read_in_the_master_and_run_in_the_child_alone(
    tmp_path: Path, class_path: str
) -> None:
    home = tmp_path / 'home'
    module = home / Path(*class_path.partition(':')[0].split('.')).with_suffix('.py')
    module.parent.mkdir(parents=True)
    for package in module.parents[: len(module.relative_to(home).parts) - 1]:
        (package / '__init__.py').touch()
    module.write_text(OWN)

    def live() -> None:
        extend_path([str(home)])
        prefork = prepare(tmp_path, class_path)
        assert not prefork.classes
        assert not module.with_name('has-run').exists()
        assert class_path.partition('.')[0].partition(':')[0] not in sys.modules
        module.write_text('class Mine: "written since"')
        importlib.invalidate_caches()
        sys.meta_path.remove(PathFinder)
        runner = make_runner(prefork.config, prefork.config.runners['r'], 0, 2, NullSlot(), prefork=prefork)
        sys.meta_path.append(PathFinder)
        assert module.with_name('has-run').exists()
        again = importlib.reload(sys.modules[type(runner).__module__])
        assert again.Mine.__doc__ == 'written since'

    with Child(live) as child:
        child.join()


def test_what_a_package_says_of_its_path_counts_for_what_the_master_has_found(tmp_path: Path) -> None:
    for name, text in {'pack': '', 'other': OWN}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'mine.py').write_text(text)
    (tmp_path / 'pack' / '__init__.py').write_text(f'__path__ = [{str(tmp_path / "other")!r}]')

    def live() -> None:
        extend_path([str(tmp_path)])
        prefork = prepare(tmp_path, 'pack.mine:Mine')
        options = prefork.config.runners['r']
        runner = make_runner(prefork.config, options, 0, 2, NullSlot(), prefork=prefork)
        assert type(runner).__name__ == 'Mine'

    with Child(live) as child:
        child.join()
