"""Libraries that keep each message in a file of its own."""

from __future__ import annotations

import itertools
import os
import sys
import types
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders.contender import BytesContender, Contender


def _no_sync(_fd: int) -> None:
    """Stands in for ``os.fsync``."""


def _load_mailman_switchboard() -> Any:
    """Import Mailman's own module, with a stand-in for the configuration object that it asks for two values.

    The real one opens a database and reads a site's configuration; neither is on the way of a message.
    """
    stub = types.ModuleType('mailman.config')
    stub.config = types.SimpleNamespace(create_paths=True, QFILE_SCHEMA_VERSION=3, switchboards={})
    sys.modules['mailman.config'] = stub
    from mailman.core import switchboard

    return switchboard


class Mailman(Contender):
    """Mailman 3's ``mailman.core.switchboard.Switchboard``, worked off as its runners do: a listing, then each file.

    :param sync: False replaces ``os.fsync`` in this process.
    """

    def __init__(self, directory: Path, *, sync: bool = True, **options: Any) -> None:
        super().__init__(directory, **options)
        self._module = _load_mailman_switchboard()
        if not sync:
            os.fsync = _no_sync
        self._queues: dict[str, Any] = {}
        self._listed: dict[str, deque[str]] = {}
        self._taken = ''

    def _queue(self, name: str) -> Any:
        if name not in self._queues:
            path = str(self.directory / name)
            self._queues[name] = self._module.Switchboard(name, path, self.slice, self.numslices)
            self._listed[name] = deque()
        return self._queues[name]

    def put(self, queue: str, msg: Any) -> None:
        self._queue(queue).enqueue(msg)

    def take(self, queue: str) -> Any:
        source = self._queue(queue)
        listed = self._listed[queue]
        if not listed:
            listed.extend(source.files)
        if not listed:
            return None
        self._taken = listed.popleft()
        return source.dequeue(self._taken)[0]

    def done(self, queue: str) -> None:
        self._queues[queue].finish(self._taken)


class Dirq(BytesContender):
    """``dirq.QueueSimple``: hard links as locks."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        from dirq.QueueSimple import QueueSimple

        self._make: Callable[[str], Any] = QueueSimple
        self._queues: dict[str, Any] = {}
        self._taken = ''

    def _queue(self, queue: str) -> Any:
        if queue not in self._queues:
            self._queues[queue] = self._make(str(self.directory / queue))
        return self._queues[queue]

    def put(self, queue: str, msg: Any) -> None:
        self._queue(queue).add(self.pack(msg))

    def take(self, queue: str) -> Any:
        q = self._queue(queue)
        for step in (q.next, q.first):  # go on in the last listing; when it is used up, list once more
            name = step()
            while name:
                if q.lock(name):
                    self._taken = name
                    return self.unpack(q.get(name))
                name = q.next()
        return None

    def done(self, queue: str) -> None:
        self._queues[queue].remove(self._taken)


class Filestore(BytesContender):
    """``gocept.filestore.FileStore``, used as its documentation tells: tmp, new, cur, remove."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        from gocept.filestore import FileStore

        self._make: Callable[[str], Any] = FileStore
        self._stores: dict[str, Any] = {}
        self._listed: dict[str, deque[str]] = {}
        self._names = itertools.count()
        self._taken = ''

    def _store(self, queue: str) -> Any:
        if queue not in self._stores:
            store = self._stores[queue] = self._make(str(self.directory / queue))
            store.prepare()
            self._listed[queue] = deque()
        return self._stores[queue]

    def put(self, queue: str, msg: Any) -> None:
        store = self._store(queue)
        name = f'{next(self._names):012d}.{os.getpid()}'
        with store.create(name, 'wb') as file:
            file.write(self.pack(msg))
        store.move(name, 'tmp', 'new')

    def take(self, queue: str) -> Any:
        store = self._store(queue)
        listed = self._listed[queue]
        if not listed:
            listed.extend(sorted(os.path.basename(path) for path in store.list('new')))
        while listed:
            name = listed.popleft()
            try:
                store.move(name, 'new', 'cur')
            except FileNotFoundError:
                continue  # another consumer was faster
            self._taken = name
            return self.unpack((self.directory / queue / 'cur' / name).read_bytes())
        return None

    def done(self, queue: str) -> None:
        self._stores[queue].remove(self._taken, 'cur')
