"""The published options: the part of the configuration that `bin/drop` goes by, in a file that is read in a fraction of a millisecond.

Reading and checking the configuration takes longer than delivering a mail does, and a mail must not bounce because
somebody is editing it.  So every reader of a configuration without errors writes ``.run/queues`` into the spool, and
`drop` reads that.  A configuration with errors changes nothing: the last good copy stays.

::

    switchboard-doors/1
    in max_body_bytes=10485760 durability=lazy
    out
    end 2

One line a queue; an option that has its default is left out; ``%20;`` stands for the character with that number, in hex,
where it would end a value.  The last line counts the others, so that a file that was cut short is known from a whole one.

This module imports nothing that is slow to load.
"""

from __future__ import annotations

from switchboard.drop_errors import ConfigError, UnknownQueueError
from switchboard.queue_defaults import OLD_SYNC_WORDS, QueueDefaults
from switchboard.store.disk import Disk
from switchboard.store.folder import Folder
from switchboard.store.layout import PUBLISHED_OPTIONS, RUN

TYPE_CHECKING = False  # see `switchboard/__init__.py`
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from switchboard.options import QueueOptions

MAGIC = 'switchboard-doors/1'
# Some hundred thousand queues.
MAX_COPY_BYTES = 16 * 1024 * 1024


_READERS: dict[str, Callable[[str], object]] = {
    'accept': lambda text: tuple(text.split(',')),
    'dead_letter': str,
    'dedupe_window_s': float,
    'durability': str,
    'directory_sync': str,
    'max_body_bytes': int,
    'max_bytes': int,
    'max_messages': int,
    'min_free_space_bytes': int,
    'order_key': lambda text: _unquoted(text),
    'overflow': str,
    'priority': int,
    'ttl_s': float,
}


def publish_options(spool: str, queues: Mapping[str, QueueOptions], disk: Disk | None = None) -> bool:
    """Write the copy that `read_published_options` reads, of the options of these queues.

    :return: False if it says the same already.
    :raises OSError: it could not be written; the last copy stays.
    """
    lines = [MAGIC, *(_line(name, options) for name, options in queues.items()), f'end {len(queues)}', '']
    content = '\n'.join(lines).encode()
    disk = disk or Disk()
    folder = Folder(f'{spool}/{RUN}', disk)
    folder.make()
    if folder.read(PUBLISHED_OPTIONS, MAX_COPY_BYTES) == content:
        return False
    folder.replace(PUBLISHED_OPTIONS, content, sync=True)
    return True


def read_published_options(spool: str, queue: str, disk: Disk) -> QueueDefaults | None:
    """Look a queue up.

    :return: None if the spool has no published options: nobody ever put a configuration into force.
    :raises UnknownQueueError: the configuration does not declare the queue.
    :raises ConfigError: the copy is damaged.
    :raises OSError: it cannot be read.
    """
    try:
        content = Folder(f'{spool}/{RUN}', disk).read(PUBLISHED_OPTIONS, MAX_COPY_BYTES)
    except FileNotFoundError:
        content = None
    if content is None:
        return None
    path = f'{spool}/{RUN}/{PUBLISHED_OPTIONS}'
    lines = content.decode('utf-8', 'replace').split('\n')
    if lines[0] != MAGIC or lines[-2:] != [f'end {len(lines) - 3}', '']:
        raise ConfigError('is damaged; `switchboard check --write-drop-config` writes it anew', file=path)
    for number, line in enumerate(lines[1:-2], 2):
        name, *fields = line.split(' ')
        if name == queue:
            try:
                return _parse_options(fields)
            except ValueError as error:
                raise ConfigError(f'is damaged: {error}', file=path, line=number) from error
    raise UnknownQueueError('no such queue is declared', queue=queue)


def _line(name: str, options: QueueOptions) -> str:
    fields = [name]
    for key in _READERS:
        value = getattr(options, key)
        if value is None or value == getattr(QueueDefaults, key):
            continue
        text = ','.join(value) if key == 'accept' else str(value)
        fields.append(f'{key}={_quoted(text) if key == "order_key" else text}')
    return ' '.join(fields)


def _parse_options(fields: list[str]) -> QueueDefaults:
    options = QueueDefaults()
    for field in fields:
        key, _, text = field.partition('=')
        if key == 'flush':  # the name before
            if text not in OLD_SYNC_WORDS:
                raise ValueError(field)
            key, text = 'directory_sync', OLD_SYNC_WORDS[text]
        if key in _READERS:
            setattr(options, key, _READERS[key](text))
    return options


def _quoted(text: str) -> str:
    return ''.join(char if char.isalnum() or char in '-_.' else f'%{ord(char):x};' for char in text)


def _unquoted(text: str) -> str:
    first, *rest = text.split('%')
    parts = [piece.partition(';') for piece in rest]
    return first + ''.join(chr(int(code, 16)) + plain for code, _, plain in parts)
