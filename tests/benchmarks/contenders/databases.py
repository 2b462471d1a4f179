"""Libraries that keep messages in SQLite, in files of many messages, or under one lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.contenders.contender import BytesContender, Contender

# Libraries that only mark finished messages want them cleared away now and then; this often, inside of the time.
CLEARED_EVERY = 1000


class _Tables(BytesContender):
    """One object of the library for each queue, made when it is first named."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self._queues: dict[str, Any] = {}
        self._make = self.factory()
        self._taken: Any = None
        self._finished = 0

    def factory(self) -> Callable[[str], Any]:
        """:return: what makes the object for a path."""
        raise NotImplementedError

    def queue(self, name: str) -> Any:
        """:return: the library's object."""
        if name not in self._queues:
            self._queues[name] = self._make(str(self.directory / name))
        return self._queues[name]

    def clear(self, queue: Any) -> None:
        """Remove what is marked as finished."""

    def done(self, queue: str) -> None:
        self._finished += 1
        if self._finished % CLEARED_EVERY == 0:
            self.clear(self.queue(queue))


class PersistFile(Contender):
    """``persistqueue.Queue``: pickles, a hundred to a file, and a file with the position written for each call."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        from persistqueue import Queue

        self._make: Callable[..., Any] = Queue
        self._queues: dict[str, Any] = {}

    def _queue(self, name: str) -> Any:
        if name not in self._queues:
            # Its temporary files have to be on the same disk.
            self._queues[name] = self._make(str(self.directory / name), tempdir=str(self.directory))
        return self._queues[name]

    def put(self, queue: str, msg: Any) -> None:
        self._queue(queue).put(msg)

    def take(self, queue: str) -> Any:
        q = self._queue(queue)
        return q.get_nowait() if q.qsize() else None

    def done(self, queue: str) -> None:
        self._queues[queue].task_done()


class PersistSqlite(_Tables):
    """``persistqueue.SQLiteAckQueue``: a message stays until it is acknowledged."""

    def factory(self) -> Callable[[str], Any]:
        from persistqueue import Empty, SQLiteAckQueue

        self._empty = Empty
        return SQLiteAckQueue

    def put(self, queue: str, msg: Any) -> None:
        self.queue(queue).put(msg)

    def take(self, queue: str) -> Any:
        try:
            self._taken = self.queue(queue).get(block=False, raw=True)
        except self._empty:
            return None
        return self._taken['data']

    def done(self, queue: str) -> None:
        self.queue(queue).ack(id=self._taken['pqid'])
        super().done(queue)

    def clear(self, queue: Any) -> None:
        queue.clear_acked_data(keep_latest=0, max_delete=CLEARED_EVERY)


class Litequeue(_Tables):
    """``litequeue.LiteQueue``: text in SQLite; bytes travel as Latin-1, which costs the least."""

    def factory(self) -> Callable[[str], Any]:
        from litequeue import LiteQueue

        return lambda path: LiteQueue(path + '.sqlite')

    def put(self, queue: str, msg: Any) -> None:
        self.queue(queue).put(self.pack(msg).decode('latin-1'))

    def take(self, queue: str) -> Any:
        self._taken = self.queue(queue).pop()
        return None if self._taken is None else self.unpack(self._taken.data.encode('latin-1'))

    def done(self, queue: str) -> None:
        self.queue(queue).done(self._taken.message_id)
        super().done(queue)

    def clear(self, queue: Any) -> None:
        queue.prune()


class HueyFile(_Tables):
    """``huey.storage.FileStorage``: one lock around everything."""

    def factory(self) -> Callable[[str], Any]:
        from huey.storage import FileStorage

        return lambda path: FileStorage('bench', path)

    def queue(self, name: str) -> Any:
        (self.directory / name).mkdir(exist_ok=True)
        return super().queue(name)

    def put(self, queue: str, msg: Any) -> None:
        self.queue(queue).enqueue(self.pack(msg))

    def take(self, queue: str) -> Any:
        body = self.queue(queue).dequeue()
        return None if body is None else self.unpack(bytes(body))


class HueySqlite(HueyFile):
    """``huey.storage.SqliteStorage``, as it comes: a write-ahead log, synced at each commit."""

    def factory(self) -> Callable[[str], Any]:
        from huey.storage import SqliteStorage

        return lambda path: SqliteStorage('bench', path + '/huey.db')


class PlainSqlite(BytesContender):
    """The standard library's ``sqlite3``: a table, a write-ahead log, and a commit each for put, take and done.

    :param synchronous: ``normal`` or ``full``.
    """

    def __init__(self, directory: Path, *, synchronous: str = 'full', **options: Any) -> None:
        super().__init__(directory, **options)
        import sqlite3

        self._base = sqlite3.connect(directory / 'queue.db', isolation_level=None, timeout=60)
        self._base.execute('PRAGMA journal_mode = WAL')
        self._base.execute(f'PRAGMA synchronous = {synchronous}')
        self._base.execute(
            'CREATE TABLE IF NOT EXISTS message (id INTEGER PRIMARY KEY, queue TEXT, taken INTEGER DEFAULT 0, body BLOB)'
        )
        self._base.execute('CREATE INDEX IF NOT EXISTS due ON message (queue, taken, id)')
        self._taken = 0

    def put(self, queue: str, msg: Any) -> None:
        self._base.execute('INSERT INTO message (queue, body) VALUES (?, ?)', (queue, self.pack(msg)))

    def take(self, queue: str) -> Any:
        found = self._base.execute(
            'UPDATE message SET taken = 1 WHERE id = (SELECT id FROM message WHERE queue = ? AND taken = 0 ORDER BY id LIMIT 1)'
            ' RETURNING id, body',
            (queue,),
        ).fetchall()
        if not found:
            return None
        self._taken, body = found[0]
        return self.unpack(body)

    def done(self, queue: str) -> None:
        self._base.execute('DELETE FROM message WHERE id = ?', (self._taken,))

    def close(self) -> None:
        self._base.close()
