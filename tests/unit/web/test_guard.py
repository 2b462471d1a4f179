"""Attacks on the desk that are refused before any page: by name, from elsewhere, by size."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.exits import Exit
from switchboard.errors import ConfigError
from switchboard.web.guard import HEADERS, MAX_BODY_BYTES, Refused, check_origin
from switchboard.web.settings import DeskSettings, read_users
from tests.helpers.commands import fail, switchboard
from tests.unit.web.desks import ORIGIN, Browser, browser

PATHS = ('/', '/api/', '/entries', '/static/desk.css', '/nothing', '/spark/waiting/in.svg')


@pytest.mark.parametrize(
    'host', ['evil.test', '127.0.0.1.evil.test:8025', '127.0.0.1:8026', '127.0.0.1', '127.0.0.1:8025.', '']
)
@pytest.mark.parametrize('method', ['GET', 'POST', 'DELETE', 'HEAD', 'OPTIONS', 'PUT'])
def test_a_host_that_is_not_ours_is_refused_for_every_method(here: Browser, host: str, method: str) -> None:
    for path in PATHS:
        answer = here.client.request(method, path, headers={'host': host, 'sec-fetch-site': 'same-origin'})
        assert answer.status_code == 421, (method, path)
        if method == 'GET':
            assert answer.json() == {
                'error': f'this desk does not go by the name {host!r}: see `--allowed-host`'
            }


def test_two_hosts_are_refused(here: Browser) -> None:
    headers = [('host', '127.0.0.1:8025'), ('host', 'evil.test')]
    assert here.client.get('/', headers=headers).status_code == 400


@pytest.mark.parametrize('host', ['127.0.0.1:8025', 'localhost:8025', 'LOCALHOST:8025', '[::1]:8025'])
def test_the_loopback_names_are_ours(here: Browser, host: str) -> None:
    assert here.get('/', headers={'host': host}).status_code == 200


@pytest.mark.parametrize(
    'path',
    [*PATHS, '/entries?q=nonsense', '/entries/in/nothing', '/api/queues/nowhere', '/act', '/export.xml'],
)
def test_every_answer_has_the_policy(here: Browser, path: str) -> None:
    for answer in (here.get(path), here.get(path, headers={'host': 'evil.test'}), here.client.delete(path)):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value or (name == 'cache-control' and '/static/' in path), name
        assert 'access-control-allow-origin' not in answer.headers


ATTACKS = [
    {'sec-fetch-site': 'cross-site', 'origin': 'http://evil.test'},
    {'sec-fetch-site': 'same-site', 'origin': 'http://127.0.0.1:9999'},
    {'origin': 'http://evil.test'},
    {'origin': 'http://127.0.0.1:9999'},
    {'origin': 'null'},
    {'origin': '127.0.0.1:8025'},
    {'origin': 'file://127.0.0.1:8025'},
    {},
]


@pytest.mark.parametrize('headers', ATTACKS, ids=str)
def test_a_page_elsewhere_changes_nothing_even_with_a_token(here: Browser, headers: dict[str, str]) -> None:
    filebase = fail(here.spool, 'out', 'x')
    fields = {'act': 'retry', 'entry': f'bad/{filebase}', 'token': here.token()}
    for path in ('/act', '/api/act', '/confirm', '/queues/in/say', '/runners/out/do'):
        assert here.client.post(path, data=fields, headers=headers).status_code == 403, path
    assert here.spool['bad'].get_files('.psv') == [filebase]


def test_a_form_without_a_token_of_this_desk_changes_nothing(here: Browser, tmp_path: Path) -> None:
    filebase = fail(here.spool, 'out', 'x')
    with browser(tmp_path) as other:
        for token in ('', 'x', other.token(), here.token()[:-1] + 'x', '1.' + '0' * 64):
            answer = here.post('/act', {'act': 'retry', 'entry': f'bad/{filebase}', 'token': token})
            assert answer.status_code == 403
    assert here.spool['bad'].get_files('.psv') == [filebase]


@pytest.mark.parametrize(
    ('headers', 'authorized', 'outcome'),
    [
        ({'sec-fetch-site': 'same-origin', 'origin': 'http://evil.test'}, False, False),
        ({'sec-fetch-site': 'none'}, False, False),
        ({'origin': 'http://a:1'}, False, False),
        ({'origin': 'https://A:1'}, False, False),
        ({}, True, True),
        ({'sec-fetch-site': 'cross-site'}, True, None),
        ({'origin': 'http://b:1'}, True, None),
        ({}, False, None),
    ],
)
def test_the_order_of_the_check_is_gos(
    headers: dict[str, str], authorized: bool, outcome: bool | None
) -> None:
    if outcome is None:
        with pytest.raises(Refused):
            check_origin(headers.get, 'a:1', is_authorized=authorized)
    else:
        assert check_origin(headers.get, 'a:1', is_authorized=authorized) is outcome


def test_what_is_too_much_is_refused(here: Browser) -> None:
    headers = {'origin': ORIGIN, 'content-type': 'application/x-www-form-urlencoded'}
    assert here.client.post('/act', content=b'x' * (MAX_BODY_BYTES + 1), headers=headers).status_code == 413
    many = '&'.join(f'a{number}=1' for number in range(5000)).encode()
    assert here.client.post('/act', content=many, headers=headers).status_code == 400
    assert here.get('/?' + 'x' * 20_000).status_code == 414
    for query in (
        'limit=0',
        'limit=501',
        'limit=-1',
        'limit=1e9',
        'limit=99999999999999999',
        'limit=٣',
        'after=../x',
        'q=(',
        'q=tries:>9999999999',
    ):
        assert here.get(f'/entries?{query}').status_code == 400, query
    assert here.client.put('/act', headers=headers).status_code == 405


def test_a_read_only_desk_has_no_route_that_writes(tmp_path: Path) -> None:
    with browser(tmp_path) as able, browser(tmp_path, read_only=True) as made:
        filebase = fail(made.spool, 'out', 'x')
        fields = {
            'act': 'retry',
            'entry': f'bad/{filebase}',
            'say': 'pause',
            'do': 'restart',
            'token': made.desk.identity.token(able.desk.identity.of({}, lambda _: None)),
        }
        for path in (
            '/act',
            '/api/act',
            '/confirm',
            '/queues/in/say',
            '/runners/out/do',
            '/api/queues/in/say',
        ):
            answer = made.client.post(path, data=fields, headers={'origin': ORIGIN})
            assert answer.status_code in (404, 405), path
        for path in ('/', '/entries', f'/entries/bad/{filebase}', '/queues/in', '/runners', '/groups'):
            assert 'method="post"' not in made.get(path).text.replace(
                '<form method="post" action="/confirm" id="list">', ''
            )
        assert 'read-only' in made.get('/').text
        assert made.spool['bad'].get_files('.psv') == [filebase]


def basic(name: str, password: str) -> dict[str, str]:
    return {'authorization': 'Basic ' + base64.b64encode(f'{name}:{password}'.encode()).decode()}


def test_with_a_file_of_users_nobody_else_comes_in(tmp_path: Path) -> None:
    with browser(tmp_path, users={'ann': 'correct horse'}) as made:
        filebase = fail(made.spool, 'out', 'x')
        for headers in (
            {},
            basic('ann', 'wrong'),
            basic('bob', 'correct horse'),
            basic('bob', ''),
            {'authorization': 'Bearer x'},
        ):
            answer = made.get('/', headers=headers)
            assert answer.status_code == 401
            assert answer.headers['www-authenticate'].startswith('Basic')
        assert made.get('/', headers=basic('ann', 'correct horse')).status_code == 200
        answer = made.client.post(
            '/api/act',
            data={'act': 'retry', 'entry': f'bad/{filebase}'},
            headers=basic('ann', 'correct horse'),
        )
        (done,) = answer.json()['done']
        record = made.spool['out'].history(done['filebase'])[-1]
        assert (record['by'], record['via']) == ('ann', 'api')


def test_a_proxys_header_says_who_it_is(tmp_path: Path) -> None:
    with browser(tmp_path, user_header='x-user') as made:
        assert made.get('/').status_code == 401
        assert made.get('/', headers={'x-user': 'a b<'}).status_code == 401
        assert '</span> ann@example.com' in made.get('/', headers={'x-user': 'ann@example.com'}).text


@pytest.mark.parametrize(
    ('settings', 'key'),
    [
        ({'listen': '0.0.0.0:80'}, 'users_file'),
        ({'listen': '[::]:80', 'allowed_hosts': ('a:80',)}, 'users_file'),
        ({'listen': '192.0.2.1:80', 'users': {'a': 'b'}}, 'allowed_hosts'),
        (
            {
                'listen': '192.0.2.1:80',
                'users': {'a': 'b'},
                'allowed_hosts': ('a:80',),
                'user_header': 'x-user',
            },
            'user_header',
        ),
        ({'listen': 'desk.example.com:80'}, 'users_file'),
        ({'listen': 'nothing'}, 'listen'),
        ({'listen': '127.0.0.1:99999'}, 'listen'),
        ({'allowed_hosts': ('*',)}, 'allowed_hosts'),
        ({'environment_colour': 'pink'}, 'environment_colour'),
        ({'user_header': 'a b'}, 'user_header'),
        ({'listen': '/run/x.sock', 'socket_mode': 0o666}, 'socket_mode'),
    ],
)
def test_a_desk_that_anybody_could_reach_does_not_start(settings: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DeskSettings(**settings).check()
    assert caught.value.key == key


def test_a_desk_that_is_known_by_name_and_password_may_listen_elsewhere() -> None:
    DeskSettings(listen='192.0.2.1:80', users={'a': 'b'}, allowed_hosts=('desk.example.com',)).check()
    DeskSettings(listen='[::1]:8025').check()
    DeskSettings(listen='/run/desk.sock', user_header='x-user').check()


@pytest.mark.parametrize(
    ('line', 'option'),
    [
        ('--users-file nowhere', '--users-file'),
        ('--listen 0.0.0.0:80', '--users-file'),
        ('--listen nonsense', '--listen'),
        ('--allowed-host *', '--allowed-host'),
        ('--user-header <', '--user-header'),
        ('--environment-colour pink', '--environment-colour'),
        ('--read-only --allow-edit', '--allow-edit'),
    ],
)
def test_a_setting_that_is_wrong_is_named_as_the_command_line_does(
    spool: Spool, line: str, option: str
) -> None:
    ran = switchboard('-s', spool.directory, 'web', *line.split())
    assert ran.status == Exit.CONFIG
    assert ran.err.startswith(f'switchboard: {option}: ')
    assert ran.err.count('nowhere') == line.count('nowhere'), 'a file is named once'


def test_the_file_of_users_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / 'users'
    path.write_text('# people\nann:correct horse\n\n')
    path.chmod(0o600)
    assert read_users(path) == {'ann': 'correct horse'}
    path.write_text('ann:correct\x0bhorse\x85\u2028 \r\nbob:correct\x0c horse\n')
    assert read_users(path) == {'ann': 'correct\x0bhorse\x85\u2028 ', 'bob': 'correct\x0c horse'}
    for text in ('ann:short\n', 'ann\n', 'a b:correct horse\n', ''):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_users(path)
    path.write_text('ann:correct horse\n')
    path.chmod(0o644)
    with pytest.raises(ConfigError, match='everybody'):
        read_users(path)
