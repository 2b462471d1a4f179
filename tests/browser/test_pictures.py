"""Pictures of every page, as the documentation shows them: an installation at work, of which the smarthost is down.

They are made at each run, and replace those of the documentation where ``SWITCHBOARD_PICTURES`` names its directory: docs/howto/desk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from switchboard import Spool
from tests.browser.conftest import Site
from tests.helpers.commands import succeed, switchboard
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs/howto'
CONFIG = """[switchboard]
spool = spool
durability = lazy
[runner.route]
class = route
queue = in
exchange = mail
[runner.archive]
class = null
queue = archive
instances = 2
[runner.smtp]
class = jobs:Deliver
queue = out
instances = 2
[queue.out]
max_attempts = 2
retry = 0s
[queue.digests]
external = yes
"""
EXCHANGES = """[exchange.mail]
type = topic
bindings =
    lists.*.post -> out
    lists.#.digest -> digests
    # -> archive
"""
JOBS = """
from switchboard import Runner

class SMTPConnectError(Exception):
    pass

class UnknownRecipient(Exception):
    pass

class Deliver(Runner):
    def dispose(self, msg, msgdata):
        if msgdata.get('unknown'):
            raise UnknownRecipient('550 5.1.1 <%s>: user unknown' % msgdata['recipient'])
        raise SMTPConnectError('mail.example.com:25: Connection refused')
"""
MAIL = 'From: Ann Lee <ann@example.com>\nTo: {}\nSubject: {}\nMessage-ID: <{}@example.com>\n\nDear all,\n\nhere are the minutes.\n\nAnn\n'
SUBJECTS = (
    'Minutes of Tuesday',
    'Re: the roof of the boat house',
    'Order 4711 has left us',
    'Your ticket was answered',
    'Invitation: harvest supper',
)
# A picture is not to tell where the tests have run.
ELSEWHERE = """(places) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) for (const [from, to] of places) walker.currentNode.data = walker.currentNode.data.replaceAll(from, to);
}"""
PAGES = {
    'overview': '/',
    'errors': '/groups',
    'entries': '/entries',
    'queue': '/queues/digests',
    'runners': '/runners',
    'routes': '/topology',
    'configuration': '/configuration',
    'acts': '/acts',
    'help': '/help',
}


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Site]:
    """A desk of an installation in which something is wrong."""
    home = tmp_path / 'mail'
    home.mkdir()
    for name, text in (('switchboard.cfg', CONFIG), ('exchange.cfg', EXCHANGES), ('jobs.py', JOBS)):
        (home / name).write_text(text)
    start = [sys.executable, '-m', 'switchboard', '-C', str(home / 'switchboard.cfg'), 'start']
    subprocess.run(start, cwd=home, check=True, capture_output=True, timeout=120)
    spool = Spool.from_config(home / 'switchboard.cfg')
    for number in range(24):
        to = f'user{number}@example.org'
        mail = message_from_bytes(MAIL.format(to, SUBJECTS[number % 5], number).encode())
        spool['in'].enqueue(mail, routing_key='lists.dev.post', recipient=to, unknown=number % 6 == 0)
        spool['in'].enqueue(mail, routing_key='lists.dev.digest' if number % 3 else 'archive', recipient=to)
    try:
        eventually(lambda: len(spool['bad'].get_files('.psv')) == 24, 'failed')
        spool.pause('digests', 'the printer is out of paper', 'ann')
        made = Site(home, '--environment', 'production', '--environment-colour', 'red', '--allow-edit')
        try:
            yield made
        finally:
            made.close()
    finally:
        switchboard('-C', home / 'switchboard.cfg', 'stop')


def test_there_is_a_picture_of_every_page_and_the_documentation_shows_it(
    busy: Site, chromium: Any, tmp_path: Path
) -> None:
    succeed(
        '-C',
        busy.config,
        'retry',
        '--error',
        'UnknownRecipient',
        '--limit',
        '2',
        '--yes',
        '--reason',
        'the list was corrected',
    )
    place = Path(os.environ.get('SWITCHBOARD_PICTURES') or tmp_path / 'pictures')
    place.mkdir(exist_ok=True)
    context = chromium.new_context(viewport={'width': 1200, 'height': 760})
    tab = context.new_page()

    def picture(name: str) -> None:
        tab.wait_for_load_state()
        tab.evaluate(ELSEWHERE, [[str(busy.config.parent), '/srv/mail'], [str(ROOT), '/opt/switchboard']])
        assert not re.search(r'/(tmp|root|home|work)/', tab.inner_text('body'))
        assert tab.locator('.alarm', has_text='There is no such').count() == 0
        tab.screenshot(path=str(place / f'{name}.png'))

    tab.goto(busy.url)
    tab.select_option('#refresh', '2')
    tab.mouse.move(5, 5)
    tab.locator('.alarm', has_text='bad entries').wait_for()
    for name, path in PAGES.items():
        tab.goto(busy.url + path)
        picture(name)
    tab.goto(f'{busy.url}/entries?q=error:SMTPConnectError')
    tab.click('[data-key] a')
    picture('entry')
    tab.click('text=Edit …')
    picture('edit')
    tab.fill('[name=body]', tab.input_value('[name=body]').replace('minutes', 'minutes of the meeting'))
    tab.click('text=Show the difference')
    picture('difference')
    tab.goto(f'{busy.url}/entries')
    for number in range(3):
        tab.locator('[name=entry]').nth(number).check()
    picture('ticked')
    tab.click('button[value=retry]')
    picture('confirmation')
    tab.click('.confirm form button')
    picture('result')
    context.close()
    for scheme, width, name in (('dark', 1200, 'overview-dark'), ('light', 320, 'overview-narrow')):
        context = chromium.new_context(viewport={'width': width, 'height': 760}, color_scheme=scheme)
        tab = context.new_page()
        tab.goto(busy.url)
        picture(name)
        context.close()
    text = (DOCS / 'desk-pages.md').read_text()
    made = sorted(path.name for path in place.glob('*.png'))
    assert len(made) == len(PAGES) + 8
    assert [name for name in made if f'(desk/{name})' not in text] == []
    assert sorted(path.name for path in (DOCS / 'desk').glob('*.png')) == made
