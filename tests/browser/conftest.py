"""A desk as it is at work: ``switchboard web`` in a process of its own, and the distribution's Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from tests.helpers.desk_installation import install
from tests.helpers.ports import free_port
from tests.helpers.waiting import PATIENCE_S

CHROMIUM = shutil.which('chromium')


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
        words = [
            '-m',
            'switchboard',
            '-C',
            str(self.config),
            'web',
            '--listen',
            f'127.0.0.1:{self.port}',
            *options,
        ]
        self.process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert 'the desk is at' in line, line

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
    made = Site(tmp_path, '--environment', 'proving', '--colour', 'violet', '--edit')
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope='package')
def chromium() -> Iterator[Any]:
    """A browser.  Not for longer than its tests: playwright leaves an event loop running in this thread, and others start their own."""
    if CHROMIUM is None:
        if os.environ.get('SWITCHBOARD_REQUIRE_SERVERS') == '1':
            pytest.fail('chromium is not installed')
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
