"""The options of a queue: one frozen record, with the defaults that hold when nobody says anything.

It stands below the configuration, so that a program without a configuration file uses the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from switchboard.queue_defaults import QueueDefaults as Defaults

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from switchboard.queue_defaults import DirectorySync, Durability, Overflow

LogLevel = Literal['debug', 'info', 'warning', 'error']

# A recovery means that a process died with the message in its hands.  Twice can be bad luck.
MAX_RECOVERIES = 3


class RetryPolicy(NamedTuple):
    """The waits of a failed message: ``first_s`` seconds, growing by ``factor`` up to ``cap_s``, each wait
    shortened or lengthened at random by up to ``jitter`` (a share of the wait), so that a herd spreads out.
    """

    first_s: float = 5.0
    cap_s: float = 3600.0
    factor: float = 2.0
    jitter: float = 0.1

    def delay_s(self, attempt: int, rng: random.Random | None = None) -> float:
        """:return: seconds to wait after failure number `attempt`, counted from 1."""
        try:
            wait_s = min(self.cap_s, self.first_s * self.factor ** (attempt - 1))
        except OverflowError:
            wait_s = self.cap_s
        from random import uniform  # here, because many programs read options and never wait

        spread = (rng.uniform if rng is not None else uniform)(-self.jitter, self.jitter)
        return wait_s * (1 + spread)


class QueueOptions(NamedTuple):
    """The options of one queue.  See the configuration reference for what each one means to an operator."""

    durability: Durability = Defaults.durability
    # Whether `full` flushes the directory besides the file.  `auto`: not where the file system writes a file's new name with the file.
    directory_sync: DirectorySync = Defaults.directory_sync
    accept: Sequence[str] = Defaults.accept
    pickle_classes: Sequence[str] = ()
    serializer: str = 'json'
    # What mails come back as: a subclass of `email.message.Message`, or its path.
    message_class: str | type | None = None
    max_recoveries: int = MAX_RECOVERIES
    max_attempts: int = 1
    max_retry_time_s: float | None = 5 * 86400.0
    retry: RetryPolicy = RetryPolicy()
    dead_letter: str = Defaults.dead_letter
    max_messages: int | None = Defaults.max_messages
    max_bytes: int | None = Defaults.max_bytes
    max_body_bytes: int | None = Defaults.max_body_bytes
    min_free_space_bytes: int = Defaults.min_free_space_bytes
    overflow: Overflow = Defaults.overflow
    ttl_s: float | None = Defaults.ttl_s
    rate: float | None = None
    dedupe_window_s: float = Defaults.dedupe_window_s
    priority_step_s: float = 60.0
    priority: int = Defaults.priority
    order_key: str | None = Defaults.order_key
    strict_order: bool = False
    paused: bool = False
    scrub: bool = False
    # Taken from by a program or a person outside the master: then `check` does not warn that nobody consumes it.
    consumed_externally: bool = False
    # The queue is not in the spool's directory, but on a broker.
    url: str | None = None
    # Doors for programs that know nothing of entries: a maildir in the queue's directory, and `*.eml` files dropped there.
    maildir: bool = False
    accept_eml_files: bool = True


# The choices of options that are one of some words, which `queue_defaults` writes for type checkers, and the types of the others, by their annotation.
CHOICES: Mapping[str, tuple[str, ...]] = {
    'durability': ('full', 'lazy'),
    'directory_sync': ('auto', 'always'),
    'overflow': ('reject', 'dead-letter', 'drop-oldest'),
    'serializer': ('json', 'msgpack', 'yaml'),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    'bool': (bool,),
    'int': (int,),
    'float': (int, float),
    'str': (str,),
    'str | type': (str, type),
    'Sequence[str]': (tuple, list),
    'RetryPolicy': (RetryPolicy,),
}


def check_values(options: QueueOptions) -> None:
    """Refuse options that no configuration could say: ``durability = Full`` would count as *lazy*, and a number as text fails with each message.

    :raises ConfigError: one of them is of another type, or none of its words; a number is less than 0, or a priority more than 9.
    """
    from switchboard.errors import ConfigError  # here, because few programs give options

    for key, annotation in QueueOptions.__annotations__.items():
        value = getattr(options, key)
        words = CHOICES.get(key)
        if words is not None:
            if value not in words:
                raise ConfigError(f'{value!r} is none of {", ".join(words)}', key=key)
            continue
        kind = str(getattr(annotation, '__forward_arg__', annotation))
        if value is None and kind.endswith(' | None'):
            continue
        types = _TYPES[kind.removesuffix(' | None')]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ConfigError(f'{value!r} is no {" or ".join(each.__name__ for each in types)}', key=key)
        if isinstance(value, int | float) and not 0 <= value <= (9 if key == 'priority' else float('inf')):
            raise ConfigError(f'{value!r} is out of range', key=key)


def shown_url(url: str | None) -> str | None:
    """:return: a broker's address for people: without the password."""
    if url is None:
        return None
    parts = []
    for part in url.split(';'):
        scheme, mark, rest = part.partition('://')
        user, at, place = rest.rpartition('@')
        name, colon, _ = user.partition(':')
        parts.append(f'{scheme}{mark}{name}{colon and ":***"}{at}{place}')
    return ';'.join(parts)


class RestartOptions(NamedTuple):
    """The restarts of a runner that ended.

    Waits grow as ``retry`` says; more than ``max_restarts`` ends within ``window_s`` seconds make the slice
    FATAL; a run of ``stable_s`` seconds forgives the failures before.
    """

    retry: RetryPolicy = RetryPolicy(1.0, 60.0)
    max_restarts: int = 10
    window_s: float = 600.0
    stable_s: float = 60.0


class RunnerOptions(NamedTuple):
    """The options of one ``[runner.NAME]`` section.  ``settings`` holds the keys that the runner's own class declares."""

    name: str
    class_path: str
    queue: str = ''
    instances: int = 1
    batch_size: int = 1
    poll_interval_s: float = 5.0
    recovery_interval_s: float = 60.0
    message_time_limit_s: float | None = None
    hang_timeout_s: float = 60.0
    stop_timeout_s: float = 30.0
    max_messages_per_process: int | None = None
    max_process_age_s: float | None = None
    max_process_memory_bytes: int | None = None
    # Whether a message at work is a span, and how that belongs to the context that the message was put in with.
    tracing: Literal['off', 'link', 'parent'] = 'off'
    restart: RestartOptions = RestartOptions()
    settings: Mapping[str, str] = {}


class MasterOptions(NamedTuple):
    """The options of the master: the ``[master]`` section.

    ``log_file`` None means standard error in the foreground and ``.run/master/master.log`` in the spool for a daemon;
    ``pid_file`` None means ``.run/master/master.pid`` in the spool.  ``restart`` is what runners get that say nothing else.
    """

    log_file: Path | None = None
    log_level: LogLevel = 'info'
    pid_file: Path | None = None
    # Queues are 0770 and files 0660: the group may work with them, the rest of the world may not look.
    umask: int = 0o007
    preload: Sequence[str] = ()
    # Where runner classes are looked for besides what Python knows.  Empty: the directory of the configuration file, and
    # the one above it if the file lies in `etc`.  Relative paths start at the configuration file.
    python_path: Sequence[str] = ()
    log_format: Literal['text', 'json'] = 'text'
    ready_timeout_s: float = 10.0
    # How long a runner may take to import its class and set itself up before that counts as a hang.
    start_timeout_s: float = 300.0
    # Between two rounds of the janitor, who recovers and expires what no runner looks at.
    maintenance_interval_s: float = 60.0
    # How long such a round may take before its janitor is taken for hung.
    maintenance_timeout_s: float = 300.0
    # The runner that the signals TTIN and TTOU give a slice more or less.  Empty: the first that has a queue.
    scale_runner: str = ''
    restart: RestartOptions = RestartOptions()
