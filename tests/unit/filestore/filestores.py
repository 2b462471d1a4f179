"""Files put into a file store, for the tests of it."""

from __future__ import annotations

import os

from switchboard.filestore import FileStore


def put(store: FileStore, name: str, content: str = 'content', directory: str = 'new') -> str:
    with store.create(name) as file:
        file.write(content)
    if directory != 'tmp':
        store.move(name, 'tmp', directory)
    return os.path.join(store.path, directory, name)
