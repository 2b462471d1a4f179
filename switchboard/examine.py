"""What can only be seen when the whole configuration is there: names that lead nowhere, and advice to the operator.

Errors are what would fail at run time (a dead letter for a queue that does not exist).  Advice is what runs but is
hardly meant (a queue that nobody consumes); it goes to ``switchboard check``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from switchboard.configkeys import QUEUE_KEYS, RUNNER_KEYS
from switchboard.errors import ConfigError
from switchboard.inifile import Problems, Section, did_you_mean
from switchboard.options import QueueOptions, RunnerOptions
from switchboard.queuerules import BAD_QUEUE, QueueRule
from switchboard.serializers import Serializers

if TYPE_CHECKING:
    from switchboard.config import Config

# How alike an unknown key of a runner must be to one of ours, to be taken for a misspelling and not for its own class's.
LIKENESS = 0.8

_KEY_OF_FIELD = {key.field: name for name, key in QUEUE_KEYS.items()}


def examine(config: Config, runner_sections: Mapping[str, Section], problems: Problems) -> None:
    """Note in `problems` what is wrong between the parts of `config`, and what is strange."""
    declared = dict.fromkeys(config.queue_names())
    seen: set[QueueOptions] = set()
    for name in declared:
        options = config.queue_options(name)
        _check_dead_letter(config, name, options, declared, problems)
        # Many queues are alike; making serializers for each would be most of the time that loading takes.
        kinds = QueueOptions(
            accept=options.accept, pickle_classes=options.pickle_classes, serializer=options.serializer
        )
        if kinds not in seen:
            seen.add(kinds)
            _check_kinds(config, name, options, problems)
    for name, runner in config.runners.items():
        _advise_on_runner(config, runner, runner_sections[name], problems)
    _advise_on_queues(config, problems)


def _at(rule: QueueRule | None, field: str, reason: str) -> ConfigError:
    if rule is None:
        return ConfigError(reason)
    entry = rule.section.entries.get(_KEY_OF_FIELD[field])
    return entry.error(reason) if entry is not None else rule.section.error(reason)


def _check_dead_letter(
    config: Config, name: str, options: QueueOptions, declared: Mapping[str, None], problems: Problems
) -> None:
    if name == BAD_QUEUE:
        return
    target = options.dead_letter
    exchange = target.removeprefix('exchange:')
    reason = ''
    if target == name:
        reason = f'queue {name} would be its own dead letter queue; give it another, e.g. in [queue.{name}]'
    elif exchange != target:
        # After an error in the exchange file nobody knows what it would have declared.
        if exchange not in config.exchanges.exchanges and not problems.errors:
            reason = f'there is no exchange {exchange!r}{did_you_mean(exchange, config.exchanges.exchanges)}'
    elif target not in declared:
        reason = f'there is no queue {target!r}{did_you_mean(target, declared)}'
    if reason:
        _once(_at(config.queues.deciding(name, 'dead_letter'), 'dead_letter', reason), problems)


def _check_kinds(config: Config, name: str, options: QueueOptions, problems: Problems) -> None:
    try:
        Serializers(options.accept, options.pickle_classes, options.serializer)
    except ConfigError as error:
        field = error.key or 'accept'
        rule = config.queues.deciding(name, field) or config.queues.deciding(name, 'accept')
        _once(_at(rule, field, error.reason), problems)


def _once(error: ConfigError, problems: Problems) -> None:
    # One section may be for many queues, and is wrong once.
    if str(error) not in {str(known) for known in problems.errors}:
        problems.error(error)


def _advise_on_runner(config: Config, runner: RunnerOptions, section: Section, problems: Problems) -> None:
    for key in runner.settings:
        close = difflib.get_close_matches(key, RUNNER_KEYS, n=1, cutoff=LIKENESS)
        if close:
            reason = f"goes to the runner's own class; if that does not know it: did you mean {close[0]}?"
            problems.warn(section.entries[key].error(reason))
    exchange = runner.settings.get('exchange')
    if exchange and exchange not in config.exchanges:
        hint = did_you_mean(exchange, config.exchanges.exchanges)
        problems.warn(section.entries['exchange'].error(f'there is no exchange {exchange[:60]!r}{hint}'))
    if runner.queue:
        others = [one.name for one in config.runners.values() if one.queue == runner.queue]
        if others[0] != runner.name:
            reason = f'is also the queue of runner {others[0]}: each message goes to one of them only'
            problems.warn(section.entries['queue'].error(reason))


def _advise_on_queues(config: Config, problems: Problems) -> None:
    consumed = {runner.queue for runner in config.runners.values()}
    for name, rule in config.queues.named.items():
        if name not in consumed and name != BAD_QUEUE and not config.queue_options(name).external:
            reason = 'nobody consumes this queue; if a program or a person does, say `external = yes`'
            problems.warn(rule.section.error(reason))
    names = config.queue_names()
    for rule in config.queues.idle_globs(names):
        matching = any(rule.matches(name) for name in names)
        reason = 'more specific sections say all of it' if matching else 'no declared queue is called so'
        problems.warn(rule.section.error(f'has no effect: {reason}'))
