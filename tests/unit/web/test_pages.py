"""The pages and their twins: what they show of a spool, and that looking changes nothing."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import time
from contextlib import closing
from email import message_from_bytes
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from switchboard import web
from switchboard.operating import finding, grouping, queue_counts, selection
from switchboard.operating.text import system_advice
from switchboard.status.alive import master_directory
from switchboard.store.layout import SCOREBOARD
from switchboard.store.publishing import as_queue_error
from switchboard.web import app, entry_pages, openapi, spool_counts
from switchboard.web.app import Routes
from switchboard.web.entry_pages import locate
from switchboard.web.message_body import CHUNK_BYTES, HIDDEN, MAX_CHECKED_BYTES, MAX_WHOLE_BYTES, Body
from switchboard.web.render import template_environment
from tests.helpers.commands import at_work, fail, succeed, switchboard
from tests.unit.web.desks import Browser, browser

# Its product is in no time, size or number of a page by chance.
TEMPLATE = '{{7919*7907}}'
HOSTILE = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', TEMPLATE, 'javascript:alert(1)', 'a\u202eb', '\x1b[31mred', "';alert(1)//", '=1+1']  # fmt: skip


class Tags(HTMLParser):
    """Collects what could run, or leads away."""

    def __init__(self) -> None:
        super().__init__()
        self.bad: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.startswith('on') or name == 'style':
                self.bad.append(f'{tag} {name}')
            if name in ('href', 'src', 'action') and value is not None:
                self.links.append(value)
                if not value.startswith(('/', '#', '?')) or value.startswith('//'):
                    self.bad.append(value)
        if tag in ('style', 'iframe', 'object', 'base') or (
            tag == 'script' and ('type', 'module') not in attrs
        ):
            self.bad.append(tag)


def links_of(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


def crawl(here: Browser) -> dict[str, str]:
    """:return: every page that links lead to, by its path."""
    seen: dict[str, str] = {}
    left = ['/']
    while left:
        path = left.pop().partition('#')[0]
        if not path or path in seen or len(seen) > 400:
            continue
        answer = here.get(path)
        assert answer.status_code == 200, (path, answer.text[:300])
        seen[path] = answer.text if answer.headers['content-type'].startswith('text/html') else ''
        if seen[path]:
            left += [
                link
                for link in links_of(seen[path]).links
                if link not in ('/act', '/confirm') and not link.endswith(('/say', '/do'))
            ]
    return seen


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob('*')
        if path.is_file()
    }


def fill(here: Browser) -> None:
    for number, text in enumerate(HOSTILE):
        fail(here.spool, 'out', {text: text}, f'Error{number}' if number % 2 else text, text)
        here.spool['in'].enqueue(text, {text: text, 'sender': text})
    here.spool['in'].enqueue(
        b'Subject: <b>\nFrom: a@example.com\nContent-Type: text/html\n\n<script>x</script>\n'
    )


def test_hostile_content_is_text_on_every_page_that_a_link_leads_to(here: Browser) -> None:
    fill(here)
    here.count()
    pages = crawl(here)
    assert sum('/entries/' in path for path in pages) >= 2 * len(HOSTILE)
    for path, text in pages.items():
        assert links_of(text).bad == [], path
        assert not re.search('[\x00-\x08\x0b-\x1f\u202a-\u202e]', text), path
        assert str(7919 * 7907) not in text, path
    everything = ''.join(pages.values())
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in everything
    assert TEMPLATE in everything
    assert '\\u202e' in everything
    assert '\\x1b[31m' in everything


def test_directories_that_can_be_no_queues_keep_no_page_from_the_others(here: Browser) -> None:
    here.count()
    before = [row['queue'] for row in here.json('/')['queues']]
    for name in (b'lost+found', b'a b', b'<b>', b'new\nline', b'\xff', b'x' * 250, b'-'):
        os.mkdir(os.fsencode(here.desk.directory) + b'/' + name)
    here.count()
    assert [row['queue'] for row in here.json('/')['queues']] == before
    assert here.json('/entries?q=queue:*')['trouble'] == []
    assert 'queue="in"' in here.get('/metrics').text
    assert [one['queue'] for one in switchboard('-C', here.config, 'queues', '--json').objects] == before
    assert here.spool.queue_names() == sorted(before)
    for verb in (('shape',), ('ls', '--all-queues'), ('tidy',), ('metrics',)):
        assert switchboard('-C', here.config, *verb).status == 0, verb
    assert "a directory 'a b', which can be no queue" in switchboard('-C', here.config, 'check').out


def test_a_spool_that_is_gone_is_named_on_every_page(here: Browser) -> None:
    here.count()
    here.desk.directory.rename(here.desk.directory.with_name('away'))
    for path, _, _, _ in app.PAGES:
        if '{' not in path:
            answer = here.get(path)
            assert '<!doctype html>' in answer.text.lower(), path
    assert f'{here.desk.directory}: No such file or directory' in here.get('/').text
    # It may all be there: who asks for one entry must not take it for done.
    entry = f'/entries/in/1700000000.0+{"a" * 40}'
    assert here.get(f'/api{entry}').status_code == here.get(entry).status_code == 503
    here.desk.directory.with_name('away').rename(here.desk.directory)
    assert here.get(f'/api{entry}').status_code == 404


@pytest.mark.parametrize('number', [errno.EIO, errno.EUCLEAN, errno.EROFS, errno.ENOSPC, errno.ESTALE, errno.EMFILE, errno.ELOOP])  # fmt: skip
def test_trouble_of_the_disk_is_no_mistake_of_ours_and_says_what_to_do(here: Browser, number: int) -> None:
    scope = {'type': 'http', 'method': 'GET', 'path': '/api/entries', 'query_string': b'', 'headers': []}
    bare = OSError(number, os.strerror(number), '/spool/bad')
    for error in (bare, as_queue_error(bare, 'read', 'bad', '')):
        answer = Routes(here.desk).on_our_error(Request(scope), error)
        text = json.loads(bytes(answer.body))['error']
        assert answer.status_code == 503
        assert os.strerror(number) in text
        assert text.endswith(system_advice(bare))


def test_a_queue_that_the_disk_does_not_give_is_said_to_be_so_on_every_page(here: Browser) -> None:
    filebase = fail(here.spool, 'out', 'x')
    bad = here.desk.directory / 'bad'
    bad.rename(bad.with_name('away'))
    bad.symlink_to('bad')  # a circle
    here.count()
    for path in ('/entries', f'/entries/bad/{filebase}', f'/entries/bad/{filebase}/download', '/export.json'):
        answer = here.get(path)
        assert answer.status_code == 503, path
        assert 'Too many levels of symbolic links' in answer.text, path
        assert 'That was not done' not in answer.text, path
    assert 'bad: it cannot be read: Too many levels of symbolic links' in here.get('/').text
    page = here.json('/')
    counted = {one['queue']: (one['waiting'], one['preserved'], one['in_bad']) for one in page['queues']}
    assert (counted['out'], counted['bad'], page['bad']) == ((0, 0, None), (None, None, None), None)
    assert 'Not readable' in here.get('/groups').text


def test_a_scoreboard_that_cannot_be_read_is_no_sign_that_no_master_has_run(here: Browser) -> None:
    own = master_directory(here.desk.directory)
    own.parent.mkdir(exist_ok=True)
    own.write_text('no directory')
    here.count()
    for path in ('/', '/runners'):
        page = here.json(path)
        assert page['master']['state'] == 'UNKNOWN'
        assert f'cannot be seen: {own}: Not a directory' in page['alarms'][0]['text']
    # Everything else is there all the same.
    assert here.json('/')['counted_at_ns']


def test_looking_changes_nothing(here: Browser) -> None:
    fill(here)
    here.count()
    before = tree(here.desk.directory)
    crawl(here)
    for path, _, _, _ in app.PAGES:
        if '{' not in path:
            here.json(path)
    assert tree(here.desk.directory) == before


def test_no_template_has_a_way_out_of_escaping() -> None:
    made = template_environment()
    assert 'safe' not in made.filters
    source = Path(app.__file__).parent
    for path in [*source.glob('templates/**/*.html'), *source.glob('*.py')]:
        text = path.read_text()
        assert not re.search(r'\bMarkup\b|\|\s*safe\b|autoescape false', text), path


def test_the_twin_has_what_the_page_shows_and_the_command_line_says(here: Browser) -> None:
    names = sorted(fail(here.spool, 'out', number) for number in range(5))
    here.count()
    found = here.json('/entries')
    assert [one['filebase'] for one in found['entries']] == names
    assert re.findall(r'data-key="bad/([^"]+)"', here.get('/entries').text.replace('&#43;', '+')) == names
    said = switchboard('-C', here.config, 'ls', 'bad', '--json').objects
    members = set(said[0])
    for shown, told in zip(found['entries'], said, strict=True):
        assert members <= shown.keys()
        assert {key: shown[key] for key in members - {'age_s'}} == {
            key: told[key] for key in members - {'age_s'}
        }
        assert int(shown['ready_at_ns']) / 1e9 == pytest.approx(told['ready_at'])
        assert isinstance(shown['ready_at_ns'], str)
    assert found['matching'] == 5
    queues = {one['queue']: one for one in here.json('/')['queues']}
    for told in switchboard('-C', here.config, 'queues', '--json').objects:
        assert told.keys() <= queues[told['queue']].keys()
        assert queues[told['queue']]['waiting'] == told['waiting']


def test_the_command_that_a_page_shows_lists_the_same(here: Browser) -> None:
    import shlex

    for number in range(6):
        fail(here.spool, 'out' if number % 2 else 'orders', number, 'Time out' if number < 3 else 'Other')
    for query in (
        'error=Time+out',
        'q=origin:out',
        'q=error:"Time out" origin:orders',
        'older=1h',
        'q=-error:Other',
    ):
        found = here.json(f'/entries?{query}')
        words = shlex.split(found['command'])[1:]
        ran = switchboard(*words, '--names')
        assert ran.lines == [f'{one["queue"]}/{one["filebase"]}' for one in found['entries']], query


def test_paging_by_name_loses_and_repeats_nothing_of_one_same_time(here: Browser) -> None:
    folder = here.spool['in'].folder.path
    first = here.spool['in'].enqueue('x')
    source = Path(folder) / f'{first}.pck'
    for number in range(0xABC000, 0xABC000 + 500):
        (Path(folder) / f'{first[:-16]}{number:016x}.pck').write_bytes(source.read_bytes())
    source.unlink()
    seen: list[str] = []
    after = ''
    while True:
        found = here.json(f'/entries?q=queue:in&limit=50&after={after.replace("+", "%2B")}')
        seen += [one['filebase'] for one in found['entries']]
        if found['next'] is None:
            break
        after = found['next']
    assert len(seen) == len(set(seen)) == 500
    assert seen == sorted(seen)


def test_an_unchanged_page_costs_no_body(here: Browser) -> None:
    fail(here.spool, 'out', 'x')
    here.count()
    for path in ('/', '/entries', '/groups', '/api/entries', '/runners'):
        tag = here.get(path).headers['etag']
        again = here.get(path, headers={'if-none-match': tag})
        assert (again.status_code, again.content) == (304, b''), path
    tag = here.get('/entries').headers['etag']
    fail(here.spool, 'out', 'y')
    assert here.get('/entries', headers={'if-none-match': tag}).status_code == 200


def test_an_empty_page_says_which_kind_of_empty_it_is(here: Browser) -> None:
    assert 'not yet counted' in here.get('/entries').text
    here.count()
    assert 'No bad messages' in here.get('/entries').text
    fail(here.spool, 'out', 'x')
    here.count()
    text = here.get('/entries?q=error:None').text
    assert 'None match the filter' in text
    assert '1 without it' in text


def test_an_entry_tells_its_whole_life(here: Browser) -> None:
    filebase = fail(here.spool, 'out', {'n': 1}, 'ValueError', 'no way')
    found = here.json(f'/entries/bad/{filebase.replace("+", "%2B")}')
    assert [one['event'] for one in found['history']][-2:] == ['failed', 'preserved']
    assert 'in dispose' in found['history'][-2]['traceback']
    assert found['content']['parts'] == [{'title': 'JSON', 'text': '{\n  "n": 1\n}'}]
    assert found['holder'] == {'state': 'not claimed'}
    assert found['home'] == 'out'


def test_who_holds_an_entry_is_the_kernels_word(here: Browser) -> None:
    with at_work(here.spool, 'in', 'x') as filebase:
        found = here.json(f'/entries/in/{filebase.replace("+", "%2B")}')
        assert found['holder'] == {'state': 'claimed', 'pid': os.getpid(), 'runner': None}
    found = here.json(f'/entries/in/{filebase.replace("+", "%2B")}')
    assert found['holder'] == {'state': 'owner gone'}


def test_secrets_in_metadata_are_not_shown_anywhere(here: Browser) -> None:
    filebase = here.spool['in'].enqueue(
        'x', {'API_token': 'hush', 'deep': {'password': ['hush']}, 'plain': 'seen'}
    )
    path = f'/entries/in/{filebase.replace("+", "%2B")}'
    for text in (here.get(path).text, here.get(f'/api{path}').text):
        assert 'hush' not in text
        assert HIDDEN in text
        assert 'seen' in text


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'', 'empty'),
        (b'\x80\x04\x95pickled', 'bytes'),
        (b'\0' * 100_000, 'the first'),
        (gzip.compress(b'x', mtime=0), 'bytes'),
        (b'x' * (50 << 20), 'the first 64K of 50M'),
    ],
)
def test_odd_bodies_give_a_page_and_a_download(here: Browser, content: bytes, says: str) -> None:
    filebase = here.spool['in'].enqueue(content)
    path = f'/entries/in/{filebase.replace("+", "%2B")}'
    found = here.json(path)
    assert says in json.dumps(found['content'])
    answer = here.get(f'{path}/download')
    assert answer.content == content
    assert answer.headers['content-type'] == 'application/octet-stream'
    assert re.fullmatch(r'attachment; filename="[\w.+-]+"', answer.headers['content-disposition'])
    assert 'sandbox' in answer.headers['content-security-policy']


def test_torn_and_unreadable_entries_give_a_page_with_what_is_known(here: Browser) -> None:
    filebase = here.spool['in'].enqueue('x' * 1000)
    path = Path(here.spool.path('in', f'{filebase}.pck'))
    path.write_bytes(path.read_bytes()[:200])
    place = f'/entries/in/{filebase.replace("+", "%2B")}'
    assert 'Damaged' in here.get(place).text
    path.write_bytes(b'nonsense')
    assert 'Damaged' in here.get(place).text
    path.unlink()
    assert here.get(place).status_code == 404


def test_groups_add_up_and_each_cell_leads_to_its_entries(here: Browser) -> None:
    for number in range(9):
        fail(here.spool, 'out', number, f'Error{number % 3}')
    here.count()
    for by in ('error', 'frame'):
        found = here.json(f'/groups?by={by}')
        assert sum(one['total'] for one in found['groups']) == found['total'] == 9
        for row in found['groups']:
            assert sum(cell['entries'] for cell in row['cells']) == row['total']
            listed = here.client.get('/api/entries', params={'q': row['selection']}).json()
            assert listed['matching'] == row['total']
            for cell in row['cells']:
                listed = here.client.get('/api/entries', params={'q': cell['selection']}).json()
                assert listed['matching'] == cell['entries']


def test_a_selection_is_exported_whole(here: Browser) -> None:
    for number in range(3):
        fail(here.spool, 'out', number, '=cmd', '=1+1')
    assert len(here.get('/export.json?q=queue:bad').json()['entries']) == 3
    lines = here.get('/export.csv?q=queue:bad').text.splitlines()
    assert len(lines) == 4
    assert "'=1+1" in lines[1]


def test_a_broken_configuration_is_told_and_what_was_read_before_holds(here: Browser) -> None:
    here.get('/')
    here.config.write_text('[switchboard]\nspool = spool\nnonsense = 1\n')
    here.desk.looked_s = float('-inf')
    assert '1 mistake' in here.get('/').text
    assert 'nonsense' in here.get('/configuration').text
    assert here.json('/topology')['has_configuration']


def test_no_master_is_told_and_its_buttons_are_off(here: Browser) -> None:
    here.count()
    assert 'none was ever started here' in here.get('/').text


def test_every_page_names_the_environment_and_has_a_title_of_its_own(tmp_path: Path) -> None:
    with browser(tmp_path, environment='<prod>', environment_colour='red') as made:
        made.count()
        titles = set()
        for path, _, _, _ in app.PAGES:
            if '{' in path:
                continue
            match = re.search('<title>(.*?)</title>', made.get(path).text)
            assert match is not None
            assert '&lt;prod&gt;' in match[1]
            titles.add(match[1])
        assert len(titles) == sum('{' not in path for path, *_ in app.PAGES)


def test_openapi_names_every_page_and_everything_that_acts_here(tmp_path: Path) -> None:
    pages = {f'/api{path}' for path, *_ in app.PAGES}
    for settings, missing in (({'read_only': True}, 6), ({}, 2), ({'allow_edit': True}, 0)):
        with browser(tmp_path, **settings) as here:
            paths: dict[str, Any] = here.get('/api/openapi.json').json()['paths']
            acts = {path for path, one in paths.items() if 'post' in one}
            assert paths.keys() - acts == pages
            posted = {route.path for route in Routes(here.desk).all() if 'POST' in (route.methods or ())}
            assert acts == {path for path in posted if path.startswith('/api/')}
            assert len(acts) == len(openapi.ACTS) - missing
            assert all(one[method]['summary'] for one in paths.values() for method in one)


def test_an_error_of_ours_is_told_without_a_traceback(here: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError('secret')

    monkeypatch.setattr(here.desk, 'snapshot', broken)
    from starlette.testclient import TestClient

    client = TestClient(here.client.app, base_url='http://127.0.0.1:8025', raise_server_exceptions=False)
    answer = client.get('/api/runners')
    assert answer.status_code == 500
    assert 'secret' not in answer.text
    assert answer.headers['x-content-type-options'] == 'nosniff'


def test_the_routes_are_drawn_where_graphviz_is_and_are_a_table_always(
    here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.config.with_name('exchange.cfg').write_text(
        '[exchange.x]\ntype = topic\nbindings =\n    a.* -> in\n    # -> orders\n'
    )
    here.desk.looked_s = float('-inf')
    here.spool['in'].enqueue('x')
    here.count()
    assert [one['label'] for one in here.json('/topology')['routes']][:2] == ['a.*', '#']
    if shutil.which('dot') is not None:
        assert '/topology.svg' in here.get('/topology').text
        drawn = here.get('/topology.svg')
        assert drawn.headers['content-type'] == 'image/svg+xml'
        assert '<svg' in drawn.text
        assert 'script' not in drawn.text
    monkeypatch.setenv('PATH', '/nonexistent')
    assert '/topology.svg' not in here.get('/topology').text
    assert 'a.*' in here.get('/topology').text
    assert here.get('/topology.svg').status_code == 404


def test_the_overview_says_why_messages_do_not_leave_and_offers_to_send_two_back(here: Browser) -> None:
    for number in range(4):
        fail(here.spool, 'out', number, 'SMTPConnectError', f'mail.example.com refused {number}')
    fail(here.spool, 'out', 'x', 'Other')
    here.spool['orders'].enqueue('x')
    here.spool.pause('orders', 'the shop is closed', 'ann')
    here.count()
    found = here.json('/')
    assert (
        '5 bad entries, 5 of them in the last five minutes: mostly SMTPConnectError in out'
        in found['alarms'][0]['text']
    )
    assert 'mail.example.com refused 3' in found['alarms'][0]['text']
    (paused,) = [one for one in found['alarms'] if 'paused' in one['text']]
    assert paused['text'].endswith('by ann: the shop is closed; 1 message waits')
    (one, _) = found['errors']
    assert (one['error'], one['entries'], one['origin'], one['message']) == (
        'SMTPConnectError',
        4,
        'out',
        'mail.example.com refused 3',
    )
    text = here.get('/').text
    assert 'aria-label="Try 2 of SMTPConnectError first"' in text
    # Of a single one there is nothing to try first.
    assert 'Try 2 of Other' not in text
    assert 'aria-label="Send back all of Other"' in text


def test_counts_of_a_bad_queue_that_was_not_read_whole_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_counts, 'MAX_OPENED', 2)
    with browser(tmp_path) as here:
        for number in range(5):
            fail(here.spool, 'out', number)
        here.count()
        found = here.json('/')
        assert (found['bad'], found['looked_at']) == (5, 2)
        text = here.get('/').text
        assert 'the first 2 of 5 were looked at' in text
        assert '2</span></a><abbr title="at least">+</abbr>' in text
        assert 'The first 2 of 5 were looked at' in here.get('/groups').text


def test_how_many_come_and_go_in_a_minute_is_told_when_it_is_known(here: Browser) -> None:
    here.count()
    assert here.json('/queues/in')['rate_in'] is None
    counter = here.desk.counter
    for _ in range(3):
        here.spool['in'].enqueue('x')
    then_s, seen = counter.recent[0]
    counter.recent[0] = (then_s - 30, seen)
    here.count()
    assert 5 < here.json('/queues/in')['rate_in'] <= 6
    room = here.spool.queue('in', max_messages=3, overflow='drop-oldest')
    for _ in range(3):
        room.enqueue('x')
    here.count()
    page = here.json('/queues/in')
    assert page['evicted'] == 3
    assert 10 < page['rate_in'] <= 12  # also if those that came before have made room
    assert '3 messages made room for newer ones' in here.get('/queues/in').text
    assert here.json('/queues/in')['rate_done'] == 0


def test_a_list_says_what_a_message_is_about(here: Browser) -> None:
    here.spool['in'].enqueue(message_from_bytes(b'Subject: Minutes of Tuesday\n\nx'))
    here.spool['in'].enqueue({'order': 7})
    here.spool['in'].enqueue(b'\0\1')
    titles = [one['title'] for one in here.json('/entries?q=queue:in')['entries']]
    assert titles == ['Minutes of Tuesday', '{"order":7}', None]
    assert 'Minutes of Tuesday' in here.get('/entries?q=queue:in').text


def test_no_page_walks_over_a_long_queue_and_says_how_far_it_looked(
    here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A million names are looked at in the background, and by a page for as long as its budget lasts.
    for number in range(300):
        here.spool['in'].enqueue(number)
        fail(here.spool, 'out', number)
    here.count()
    walked: list[str] = []
    real = queue_counts.walk_entries

    def walk(*arguments: Any, **keys: Any) -> Any:
        for found in real(*arguments, **keys):
            walked.append(found[0])
            yield found

    for module in (queue_counts, finding, grouping, selection):
        if hasattr(module, 'walk_entries'):
            monkeypatch.setattr(module, 'walk_entries', walk)
    for path, *_ in app.PAGES:
        if '{' not in path and path not in ('/entries', '/canary'):
            here.get(path)
    for path in ('/queues/in', '/metrics'):
        assert here.get(path).status_code == 200
    assert walked == []
    monkeypatch.setattr(entry_pages, 'BUDGET_S', 0.0)
    monkeypatch.setattr(entry_pages.ListQuery.__init__, '__defaults__', ('', 0.0))
    found = here.json('/entries')
    assert not found['is_whole']
    assert found['looked_at'] < 300
    assert 'names were looked at' in here.get('/entries').text


def test_a_list_that_took_long_is_shown_again_for_a_while_and_anew_after_an_act(
    here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_pages, 'CACHED_FROM_S', 0.0)
    monkeypatch.setattr(entry_pages, 'REST_TIMES', 1e6)
    first, second = (fail(here.spool, 'out', number) for number in range(2))
    assert len(here.json('/entries')['entries']) == 2
    fail(here.spool, 'out', 'new')
    assert len(here.json('/entries')['entries']) == 2
    # What is gone is not shown.
    succeed('-C', here.config, 'rm', f'bad/{second}', '--no-trash', '--yes')
    assert [one['filebase'] for one in here.json('/entries')['entries']] == [first]
    # Another filter is another look, and what somebody does here is seen at once.
    assert len(here.json('/entries?limit=5')['entries']) == 2
    here.post('/queues/in/say', {'say': 'pause'})
    assert len(here.json('/entries')['entries']) == 2


def test_a_list_of_queues_that_stand_still_is_looked_for_once(
    here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_pages, 'CACHED_FROM_S', 0.0)
    monkeypatch.setattr(entry_pages, 'REST_TIMES', 0.0)
    for number in range(3):
        fail(here.spool, 'out', number)
    then_ns = time.time_ns() - 10**10
    os.utime(here.spool.path('bad'), ns=(then_ns, then_ns))
    looked: list[object] = []
    real = selection.select
    monkeypatch.setattr(entry_pages, 'select', lambda *all: (looked.append(all), real(*all))[1])
    for path, times in (('/entries', 1), ('/entries?q=error:ValueError', 1), ('/entries?q=older:0s', 2)):
        looked.clear()
        assert [here.json(path)['matching'] for _ in range(2)] == [3, 3]
        assert len(looked) == times, path
    fail(here.spool, 'out', 'new')
    assert here.json('/entries')['matching'] == 4


def test_the_table_of_what_is_asked_of_the_desk_names_tests_that_there_are() -> None:
    import tests.browser

    root = Path(tests.browser.__file__).parents[1]
    everything = '\n'.join(path.read_text() for path in root.rglob('*.py'))
    rows = re.findall(
        r'^ ?(\d+)  .*? ((?:unit/|servers/|acceptance/|benchmarks|test_).*)$',
        tests.browser.__doc__ or '',
        re.MULTILINE,
    )
    assert [int(number) for number, _ in rows] == list(range(1, 29))
    for _, places in rows:
        for name in re.findall(r'(?:: |, )([a-z_]{5,})', places):
            assert re.search(rf'def test_\w*{name}', everything), name


def test_no_answer_of_an_act_is_refreshed() -> None:
    templates = {path.stem for path in Path(web.__file__).parent.glob('templates/acts/*.html')}
    script = (Path(web.__file__).parent / 'static' / 'desk.js').read_text()
    [still] = re.findall(r'isLive = !\[(.*)\]', script)
    assert templates
    assert templates <= set(re.findall(r"'(\w+)'", still))


def test_what_no_encoding_takes_is_written_out_everywhere(tmp_path: Path) -> None:
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b'/\xe4'))
    home.mkdir()
    with browser(home) as here:
        half = '\ud83d'
        filebase = fail(here.spool, 'in', {'half': half}, error=half, text=half, key=half)
        here.count()
        (here.config).write_text(here.config.read_text() + '[runner.broken]\n')
        looked_at = [path.format(name='bad', filebase=filebase) for path, *_ in app.PAGES]
        for path in (
            *looked_at,
            *(f'/api{path}' for path in looked_at),
            '/export.csv?q=queue:bad',
            '/export.json?q=queue:bad',
            '/metrics',
            f'/entries/bad/{filebase}/download',
            '/api/entries/bad/%ED%A0%BD',
            '/api/queues/%ED%A0%BD',
        ):
            answer = here.get(path)
            assert answer.status_code in (200, 404), (path, answer.text)
            assert answer.status_code == 200 or '%' in path, path


def test_a_download_ends_where_its_file_becomes_another_message(here: Browser) -> None:
    queue = here.spool['in']
    size = 3 * CHUNK_BYTES
    body = Body(locate(here.desk, 'in', queue.enqueue(b'a' * size)))
    chunks = body.chunks()
    assert next(chunks) == b'a' * CHUNK_BYTES
    taken = queue.take()
    assert taken is not None
    assert next(chunks) == b'a' * CHUNK_BYTES  # a claim changes its name, and nothing else
    queue.finish(taken.filebase)
    queue.enqueue(b'b' * size)
    with pytest.raises(FileNotFoundError):
        next(chunks)


@pytest.mark.parametrize('length', [10, MAX_WHOLE_BYTES + 1, 17 << 20])
def test_a_torn_body_is_told_as_the_command_line_tells_it(tmp_path: Path, length: int) -> None:
    with browser(tmp_path, allow_edit=True) as here:
        filebase = here.spool['in'].enqueue(b'as it was'.rjust(length))
        assert here.json(f'/entries/in/{filebase}')['damage'] is None
        path = here.desk.directory / 'in' / f'{filebase}.pck'
        path.write_bytes(path.read_bytes().replace(b'was', b'is.'))
        page = f'/entries/in/{filebase}'
        shown = switchboard('-C', here.config, 'show', filebase, '--json').objects[0]
        assert here.json(page)['damage'] == shown['damage'] == 'torn: the checksum does not match'
        assert shown['damage'] in here.get(page).text
        told = 'long' if length > MAX_WHOLE_BYTES else shown['damage']
        assert told in here.json(f'{page}/edit')['why_not']


def test_of_a_body_that_is_too_long_to_be_looked_through_the_page_says_that_it_was_not(here: Browser) -> None:
    filebase = here.spool['in'].enqueue(bytes(MAX_CHECKED_BYTES + 1))
    page = here.json(f'/entries/in/{filebase}')
    assert (page['damage'], page['is_checked']) == (None, False)
    assert 'not looked through for damage' in here.get(f'/entries/in/{filebase}').text
    filebase = here.spool['in'].enqueue(bytes(MAX_CHECKED_BYTES))
    assert here.json(f'/entries/in/{filebase}')['is_checked']
    assert 'not looked through' not in here.get(f'/entries/in/{filebase}').text


def test_a_body_that_becomes_another_message_while_it_is_looked_through_is_not_called_damaged(
    here: Browser,
) -> None:
    queue = here.spool['in']
    found = locate(here.desk, 'in', queue.enqueue(b'a' * 3 * CHUNK_BYTES))
    with closing(Body(found)) as body:
        taken = queue.take()
        assert taken is not None
        queue.finish(taken.filebase)
        queue.enqueue(b'b' * 3 * CHUNK_BYTES)
        with pytest.raises(FileNotFoundError):
            body.check()


def test_what_cannot_be_counted_is_no_number_and_the_count_of_failures_never_falls(here: Browser) -> None:
    here.spool['in'].enqueue('x')
    here.count()
    directory, away = here.desk.directory / 'in', here.desk.directory.with_name('away')
    failures = []
    for is_there in (True, False, False, True):
        if not is_there and not away.exists():
            directory.rename(away)
            directory.write_text('')
        elif is_there and away.exists():
            directory.unlink()
            away.rename(directory)
        here.count()
        text = here.get('/metrics').text
        failures.append(float(re.findall(r'^switchboard_exporter_errors_total (.*)', text, re.M)[0]))
        said = re.findall(r'queue_entries{queue="in",state="waiting"} (.*)', text)
        assert said == (['1.0'] if is_there else [])
        (row,) = (row for row in here.json('/')['queues'] if row['queue'] == 'in')
        assert (row['waiting'], bool(row['trouble'])) == ((1, False) if is_there else (None, True))
    assert failures == [0.0, 1.0, 2.0, 2.0]
    scoreboard = master_directory(here.desk.directory) / SCOREBOARD
    for content in (b'nonsense', None):
        scoreboard.parent.mkdir(parents=True, exist_ok=True)
        scoreboard.write_bytes(content) if content is not None else scoreboard.unlink()
        text = here.get('/metrics').text
        failures.append(float(re.findall(r'^switchboard_exporter_errors_total (.*)', text, re.M)[0]))
    assert failures[-2:] == [3.0, 3.0]
