"""What there is to know of a queue besides its entries: options and who set them, consumers, what operators said."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from switchboard.cli.counting import UNKNOWN, census_of
from switchboard.cli.installation import Installation
from switchboard.cli.optionwords import option_words, word
from switchboard.cli.queues import flags, said_of
from switchboard.cli.wording import age, duration, number, one_line, size, visible
from switchboard.clock import SYSTEM_CLOCK
from switchboard.config.keys import QUEUE_KEYS
from switchboard.declared.declarations import Declaration, Declarations
from switchboard.declared.presence import Presence
from switchboard.message.naming import NS, SYSTEM_NAMER
from switchboard.operating.census import Census
from switchboard.options import QueueOptions, shown_url
from switchboard.store.disk import Disk
from switchboard.store.layout import CONSUMERS, RUN

if TYPE_CHECKING:
    from switchboard.config.config import Config


@dataclass(frozen=True)
class Facts:
    """One queue.

    :param consumers: living consumers, runners among them; None if this user may not look.
    :param declaration: what a program said of it.
    """

    name: str
    options: QueueOptions
    consumers: int | None
    declaration: Declaration | None
    said: dict[str, dict[str, Any]]
    config: Config | None

    @property
    def set_options(self) -> dict[str, str]:
        """The options that are not as in any queue, in words."""
        default = QueueOptions()
        if self.name == 'bad' or self.options.external:
            default = dataclasses.replace(default, external=self.options.external)
        return option_words(self.options, default)

    @property
    def own_options(self) -> dict[str, str]:
        """Those of them that are not as in any queue of this installation."""
        general = {} if self.config is None else option_words(self.config.queues.default, QueueOptions())
        return {key: text for key, text in self.set_options.items() if general.get(key) != text}

    def set_by(self, key: str) -> str:
        """:return: who decided an option: a section, a program, or nobody."""
        field = QUEUE_KEYS[key].field
        if self.declaration is not None and field in self.declaration.options:
            return 'declared'
        rule = self.config.queues.deciding(self.name, field) if self.config is not None else None
        if rule is not None:
            return f'[{rule.section.name}]'
        return '[switchboard]' if self.config is not None and key == 'durability' else ''

    def where(self) -> Iterator[str]:
        """:return: where it is declared, in lines."""
        rule = self.config.queues.named.get(self.name) if self.config is not None else None
        if rule is not None:
            yield f'{rule.section.file}:{rule.section.line}'
        elif self.name == 'bad':
            yield 'always there'
        elif self.config is not None and self.name in self.config.queue_names():
            yield f'{self.config.path}, where its name is used'
        if self.declaration is not None:
            yield ', '.join(['by a program', *_lasting(self.declaration)])

    def fields(self) -> dict[str, Any]:
        """:return: the queue for programs."""
        declared = dataclasses.asdict(self.declaration) if self.declaration is not None else None
        return {
            'type': 'queue',
            'queue': self.name,
            'consumers': self.consumers,
            'options': self.own_options,
            'declared': declared,
            'flags': self.said,
        }


def _lasting(declaration: Declaration) -> Iterator[str]:
    if declaration.deleted:
        yield 'being deleted'
    if declaration.owner is not None:
        yield 'exclusive'
    if declaration.auto_delete:
        yield 'auto-delete'
    if declaration.expires_s is not None:
        yield f'expires {word("expires_s", declaration.expires_s)} after its last use'


def facts(installation: Installation, name: str) -> Facts:
    """:return: what there is to know of a queue that is there; nothing is made on the way."""
    config = installation.config_or_none
    run, disk = str(installation.directory / RUN), Disk()
    declaration = Declarations(run, disk, SYSTEM_CLOCK, SYSTEM_NAMER).read(name)
    options = config.queue_options(name) if config is not None else QueueOptions()
    if declaration is not None:
        options = declaration.applied_to(options)
    try:
        attendance = Presence(run, disk, SYSTEM_NAMER).look(f'{CONSUMERS}/{name}')
        consumers = attendance.present if attendance is not None else 0
    except PermissionError:
        consumers = None
    return Facts(name, options, consumers, declaration, flags(installation.directory, name), config)


def show_fields(installation: Installation, name: str) -> dict[str, Any]:
    """:return: a queue with what is in it, for programs: ``options`` are all of them, by field, and ``set`` says which by whom."""
    found = facts(installation, name)
    census = dataclasses.asdict(census_of(installation, name))
    if census['waiting'] == UNKNOWN:
        census['waiting'] = None
    del census['origins'], census['queue']
    return {
        **found.fields(),
        'entries': census,
        'options': dataclasses.asdict(found.options) | {'url': shown_url(found.options.url)},
        'set': {key: found.set_by(key) for key in found.set_options},
    }


def show_lines(installation: Installation, name: str, *, everything: bool) -> Iterator[str]:
    """:return: a queue with what is in it, in lines.

    :param everything: also the options that are as in any queue.
    """
    found = facts(installation, name)
    census = census_of(installation, name)
    yield visible(name)
    yield f'  declared   {"; ".join(map(one_line, found.where())) or "nowhere: there is a directory of that name"}'
    yield f'  consumers  {"?" if found.consumers is None else found.consumers}'
    yield f'  entries    {_entries(census)}'
    for line in said_of(name, found.said):
        yield f'  said       {line.removeprefix(f"{visible(name)}: ")}'
    words = option_words(found.options) if everything else found.set_options
    yield '' if words else '  options    none set'
    width = max(map(len, words), default=0)
    values = max((len(one_line(text)) for text in words.values()), default=0)
    for key, text in words.items():
        notes = ', '.join(note for note in (found.set_by(key), _used(key, found, census)) if note)
        yield f'  {key:<{width}}  {one_line(text):<{values}}  {notes}'.rstrip()


def _used(key: str, found: Facts, census: Census) -> str:
    if key == 'max_messages' and found.options.max_messages is not None:
        return f'{census.entries} used'
    if key == 'max_bytes' and found.options.max_bytes is not None:
        return f'{size(census.size_bytes)} used'
    return ''


def _entries(census: Census) -> str:
    counts = (
        (census.waiting, 'waiting'),
        (census.delayed, 'delayed'),
        (census.held, 'held'),
        (census.claimed, 'claimed'),
        (census.preserved, 'preserved'),
    )
    if census.waiting == UNKNOWN:
        return 'the broker is away'
    text = ', '.join(f'{many} {what}' for many, what in counts if many) or 'none'
    now_s = time.time()
    if census.size_bytes:
        text += f'; {size(census.size_bytes)}'
    if census.oldest_ns:
        text += f'; the oldest waits since {duration(now_s - census.oldest_ns / NS)}'
    if census.next_ns:
        text += f'; the next is due {age(now_s - census.next_ns / NS)}'
    if census.foreign:
        text += f'; {number(census.foreign, "name")} that are no entries'
    return text
