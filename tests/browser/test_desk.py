"""The desk in a real browser: what people do, and what hostile messages try."""

from __future__ import annotations

import http.server
import itertools
import re
import signal
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from switchboard import Spool
from switchboard.master.control import signal_master
from switchboard.operating.janitor import TRASH_S, tidy
from switchboard.queue.expiry_clock import SETTLES_S
from switchboard.testing import FakeClock
from tests.browser.conftest import Site
from tests.helpers.commands import fail, succeed, switchboard

pytestmark = pytest.mark.server

PAGES = (
    '/',
    '/entries',
    '/groups',
    '/groups?by=frame',
    '/queues/in',
    '/runners',
    '/topology',
    '/configuration',
    '/acts',
    '/help',
)
# Each with how it is to be read: what a terminal or a browser could act on is written out.
HOSTILE = {
    '<script>alert(1)</script>': '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>': '"><img src=x onerror=alert(1)>',
    '{{7*7}}': '{{7*7}}',
    'javascript:alert(1)': 'javascript:alert(1)',
    'a\u202eb': 'a\\u202eb',
    '\x1b[31mred': '\\x1b[31mred',
    'nul\0nul': 'nul\\x00nul',
}
WATCH = "addEventListener('securitypolicyviolation', (event) => console.error('violation ' + event.violatedDirective))"


def quoted(text: str) -> str:
    """:return: a text as one word of a selection."""
    return '"' + text.replace('\0', '').replace('\\', '\\\\').replace('"', '\\"') + '"'


def follow(tab: Any, site: Site) -> Iterator[str]:
    """Go from the entries over an entry, its form and its difference, a confirmation, its result, a canary and what is not there; yield at each."""
    tab.goto(f'{site.url}/entries')
    tab.locator('[data-key] a').first.click()
    tab.wait_for_load_state()
    yield 'an entry'
    tab.click('text=Edit …')
    tab.wait_for_load_state()
    yield 'a form'
    tab.fill('[name=metadata]', '{"colour": "green"}')
    tab.click('text=Show the difference')
    tab.locator('.diff .add').first.wait_for()
    tab.wait_for_load_state()
    yield 'a difference'
    tab.goto(f'{site.url}/entries')
    tab.locator('[name=entry]').first.check()
    tab.click('button[value=retry]')
    tab.wait_for_load_state()
    yield 'a confirmation'
    tab.click('.confirm form button')
    tab.wait_for_load_state()
    yield 'a result'
    site.wait_until_counted()
    tab.goto(f'{site.url}/groups')
    tab.locator('button[name=canary]').first.click()
    tab.wait_for_load_state()
    yield 'a confirmation of a few'
    tab.click('.confirm form button')
    tab.wait_for_load_state()
    yield 'a canary'
    tab.goto(f'{site.url}/nothing')
    tab.wait_for_load_state()
    yield 'what is not there'


def keys_of(tab: Any) -> list[str]:
    return list(tab.eval_on_selector_all('[data-key]', 'all => all.map((one) => one.dataset.key)'))


def is_too_wide(tab: Any) -> bool:
    return bool(tab.evaluate('document.documentElement.scrollWidth > document.documentElement.clientWidth'))


def test_hostile_content_does_nothing_in_a_browser(site: Site, tab: Any) -> None:
    # In the body, in keys and values of the metadata, as error, as its text, in the traceback, in a mail's headers and the name of its file.
    for text in HOSTILE:
        fail(site.spool, 'out', {text: text}, text, text, **{text: text})
        named = text.replace('"', r'\"')
        mail = f'Subject: {text}\nFrom: {text}\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b\nContent-Type: text/html\nContent-Disposition: attachment; filename="{named}"\n\n{text}\n--b--\n'
        fail(site.spool, 'out', message_from_bytes(mail.encode()), 'ValueError', text)
        site.spool['in'].enqueue(text, {text: text, 'sender': text})
    site.spool.pause('in', ' '.join(HOSTILE), 'ann')
    tab.add_init_script(WATCH)
    seen: dict[str, str] = {}

    def look(what: str) -> None:
        tab.wait_for_load_state()
        tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        seen[what] = tab.inner_text('main')
        assert tab.locator('main script, main img[onerror], [onerror], main iframe').count() == 0, what
        hrefs = tab.eval_on_selector_all('[href]', 'all => all.map((one) => one.protocol)')
        assert 'javascript:' not in hrefs, what
        assert not re.search('[\0-\x08\x0b-\x1f\u202a-\u202e]', tab.content()), what

    site.wait_until_counted()
    filters = ['/entries?' + urlencode({'q': f'match:{quoted(text)}'}) for text in HOSTILE]
    for path in (*PAGES, '/entries?q=queue:in', *filters):
        tab.goto(site.url + path)
        look(path)
    for path in ('/entries', '/entries?q=queue:in'):
        tab.goto(site.url + path)
        for number, link in enumerate(
            tab.eval_on_selector_all('[data-key] a', 'all => all.map((one) => one.href)')
        ):
            tab.goto(link)
            look(f'an entry {path} {number}')
            tab.goto(f'{link}/edit')
            look(f'the form of an entry {path} {number}')
    tab.goto(f'{site.url}/entries')
    tab.locator('[name=entry]').first.check()
    tab.locator('#list [name=reason]').fill(' '.join(HOSTILE).replace('\0', ''))
    tab.click('button[value=hold]')
    look('a confirmation')
    tab.go_back()
    tab.locator('[name=entry]').first.check()
    tab.click('button[value=retry]')
    tab.click('.confirm form button')
    look('a result')
    tab.goto(f'{site.url}/acts')
    look('the acts')
    entries = [shown for what, shown in seen.items() if what.startswith('an entry /entries ')]
    for literal in HOSTILE.values():
        # Key and value of the metadata, error, its text, traceback, reason, body, and so on; and whole in the traceback.
        assert sum(shown.count(literal) for shown in entries) >= 12, literal
        assert f'{literal}: {literal}' in ''.join(entries), literal
        for what in ('/groups', '/entries', '/queues/in', '/', '/entries?q=queue:in'):
            assert literal in seen[what], (what, literal)


def test_the_way_back_shows_each_page_again_and_sends_no_form(site: Site, tab: Any) -> None:
    for number in range(2):
        fail(site.spool, 'orders', number)
    sent: list[str] = []
    tab.on('request', lambda request: sent.append(request.method) if request.method == 'POST' else None)
    tab.goto(f'{site.url}/entries')
    tab.locator('[name=entry]').first.check()
    tab.click('button[value=retry]')
    tab.click('.confirm form button')
    title = tab.inner_text('h1')
    assert '1 done' in title
    tab.click('text=Back to the entries')
    tab.go_back()
    assert tab.inner_text('h1') == title
    tab.reload()
    assert tab.inner_text('h1') == title
    tab.go_back()
    tab.locator('.confirm form').wait_for()
    tab.go_forward()
    assert tab.inner_text('h1') == title
    assert len(sent) == 2
    assert len(site.spool['orders'].files) == 1


def test_no_page_scrolls_sideways_and_no_target_is_tiny(site: Site, chromium: Any) -> None:
    for number in range(8):
        fail(site.spool, 'out', number, 'AVeryLongNameOfAnErrorWithoutAnyBreakInIt' * 2, 'x' * 400)
    context = chromium.new_context()
    tab = context.new_page()

    def look(what: str) -> None:
        # What is clicked on after it is clicked on in a narrow window.
        for width, scheme in itertools.product((1440, 768, 320), ('dark', 'light')):
            tab.set_viewport_size({'width': width, 'height': 800})
            tab.emulate_media(color_scheme=scheme)
            assert not is_too_wide(tab), (what, width, scheme)
            small = tab.evaluate(
                "[...document.querySelectorAll('button, select, input:not([type=hidden]):not([type=checkbox]):not([type=radio])')]"
                '.filter((one) => one.checkVisibility() && one.getBoundingClientRect().height < 24).map((one) => one.outerHTML)'
            )
            assert small == [], (what, width, scheme)

    for path in PAGES:
        tab.goto(site.url + path)
        look(path)
    for what in follow(tab, site):
        look(what)
    context.close()


def test_a_name_of_a_dozen_letters_stays_in_one_line(site: Site, chromium: Any) -> None:
    site.spool.declare('reclamation')
    for number in range(3):
        fail(site.spool, 'reclamation', number, 'KeyError', "'count'")
    context = chromium.new_context()
    tab = context.new_page()
    site.wait_until_counted()
    for path in PAGES:
        tab.goto(site.url + path)
        assert path != '/' or tab.locator('.why td a').count()
        for width in (1280, 1024, 500):
            tab.set_viewport_size({'width': width, 'height': 800})
            broken = tab.evaluate(
                "[...document.querySelectorAll('td a, tbody th a')].filter((one) => /^\\S{1,12}$/.test(one.textContent.trim()))"
                '.filter((one) => one.checkVisibility() && one.getClientRects().length > 1).map((one) => one.outerHTML)'
            )
            assert broken == [], (path, width)
    context.close()


def test_at_400_percent_no_page_scrolls_sideways_and_nothing_covers_it(site: Site, chromium: Any) -> None:
    # What a window of 1280 x 1024 is to a page at that zoom: 320 x 256 of its pixels, each sixteen of the screen.
    for number in range(60):
        fail(site.spool, 'out', number, 'AVeryLongNameOfAnErrorWithoutAnyBreakInIt' * 2, 'x' * 400)
    context = chromium.new_context(viewport={'width': 320, 'height': 256}, device_scale_factor=4)
    tab = context.new_page()

    def look(what: str) -> None:
        assert not is_too_wide(tab), what
        covered = tab.evaluate(
            "[...document.querySelectorAll('body *')].filter((one) => one.checkVisibility() && ['sticky', 'fixed'].includes(getComputedStyle(one).position))"
            '.reduce((sum, one) => sum + one.getBoundingClientRect().height, 0)'
        )
        assert covered <= 64, (what, covered)

    for path in PAGES:
        tab.goto(site.url + path)
        look(path)
    for what in follow(tab, site):
        look(what)
    context.close()


def test_on_paper_is_all_of_the_text_and_nothing_to_press(site: Site, tab: Any) -> None:
    lines = '\n'.join(f'line {number}' for number in range(200))
    filebase = fail(site.spool, 'out', lines, text=lines)
    site.wait_until_counted()
    tab.emulate_media(media='print')
    for path in ('/', '/entries', '/groups', '/runners', f'/entries/bad/{filebase}'):
        tab.goto(site.url + path)
        pressed = "[...document.querySelectorAll('button, .button, select, input, nav')]"
        assert (
            tab.evaluate(f'{pressed}.filter((one) => one.checkVisibility()).map((one) => one.outerHTML)')
            == []
        ), path
        assert (
            tab.evaluate(
                "[...document.querySelectorAll('pre')].filter((one) => one.scrollHeight > one.clientHeight + 1).length"
            )
            == 0
        ), path
    assert 'line 199' in tab.locator('pre').first.inner_text()


@pytest.mark.parametrize('script', [True, False], ids=['with script', 'without script'])
def test_find_tick_send_back_remove_and_undo(site: Site, chromium: Any, script: bool) -> None:
    for number in range(3):
        fail(site.spool, 'out', number, 'TimeoutError')
    fail(site.spool, 'out', 'other', 'Other')
    context = chromium.new_context(java_script_enabled=script)
    tab = context.new_page()
    tab.goto(site.url + '/entries')
    tab.fill('#filter', 'error:TimeoutError')
    tab.click('text=Show >> nth=0')
    tab.wait_for_load_state()
    assert 'q=error%3ATimeoutError' in tab.url
    assert tab.locator('[data-key]').count() == 3
    tab.locator('[name=entry]').first.check()
    tab.click('button[value=retry]')
    tab.wait_for_load_state()  # a click waits for an answer to begin, not for its head
    assert 'proving' in tab.title()
    tab.fill('.confirm [name=reason]', 'the server is back')
    tab.click('.confirm form button')
    assert '1 done' in tab.inner_text('h1')
    (name,) = site.spool['out'].files
    record = site.spool['out'].history(name)[-1]
    assert [record[key] for key in ('event', 'by', 'via', 'reason')] == [
        'retried',
        'desk',
        'desk',
        'the server is back',
    ]
    assert [one['event'] for one in site.spool['out'].history(name)][:2] == ['failed', 'preserved']
    tab.click('text=Back to the entries')
    tab.goto(site.url + '/entries?q=error:Other')
    tab.check('[name=scope][value=all]')
    tab.click('button[value=rm]')
    assert 'Put into the trash 1 entry?' in tab.inner_text('h1')
    tab.click('.confirm form button')
    tab.click('text=Open the trash')
    tab.locator('[name=entry]').first.check()
    tab.click('button[value=restore]')
    tab.click('.confirm form button')
    assert '1 done' in tab.inner_text('h1')
    tab.goto(site.url + '/queues/in')
    tab.click('button[value=pause]')
    assert 'Paused' in tab.inner_text('main')
    context.close()
    assert len(site.spool['bad'].get_files('.psv')) == 3


def test_rows_do_not_move_under_pointer_focus_and_ticks_while_fifty_arrive(site: Site, tab: Any) -> None:
    for number in range(60):
        fail(site.spool, 'out', number)
    tab.goto(site.url + '/entries')
    tab.select_option('#refresh', '2')
    tab.evaluate('window.scrollTo(0, 400)')
    for number in (12, 14):
        tab.locator('[name=entry]').nth(number).check()
    tab.locator('[data-key]').nth(13).hover()
    tab.locator('button[value=hold]').evaluate('(button) => button.focus({preventScroll: true})')

    def stands() -> list[Any]:
        return [
            keys_of(tab),
            tab.evaluate('window.scrollY'),
            tab.evaluate('document.activeElement.value'),
            [box.is_checked() for box in tab.locator('[name=entry]').all()],
            tab.evaluate("document.querySelector('[data-key]:hover').dataset.key"),
            tab.locator('[data-key]').nth(13).bounding_box(),
            tab.locator('button[value=rm]').bounding_box(),
        ]

    before = stands()
    # The page shows the first fifty: others that come before them.
    early = Spool.from_config(site.config, clock=FakeClock(time.time() - 3600))
    for number in range(50):
        fail(early, 'out', f'new {number}')
    early.close()
    tab.locator('#notice', has_text='50 new').wait_for()
    assert stands() == before
    for number in (12, 14):
        tab.locator('[name=entry]').nth(number).uncheck()
    tab.evaluate('document.activeElement.blur()')
    tab.mouse.move(5, 5)
    tab.locator('#notice').wait_for(state='hidden')
    assert set(keys_of(tab)).isdisjoint(before[0])
    assert tab.locator('[data-key]').count() == 50


def test_what_was_removed_comes_back_byte_for_byte_and_after_its_time_it_is_gone(
    site: Site, tab: Any
) -> None:
    names = [fail(site.spool, 'out', f'number {number}') for number in range(2)]
    before = {name: Path(site.spool.path('bad', f'{name}.psv')).read_bytes() for name in names}

    def do(act: str, query: str, number: int) -> str:
        tab.goto(f'{site.url}/entries?q={query}')
        for box in tab.locator('[name=entry]').all()[:number]:
            box.check()
        tab.click(f'button[value={act}]')
        tab.click('.confirm form button')
        return str(tab.inner_text('h1'))

    assert '2 done' in do('rm', 'queue:bad', 2)
    assert site.spool['bad'].get_files('.psv') == []
    tab.click('text=Open the trash')
    tab.wait_for_load_state()
    assert tab.locator('[data-key]').count() == 2
    assert '1 done' in do('restore', 'queue:trash', 1)
    (name,) = site.spool['bad'].get_files('.psv')
    after = Path(site.spool.path('bad', f'{name}.psv')).read_bytes()
    [old] = [text for one, text in before.items() if one.partition('+')[2] == name.partition('+')[2]]
    # Nothing is rewritten: what it was, and two events more.
    assert after.startswith(old)
    assert [one['event'] for one in site.spool['bad'].history(name)][-2:] == ['removed', 'restored']
    # The other is asked for when its time is over: on the page that still shows it.
    tab.goto(f'{site.url}/entries?q=queue:trash')
    tab.locator('[name=entry]').first.check()
    tab.click('button[value=restore]')
    clock = FakeClock(time.time() + TRASH_S + 3600)
    tidy(Spool.from_config(site.config, clock=clock))
    clock.advance(SETTLES_S)  # a clock that was set forward is believed after that
    assert tidy(Spool.from_config(site.config, clock=clock)).removed == 1
    tab.click('.confirm form button')
    assert '0 done, 1 gone' in tab.inner_text('h1')
    assert 'its time in the trash was over' in tab.inner_text('main')
    tab.goto(f'{site.url}/entries?q=queue:trash')
    assert tab.locator('[data-key]').count() == 0


def test_keys_alone_reach_and_send_back(site: Site, tab: Any) -> None:
    for number in range(3):
        fail(site.spool, 'out', number)
    tab.goto(site.url + '/')
    tab.keyboard.press('g')
    with tab.expect_navigation():
        tab.keyboard.press('e')
    assert tab.url.endswith('/entries')
    for key in ('j', 'x', 'j', 'x'):
        tab.keyboard.press(key)
    assert tab.locator('[name=entry]:checked').count() == 2
    tab.focus('button[value=retry]')
    with tab.expect_navigation():
        tab.keyboard.press('Enter')
    with tab.expect_navigation():
        tab.keyboard.press('Enter')
    assert '2 done' in tab.inner_text('h1')
    tab.goto(site.url + '/entries')
    tab.keyboard.press('/')
    tab.keyboard.type('jxg?e')
    assert tab.input_value('#filter').endswith('jxg?e')
    tab.goto(site.url + '/entries')
    with tab.expect_navigation():
        tab.keyboard.press('?')
    assert {'j', 'k', 'x', '/', '?'} <= set(tab.locator('.keys kbd').all_inner_texts())
    # Wherever the keyboard leads, it is to be seen.
    tab.goto(site.url + '/entries')
    reached = set()
    for _ in range(40):
        tab.keyboard.press('Tab')
        name, outline = tab.evaluate(
            '() => { const one = document.activeElement; return [one.outerHTML.slice(0, 80), one === document.body ? "solid" : getComputedStyle(one).outlineStyle]; }'
        )
        assert outline == 'solid', name
        reached.add(name)
    assert len(reached) > 20
    tab.goto(site.url + '/help')
    tab.uncheck('#keys')
    tab.goto(site.url + '/entries')
    tab.keyboard.press('j')
    assert tab.locator('tr.here').count() == 0


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A page of somebody else, that posts and fetches."""

    target = ''
    fields = ''

    def do_GET(self) -> None:
        body = f"""<!doctype html><iframe id="frame" src="{self.target}/"></iframe>
        <form id="form" method="post" action="{self.target}/act"><input name="act" value="rm"><input name="entry" value="{self.fields}"></form>
        <script>
        window.answers = Promise.all([
          fetch('{self.target}/act', {{method: 'POST', mode: 'no-cors', body: new URLSearchParams({{act: 'rm', entry: '{self.fields}'}})}}).then((answer) => answer.type, () => 'refused'),
          fetch('{self.target}/api/entries').then(() => 'read', () => 'refused'),
        ]);
        </script>""".encode()
        self.send_response(200)
        self.send_header('content-type', 'text/html')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'], ids=['another port', 'another site'])
def test_a_page_elsewhere_neither_reads_nor_writes_nor_frames(site: Site, chromium: Any, host: str) -> None:
    filebase = fail(site.spool, 'out', 'x')
    path = Path(site.spool.path('bad', f'{filebase}.psv'))
    before = path.read_bytes()
    handler = type('Handler', (Elsewhere,), {'target': site.url, 'fields': f'bad/{filebase}'})
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        context = chromium.new_context()
        tab = context.new_page()
        tab.goto(f'http://{host}:{server.server_address[1]}/')
        assert tab.evaluate('window.answers') == ['refused', 'refused']
        frame = tab.query_selector('#frame').content_frame()
        assert frame is None or 'Switchboard' not in frame.content()
        with tab.expect_navigation() as navigated:
            tab.evaluate("document.getElementById('form').submit()")
        assert navigated.value.status == 403
        context.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert path.read_bytes() == before


def test_a_tab_that_nobody_sees_asks_nothing_for_a_minute_and_then_once_at_once(site: Site, tab: Any) -> None:
    tab.clock.install()
    tab.goto(site.url + '/')
    tab.select_option('#refresh', '2')
    asked: list[str] = []
    tab.on('request', lambda request: asked.append(request.url) if request.resource_type == 'fetch' else None)

    def hide(hidden: str) -> None:
        tab.evaluate(
            f"Object.defineProperty(document, 'hidden', {{get: () => {hidden}, configurable: true}}); document.dispatchEvent(new Event('visibilitychange'))"
        )

    with tab.expect_response(lambda answer: answer.url == f'{site.url}/' and answer.status == 304):
        tab.clock.run_for(30_000)
    hide('true')
    asked.clear()
    tab.clock.run_for(60_000)
    assert asked == []
    with tab.expect_response(lambda answer: answer.url == f'{site.url}/'):
        hide('false')
    assert asked == [f'{site.url}/']


def test_two_installations_are_told_apart_and_no_act_crosses_them(
    site: Site, chromium: Any, tmp_path: Path
) -> None:
    context = chromium.new_context()
    tab = context.new_page()
    home = tmp_path / 'other'
    home.mkdir()
    other = Site(home, '--environment', 'staging', '--environment-colour', 'green', '--allow-edit')
    try:
        for one in (site, other):
            for number in range(4):
                fail(one.spool, 'out', number, 'TimeoutError')
        for one, word in ((site, 'proving'), (other, 'staging')):
            titles = set()
            for path in PAGES:
                tab.goto(one.url + path)
                titles.add(tab.title())
                assert word in tab.title(), path
                assert tab.inner_text('.badge.env') == word, path
            # By error and by place are one page.
            assert len(titles) == len(PAGES) - 1
            for what in follow(tab, one):
                assert word in tab.title(), what
                assert tab.inner_text('.badge.env') == word, what
        left = {one: sorted(one.spool['bad'].get_files('.psv')) for one in (site, other)}
        # The form of one, filled in by the other: its token, and a user of the same name.
        tab.goto(f'{other.url}/entries')
        token = tab.locator('#list [name=token]').get_attribute('value')
        tab.goto(f'{site.url}/entries')
        tab.locator('#list [name=token]').evaluate('(field, token) => { field.value = token; }', token)
        tab.locator('[name=entry]').first.check()
        with tab.expect_navigation() as answered:
            tab.click('button[value=rm]')
        assert answered.value.status == 403
        assert 'not of this desk' in tab.inner_text('main')
        # And one that was sent to the other place.
        tab.goto(f'{site.url}/entries')
        tab.locator('[name=entry]').first.check()
        tab.click('button[value=rm]')
        tab.locator('.confirm form').evaluate('(form, to) => { form.action = to; }', f'{other.url}/act')
        with tab.expect_console_message(lambda said: 'form-action' in said.text):
            tab.evaluate("document.querySelector('.confirm form').submit()")
        assert {one: sorted(one.spool['bad'].get_files('.psv')) for one in (site, other)} == left
    finally:
        other.close()
        context.close()


# Buttons change their colours slowly, where nobody wants less motion.
SETTLED = 'Promise.all(document.getAnimations().map((one) => one.finished))'
# Each with the medium and the width that it is; the last is the one in which pages are clicked through.
LOOKS = {
    'light': ({'color_scheme': 'light', 'forced_colors': 'none'}, 1280),
    'dark': ({'color_scheme': 'dark', 'forced_colors': 'none'}, 1280),
    'forced': ({'color_scheme': 'light', 'forced_colors': 'active'}, 1280),
    'narrow': ({'color_scheme': 'light', 'forced_colors': 'none'}, 360),
}


def test_axe_finds_nothing_serious_on_any_page(site: Site, chromium: Any) -> None:
    axe = pytest.importorskip('axe_playwright_python')
    source = (Path(axe.__file__).parent / 'axe.min.js').read_text()
    for number in range(4):
        fail(site.spool, 'out', number, 'TimeoutError')
    site.spool.pause('orders', 'the shop is closed', 'ann')
    context = chromium.new_context()
    tab = context.new_page()

    def look_at(path: str) -> None:
        tab.evaluate(source)
        for look, (medium, width) in LOOKS.items():
            tab.emulate_media(**medium)
            tab.set_viewport_size({'width': width, 'height': 800})
            tab.evaluate(SETTLED)
            found = tab.evaluate('axe.run().then((found) => found.violations)')
            wrong = [
                (path, look, one['id'], [node['html'][:200] for node in one['nodes']])
                for one in found
                if one['impact'] in ('serious', 'critical')
            ]
            assert wrong == []
            # A state is a word, and what speaks up by itself is polite, and there is nothing to say.
            assert all(
                tab.eval_on_selector_all(
                    '.state, .alarm', 'all => all.map((one) => one.innerText.trim() !== "")'
                )
            )
            assert tab.locator('[aria-live=assertive], [role=alert]').count() == 0
            assert tab.locator('[role=status]').all_inner_texts() == ['']

    for path in (*PAGES, '/queues/orders', '/nothing', '/entries?q=error:None'):
        tab.goto(site.url + path)
        look_at(path)
    for what in follow(tab, site):
        look_at(what)
    context.close()


def test_a_master_that_is_killed_is_told_and_one_that_is_back_too_without_a_reload(
    site: Site, tab: Any
) -> None:
    succeed('-C', site.config, 'start')
    try:
        tab.goto(site.url + '/runners')
        tab.select_option('#refresh', '2')
        tab.mouse.move(5, 5)
        assert tab.locator('button[value=scale]').is_enabled()
        assert signal_master(site.config.parent / 'spool', signal.SIGKILL)
        tab.locator('.alarm.bad', has_text='NOT RUNNING; it died').wait_for()
        filebase = fail(site.spool, 'orders', 'x')
        other = tab.context.new_page()
        other.goto(site.url + '/runners')
        assert other.locator('button[value=scale]').is_disabled()
        other.goto(f'{site.url}/entries')
        other.locator('[name=entry]').first.check()
        other.click('button[value=retry]')
        other.click('.confirm form button')
        assert '1 done' in other.inner_text('h1')
        assert [name.partition('+')[2] for name in site.spool['orders'].files] == [filebase.partition('+')[2]]
        other.close()
        succeed('-C', site.config, 'start')
        tab.locator('.alarm.bad', has_text='NOT RUNNING; it died').wait_for(state='detached')
    finally:
        switchboard('-C', site.config, 'stop')


def test_the_cells_of_the_groups_add_up_and_lead_to_exactly_their_entries(site: Site, tab: Any) -> None:
    # So many minutes ago, of three errors.
    made: dict[tuple[str, str], set[str]] = {}
    ages = {'<5m': 1, '<10m': 7, '<2h40': 100, 'older': 3000}
    for column, minutes in ages.items():
        then = FakeClock(time.time() - minutes * 60)
        spool = Spool.from_config(site.config, clock=then)
        for many, error in enumerate(('TimeoutError', 'SMTPConnectError', 'UnknownRecipient'), 1):
            if (column, error) != ('older', 'TimeoutError'):
                made[error, column] = {fail(spool, 'out', number, error) for number in range(many)}
        spool.close()
    site.wait_until_counted()
    tab.goto(site.url + '/groups')
    assert tab.locator('table.heat tbody tr').count() == 3
    found: dict[tuple[str, str], str] = {}
    for row in tab.locator('table.heat tbody tr').all():
        error = row.locator('th').inner_text().split()[0]
        cells = {
            cell.get_attribute('data-label'): cell.locator('a').first
            for cell in row.locator('td[data-label]:has(a)').all()
        }
        counts = {column: int(cell.inner_text()) for column, cell in cells.items()}
        assert counts.pop('all') == sum(counts.values())
        assert counts == {column: len(names) for (name, column), names in made.items() if name == error}
        found |= {
            (error, column): cell.get_attribute('href') for column, cell in cells.items() if column != 'all'
        }
    assert found.keys() == made.keys()
    for key, href in found.items():
        tab.goto(site.url + href)
        assert {one.partition('/')[2] for one in keys_of(tab)} == made[key], key


def test_a_group_is_tried_with_two_and_then_the_rest_goes(site: Site, tab: Any) -> None:
    for number in range(5):
        fail(site.spool, 'out', number, 'TimeoutError')
    fail(site.spool, 'out', 'other', 'Other')
    site.spool.pause('out')
    succeed('-C', site.config, 'start')
    try:
        tab.goto(site.url + '/groups')
        tab.select_option('#refresh', '2')
        tab.get_by_role('button', name='Try 2 of TimeoutError first').click()
        assert 'Send back 2 of 5' in tab.inner_text('h1')
        tab.click('.confirm form button')
        # First what became of them, and only then the rest.
        assert '0 of 2 went through, 2 not done yet' in tab.inner_text('main')
        tab.wait_for_load_state()
        assert tab.locator('button[value=retry]').count() == 0
        site.spool.resume('out')
        tab.locator('.alarm.good', has_text='2 of 2 went through').wait_for()
        tab.get_by_role('button', name='Send back the rest').click()
        assert 'Send back 3 entries' in tab.inner_text('h1')
        tab.click('.confirm form button')
        assert '3 done' in tab.inner_text('h1')
        assert len(site.spool['bad'].get_files('.psv')) == 1
        tab.goto(site.url + '/runners')
        tab.fill('[name=instances]', '2')
        tab.click('button[value=scale]')
        assert '1 → 2 processes' in tab.inner_text('h1')
        assert len(succeed('-C', site.config, 'status', '--json').objects) >= 3
    finally:
        switchboard('-C', site.config, 'stop')
