"""Every key of ``etc/switchboard.cfg``: how its value is read, and which field it becomes.

One line a key: a new key is a line here, a field in ``options.py``, a commented line in ``etc/switchboard.cfg``, a row in the
reference and a test.  Keys name no unit, because values do (``ttl = 15m``); fields do, because code has only numbers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from switchboard.config.inifile import Option, Problems, Section
from switchboard.config.units import (
    boolean,
    choice,
    duration_s,
    file_mode,
    integer,
    optional,
    rate_per_s,
    retry_policy,
    size_bytes,
    word_list,
)
from switchboard.errors import UnknownQueueError
from switchboard.message.naming import HIGHEST_PRIORITY, check_queue_name
from switchboard.options import CHOICES, RestartOptions
from switchboard.queue_defaults import OLD_SYNC_WORDS
from switchboard.routing.bindings import EXCHANGE_PREFIX
from switchboard.suggestions import did_you_mean

# Each one is a process.  A thousand of them is a typing error that would take the machine down.
MAX_INSTANCES = 256
# A batch keeps one open file for each message until it is finished.
MAX_BATCH = 10_000

BROKER_SCHEMES = ('amqp', 'amqps', 'pyamqp', 'redis', 'rediss')

# The runners that come with this package, by the names that a section may call them.
SHIPPED_RUNNERS = {
    'command': 'switchboard.runners.command:Command',
    'from-broker': 'switchboard.runners.bridge:FromBroker',
    'lmtp': 'switchboard.runners.lmtp:Lmtp',
    'metrics': 'switchboard.runners.metrics:Metrics',
    'null': 'switchboard.runners.null:Null',
    'retry': 'switchboard.runners.retry:Retry',
    'route': 'switchboard.runners.route:Route',
    'smtp': 'switchboard.runners.smtp:Smtp',
    'to-broker': 'switchboard.runners.bridge:ToBroker',
    'web': 'switchboard.runners.web:Web',
}

_SHORT_NAME = re.compile(r'[a-z][a-z0-9]*(?:-[a-z0-9]+)*')
_CLASS = re.compile(r'[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*')
_MODULE = re.compile(r'[^\W\d]\w*(?:\.[^\W\d]\w*)*')


class Key(NamedTuple):
    """The reading of one key.

    ``is_path`` values are joined to the directory of the configuration file; ``is_list`` values may go over many lines.
    """

    field: str
    read: Callable[[str], object]
    is_path: bool = False
    is_list: bool = False


def _wait_s(text: str) -> float:
    wait_s = duration_s(text)
    if wait_s <= 0:
        raise ValueError('must be longer than nothing')
    return wait_s


def _queue(text: str) -> str:
    return text and _name(text)


def _name(text: str) -> str:
    try:
        return check_queue_name(text)
    except UnknownQueueError as error:
        raise ValueError(str(error)) from error


def _dead_letter(text: str) -> str:
    _name(text.removeprefix(EXCHANGE_PREFIX))
    return text


def _broker_url(text: str) -> str:
    # The rest of the URL is read by the code that loads a library for it.
    scheme, mark, place = text.partition('://')
    if scheme.lower() not in BROKER_SCHEMES or not mark or not place:
        raise ValueError(f'names no broker: write one of {", ".join(f"{one}://" for one in BROKER_SCHEMES)}')
    return text


def _text(text: str) -> str:
    if not text:
        raise ValueError('has no value')
    return text


def _directory_sync(text: str) -> str:
    return choice(*CHOICES['directory_sync'])(OLD_SYNC_WORDS.get(text.lower(), text))


def _command(text: str) -> tuple[str, ...]:
    if text == 'none':
        return ()
    from shlex import split  # few configurations have commands

    return tuple(split(_text(text)))


def _class_path(text: str) -> str:
    if not _CLASS.fullmatch(text):
        raise ValueError(f'{text[:60]!r} names no class; write package.module:Class')
    module, _, name = text.partition(':')
    if module.endswith('.py'):
        raise ValueError(f'{text[:60]!r} is the name of a file; write {module.removesuffix(".py")}:{name}')
    return text


def _runner_class(text: str) -> str:
    if text in SHIPPED_RUNNERS:
        return SHIPPED_RUNNERS[text]
    if _SHORT_NAME.fullmatch(text):
        return text  # another distribution's, perhaps: who loads it knows
    return _class_path(text)


def _modules(text: str) -> tuple[str, ...]:
    for one in word_list(text):
        if not _MODULE.fullmatch(one):
            raise ValueError(f'{one[:60]!r} names no module')
    return word_list(text)


SWITCHBOARD_KEYS: Mapping[str, Key] = {
    'spool': Key('spool', _text, is_path=True),
    'exchange_file': Key('exchange_file', _text, is_path=True),
    'durability': Key('durability', choice(*CHOICES['durability'])),
    'directory_sync': Key('directory_sync', _directory_sync),
    'message_class': Key('message_class', optional(_class_path)),
    'alert_command': Key('alert_command', _command),
}
# Those that say what holds for each queue whose section says nothing else.
QUEUE_DEFAULTS = ('durability', 'directory_sync', 'message_class')

RESTART_KEYS: Mapping[str, Key] = {
    'restart': Key('retry', retry_policy),
    'max_restarts': Key('max_restarts', integer(0)),
    'restart_window': Key('window_s', _wait_s),
    'stable_after': Key('stable_s', _wait_s),
}

MASTER_KEYS: Mapping[str, Key] = {
    'log_file': Key('log_file', optional(_text), is_path=True),
    'log_level': Key('log_level', choice('debug', 'info', 'warning', 'error')),
    'log_format': Key('log_format', choice('text', 'json')),
    'pid_file': Key('pid_file', optional(_text), is_path=True),
    'umask': Key('umask', file_mode),
    'preload': Key('preload', _modules, is_list=True),
    'python_path': Key('python_path', word_list, is_path=True, is_list=True),
    'ready_timeout': Key('ready_timeout_s', _wait_s),
    'start_timeout': Key('start_timeout_s', _wait_s),
    'maintenance_interval': Key('maintenance_interval_s', _wait_s),
    'maintenance_timeout': Key('maintenance_timeout_s', _wait_s),
    'scale_runner': Key('scale_runner', lambda text: '' if text == 'none' else text),
    **RESTART_KEYS,
}

RUNNER_KEYS: Mapping[str, Key] = {
    'class': Key('class_path', _runner_class),
    'queue': Key('queue', _queue),
    'instances': Key('instances', integer(0, MAX_INSTANCES)),
    'batch_size': Key('batch_size', integer(1, MAX_BATCH)),
    'poll_interval': Key('poll_interval_s', _wait_s),
    'recovery_interval': Key('recovery_interval_s', _wait_s),
    'message_time_limit': Key('message_time_limit_s', optional(_wait_s)),
    'tracing': Key('tracing', choice('off', 'link', 'parent')),
    'hang_timeout': Key('hang_timeout_s', _wait_s),
    'stop_timeout': Key('stop_timeout_s', _wait_s),
    'max_messages_per_process': Key('max_messages_per_process', optional(integer(1))),
    'max_process_age': Key('max_process_age_s', optional(_wait_s)),
    'max_process_memory': Key('max_process_memory_bytes', optional(size_bytes)),
    **RESTART_KEYS,
}

QUEUE_KEYS: Mapping[str, Key] = {
    'durability': Key('durability', choice(*CHOICES['durability'])),
    'directory_sync': Key('directory_sync', _directory_sync),
    'accept': Key('accept', word_list, is_list=True),
    'pickle_classes': Key(
        'pickle_classes', lambda text: tuple(map(_class_path, word_list(text))), is_list=True
    ),
    'serializer': Key('serializer', choice(*CHOICES['serializer'])),
    'message_class': Key('message_class', optional(_class_path)),
    'max_recoveries': Key('max_recoveries', integer(1)),
    'max_attempts': Key('max_attempts', integer(1)),
    'max_retry_time': Key('max_retry_time_s', optional(_wait_s)),
    'retry': Key('retry', retry_policy),
    'dead_letter': Key('dead_letter', _dead_letter),
    'max_messages': Key('max_messages', optional(integer(1))),
    'max_bytes': Key('max_bytes', optional(size_bytes)),
    'max_body': Key('max_body_bytes', optional(size_bytes)),
    'min_free_space': Key('min_free_space_bytes', size_bytes),
    'overflow': Key('overflow', choice(*CHOICES['overflow'])),
    'ttl': Key('ttl_s', optional(_wait_s)),
    'rate': Key('rate', optional(rate_per_s)),
    'dedupe_window': Key('dedupe_window_s', _wait_s),
    'priority_step': Key('priority_step_s', _wait_s),
    'priority': Key('priority', integer(0, HIGHEST_PRIORITY)),
    'order_key': Key('order_key', optional(_text)),
    'strict_order': Key('strict_order', boolean),
    'paused': Key('paused', boolean),
    'scrub': Key('scrub', boolean),
    'consumed_externally': Key('consumed_externally', boolean),
    'url': Key('url', optional(_broker_url)),
    'maildir': Key('maildir', boolean),
    'accept_eml_files': Key('accept_eml_files', boolean),
}

# Keys as they were spelled before, by kind of section: read as before, and shown by their names of today.
OLD_SPELLINGS: Mapping[str, Mapping[str, str]] = {
    'switchboard': {'flush': 'directory_sync', 'on_event': 'alert_command'},
    'master': {'tidy': 'maintenance_interval', 'scale': 'scale_runner', 'healthy_after': 'stable_after'},
    'runner': {
        'rescan': 'poll_interval',
        'recovery': 'recovery_interval',
        'healthy_after': 'stable_after',
        'max_seconds': 'message_time_limit',
        'max_messages': 'max_messages_per_process',
        'max_age': 'max_process_age',
        'max_memory': 'max_process_memory',
    },
    'queue': {
        'flush': 'directory_sync',
        'give_up': 'max_retry_time',
        'min_free': 'min_free_space',
        'external': 'consumed_externally',
        'plain_files': 'accept_eml_files',
    },
}


def with_new_spellings(section: Section, problems: Problems) -> Section:
    """:return: the section with the names of today for its keys; a key that is there by both names is noted in `problems`."""
    old = OLD_SPELLINGS.get(section.name.partition('.')[0], {})
    if not old.keys() & section.options.keys():
        return section
    options: dict[str, Option] = {}
    for name, option in section.options.items():
        known = old.get(name, name)
        if known != name and known in section.options:
            problems.error(option.error(f'is the old name of `{known}`, which is set in this section, too'))
        else:
            options[known] = option
    return section._replace(options=options)


def read_values(section: Section, keys: Mapping[str, Key], base: Path, problems: Problems) -> dict[str, Any]:
    """Read the options of `section` that `keys` knows; others are left to the caller.

    :param base: where relative paths start.
    :return: values by field; unreadable ones are noted in `problems`.
    """
    values: dict[str, Any] = {}
    for name, option in section.options.items():
        if name not in keys:
            continue
        try:
            values[keys[name].field] = _value(option, keys[name], base)
        except ValueError as error:
            problems.error(option.error(str(error)))
    return values


def refuse_unknown(section: Section, keys: Mapping[str, Key], problems: Problems) -> None:
    """Note each option of `section` that `keys` does not know."""
    for name, option in section.options.items():
        if name not in keys:
            problems.error(option.error(f'is not known in this section{did_you_mean(name, keys)}'))


def restart_options(base: RestartOptions, values: dict[str, Any]) -> RestartOptions:
    """Take what belongs to the restart policy out of `values`, and put it over `base`."""
    changes: dict[str, Any] = {
        key.field: values.pop(key.field) for key in RESTART_KEYS.values() if key.field in values
    }
    return base._replace(**changes)


def _value(option: Option, key: Key, base: Path) -> object:
    """:raises ValueError: the value cannot be read."""
    if len(option.lines) > 1 and not key.is_list:
        line, text = option.lines[1]
        raise ValueError(f'goes on in line {line} with {text[:60]!r}; is that line indented by mistake?')
    value = key.read(' '.join(option.value.split('\n')))
    if not key.is_path or value is None:
        return value
    if isinstance(value, tuple):
        return tuple(str(base / one) for one in value)
    return Path(os.path.normpath(base / str(value)))
