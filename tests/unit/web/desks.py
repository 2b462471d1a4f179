"""A desk in this process: its application, asked without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from switchboard import Spool
from switchboard.web.app import make_app
from switchboard.web.desk import Desk
from switchboard.web.settings import DeskSettings
from tests.helpers.desk_installation import install

ORIGIN = 'http://127.0.0.1:8025'


class Browser:
    """One desk, and a browser that looks at it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.config = install(directory)
        self.spool = Spool.from_config(self.config)
        self.spool['in']
        self.desk = Desk(directory / 'spool', self.config, DeskSettings(**settings))
        self.client = TestClient(make_app(self.desk), base_url=ORIGIN, follow_redirects=False)

    def count(self) -> None:
        """Have everything counted now."""
        self.desk.counter.count()

    def get(self, path: str, **keys: Any) -> Any:
        """Ask for a page."""
        return self.client.get(path, **keys)

    def json(self, path: str) -> Any:
        """Ask for a page's twin."""
        answer = self.get(f'/api{path}')
        assert answer.status_code == 200, answer.text
        return answer.json()

    def token(self) -> str:
        """The token that forms have."""
        match = re.search(r'name="token" value="([^"]+)"', self.get('/queues/in').text)
        assert match is not None
        return match[1]

    def post(self, path: str, fields: dict[str, Any], **headers: str) -> Any:
        """Send a form as a page of this desk does, and go to its answer."""
        answer = self.send(path, fields, **headers)
        place = answer.headers.get('location', '')
        return self.get(place) if place.startswith('/answers/') else answer

    def send(self, path: str, fields: dict[str, Any], **headers: str) -> Any:
        """Send a form as a page of this desk does."""
        sent = {'token': self.token(), **fields}
        return self.client.post(
            path, data=sent, headers={'sec-fetch-site': 'same-origin', 'origin': ORIGIN, **headers}
        )


@contextmanager
def browser(directory: Path, **settings: Any) -> Iterator[Browser]:
    """Yield a browser at a new desk, or at the one that is there."""
    made = Browser(directory, **settings)
    try:
        with made.client:
            yield made
    finally:
        made.spool.close()
