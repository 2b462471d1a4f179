"""Checks of the whole configuration: names that lead nowhere, and advice to the operator.

Errors are what would fail at run time (a dead letter for a queue that does not exist).  Advice is what runs but is
hardly meant (a queue that nobody consumes); it goes to ``switchboard check``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from switchboard.config.inifile import Option, Problems, Section
from switchboard.config.keys import QUEUE_KEYS, RUNNER_KEYS
from switchboard.config.queue_sections import QueueRules
from switchboard.config.remote_queues import unsupported_options
from switchboard.errors import ConfigError
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.routing.exchange import ExchangeTable
from switchboard.store.layout import BAD
from switchboard.suggestions import closest, did_you_mean

# How alike an unknown key of a runner must be to one of ours, to be taken for a misspelling and not for its own class's.
LIKENESS = 0.8


class ParsedConfig(NamedTuple):
    """The parts of a configuration that was read."""

    runners: Mapping[str, RunnerOptions]
    queues: QueueRules
    # In the order of the file.
    queue_names: tuple[str, ...]
    exchanges: ExchangeTable


_HASH = re.compile(r'\s#(\s|$)')
# At the beginning, where a path has one: elsewhere a `$` is a character like others, in passwords and patterns.
_VARIABLE = re.compile(r'\$\{?[A-Za-z_][A-Za-z_0-9]*\}?(?=/|$)')
# Bridges have a `url` of their own.
_OF_QUEUES_ONLY = QUEUE_KEYS.keys() - {'url'}
_KEY_OF_FIELD = {key.field: name for name, key in QUEUE_KEYS.items()}


def check_config(parsed: ParsedConfig, runner_sections: Mapping[str, Section], problems: Problems) -> None:
    """Note in `problems` the mistakes between the parts of a configuration, and the strange things."""
    known = frozenset(parsed.queue_names)
    # The built-in kinds need no look: what knows all kinds takes longer to load than the rest of this.
    seen = {QueueOptions()}
    for name in parsed.queue_names:
        options = parsed.queues.options(name)
        _check_dead_letter(parsed, name, options, known, problems)
        _check_url(parsed, name, options, problems)
        # Many queues are alike; making serializers for each would be most of the time that loading takes.
        kinds = QueueOptions(
            accept=options.accept, pickle_classes=options.pickle_classes, serializer=options.serializer
        )
        if kinds not in seen:
            seen.add(kinds)
            _check_kinds(parsed, name, options, problems)
    for name, runner in parsed.runners.items():
        _advise_on_runner(parsed, runner, runner_sections[name], problems)
    _advise_on_queues(parsed, problems)


def advise_on_value(option: Option, problems: Problems) -> None:
    """Note it of one value."""
    for line, text in option.lines:
        if text.startswith('~'):
            problems.warn(option.error('`~` is no home directory here: write the path out', line))
        if variable := _VARIABLE.match(text):
            problems.warn(option.error(f'`{variable[0]}` is no variable here: write its value out', line))
        if _HASH.search(text):
            problems.warn(option.error('`#` is a part of the value here: a comment begins with ` ; `', line))
        # An apostrophe may stand in a word.
        if text.count('"') % 2 or (text[0] == "'" and text.count("'") == 1):
            problems.warn(option.error('a quotation mark is not closed', line))
        elif text[0] in '"\'' and text[-1] == text[0] and text.count(text[0]) == 2:
            problems.warn(option.error('the quotation marks are a part of the value: write it without', line))


def _queue_error(parsed: ParsedConfig, name: str, field: str, reason: str) -> ConfigError:
    """:return: an error where the option of a queue is set that this field has."""
    rule = parsed.queues.deciding(name, field)
    if rule is None:
        return ConfigError(reason)
    option = rule.section.options.get(_KEY_OF_FIELD[field])
    return option.error(reason) if option is not None else rule.section.error(reason)


def _check_dead_letter(
    parsed: ParsedConfig, name: str, options: QueueOptions, known: frozenset[str], problems: Problems
) -> None:
    if name == BAD:
        return
    target = options.dead_letter
    exchange = target.removeprefix(EXCHANGE_PREFIX)
    reason = ''
    if target == name:
        reason = f'queue {name} would be its own dead letter queue; give it another, e.g. in [queue.{name}]'
    elif exchange != target:
        # After an error in the exchange file nobody knows what it would have declared.
        if exchange not in parsed.exchanges.exchanges and not problems.errors:
            reason = f'there is no exchange {exchange!r}{did_you_mean(exchange, parsed.exchanges.exchanges)}'
    elif target not in known:
        reason = f'there is no queue {target!r}{did_you_mean(target, parsed.queue_names)}'
    if reason:
        problems.error(_queue_error(parsed, name, 'dead_letter', reason))


def _check_url(parsed: ParsedConfig, name: str, options: QueueOptions, problems: Problems) -> None:
    if options.url is None:
        return
    if name == BAD:
        reason = 'the bad queue is in the spool, where operators can look into it; a `dead_letter` may be on a broker'
        problems.error(_queue_error(parsed, name, 'url', reason))
    for key, reason in unsupported_options(options, options.url):
        problems.error(_queue_error(parsed, name, QUEUE_KEYS[key].field, f'queue {name}: {reason}'))


def _check_kinds(parsed: ParsedConfig, name: str, options: QueueOptions, problems: Problems) -> None:
    from switchboard.message.serializers import Serializers

    try:
        Serializers(options.accept, options.pickle_classes, options.serializer)
    except ConfigError as error:
        field = error.key if error.key and parsed.queues.deciding(name, error.key) else 'accept'
        problems.error(_queue_error(parsed, name, field, error.reason))


def _advise_on_runner(
    parsed: ParsedConfig, runner: RunnerOptions, section: Section, problems: Problems
) -> None:
    for key in runner.settings:
        if key in _OF_QUEUES_ONLY:
            hint = f"it is a queue's, write it below [queue.{runner.queue or 'NAME'}]"
        elif meant := closest(key, RUNNER_KEYS, LIKENESS):
            hint = f'did you mean {meant}?'
        else:
            continue
        reason = f"goes to the runner's own class; if that does not know it: {hint}"
        problems.warn(section.options[key].error(reason))
    exchange = runner.settings.get('exchange')
    # After an error nobody knows what there would be: the exchange file is not read then.
    if exchange and exchange not in parsed.exchanges and not problems.errors:
        hint = did_you_mean(exchange, parsed.exchanges.exchanges)
        problems.warn(section.options['exchange'].error(f'there is no exchange {exchange[:60]!r}{hint}'))
    if runner.queue:
        same = [one for one in parsed.runners.values() if one.queue == runner.queue]
        if same[0] is not runner:
            reason = f'is also the queue of runner {same[0].name}: each message goes to one of them only'
            problems.warn(section.options['queue'].error(reason))
        # A queue with a section of its own has the warning there.
        elif not any(one.instances for one in same) and not (
            runner.queue in parsed.queues.named or _needs_no_consumer(parsed.queues.options(runner.queue))
        ):
            problems.warn(section.options['instances'].error(f'nobody consumes the queue {runner.queue}'))


def _needs_no_consumer(options: QueueOptions) -> bool:
    # What waits there until its time is over goes on as a dead letter.
    only_waits = options.ttl_s is not None and options.dead_letter != BAD
    # Of a queue on a broker, the consumers may be on other machines.
    return options.consumed_externally or options.url is not None or only_waits


def _advise_on_queues(parsed: ParsedConfig, problems: Problems) -> None:
    consumers: dict[str, list[RunnerOptions]] = {}
    for runner in parsed.runners.values():
        consumers.setdefault(runner.queue, []).append(runner)
    for name, rule in parsed.queues.named.items():
        options = parsed.queues.options(name)
        if name == BAD or _needs_no_consumer(options):
            continue
        if not any(runner.instances for runner in consumers.get(name, ())):
            why = '; if a program or a person does, say `consumed_externally = yes`'
            if name in consumers:
                why = f': runner {consumers[name][0].name} has instances = 0'
            problems.warn(rule.section.error(f'nobody consumes this queue{why}'))
    for name in parsed.queue_names:
        options = parsed.queues.options(name)
        if options.overflow != 'reject' and options.max_messages is None and options.max_bytes is None:
            reason = 'has no effect: neither max_messages nor max_bytes is set'
            problems.warn(_queue_error(parsed, name, 'overflow', reason))
    for rule in parsed.queues.idle_globs(parsed.queue_names):
        matching = any(rule.matches(name) for name in parsed.queue_names)
        reason = 'more specific sections say all of it' if matching else 'no declared queue is called so'
        problems.warn(rule.section.error(f'has no effect: {reason}'))
