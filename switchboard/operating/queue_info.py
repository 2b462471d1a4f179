"""A queue's facts besides its entries: how much is in it, options and who set them, consumers, operators' flags.

Everything is read, and nothing is made on the way: no directory, no lock.  `queue_info` is one queue; `count_queue` and `origins_of` are the
parts of it that cost something, for callers with a budget.  What its runners have done is on the scoreboard: `throughput` sums it up by queue, and
two of these and the time between make rates.

Options have the words of the configuration, from which `read_options` reads them back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from switchboard.clock import SYSTEM_CLOCK
from switchboard.config.keys import OLD_SPELLINGS, QUEUE_KEYS
from switchboard.config.units import format_duration, format_size
from switchboard.declared.declarations import Declaration, Declarations
from switchboard.declared.presence import Presence
from switchboard.errors import BrokerDownError
from switchboard.message.naming import NS_PER_S, PRESERVED, SYSTEM_NAME_GENERATOR
from switchboard.operating.queue_counts import CountCache, QueueCounts, count, walk_entries
from switchboard.operating.spool_view import SpoolView, read_flags
from switchboard.operating.summary import summarize
from switchboard.options import QueueOptions, RetryPolicy, shown_url
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import BAD, CONSUMERS, COUNTS, RUN, TRASH
from switchboard.store.limits import evicted
from switchboard.suggestions import did_you_mean

if TYPE_CHECKING:
    from switchboard.config.config import Config
    from switchboard.spool.spool import Spool
    from switchboard.status.scoreboard import SliceRecord

# To tell where dead messages came from, each must be opened.  So many take about a second.
MAX_OPENED = 20_000
# A count that a broker, or the disk, did not give: then nothing is known of the queue's other states either.
UNKNOWN = -1

_SIZE_FIELDS = frozenset(('max_bytes', 'max_body_bytes', 'min_free_space_bytes'))


def count_queue(
    view: SpoolView,
    name: str,
    *,
    sizes: bool = True,
    spool: Spool | None = None,
    until_ns: int | None = None,
    counts: CountCache | None = None,
) -> QueueCounts:
    """Count the entries of a queue, wherever it is: a directory is walked over, a broker is asked for its ready messages, for it counts no others.

    :param spool: for queues on brokers; without one, and where the broker is away, `UNKNOWN` many wait there.
    :param until_ns: as in `queue_counts.count`; a broker is not asked for a part.
    :param counts: the counts of before, for callers who count again and again.
    """
    if not view.is_remote(name):
        counted = count if counts is None else counts.count
        found = counted(view.folder(name), name, sizes=sizes, until_ns=until_ns)
        found.evicted = evicted(Folder(view.directory / RUN / COUNTS, Disk()), name)
        return found
    if spool is None:
        return QueueCounts(name, waiting=UNKNOWN)
    queue: Any = spool[name]
    try:
        return QueueCounts(name, waiting=queue.count())
    except BrokerDownError as error:
        return QueueCounts(name, waiting=UNKNOWN, trouble=str(error))
    finally:
        queue.close()


def origins_of(folder: Folder, queue: str, limit: int = MAX_OPENED) -> dict[str, int]:
    """:return: how many preserved entries came from which queue; unknown origins, and all beyond `limit`, are under ``?``."""
    found: Counter[str] = Counter()
    for opened, (filebase, suffix) in enumerate(walk_entries(folder, (PRESERVED,))):
        entry = summarize(folder, queue, filebase, suffix) if opened < limit else None
        found[entry.origin or '?' if entry else '?'] += 1
    return dict(found)


class Throughput(NamedTuple):
    """The counters of a queue's runners since the master started."""

    done: int = 0
    failed: int = 0
    retried: int = 0
    kept: int = 0
    slices: int = 0


def throughput(config: Config | None, records: Iterable[SliceRecord]) -> dict[str, Throughput]:
    """:return: the counters by queue, from the scoreboard.  Counters begin anew with each start of the master."""
    found: dict[str, Throughput] = {}
    for record in records:
        options = config.runners.get(record.runner) if config is not None else None
        queue = record.runner if options is None else options.queue
        if queue:
            found[queue] = Throughput(*map(add, found.get(queue, Throughput()), (*record.counters, 1)))
    return found


def count_fields(
    counts: QueueCounts, flags: Iterable[str], now_s: float, in_bad: int | None = None
) -> dict[str, Any]:
    """:return: how much is in a queue, for programs; a number that nobody knows is None.

    :param in_bad: how many entries of the bad queue came from it.
    """
    is_known = counts.waiting != UNKNOWN
    fields = {name: getattr(counts, name) if is_known else None for name in _COUNTS}
    fields['size_bytes'] = counts.size_bytes if is_known and counts.has_size else None
    fields['oldest_age_s'] = round(now_s - counts.oldest_ns / NS_PER_S, 3) if counts.oldest_ns else None
    fields['next_due_s'] = round(counts.next_ns / NS_PER_S - now_s, 3) if counts.next_ns else None
    fields['in_bad'] = in_bad
    fields['flags'] = list(flags)
    if counts.origins:
        fields['origins'] = counts.origins
    return {'queue': counts.queue, **fields}


_COUNTS = (
    'waiting',
    'delayed',
    'held',
    'claimed',
    'preserved',
    'dropped',
    'foreign',
    'evicted',
    'size_bytes',
)


class QueueInfo(NamedTuple):
    """One queue.

    :param consumers: living consumers, runners among them; None if this user may not look.
    :param declaration: the declaration by a program.
    """

    name: str
    options: QueueOptions
    consumers: int | None
    declaration: Declaration | None
    flags: dict[str, dict[str, Any]]
    config: Config | None

    @property
    def changed_options(self) -> dict[str, str]:
        """The options that differ from the built-in defaults, in words."""
        default = QueueOptions()
        if self.name == BAD or self.options.consumed_externally:
            default = default._replace(consumed_externally=self.options.consumed_externally)
        return option_words(self.options, default)

    @property
    def own_options(self) -> dict[str, str]:
        """The options that differ from those of ``[queue.*]``."""
        general = {} if self.config is None else option_words(self.config.queues.default, QueueOptions())
        return {key: text for key, text in self.changed_options.items() if general.get(key) != text}

    def set_by(self, key: str) -> str:
        """:return: the source of an option: a section, a program, or nobody."""
        field = QUEUE_KEYS[key].field
        if self.declaration is not None and field in self.declaration.options:
            return 'declared'
        rule = self.config.queues.deciding(self.name, field) if self.config is not None else None
        if rule is not None:
            return f'[{rule.section.name}]'
        return '[switchboard]' if self.config is not None and key == 'durability' else ''

    def declared_where(self) -> Iterator[str]:
        """:return: where it is declared, in lines."""
        rule = self.config.queues.named.get(self.name) if self.config is not None else None
        if rule is not None:
            yield f'{rule.section.file}:{rule.section.line}'
        elif self.name in (BAD, TRASH):
            yield 'always there'
        elif self.config is not None and self.name in self.config.queue_names():
            yield f'{self.config.path}, where its name is used'
        if self.declaration is not None:
            yield ', '.join(['by a program', *_lasting(self.declaration)])

    def fields(self) -> dict[str, Any]:
        """:return: the queue for programs."""
        declared = self.declaration._asdict() if self.declaration is not None else None
        return {
            'type': 'queue',
            'queue': self.name,
            'consumers': self.consumers,
            'options': self.own_options,
            'declared': declared,
            'flags': self.flags,
        }

    def all_fields(self, counts: QueueCounts) -> dict[str, Any]:
        """:return: the queue with its contents, for programs: ``options`` are all of them, by field, and ``set`` says which by whom."""
        counted = count_fields(counts, self.flags, time.time())
        return {
            **self.fields(),
            'entries': {
                key: value
                for key, value in counted.items()
                if key not in ('queue', 'flags', 'origins', 'in_bad')
            },
            'options': self.options._asdict()
            | {'retry': self.options.retry._asdict(), 'url': shown_url(self.options.url)},
            'set': {key: self.set_by(key) for key in self.changed_options},
        }


def _lasting(declaration: Declaration) -> Iterator[str]:
    if declaration.deleted:
        yield 'being deleted'
    if declaration.owner is not None:
        yield 'exclusive'
    if declaration.auto_delete:
        yield 'auto-delete'
    if declaration.expires_s is not None:
        yield f'expires {option_word("expires_s", declaration.expires_s)} after its last use'


def queue_info(view: SpoolView, name: str) -> QueueInfo:
    """:return: the facts about a queue that is there."""
    config = view.config
    run, disk = str(view.directory / RUN), Disk()
    declaration = Declarations(run, disk, SYSTEM_CLOCK, SYSTEM_NAME_GENERATOR).read(name)
    options = config.queue_options(name) if config is not None else QueueOptions()
    if declaration is not None:
        options = declaration.applied_to(options)
    try:
        count = Presence(run, disk, SYSTEM_NAME_GENERATOR).count(f'{CONSUMERS}/{name}')
        consumers = count.present if count is not None else 0
    except PermissionError:
        consumers = None
    return QueueInfo(name, options, consumers, declaration, read_flags(view.directory, name), config)


def option_words(options: QueueOptions, default: QueueOptions | None = None) -> dict[str, str]:
    """:return: the options in words by key; with a `default`, those only that differ from it."""
    return {
        name: option_word(key.field, getattr(options, key.field))
        for name, key in QUEUE_KEYS.items()
        if default is None or _plain(getattr(options, key.field)) != _plain(getattr(default, key.field))
    }


def read_options(words: Mapping[str, str]) -> dict[str, Any]:
    """Read words as the configuration does.

    :return: values by field of `QueueOptions`.
    :raises ValueError: a key is not known, or its value cannot be read; the text names it.
    """
    values = {}
    for name, text in words.items():
        key = QUEUE_KEYS.get(OLD_SPELLINGS['queue'].get(name, name))
        if key is None:
            raise ValueError(f'{name}: there is no such option{did_you_mean(name, QUEUE_KEYS)}')
        try:
            values[key.field] = key.read(text)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
    return values


def option_word(field: str, value: object) -> str:
    """:return: the value of a field of `QueueOptions` in words."""
    if value is None or value == ():
        return 'none'
    if field == 'url':
        return shown_url(str(value)) or ''
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, RetryPolicy):
        waits = f'{format_duration(value.first_s)}..{format_duration(value.cap_s)}'
        return f'{waits} x{value.factor:g} jitter {value.jitter * 100:g}%'
    if isinstance(value, list | tuple):
        return ', '.join(map(str, value))
    if isinstance(value, int | float) and field.endswith('_s'):
        return format_duration(value)
    if isinstance(value, int) and field in _SIZE_FIELDS:
        return format_size(value)
    return _rate(value) if field == 'rate' and isinstance(value, int | float) else str(value)


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _rate(per_s: float) -> str:
    for seconds, unit in ((1, 's'), (60, 'm'), (3600, 'h')):
        number = round(per_s * seconds, 9)
        if number == int(number):
            return f'{number:g}/{unit}'
    return f'{per_s:g}/s'
