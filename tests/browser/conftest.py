"""A desk as it is at work: ``switchboard web`` in a process of its own, forked with its imports done, and the distribution's Chromium."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from tests.acceptance.forked import Forked
from tests.helpers.desk_installation import install
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S, eventually

# The one without a window is the same engine, and draws no toolbar for each tab: it takes half of the processor time for a page, and a fifth for a tab.
CHROMIUM = shutil.which('chromium-headless-shell') or shutil.which('chromium')
# What a desk imports when it starts and with its first page.
IMPORTED = ('switchboard.web.server', 'switchboard.web.app', 'uvicorn.protocols.http.h11_impl')


class Site:
    """One desk.

    :param directory: of its installation.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.config = install(directory)
        self.spool = Spool.from_config(self.config)
        self.spool['in']
        self.port = free_port()
        self.url = f'http://127.0.0.1:{self.port}'
        words = ['-C', str(self.config), 'web', '--listen', f'127.0.0.1:{self.port}', *options]
        self.process = Forked('main', *words, stdout=1, imported=IMPORTED)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert b'the desk is at' in line, line

    def told(self, path: str) -> Any:
        """:return: what the twin of a page says: to wait for it costs less than to load the page again and again."""
        with urllib.request.urlopen(f'{self.url}/api{path}', timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def wait_until_counted(self) -> None:
        """Wait until the desk has counted what lies in the bad queue now."""
        there = len(self.spool['bad'].get_files('.psv'))
        eventually(lambda: self.told('/groups')['total'] == there, f'{there} counted', every=0.1)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.spool.close()


class Browser:
    """Opens tabs that wait as long as all tests do, on a machine that is busy with something else."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser

    def new_context(self, **keys: Any) -> Any:
        context = self._browser.new_context(**keys)
        context.set_default_timeout(PATIENCE_S * 1000)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A desk with nothing in its queues."""
    made = Site(tmp_path, '--environment', 'proving', '--environment-colour', 'violet', '--allow-edit')
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope='package')
def chromium() -> Iterator[Any]:
    """A browser.  Not for longer than its tests: playwright leaves an event loop running in this thread, and others start their own."""
    if CHROMIUM is None:
        pytest.skip('chromium is not installed')
    api = pytest.importorskip('playwright.sync_api')
    with api.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox'], timeout=PATIENCE_S * 1000
        )
        yield Browser(browser)
        browser.close()


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    """A tab, in which nothing may go wrong."""
    context = chromium.new_context(viewport={'width': 1280, 'height': 900})
    made = context.new_page()
    wrong: list[str] = []
    # A form that is refused is no mistake of the page's.
    made.on(
        'console',
        lambda message: (
            wrong.append(message.text)
            if message.type == 'error' and '(Conflict)' not in message.text
            else None
        ),
    )
    made.on('pageerror', lambda error: wrong.append(str(error)))
    made.on('dialog', lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    yield made
    context.close()
    assert wrong == []
