"""What operators do in a real browser while others do something too: two at one entry, stale pages, an edit, a runner that is scaled, a master that is gone."""

from __future__ import annotations

import re
import shlex
import signal
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from switchboard.master.control import signal_master
from tests.browser.conftest import Site
from tests.helpers.commands import fail, succeed, switchboard
from tests.helpers.waiting import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def start_master(site: Site) -> Iterator[Callable[[], object]]:
    """Starts a master that works the queue ``out`` of the site: once what is to have failed there has failed, or it is handled instead."""
    yield lambda: succeed('-C', site.config, 'start')
    switchboard('-C', site.config, 'stop')


@pytest.fixture
def master(start_master: Callable[[], object]) -> None:
    """A master that runs from the beginning."""
    start_master()


def records(site: Site) -> list[dict[str, Any]]:
    return [one for one in succeed('-C', site.config, 'status', '--json').objects if one['type'] == 'runner']


def test_of_two_operators_at_one_entry_one_wins_and_the_other_is_told_who_it_was(
    site: Site, chromium: Any, start_master: Callable[[], object]
) -> None:
    filebase = fail(site.spool, 'out', 'x')
    start_master()
    contexts = [chromium.new_context() for _ in range(2)]
    tabs = [context.new_page() for context in contexts]
    for tab in tabs:
        tab.goto(f'{site.url}/entries')
        tab.locator('[name=entry]').first.check()
        tab.click('button[value=retry]')
    # Both say yes, and only then does either look at what became of it.
    for tab in tabs:
        tab.evaluate("setTimeout(() => document.querySelector('.confirm form button').click(), 0)")
    texts = []
    for tab in tabs:
        tab.locator('h1', has_text='done').wait_for()
        texts.append(tab.inner_text('main'))
    won, lost = sorted(texts, key=lambda text: '1 done' not in text)
    assert '1 done' in won
    assert '0 done' in lost
    assert 'desk was first (retry, ' in lost
    assert filebase.partition('+')[2] in lost
    eventually(lambda: sum(one['done'] for one in records(site)) == 1, 'worked off')
    assert site.spool['bad'].get_files('.psv') == []
    for context in contexts:
        context.close()


def test_all_that_match_over_several_pages_and_nothing_that_came_since(site: Site, tab: Any) -> None:
    for number in range(3017):
        fail(site.spool, 'orders', number, 'TimeoutError')
    others = [fail(site.spool, 'orders', 'other', 'Other'), fail(site.spool, 'out', 'other', 'TimeoutError')]
    tab.goto(f'{site.url}/entries')
    tab.fill('#filter', 'error:TimeoutError origin:orders younger:1h')
    tab.click('text=Show >> nth=0')
    found = urllib.parse.parse_qs(urllib.parse.urlsplit(tab.url).query)
    assert found['q'] == ['error:TimeoutError origin:orders younger:1h']
    # The address alone gives the same, to whom it is sent.
    keys = 'all => all.map((one) => one.dataset.key)'
    other = tab.context.new_page()
    other.goto(tab.url)
    assert other.eval_on_selector_all('[data-key]', keys) == tab.eval_on_selector_all('[data-key]', keys)
    assert other.locator('[data-key]').count() == 50
    other.click('text=Next page')
    other.wait_for_load_state()
    assert not set(other.eval_on_selector_all('[data-key]', keys)) & set(
        tab.eval_on_selector_all('[data-key]', keys)
    )
    other.close()
    # And so does the command that the page shows.
    shown = shlex.split(tab.locator('footer code').text_content())
    listed = switchboard(*shown[1:], '--names').lines
    assert len(listed) == 3017
    rows = tab.eval_on_selector_all('[data-key]', keys)
    # On a machine that is busy the page says that it has not looked at all of them.
    is_whole = 'at least' not in tab.inner_text('[data-live=count]')
    assert rows == (listed[:50] if is_whole else [name for name in listed if name in rows])
    tab.check('[name=scope][value=all]')
    tab.click('button[value=rm]')
    text = tab.inner_text('main')
    assert 'Put into the trash 3,017 entries?' in text
    assert 'error:TimeoutError origin:orders younger:1h' in text
    late = fail(site.spool, 'orders', 'late', 'TimeoutError')
    tab.click('.confirm form button')
    # More than were agreed to: nothing is done.
    assert '3,018 entries fit now, and 3,017 were counted' in tab.inner_text('main')
    assert len(site.spool['bad'].get_files('.psv')) == 3020
    succeed('-C', site.config, 'rm', f'bad/{late}', '--no-trash', '--yes')
    left, done = 3017, 0
    while left:
        tab.goto(f'{site.url}/entries?{urllib.parse.urlencode({"q": found["q"][0]})}')
        tab.check('[name=scope][value=all]')
        tab.click('button[value=rm]')
        assert f'Put into the trash {left:,} entries?' in tab.inner_text('main')
        tab.click('.confirm form button')
        tab.locator('h1', has_text='done').wait_for()
        done += int(re.findall(r'([\d,]+) done', tab.inner_text('h1'))[0].replace(',', ''))
        # On a machine that is busy the time for one request may end before they do; the page says how many are left.
        rest = re.findall(r'([\d,]+) are left', tab.inner_text('main'))
        left = int(rest[0].replace(',', '')) if rest else 0
    assert done == 3017
    assert sorted(site.spool['bad'].get_files('.psv')) == sorted(others)


def test_a_tick_that_is_stale_is_gone_and_the_others_are_done(site: Site, tab: Any) -> None:
    names = [fail(site.spool, 'orders', number) for number in range(5)]
    tab.goto(f'{site.url}/entries')
    for box in tab.locator('[name=entry]').all():
        box.check()
    tab.click('button[value=hold]')
    tab.go_back()
    tab.click('button[value=retry]')
    succeed('-C', site.config, 'rm', f'bad/{names[2]}', '--no-trash', '--yes')
    tab.click('.confirm form button')
    assert '4 done, 1 gone' in tab.inner_text('h1')
    assert len(site.spool['orders'].files) == 4


@pytest.mark.parametrize('script', [True, False], ids=['with script', 'without script'])
def test_a_message_is_changed_sent_back_and_changed_back(site: Site, chromium: Any, script: bool) -> None:
    context = chromium.new_context(java_script_enabled=script)
    tab = context.new_page()
    filebase = fail(site.spool, 'orders', 'to: anne@wrong\nhello\n', colour='red', traceparent='kept')
    tab.goto(f'{site.url}/entries')
    tab.click('[data-key] a')
    tab.click('text=Edit …')
    assert tab.input_value('[name=body]') == 'to: anne@wrong\nhello\n'
    assert 'traceparent' in tab.inner_text('main')
    assert 'traceparent' not in tab.input_value('[name=metadata]')
    tab.fill('[name=body]', 'to: anne@right\nhello\n')
    tab.click('text=Show the difference')
    assert tab.inner_text('.diff .del').strip() == '-to: anne@wrong'
    assert tab.inner_text('.diff .add').strip() == '+to: anne@right'
    tab.fill('.confirm [name=reason]', 'a slip of the pen')
    tab.click('.confirm form button')
    assert '1 done' in tab.inner_text('h1'), tab.inner_text('main')
    (name,) = site.spool['orders'].files
    assert name.partition('+')[2][:8] == filebase.partition('+')[2][:8]
    tab.goto(f'{site.url}/entries/orders/{urllib.parse.quote(name)}')
    assert 'a slip of the pen' in tab.inner_text('.timeline')
    assert '-to: anne@wrong' in tab.inner_text('.timeline')
    tab.click('text=Undo the last edit')
    tab.click('.confirm form button')
    (name,) = site.spool['orders'].files
    msg, msgdata = site.spool['orders'].dequeue(name)
    assert (msg, msgdata['colour'], msgdata['traceparent']) == ('to: anne@wrong\nhello\n', 'red', 'kept')
    site.spool['orders'].release(name)
    context.close()


def test_a_few_of_a_group_and_then_the_rest_go_without_script(
    site: Site, chromium: Any, start_master: Callable[[], object]
) -> None:
    for number in range(5):
        fail(site.spool, 'out', number, 'TimeoutError')
    start_master()
    context = chromium.new_context(java_script_enabled=False)
    tab = context.new_page()
    site.wait_until_counted()
    tab.goto(f'{site.url}/groups')
    tab.get_by_role('button', name='Try 2 of TimeoutError first').click()
    tab.click('.confirm form button')
    place = tab.url.removeprefix(site.url)
    eventually(lambda: site.told(place)['counts']['went through'] == 2, 'gone through', every=0.1)
    tab.reload()
    tab.click('text=Send back the rest')
    tab.click('.confirm form button')
    assert '3 done' in tab.inner_text('h1')
    tab.goto(f'{site.url}/runners')
    tab.fill('[name=instances]', '2')
    tab.click('button[value=scale]')
    assert '1 → 2 processes' in tab.inner_text('h1')
    context.close()


# A machine that does something else besides is given so many rounds to keep a time in.
ROUNDS = 3


def test_pause_scale_and_restart_from_the_page_are_what_the_scoreboard_says_within_five_seconds(
    site: Site, tab: Any, master: None
) -> None:
    took: list[float] = []

    def do(word: str, is_done: Callable[[], bool]) -> None:
        began_s = time.monotonic()
        tab.click(f'button[value={word}]')
        # Told when it is done, not when it is asked for.
        assert is_done(), word
        took.append(time.monotonic() - began_s)

    def scaled(count: int) -> None:
        tab.goto(f'{site.url}/runners')
        shown = tab.input_value('[name=instances]')
        assert shown == str(len(records(site)))
        tab.fill('[name=instances]', str(count))
        do('scale', lambda: len(records(site)) == count)
        assert f'{shown} → {count} processes' in tab.inner_text('h1')

    for _ in range(ROUNDS):
        took.clear()
        tab.goto(f'{site.url}/queues/orders')
        tab.fill('[name=reason]', 'the shop is closed')
        do('pause', lambda: site.spool['orders'].is_paused(refresh=True))
        for path in ('/queues/orders', '/'):
            tab.goto(f'{site.url}{path}')
            tab.locator('.alarm', has_text='the shop is closed').wait_for()
            assert 'by desk' in tab.inner_text('main')
        tab.goto(f'{site.url}/queues/orders')
        do('resume', lambda: not site.spool['orders'].is_paused(refresh=True))
        assert 'the shop is closed' not in tab.inner_text('main')
        (before,) = records(site)
        scaled(3)
        scaled(1)
        tab.click('text=Back to the runners')
        old = {before['pid'], None}
        do('restart', lambda old=old: {one['pid'] for one in records(site)}.isdisjoint(old))
        tab.locator('h1', has_text='out: restarted').wait_for()
        if max(took) < 5:
            break
    assert max(took) < 5
    tab.goto(f'{site.url}/acts')
    assert tab.inner_text('main').count('scale') >= 2


def test_without_a_master_counts_are_right_and_what_needs_one_is_off_with_the_reason(
    site: Site, tab: Any, master: None
) -> None:
    assert signal_master(site.config.parent / 'spool', signal.SIGKILL)
    for number in range(3):
        fail(site.spool, 'orders', number)
    site.spool['in'].enqueue('x')
    tab.goto(f'{site.url}/runners')
    assert 'No master runs that could do it.' in tab.inner_text('main')
    for word in ('scale', 'restart'):
        assert tab.locator(f'button[value={word}]').is_disabled()
    tab.goto(f'{site.url}/')
    tab.select_option('#refresh', '2')
    tab.mouse.move(5, 5)
    tab.locator('tr', has_text='in').locator('[data-label=waiting]', has_text='1').first.wait_for()
    tab.locator('.alarm', has_text='3 bad entries').wait_for()
    assert 'NOT RUNNING; it died' in tab.inner_text('.alarms')


def test_a_host_that_is_none_of_ours_gets_nothing_from_the_real_server(site: Site) -> None:
    def ask(*lines: str) -> bytes:
        with socket.create_connection(('127.0.0.1', site.port), timeout=60) as connection:
            connection.sendall('\r\n'.join([*lines, 'Connection: close', '', '']).encode())
            return connection.makefile('rb').read()

    good = f'Host: 127.0.0.1:{site.port}'
    assert b' 200 ' in ask('GET / HTTP/1.1', good).splitlines()[0]
    for wrong in (
        [],
        [good, 'Host: evil.test'],
        [good, good],
        ['Host: evil.test'],
        [f'Host: 127.0.0.1.evil.test:{site.port}'],
        ['Host: 127.0.0.1:1'],
        ['Host: '],
    ):
        for first in (
            'GET / HTTP/1.1',
            'GET /metrics HTTP/1.1',
            'POST /act HTTP/1.1',
            'DELETE /entries HTTP/1.1',
            'GET http://evil.test/ HTTP/1.1',
        ):
            answer = ask(first, *wrong)
            assert answer.split(b' ', 2)[1] in (b'400', b'421'), (first, wrong)
            assert b'Waiting' not in answer


def test_eight_tabs_are_all_there_within_two_seconds_and_stay_fresh(site: Site, chromium: Any) -> None:
    # A browser has six connections to a host: with a stream for each tab the seventh would never load.
    context = chromium.new_context()
    tabs = [context.new_page() for _ in range(8)]
    for _ in range(ROUNDS):
        for tab in tabs:
            tab.goto(f'{site.url}/entries', wait_until='commit')
        for tab in tabs:
            tab.wait_for_load_state()
        took_ms = [tab.evaluate("performance.getEntriesByType('navigation')[0].duration") for tab in tabs]
        if max(took_ms) < 2000:
            break
    assert max(took_ms) < 2000
    for tab in tabs:
        tab.select_option('#refresh', '2')
        tab.mouse.move(5, 5)
    fail(site.spool, 'orders', 'x')
    for tab in tabs:
        tab.bring_to_front()
        tab.locator('#notice:not([hidden]), [data-key]').first.wait_for()
    context.close()


class Newcomer:
    """Somebody who reads what is on the page, and clicks on it by its words: no address, no key and no selector is known to him.

    What he does is counted as the keystroke-level model does: a decision and a click are four seconds, a page that is new to him is read for eight.
    """

    STEP_S, READ_S = 4, 8

    def __init__(self, tab: Any) -> None:
        self._tab = tab
        self.steps: list[str] = []
        self.loads = 0
        tab.on('framenavigated', lambda frame: setattr(self, 'loads', self.loads + (frame == tab.main_frame)))

    def reads(self, text: str) -> None:
        """Wait until a text stands where he can see it without looking for it."""
        place = self._tab.get_by_text(text).first
        place.wait_for()
        box, window = place.bounding_box(), self._tab.viewport_size
        assert 0 <= box['y'] < window['height'], text

    def clicks(self, role: str, words: str) -> None:
        """Click on what is called so."""
        self.steps.append(words)
        with self._tab.expect_navigation():
            self._tab.get_by_role(role, name=words).first.click()

    @property
    def seconds(self) -> int:
        """The time that somebody would need."""
        return self.STEP_S * len(self.steps) + self.READ_S * self.loads


@pytest.mark.parametrize('width', [1280, 390], ids=['desk', 'phone'])
def test_a_newcomer_finds_from_the_overview_why_mail_does_not_leave_and_mends_it(
    site: Site, tab: Any, start_master: Callable[[], object], width: int
) -> None:
    for number in range(7):
        fail(
            site.spool, 'out', f'mail {number}', 'SMTPConnectError', 'mail.example.com:25: Connection refused'
        )
    fail(site.spool, 'out', 'mail 8', 'UnknownRecipient', '550 no such user')
    start_master()
    site.wait_until_counted()
    tab.set_viewport_size({'width': width, 'height': 844})
    person = Newcomer(tab)
    tab.goto(site.url)
    # Why.
    person.reads('mostly SMTPConnectError in out, mail.example.com:25: Connection refused')
    # Two go first.
    person.clicks('button', 'Try 2 of SMTPConnectError first')
    person.reads('Send back 2 of 7 entries?')
    person.clicks('button', 'Send back')
    # It works: the page follows them by itself.
    person.reads('2 of 2 went through')
    # The rest.
    person.clicks('button', 'Send back the rest')
    person.reads('Send back 5 entries?')
    person.clicks('button', 'Send back')
    person.reads('5 done')
    # And it is seen to be well.
    person.clicks('link', 'Overview')
    eventually(lambda: sum(one['done'] for one in records(site)) == 7, 'worked off')
    assert len(site.spool['bad'].get_files('.psv')) == 1
    assert len(person.steps) == 5
    assert person.loads == 6
    assert person.seconds < 120
