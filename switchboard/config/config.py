"""The configuration of one installation: read once, checked whole, never changed.

``Config.load`` reads ``switchboard.cfg`` and the exchange file that it names.  It raises nothing before it has seen all of
both, so that an operator meets all mistakes in one go, each with its file, line, section and key.  A reload loads a second
`Config` and compares (`Config.changes`): the first one stays in force until the second has passed.

There is no global configuration object.  What a class needs is handed to it: a runner gets its `RunnerOptions`,
a queue its `QueueOptions`, a publisher the `ExchangeTable`.

The keys of a runner's own class are kept as they are written (``RunnerOptions.settings``): the class declares and checks
them, in the process that runs it.  The master imports no class to check a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zlib import crc32

from switchboard.config.checks import ParsedConfig, advise_on_value, check_config
from switchboard.config.exchangefile import read_exchanges
from switchboard.config.inifile import Problems, Section, in_order, parse_ini, read_config_file
from switchboard.config.keys import (
    MASTER_KEYS,
    QUEUE_DEFAULTS,
    QUEUE_KEYS,
    RUNNER_KEYS,
    SWITCHBOARD_KEYS,
    read_values,
    refuse_unknown,
    restart_options,
    with_new_spellings,
)
from switchboard.config.queue_sections import QueueRule, QueueRules, is_pattern
from switchboard.config.spool_place import why_not_a_spool
from switchboard.errors import ConfigError, UnknownQueueError
from switchboard.message.naming import check_queue_name
from switchboard.options import MasterOptions, QueueOptions, RestartOptions, RunnerOptions
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.routing.exchange import ExchangeTable
from switchboard.store.layout import BAD
from switchboard.suggestions import closest, did_you_mean, is_misspelled

if TYPE_CHECKING:
    from switchboard.routing.topology import Graph, NodeKind

DEFAULT_EXCHANGE_FILE = 'exchange.cfg'
SECTIONS = ('switchboard', 'master', 'runner.NAME', 'queue.NAME')

T = TypeVar('T')


class Changes(NamedTuple):
    """Names, in the order of the new file; removed ones come last.

    ``added``, ``removed``, ``changed`` and ``scaled`` are runners and exclude each other.  ``queues`` and ``exchanges``
    came, went, or have other options.  ``keys`` are other ones, which hold at once.  ``master`` are keys that hold only from the next start of the master; ``spool`` among
    them means another installation.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    scaled: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    master: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(tuple(self))

    def __str__(self) -> str:
        parts = [
            f'{label} {", ".join(names)}'
            for label, names in (
                ('added runners', self.added),
                ('removed runners', self.removed),
                ('changed runners', self.changed),
                ('scaled runners', self.scaled),
                ('changed queues', self.queues),
                ('changed exchanges', self.exchanges),
                ('changed', self.keys),
                ('for the next start:', self.master),
            )
            if names
        ]
        return '; '.join(parts) or 'nothing changed'


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the configuration files say.

    ``sources`` are the files that were read and ``digest`` is a checksum of their bytes; ``warnings`` are for
    ``switchboard check``, and stop nothing.
    """

    path: Path
    spool: Path
    exchange_file: Path
    master: MasterOptions = field(default_factory=MasterOptions)
    runners: Mapping[str, RunnerOptions] = field(default_factory=dict)
    queues: QueueRules = field(default_factory=QueueRules)
    declared: tuple[str, ...] = (BAD,)
    exchanges: ExchangeTable = field(default_factory=ExchangeTable)
    warnings: tuple[ConfigError, ...] = ()
    # The program that is run on events, and its arguments.
    alert_command: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    digest: str = ''
    # Are any of the queues on a broker?
    has_remote_queues: bool = field(init=False, repr=False, compare=False)
    _declared: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, '_declared', frozenset(self.declared))
        any_url = any(self.queue_options(name).url is not None for name in self.declared)
        object.__setattr__(self, 'has_remote_queues', any_url)

    @classmethod
    def load(cls, path: Path | str) -> Config:
        """Read the file at `path`, and the exchange file that it names.

        :raises ConfigErrors: something is wrong with them; all of it, each with its place.
        """
        problems = Problems()
        config = _Loader(Path(path).absolute(), problems).load()
        problems.raise_errors()
        return replace(config, warnings=tuple(in_order(problems.warnings)))

    def queue_names(self) -> tuple[str, ...]:
        """:return: the queues that are declared, in the order of the file, and the bad queue as the last."""
        return self.declared

    def declares(self, name: str) -> bool:
        """Is a name that of one of these queues?"""
        return name in self._declared

    def queue_options(self, name: str) -> QueueOptions:
        """:return: the options of a queue; one that is not declared has what the globs that match it say."""
        return self.queues.options(name)

    def graph(self) -> Graph:
        """:return: exchanges, queues and runners, and the ways of messages between them, to be drawn."""
        from switchboard.routing.topology import Edge, Node  # only to draw it

        nodes, edges = [Node('queue', name) for name in self.declared], []
        for name, runner in self.runners.items():
            nodes.append(Node('runner', name, runner.class_path))
            if runner.queue:
                edges.append(Edge(('queue', runner.queue), ('runner', name), 'consumes'))
            # Not all classes mean an exchange by this key; but one that names an exchange is hardly anything else.
            if runner.settings.get('exchange') in self.exchanges.exchanges:
                edges.append(Edge(('runner', name), ('exchange', runner.settings['exchange']), 'publishes'))
        for name in self.declared:
            dead_letter = self.queue_options(name).dead_letter
            exchange = dead_letter.removeprefix(EXCHANGE_PREFIX)
            if dead_letter != BAD:
                kind: NodeKind = 'queue' if exchange == dead_letter else 'exchange'
                edges.append(Edge(('queue', name), (kind, exchange), 'dead-letter'))
        return self.exchanges.graph().with_more(nodes, edges)

    def changes(self, new: Config) -> Changes:
        """:return: the differences of `new`: the runners to stop, start and restart, the queues, the exchanges.

        A pure comparison: it decides nothing about order or timing.  A runner counts as changed when its own section does, or the
        options of the queue that it works on, for it holds both for life.  Where only ``instances`` differs it is ``scaled``
        instead: its slices can be changed while they run.
        """
        queues = _different(
            {name: self.queue_options(name) for name in self.declared},
            {name: new.queue_options(name) for name in new.declared},
        )
        changed, scaled = [], []
        for name, after in new.runners.items():
            if (before := self.runners.get(name)) is None:
                continue
            if before.queue in queues or before._replace(instances=after.instances) != after:
                changed.append(name)
            elif before.instances != after.instances:
                scaled.append(name)
        return Changes(
            added=_without(new.runners, self.runners),
            removed=_without(self.runners, new.runners),
            changed=tuple(changed),
            scaled=tuple(scaled),
            queues=queues,
            exchanges=_different(self.exchanges.exchanges, new.exchanges.exchanges),
            keys=('alert_command',) if self.alert_command != new.alert_command else (),
            master=_master(self, new),
        )


def _master(old: Config, new: Config) -> tuple[str, ...]:
    # Runners inherit `restart`, so a change of it is theirs and holds at once; the rest is the process's own.
    fields = zip(old.master._fields, old.master, new.master, strict=True)
    found = [
        name.removesuffix('_s') for name, before, after in fields if name != 'restart' and before != after
    ]
    return ('spool', *found) if old.spool != new.spool else tuple(found)


def _without(names: Iterable[str], others: Mapping[str, T]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in others)


def _different(old: Mapping[str, T], new: Mapping[str, T]) -> tuple[str, ...]:
    differing = [name for name in new if name not in old or old[name] != new[name]]
    return (*differing, *_without(old, new))


class _Loader:
    """One reading: takes the files apart, section by section, and puts the records together."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.path = path
        self.base = path.parent
        self.problems = problems
        # Of all that was read: it tells a changed configuration from the same.
        self.checksum, self.size_bytes = 0, 0
        self.sources: list[Path] = []
        # Of misspelled sections: each is one mistake, and not a missing section, too.
        self._meant: set[str | None] = set()
        self.sections: dict[str, list[Section]] = {'switchboard': [], 'master': [], 'runner': [], 'queue': []}

    def load(self) -> Config:
        content = self._read(self.path)
        if content is None:
            return Config(self.path, self.base, self.base)
        for section in parse_ini(content, str(self.path), self.problems):
            self._sort(section)
        values = self._core_values()
        master = self._master()
        runners = {
            section.subject: self._runner(section, master.restart) for section in self.sections['runner']
        }
        queues = self._queues(QueueOptions(**{key: values[key] for key in values if key in QUEUE_DEFAULTS}))
        declared = self._declared(runners.values(), queues)
        exchange_file = values.get('exchange_file', self.base / DEFAULT_EXCHANGE_FILE)
        config = Config(
            path=self.path,
            spool=values.get('spool', self.base),
            exchange_file=exchange_file,
            master=master,
            runners=runners,
            queues=queues,
            declared=declared,
            exchanges=self._exchanges(exchange_file, 'exchange_file' in values, declared),
            alert_command=values.get('alert_command', ()),
            sources=tuple(self.sources),
            digest=f'{self.checksum:08x}-{self.size_bytes}',
        )
        parsed = ParsedConfig(config.runners, queues, declared, config.exchanges)
        check_config(parsed, {section.subject: section for section in self.sections['runner']}, self.problems)
        return config

    def _read(self, path: Path) -> bytes | None:
        try:
            content = read_config_file(path)
        except ConfigError as error:
            self.problems.error(error)
            return None
        self.sources.append(path)
        self.checksum = crc32(b'%d:' % len(content) + content, self.checksum)
        self.size_bytes += len(content)
        return content

    def _sort(self, section: Section) -> None:
        kind, point, name = section.name.partition('.')
        if kind not in self.sections or bool(point) != (kind in ('runner', 'queue')):
            meant, hint = _meant_section(section.name)
            self._meant.add(meant)
            self.problems.error(section.error(f'is no section of this file{hint}'))
            return
        try:
            if not (kind == 'queue' and is_pattern(name)) and point:
                check_queue_name(name)
        except UnknownQueueError as error:
            self.problems.error(section.error(str(error).replace('queue name', f'{kind} name')))
            return
        for option in section.options.values():
            advise_on_value(option, self.problems)
        self.sections[kind].append(with_new_spellings(section, self.problems))

    def _core_values(self) -> dict[str, Any]:
        if not self.sections['switchboard']:
            if 'switchboard' not in self._meant:
                self.problems.error(ConfigError('has no [switchboard] section', file=str(self.path)))
            return {}
        section = self.sections['switchboard'][0]
        refuse_unknown(section, SWITCHBOARD_KEYS, self.problems)
        unknown = section.options.keys() - SWITCHBOARD_KEYS.keys()
        if 'spool' not in section.options and not is_misspelled('spool', unknown):
            self.problems.error(section.error('has no `spool =`: the directory that holds the queues'))
        values = read_values(section, SWITCHBOARD_KEYS, self.base, self.problems)
        if reason := 'spool' in values and why_not_a_spool(values['spool']):
            self.problems.error(section.options['spool'].error(reason))
        return values

    def _master(self) -> MasterOptions:
        if not self.sections['master']:
            return MasterOptions()
        section = self.sections['master'][0]
        refuse_unknown(section, MASTER_KEYS, self.problems)
        values = read_values(section, MASTER_KEYS, self.base, self.problems)
        scale = values.get('scale_runner')
        names = [one.subject for one in self.sections['runner']]
        if scale and scale not in names:
            hint = did_you_mean(scale, names)
            self.problems.error(
                section.options['scale_runner'].error(f'there is no runner {scale[:60]!r}{hint}')
            )
        return MasterOptions(restart=restart_options(RestartOptions(), values), **values)

    def _runner(self, section: Section, restart: RestartOptions) -> RunnerOptions:
        values = read_values(section, RUNNER_KEYS, self.base, self.problems)
        if 'class' not in section.options:
            self.problems.error(section.error('has no `class =`: write package.module:Class'))
        settings = {key: option.value for key, option in section.options.items() if key not in RUNNER_KEYS}
        return RunnerOptions(
            name=section.subject,
            class_path=values.pop('class_path', ''),
            restart=restart_options(restart, values),
            settings=settings,
            **values,
        )

    def _queues(self, default: QueueOptions) -> QueueRules:
        rules = []
        for section in self.sections['queue']:
            refuse_unknown(section, QUEUE_KEYS, self.problems)
            values = read_values(section, QUEUE_KEYS, self.base, self.problems)
            rules.append(QueueRule(section.subject, values, section))
        return QueueRules.of(default, rules)

    def _declared(self, runners: Iterable[RunnerOptions], queues: QueueRules) -> tuple[str, ...]:
        names = dict.fromkeys(runner.queue for runner in runners if runner.queue)
        names |= dict.fromkeys(queues.named)
        names.pop(BAD, None)
        return (*names, BAD)

    def _exchanges(self, path: Path, is_asked_for: bool, declared: tuple[str, ...]) -> ExchangeTable:
        if not is_asked_for and not path.exists():
            return ExchangeTable()
        content = self._read(path)
        if content is None:
            return ExchangeTable()
        return read_exchanges(content, str(path), self.problems, declared)


def _meant_section(name: str) -> tuple[str | None, str]:
    """:return: which kind of section a name that is none was meant to be, if any, and the end of the error's sentence."""
    kinds = {section.partition('.')[0]: section for section in SECTIONS}
    kind = re.split(r'\W', name, maxsplit=1)[0]
    meant = closest(kind, (*kinds, 'exchange'))
    if meant is None:
        *others, last = (f'[{section}]' for section in SECTIONS)
        return None, f'; there are {", ".join(others)} and {last}'
    if meant == 'exchange':
        return meant, '; exchanges are declared in the exchange file'
    rest = name[len(kind) + 1 :].strip()
    return meant, f'; did you mean [{kinds[meant].replace("NAME", rest or "NAME")}]?'
