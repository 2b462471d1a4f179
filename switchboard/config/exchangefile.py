"""Reading ``etc/exchange.cfg`` into an exchange table, with every mistake reported by file, line, section and key.

The table's own checks stop at the first mistake and know no lines; so what a person can get wrong is looked for here,
all of it in one reading, and the table is made only from what passed.  Advice (a binding that adds nothing) is kept apart
from errors: a reload with a warning goes through.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import cast, get_args

from switchboard.config.checks import advise_on_value
from switchboard.config.inifile import Option, Problems, Section, parse_ini
from switchboard.errors import RouteError, RouteLoopError, UnknownQueueError
from switchboard.message.naming import check_queue_name
from switchboard.routing.bindings import (
    EXCHANGE_PREFIX,
    Binding,
    Exchange,
    ExchangeType,
    Target,
    check_targets,
)
from switchboard.routing.exchange import ExchangeTable
from switchboard.routing.headers import Condition, HeaderMatch
from switchboard.routing.topics import MANY, ONE, normalize_pattern, split_words
from switchboard.suggestions import did_you_mean, is_misspelled

TYPES = get_args(ExchangeType)
KEYS = ('type', 'alternate', 'bindings')

# What AMQP allows for a binding key, so that a table can move to a broker.
MAX_PATTERN_BYTES = 255

# Ten times what the design is measured with.  A list without bounds would take memory without bounds.
MAX_BINDINGS = 100_000

# No two neighbours in it take the same characters: a line that does not fit is refused in one pass.
_CONDITION = re.compile(r'\s*([^\s=,"]+)\s*(?:=(?:\s*"([^"]*)"\s*|([^",]*)))?(?:,|\Z)')


def read_exchanges(
    content: bytes, file: str, problems: Problems, queues: Collection[str] | None = None
) -> ExchangeTable:
    """Make the table that a file describes.

    :param queues: the names of all queues that are declared, or None where any name will do.
    :return: the table; an empty one if there are errors, which are then in `problems`.
    """
    return _FileReader(file, problems, queues).read(parse_ini(content, file, problems))


class _FileReader:
    def __init__(self, file: str, problems: Problems, queues: Collection[str] | None) -> None:
        self.file = file
        self.problems = problems
        self.queues = queues
        self.names: list[str] = []

    def read(self, sections: list[Section]) -> ExchangeTable:
        ours = [section for section in sections if self._is_exchange(section)]
        self.names = [section.subject for section in ours]
        exchanges = [self._exchange(section) for section in ours]
        self._check_ways(ours, exchanges)
        if self.problems.errors:
            return ExchangeTable()
        for section, exchange in zip(ours, exchanges, strict=True):
            self._advise(section, exchange)
        return ExchangeTable(exchanges)

    def _check_ways(self, sections: list[Section], exchanges: list[Exchange]) -> None:
        by_name = {exchange.name: exchange for exchange in exchanges}
        try:
            check_targets(by_name)
        except RouteLoopError as error:
            # Told at the first of them that the file names, at the line that closes the way.
            section = next(one for one in sections if one.subject in error.cycle)
            onward = error.cycle[error.cycle.index(section.subject) + 1 :][:1] or error.cycle[1:2]
            bindings = by_name[section.subject].bindings
            lines = [
                one.line for one in bindings if any(Target(name, True) in one.targets for name in onward)
            ]
            key = 'bindings' if lines else 'alternate'
            self.problems.error(section.options[key].error(str(error), lines[0] if lines else None))
        except RouteError as error:
            self.problems.error(sections[0].error(str(error)))

    def _is_exchange(self, section: Section) -> bool:
        prefix, point, name = section.name.partition('.')
        if prefix != 'exchange' or not point:
            self.problems.error(
                section.error('is not known here; sections of this file are called [exchange.NAME]')
            )
            return False
        try:
            check_queue_name(name)
        except UnknownQueueError as error:
            self.problems.error(section.error(str(error).replace('a queue name', 'an exchange name')))
            return False
        return True

    def _exchange(self, section: Section) -> Exchange:
        options = section.options
        for key, option in options.items():
            if key not in KEYS:
                self.problems.error(option.error(f'is no key of an exchange{did_you_mean(key, KEYS)}'))
            if key in ('type', 'alternate'):  # in a pattern a `#` is a word of its own
                advise_on_value(option, self.problems)
        kind = 'direct'
        if 'type' not in options and not is_misspelled('type', options.keys() - set(KEYS)):
            self.problems.error(section.error(f'has no type; write `type =` and one of {", ".join(TYPES)}'))
        elif 'type' in options:
            kind = options['type'].value.lower()
            if kind not in TYPES:
                reason = f'{kind[:60]!r} is none of {", ".join(TYPES)}{did_you_mean(kind, TYPES)}'
                self.problems.error(options['type'].error(reason))
        alternate = self._alternate(options['alternate']) if 'alternate' in options else None
        bindings = (
            tuple(self._bindings(options['bindings'], kind))
            if 'bindings' in options and kind in TYPES
            else ()
        )
        return Exchange(
            section.subject, cast(ExchangeType, kind), bindings, alternate, file=self.file, line=section.line
        )

    def _alternate(self, option: Option) -> Target | None:
        if option.value == 'none':
            return None
        targets = self._targets(option, option.line, option.value)
        if len(targets) > 1:
            self.problems.error(
                option.error('takes one queue or one exchange; bind a fanout exchange for more')
            )
        return targets[0] if targets else None

    def _bindings(self, option: Option, kind: str) -> Iterator[Binding]:
        if len(option.lines) > MAX_BINDINGS:
            self.problems.error(option.error(f'has {len(option.lines)} bindings; {MAX_BINDINGS} are allowed'))
            return
        for line, text in option.lines:
            if self.problems.is_full:
                return
            left, arrow, right = text.rpartition('->')
            left = left.strip()
            if not arrow and kind != 'fanout':
                self.problems.error(
                    option.error(f'{text[:60]!r} is no binding; write `pattern -> queue`', line)
                )
                continue
            targets = self._targets(option, line, right)
            try:
                yield Binding(_match(kind, left), targets, line)
            except ValueError as error:
                self.problems.error(option.error(str(error), line))

    def _targets(self, option: Option, line: int, text: str) -> tuple[Target, ...]:
        targets: list[Target] = []
        for name in (part.strip() for part in text.split(',')):
            is_exchange = name.startswith(EXCHANGE_PREFIX)
            target = Target(name.removeprefix(EXCHANGE_PREFIX).strip(), is_exchange)
            reason = self._unknown(target)
            if reason:
                self.problems.error(option.error(reason, line))
            elif target in targets:
                self.problems.warn(option.error(f'names {target} twice; it gets one copy', line))
            else:
                targets.append(target)
        return tuple(targets)

    def _unknown(self, target: Target) -> str:
        if not target.name:
            return 'a target is missing; write a queue or exchange:NAME'
        if target.is_exchange:
            if target.name in self.names:
                return ''
            return f'there is no exchange {target.name[:60]!r}{did_you_mean(target.name, self.names)}'
        try:
            check_queue_name(target.name)
        except UnknownQueueError as error:
            return str(error)
        if self.queues is None or target.name in self.queues:
            return ''
        return f'there is no queue {target.name!r}{did_you_mean(target.name, self.queues)}'

    def _advise(self, section: Section, exchange: Exchange) -> None:
        if not exchange.bindings:
            reason = 'has no bindings: ' + (
                'all goes to its alternate' if exchange.alternate else 'it takes nothing'
            )
            self.problems.warn(section.error(reason))
            return
        option = section.options['bindings']
        for number, target, other in redundant(exchange):
            binding, line = exchange.bindings[number], exchange.bindings[other].line
            if self.problems.is_full:
                return
            self.problems.warn(
                option.error(
                    f'{binding.match} adds nothing for {target}: line {line} says the same', binding.line
                )
            )
        for binding in exchange.bindings:
            if isinstance(binding.match, HeaderMatch) and (reason := binding.match.contradiction()):
                self.problems.warn(option.error(f'{binding.match} can never match: {reason}', binding.line))
        for binding in exchange.bindings if exchange.type == 'direct' else ():
            if {ONE, MANY} & set(split_words(str(binding.match))):
                reason = f'{binding.match} is compared letter by letter: wildcards are for type = topic'
                self.problems.warn(option.error(reason, binding.line))


def redundant(exchange: Exchange) -> Iterator[tuple[int, Target, int]]:
    """Find bindings that say the same as an earlier one.

    :return: the number of such a binding, the target that it does nothing for, and the number of the earlier binding.
    """
    by_target: dict[Target, dict[object, int]] = {}
    for number, binding in enumerate(exchange.bindings):
        for target in binding.targets:
            first = by_target.setdefault(target, {}).setdefault(_meaning(exchange.type, binding), number)
            if first != number:
                yield number, target, first


def _meaning(kind: ExchangeType, binding: Binding) -> object:
    """:return: equal values for bindings that match the same messages."""
    if isinstance(binding.match, HeaderMatch):
        return binding.match.mode, frozenset(binding.match.conditions)
    return normalize_pattern(binding.match) if kind == 'topic' else binding.match


def _match(kind: str, left: str) -> str | HeaderMatch:
    """:raises ValueError: the left side of the arrow does not fit the type of the exchange."""
    if kind == 'headers':
        return _header_match(left)
    if kind == 'fanout':
        if left:
            raise ValueError(f'{left[:60]!r}: a fanout exchange has no patterns; write `-> queue`')
        return left
    if len(left.encode()) > MAX_PATTERN_BYTES:
        raise ValueError(f'a pattern of {len(left.encode())} bytes; {MAX_PATTERN_BYTES} are allowed')
    if left.startswith(('all:', 'any:')):
        raise ValueError(f'{left[:60]!r} are conditions on headers; they are for type = headers')
    if '->' in left:
        raise ValueError(f'{left[:60]!r}: one arrow a line; put several targets behind it, with commas')
    if len(left.split()) > 1:
        raise ValueError(f'{left[:60]!r} holds a blank; a pattern is words with points between and no blanks')
    for word in split_words(left) if kind == 'topic' else ():
        if word not in (ONE, MANY) and (ONE in word or MANY in word):
            raise ValueError(
                f'{left[:60]!r}: * and # stand for whole words; to put a line aside, start it with ;'
            )
    return left


def _header_match(left: str) -> HeaderMatch:
    mode, colon, rest = left.partition(':')
    if not colon or mode not in ('all', 'any'):
        raise ValueError(f'{left[:60]!r} are no conditions; write `all: key=value, key=value` or `any: ...`')
    conditions: list[Condition] = []
    end = 0
    rest = rest.strip()
    while end < len(rest):
        found = _CONDITION.match(rest, end)
        if found is None:
            raise ValueError(
                f'{rest[end : end + 60].strip()!r} is no condition; write key, key=value or key="value"'
            )
        key, quoted, plain = found.groups()
        value = quoted if quoted is not None else plain.strip() if plain is not None else None
        conditions.append((key, value))
        end = found.end()
    if mode == 'any' and not conditions:
        raise ValueError('any: without a condition matches nothing')
    return HeaderMatch('all' if mode == 'all' else 'any', tuple(conditions))
