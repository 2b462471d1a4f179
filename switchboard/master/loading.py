"""From the words of a configuration to a runner that is ready to run, for the master's children and for ``bin/runner``."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from switchboard.config.config import Config
from switchboard.config.keys import SHIPPED_RUNNERS
from switchboard.errors import ConfigError
from switchboard.events import log_event
from switchboard.master.child import PreforkObjects, StoppedBeforeLoop
from switchboard.options import RunnerOptions
from switchboard.queue.watch import load_inotify
from switchboard.runner.runner import Runner
from switchboard.spool.spool import Spool
from switchboard.status import log
from switchboard.status.scoreboard import Scoreboard, Slot

if TYPE_CHECKING:
    from switchboard.master.child import ChildArguments, StopHandler
    from switchboard.status.scoreboard import NullSlot

# Runners that come with this package are no user's code: the master may load them for all its children.
SHIPPED = 'switchboard.runners.'
# How configurations used to name them.
SHIPPED_BEFORE = 'runners.'
# Where other distributions say by which short names their runners may be called.
ENTRY_POINTS = 'switchboard.runners'


def work_as_runner(child: ChildArguments, slot: Slot, stop: StopHandler) -> int:
    """Make the runner, wait until its slice is free, and run it to its end.

    :return: the exit status.
    """
    runner = make_runner(
        child.config, child.options, child.slice, child.numslices, slot, prefork=child.prefork
    )
    child.wait_for_turn()
    stop.runner = runner
    return runner.run()


def make_runner(
    config: Config,
    options: RunnerOptions,
    slice_index: int,
    count: int,
    slot: NullSlot,
    *,
    prefork: PreforkObjects | None = None,
) -> Runner:
    """:return: the runner that works slice `slice_index` of `count`.

    :param prefork: of the same configuration.
    :raises ConfigError: its class cannot be imported, or its section is wrong.
    """
    runner_class = prefork and prefork.classes.get(options.name)
    if runner_class is None:
        with _finders_first(prefork.finders if prefork else ()):
            runner_class = find_class(options)
    spool = (prefork and prefork.spool) or Spool.from_config(config)
    return runner_class(spool, options, slice=slice_index, numslices=count, slot=slot)


@contextlib.contextmanager
def _finders_first(finders: Sequence[Any]) -> Iterator[None]:
    """Have some finders asked before all others, and not any more afterwards: who loads a module anew wants what it is by then."""
    sys.meta_path[:0] = finders
    try:
        yield
    finally:
        sys.meta_path[:] = [each for each in sys.meta_path if each not in finders]


class _WarmUpRunner(Runner):
    """A runner of no section."""

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`."""

    def snooze(self, filecnt: int) -> None:
        """End with the first sleep."""
        self.stop()


def prepare_before_fork(config: Config) -> PreforkObjects:
    """Make in the master, before the forks, what its children need.

    Memory that a child does not write to is shared, and running code is writing: it counts references.  So an object made here takes
    nothing of a child's own memory, and what a child has to make itself takes several pages for each function that is called.
    """
    spool = Spool.from_config(config)
    load_inotify()
    queues = {each.queue for each in config.runners.values() if each.queue}
    is_shared = not any(config.queue_options(queue).url for queue in queues)
    classes: dict[str, type[Runner]] = {}
    modules: dict[tuple[str, ...], ModuleSpec] = {}
    for options in config.runners.values():
        _WarmUpRunner(spool, options._replace(settings={}))
        if options.queue and is_shared:
            for slice_index in range(options.instances):
                spool.preload_queue(options.queue, slice_index, options.instances)
        with contextlib.suppress(Exception):  # the child meets the same error, and tells of it
            path = _full_path(options.class_path)
            if path.startswith(SHIPPED):
                classes[options.name] = _checked(_load(path), options)
            else:
                modules.update(_look_for(path.partition(':')[0]))
    return PreforkObjects(
        config, spool if is_shared else None, classes, [CachedModuleFinder(modules)] if modules else []
    )


def _look_for(module_name: str) -> Iterator[tuple[tuple[str, ...], ModuleSpec]]:
    """Find and read a module of a user's, and import nothing."""
    path: Iterable[str] = ()
    for spec in _specs(module_name):
        if isinstance(spec.loader, SourceFileLoader) and spec.name not in sys.modules:
            read = {spec.name: spec.loader.get_code(spec.name)}
            setattr(spec.loader, 'get_code', read.get)  # noqa: B010  a method, for this one alone
        yield (spec.name, *path), spec
        path = spec.submodule_search_locations or ()


class CachedModuleFinder:
    """A finder of what the master has found already: to look for it and to read it takes a hundred pages of a child's own.

    :param modules: by name, and by the path of the package that they are in.
    """

    def __init__(self, modules: Mapping[tuple[str, ...], ModuleSpec]) -> None:
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        return self._modules.get((fullname, *(path or ())))


def run_before_fork(config: Config, classes: Collection[type[Runner]], detach: Callable[[], object]) -> None:
    """Have a runner take its first turn in the master, so that less of the memory becomes a child's own when it takes its own.

    Of the names that were looked up the interpreter keeps a table for each class, and it counts each reference in it: a child finds there what it looks
    up, and need not write.  And the functions that have run lie side by side from now on, so that fewer pages hold all that a child runs.

    :param classes: of the runners.
    :param detach: the first steps of a child, for a process of its own.
    """
    options = RunnerOptions('nothing', 'null', queue='nothing')
    with (
        contextlib.suppress(Exception),  # a start does without
        tempfile.TemporaryDirectory() as place,
        contextlib.closing(Scoreboard.create(f'{place}/scoreboard', 1)) as scoreboard,
    ):
        slot = Slot(scoreboard, 0)
        spool = Spool(place, durability='lazy')
        spool.preload_queue(options.queue, 0, 1)
        prefork = PreforkObjects(config, spool, {options.name: _WarmUpRunner}, [])
        with _compact_code() as ran:
            _detach_elsewhere(detach, ran)
            _warm_up(options, slot, prefork)
        runner = _warm_up(options, slot, prefork)
        for each in classes:
            for name in (*dir(each), *vars(runner)):
                getattr(each, name, None)


def _detach_elsewhere(detach: Callable[[], object], ran: set[int]) -> None:
    """Note what only a new process runs: what each module does after a fork, and how a runner's process becomes its own."""
    reading, writing = os.pipe()
    with open(reading, 'rb') as addresses:
        pid = os.fork()
        if pid == 0:
            try:
                detach()
                os.write(writing, array('Q', ran).tobytes())
            finally:
                os._exit(os.EX_OK)
        os.close(writing)
        os.waitpid(pid, 0)
        ran.update(array('Q', addresses.read()))


def _warm_up(options: RunnerOptions, slot: Slot, prefork: PreforkObjects) -> Runner:
    sys.modules.pop(SHIPPED_RUNNERS['null'].partition(':')[0], None)
    find_class(options)  # anew, as a class of a user's is found
    slot.set_pid()
    runner = make_runner(prefork.config, options, 0, 1, slot, prefork=prefork)
    runner.run()
    return runner


@contextlib.contextmanager
def _compact_code() -> Iterator[set[int]]:
    """Move the code that runs meanwhile together.

    :return: where it lies now.
    """
    ran: set[int] = set()  # to look for equal code is to compare all of it

    def note(frame: FrameType, _event: str, _argument: object) -> None:
        ran.add(id(frame.f_code))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield ran
    finally:
        sys.setprofile(before)
    functions = [each for each in gc.get_objects() if type(each) is FunctionType and id(each.__code__) in ran]
    _REPLACED_CODE.extend(each.__code__ for each in functions)
    compact = {id(code): code.replace() for code in _REPLACED_CODE}
    for each in functions:
        each.__code__ = compact[id(each.__code__)]


# Kept: in the holes that they would leave, what a child makes would lie in as many pages.
_REPLACED_CODE: list[CodeType] = []


def find_class(options: RunnerOptions) -> type[Runner]:
    """:return: the class that ``class = package.module:Class``, or a short name, stands for.

    :raises ConfigError: it cannot be imported, is no runner, or could not work.
    """
    section = f'runner.{options.name}'
    with exit_refused(options):
        try:
            found = _load(_full_path(options.class_path))
        except UnknownRunnerError as error:
            raise ConfigError(str(error.args[0]), section=section, key='class') from error
        except Exception as error:
            log_event(
                log.logger('runner'), logging.ERROR, None, 'cannot import', runner=options.name, exc_info=True
            )
            reason = f'cannot import {options.class_path}: {type(error).__name__}: {error}'
            if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
                # Of two modules of one name, a library's goes before the one beside the configuration.
                reason += f' ({getattr(error.obj, "__file__", "built in")})'
            raise ConfigError(reason, section=section, key='class') from error
    return _checked(found, options)


@contextlib.contextmanager
def exit_refused(options: RunnerOptions) -> Iterator[None]:
    """Take a class that ends the program, where it is to be loaded or made, for a mistake of the configuration.

    :raises ConfigError: it does.
    """
    try:
        yield
    except StoppedBeforeLoop:
        raise
    except SystemExit as leaving:
        reason = f'{options.class_path} ends the program with {leaving}'
        raise ConfigError(reason, section=f'runner.{options.name}', key='class') from leaving


def _load(path: str) -> Any:
    module_name, _, class_name = path.partition(':')
    found: Any = _import(module_name)
    for part in class_name.split('.'):
        found = getattr(found, part)
    return found


def _checked(found: Any, options: RunnerOptions) -> type[Runner]:
    if not (isinstance(found, type) and issubclass(found, Runner)):
        raise ConfigError(
            f'{options.class_path} is not a Runner', section=f'runner.{options.name}', key='class'
        )
    found.check_class(options)
    return found


def _full_path(text: str) -> str:
    """:return: module and class.

    :raises UnknownRunnerError: nobody calls a runner so.
    """
    if ':' not in text:
        return SHIPPED_RUNNERS.get(text) or _installed_runner(text)
    if text.startswith(SHIPPED_BEFORE) and not _is_of_the_user(text.partition(':')[0]):
        return SHIPPED + text.removeprefix(SHIPPED_BEFORE)
    return text


def _installed_runner(name: str) -> str:
    from importlib.metadata import entry_points  # here, because few installations have any

    found = {each.name: each.value for each in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        known = ', '.join(sorted({*SHIPPED_RUNNERS, *found}))
        raise UnknownRunnerError(f'there is no runner called {name!r}; there are: {known}')
    return found[name]


def _is_of_the_user(module_name: str) -> bool:
    """Has the user a module of this name, in a package of his own that is called ``runners`` too?"""
    *_, spec = None, *_specs(module_name)
    if spec is None or spec.name != module_name or spec.origin is None:
        return False
    # In a checkout, a link to a folder that may be found as well.
    shipped = Path(__file__).parent.parent / 'runners'
    return not os.path.samefile(os.path.dirname(spec.origin), shipped)


def _specs(module_name: str) -> Iterator[ModuleSpec]:
    """Find the packages that a module is in, and the module.

    Imports nothing: the master asks as well, which runs no code of a user's.
    """
    package, *parts = module_name.split('.')
    spec = importlib.util.find_spec(package)
    while spec is not None:
        yield spec
        if not parts or spec.submodule_search_locations is None:
            return
        spec = PathFinder.find_spec(f'{spec.name}.{parts.pop(0)}', spec.submodule_search_locations)


class UnknownRunnerError(LookupError):
    """A short name that no distribution declares."""


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError:
        # The finders' memory of what lies in a directory was made in the master, perhaps before the module was written.  To
        # forget it each time would have each process read all directories anew, and hold their contents.
        importlib.invalidate_caches()
        return importlib.import_module(module_name)


def python_path(config_file: Path, asked_for: Sequence[str]) -> list[str]:
    """:return: where to look for runner classes besides what Python knows: see ``[master] python_path``."""
    home = config_file.absolute().parent
    if asked_for:
        return [str(home / each) for each in asked_for]
    if home.name == 'etc' and home.parent != home.parent.parent:
        return [str(home), str(home.parent)]
    return [str(home)]


def extend_path(directories: Sequence[str]) -> None:
    """Let modules be found in `directories`, after all other places: a ``queue.py`` there must not hide Python's own."""
    sys.path.extend(each for each in directories if each not in sys.path)
