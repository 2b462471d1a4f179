"""From the words of a configuration to a runner that is ready to run, for the master's children and for ``bin/runner``."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from switchboard import log
from switchboard.config import Config
from switchboard.errors import ConfigError
from switchboard.options import RunnerOptions
from switchboard.runner import Runner
from switchboard.spool import Spool

if TYPE_CHECKING:
    from switchboard.board import NullSlot, Slot
    from switchboard.child import Child, StopSignal

# Runners that come with this package are no user's code: the master may load them for all its children.
SHIPPED = 'runners.'


def work_as_runner(child: Child, slot: Slot, stop: StopSignal) -> int:
    """Make the runner, wait until its slice is free, and run it to its end.

    :return: the exit status.
    """
    runner = make_runner(child.config, child.options, child.slice, child.numslices, slot)
    child.wait_for_go()
    stop.pass_on_to(runner)
    return runner.run()


def make_runner(config: Config, options: RunnerOptions, part: int, count: int, slot: NullSlot) -> Runner:
    """:return: the runner that works slice `part` of `count`.

    :raises ConfigError: its class cannot be imported, or its section is wrong.
    """
    runner_class = find_class(options)
    spool = Spool.from_config(config)
    return runner_class(spool, options, slice=part, numslices=count, slot=slot)


def warm_up(config: Config) -> None:
    """Make once in the master what each of its children will make, before they are forked.

    Code and caches that were used here are shared by all of them; what each uses for the first time is in its own memory.
    """
    spool = Spool.from_config(config)
    for options in config.runners.values():
        Runner(spool, replace(options, settings={}))
        module_name = options.class_path.partition(':')[0]
        if module_name.startswith(SHIPPED):
            with contextlib.suppress(Exception):  # the child meets the same error, and tells of it
                importlib.import_module(module_name)


def find_class(options: RunnerOptions) -> type[Runner]:
    """:return: the class that ``class = package.module:Class`` names.

    :raises ConfigError: it cannot be imported, or is no runner.
    """
    module_name, _, class_name = options.class_path.partition(':')
    section = f'runner.{options.name}'
    # The finders' memory of what lies in a directory was made in the master, perhaps before the module was written.
    if module_name not in sys.modules:
        importlib.invalidate_caches()
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        log.logger('runner').exception('cannot import %s', log.pairs(runner=options.name))
        reason = f'cannot import {options.class_path}: {type(error).__name__}: {error}'
        raise ConfigError(reason, section=section, key='class') from error
    if not (isinstance(found, type) and issubclass(found, Runner)):
        raise ConfigError(f'{options.class_path} is not a Runner', section=section, key='class')
    return found


def python_path(config_file: Path, asked_for: Sequence[str]) -> list[str]:
    """:return: where to look for runner classes besides what Python knows: see ``[master] python_path``."""
    home = config_file.absolute().parent
    if asked_for:
        return [str(home / each) for each in asked_for]
    return (
        [str(home), str(home.parent)]
        if home.name == 'etc' and home.parent != home.parent.parent
        else [str(home)]
    )


def extend_path(directories: Sequence[str]) -> None:
    """Let modules be found in `directories`, after all other places: a ``queue.py`` there must not hide Python's own."""
    sys.path.extend(each for each in directories if each not in sys.path)
