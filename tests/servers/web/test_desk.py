"""The desk as its unit runs it (a socket that is handed over, a user who cannot write), and behind an nginx or a Caddy that knows who comes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sysconfig
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('starlette')
pytest.importorskip('prometheus_client')

from switchboard import Spool
from tests.helpers.commands import fail
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.servers.machine.test_units import interpreter
from tests.servers.place import ROOT, USER, Place, missing, place

UNIT = ROOT / 'etc/systemd/switchboard-desk.service'
PAGE = ROOT / 'docs/howto/single-sign-on.md'
SPOOL = '/var/spool/switchboard'


class UnixConnection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__('localhost:8025', timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def ask(
    path: Path, what: str, method: str = 'GET', body: str | None = None, **headers: str
) -> tuple[int, str]:
    """:return: status and text of an answer."""
    connection = UnixConnection(path)
    try:
        connection.request(method, what, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def tree(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
            path.read_bytes() if path.is_file() else b'',
        )
        for path in directory.rglob('*')
    }


@pytest.fixture
def installed() -> Iterator[Place]:
    if os.geteuid() != 0:
        missing('to be root, because another user is to look')
    with place() as made:
        yield made


def setting(name: str) -> str:
    """:return: what the unit says."""
    [value] = re.findall(f'^{name}=(.*)$', UNIT.read_text(), re.MULTILINE)
    return str(value)


def as_the_unit(place: Place, command: list[str]) -> list[str]:
    """:return: a command, for a user of the spool's group without rights, who finds the unit's paths read-only."""
    group = place.spool_directory.stat().st_gid
    spool = shlex.quote(setting('ReadOnlyPaths').replace(SPOOL, str(place.spool_directory)))
    words = [
        'setpriv',
        f'--reuid={USER}',
        f'--regid={group}',
        '--clear-groups',
        '--no-new-privs',
        '--bounding-set=-all',
        *command,
    ]
    script = f'mount --bind {spool} {spool} && mount -o remount,ro,bind {spool} && exec {shlex.join(words)}'
    return ['unshare', '--mount', 'sh', '-c', script]


@contextmanager
def desk_of_the_unit(place: Place) -> Iterator[Path]:
    """Yield the socket at which the desk is, started as systemd starts it: by the first who comes."""
    if shutil.which('systemd-socket-activate') is None:
        missing('systemd-socket-activate (apt-get install systemd)')
    path = place.directory / 'desk.sock'
    program, *words = shlex.split(
        setting('ExecStart').replace('/etc/switchboard/switchboard.cfg', str(place.config))
    )
    assert program == '/opt/switchboard/bin/switchboard'
    paths = os.pathsep.join([str(place.checkout), sysconfig.get_path('purelib')])
    command = as_the_unit(place, [interpreter(), '-m', 'switchboard', *words])
    activate = [
        'systemd-socket-activate',
        '-l',
        str(path),
        f'--setenv=PYTHONPATH={paths}',
        '--setenv=HOME=/nonexistent',
        *command,
    ]
    process = subprocess.Popen(activate, stderr=subprocess.DEVNULL, cwd='/')
    try:
        eventually(path.exists, 'listening')
        yield path
    finally:
        process.terminate()
        process.wait(60)


def test_the_desk_of_the_unit_shows_everything_and_could_not_write_if_it_wanted(installed: Place) -> None:
    spool = installed.configure(
        '[runner.out]\nclass = null\nqueue = out\n[queue.in]\nexternal = yes\n[queue.closed]\nexternal = yes\n'
    )
    names = [fail(spool, 'out', number, 'TimeoutError') for number in range(3)]
    spool['in'].enqueue('waits')
    hidden = spool['in'].enqueue('of another user')
    Path(spool.path('in', f'{hidden}.pck')).chmod(0o600)
    closed = Path(spool.path('closed', 'x')).parent
    spool['closed'].enqueue('nobody looks in there')
    closed.chmod(0o700)
    # A member of the spool's group could write: it is the unit's path that keeps it from that.
    written = as_the_unit(installed, ['touch', str(installed.spool_directory / 'in' / 'x')])
    assert subprocess.run(written, capture_output=True, timeout=60, check=False).returncode != 0
    before = tree(installed.spool_directory)
    with desk_of_the_unit(installed) as path:
        status, text = ask(path, '/api/entries')
        assert status == 200, text
        assert [one['filebase'] for one in json.loads(text)['entries']] == sorted(names)
        entry = urllib.parse.quote(f'/entries/bad/{names[0]}', safe='/')
        torn = urllib.parse.quote(f'/entries/in/{hidden}', safe='/')
        for page in (
            '/',
            '/groups',
            '/runners',
            '/topology',
            '/configuration',
            '/acts',
            '/help',
            '/queues/in',
            '/entries',
            entry,
            torn,
            f'{entry}/download',
        ):
            assert ask(path, page)[0] == 200, page
        assert 'Permission denied' in ask(path, torn)[1]
        assert 'Not readable' in eventually(
            lambda: _if('Not readable', ask(path, '/entries?q=queue:closed')[1]), 'counted'
        )
        eventually(lambda: json.loads(ask(path, '/api/')[1])['counted_at_ns'], 'counted')
        assert 'switchboard_queue_entries{queue="in",state="waiting"} 2.0' in ask(path, '/metrics')[1]
        forms = ('/act', '/confirm', '/queues/in/say', '/runners/out/do', f'{entry}/review', f'{entry}/store')
        for form in [*forms, *(f'/api{form}' for form in forms)]:
            found = ask(
                path,
                form,
                'POST',
                f'act=rm&entry=bad/{names[0]}',
                **{'Sec-Fetch-Site': 'same-origin', 'Content-Type': 'application/x-www-form-urlencoded'},
            )
            assert found[0] in (404, 405), form
        assert 'read-only' in ask(path, '/')[1]
        assert (
            '<form method="post"'
            not in ask(path, '/entries')[1] + ask(path, entry)[1] + ask(path, '/runners')[1]
        )
        # The kernel tells who comes, through the handed socket too.
        assert '</span> root' in ask(path, '/')[1]
    assert tree(installed.spool_directory) == before


def _if(word: str, text: str) -> str:
    return text if word in text else ''


def settings_of_the_page(language: str, page: Path = PAGE) -> str:
    """:return: a block of the page about proxies."""
    [text] = re.findall(f'```{language}\n(.*?)```', page.read_text(), re.DOTALL)
    return str(text)


@contextmanager
def nginx(directory: Path, port: int, sign_on: int, desk: Path) -> Iterator[None]:
    """Run an nginx with the configuration of the page about proxies."""
    text = settings_of_the_page('nginx')
    for old, new in (
        ('/run/switchboard-desk/desk.sock', str(desk)),
        ('127.0.0.1:4180', f'127.0.0.1:{sign_on}'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    with nginx_of(text, directory, port):
        yield


@contextmanager
def nginx_of(text: str, directory: Path, port: int) -> Iterator[None]:
    """Run an nginx without its certificates, with the configuration of a page."""
    if shutil.which('nginx') is None:
        missing('nginx (apt-get install nginx)')
    for old, new in (
        ('listen 443 ssl;', f'listen 127.0.0.1:{port};'),
        ('server_name desk.example.com;', 'server_name 127.0.0.1;'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    text = re.sub(r'^\s*ssl_.*\n', '', text, flags=re.MULTILINE)
    # Its workers are to reach the socket, as members of its group do where it is installed.
    user = 'user root; ' if os.geteuid() == 0 else ''
    config = directory / 'nginx.conf'
    config.write_text(
        f'{user}daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}\n'
        f'http {{ access_log off; client_body_temp_path {directory}/a; proxy_temp_path {directory}/b; fastcgi_temp_path {directory}/c; '
        f'uwsgi_temp_path {directory}/d; scgi_temp_path {directory}/e;\n{text}}}\n'
    )
    process = subprocess.Popen(['nginx', '-p', str(directory), '-c', str(config)], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _answers(port), 'answered by nginx')
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def caddy(directory: Path, port: int, sign_on: int, desk: Path) -> Iterator[None]:
    """Run a Caddy with the configuration of the page."""
    if shutil.which('caddy') is None:
        missing('caddy (apt-get install caddy)')
    text = settings_of_the_page('caddy')
    # For versions that hand on what a client sent; this one may not.
    assert text.index('request_header -X-Forwarded-User') < text.index('forward_auth')
    for old, new in (
        ('desk.example.com {', f'http://127.0.0.1:{port} {{'),
        ('/run/switchboard-desk/desk.sock', str(desk)),
        ('127.0.0.1:4180', f'127.0.0.1:{sign_on}'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    config = directory / 'Caddyfile'
    config.write_text('{\n    admin off\n    auto_https off\n}\n' + text)
    surroundings = {**os.environ, 'HOME': str(directory), 'XDG_DATA_HOME': str(directory)}
    command = ['caddy', 'run', '--config', str(config), '--adapter', 'caddyfile']
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=directory, env=surroundings)
    try:
        eventually(lambda: _answers(port), 'answered by Caddy')
        yield
    finally:
        process.terminate()
        process.wait(60)


PROXIES = {'nginx': nginx, 'caddy': caddy}


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(('127.0.0.1', port)) == 0


@contextmanager
def sign_on(port: int) -> Iterator[None]:
    """Answer as oauth2-proxy is documented to, in its place: 202 and a name for a session, which is a cookie, and 401 without one."""
    import http.server
    import threading

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            match = re.search(r'session=(\w+)', self.headers.get('cookie', ''))
            self.send_response(202 if match else 401)
            # Somebody of whom it knows no name.
            if match and match[1] != 'nameless':
                self.send_header('X-Auth-Request-User', match[1])
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def desk_of_the_page(directory: Path, config: Path, socket_: Path, host: str) -> Iterator[None]:
    """Run the desk with the command of the page about proxies."""
    line = next(line for line in settings_of_the_page('sh').splitlines() if ' web ' in line)
    line = line.replace('/run/switchboard-desk/desk.sock', str(socket_)).replace('desk.example.com', host)
    with desk_of(line, directory, config):
        yield


@contextmanager
def desk_of(line: str, directory: Path, config: Path) -> Iterator[None]:
    """Run a desk by a line of a page."""
    import sys

    words = shlex.split(line)
    assert words[0] == 'switchboard'
    command = [sys.executable, '-m', 'switchboard', '-C', str(config), *words[1:]]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=directory)
    assert process.stderr is not None
    try:
        assert 'the desk is at' in process.stderr.readline()
        yield
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


@pytest.mark.parametrize('proxy', PROXIES)
def test_behind_a_proxy_it_says_who_acts_and_nobody_can_say_he_is_another(tmp_path: Path, proxy: str) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\ndurability = lazy\n[queue.out]\nexternal = yes\n')
    spool = Spool.from_config(config)
    filebase = fail(spool, 'out', 'x')
    port, gate = free_port(), free_port()
    with (
        sign_on(gate),
        desk_of_the_page(tmp_path, config, tmp_path / 'desk.sock', f'127.0.0.1:{port}'),
        PROXIES[proxy](tmp_path, port, gate, tmp_path / 'desk.sock'),
    ):

        def through(
            what: str, method: str = 'GET', body: str | None = None, **headers: str
        ) -> tuple[int, str, str]:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            connection.request(method, what, body, headers)
            answer = connection.getresponse()
            found = answer.status, answer.read().decode(), answer.headers.get('location', '')
            connection.close()
            return found

        # Who has not signed in sees nothing and is sent to sign in; a header of his own does not help.
        for headers in ({}, {'X-Forwarded-User': 'ann'}, {'x-forwarded-user': 'root'}):
            status, text, location = through('/', **headers)
            assert (status, 'Waiting' in text) == (302, False)
            assert urllib.parse.urlsplit(location).path == '/oauth2/start'
        for name in ('X-Forwarded-User', 'x-forwarded-user'):
            status, text, _ = through('/', Cookie='session=nameless', **{name: 'root'})
            assert (status, 'Waiting' in text) == (401, False)
        status, text, _ = through('/entries', Cookie='session=ann', **{'X-Forwarded-User': 'eve'})
        assert status == 200
        assert '</span> ann' in text
        token = re.search(r'name="token" value="([^"]+)"', text)
        assert token is not None
        origin = f'http://127.0.0.1:{port}'
        form = urllib.parse.urlencode(
            {'act': 'retry', 'entry': f'bad/{filebase}', 'token': token[1], 'reason': 'why not'}
        )
        sent = {
            'Content-Type': 'application/x-www-form-urlencoded',
            'Cookie': 'session=ann',
            'Origin': origin,
        }
        # Somebody else's token, and a page elsewhere.
        assert through('/act', 'POST', form, **{**sent, 'Cookie': 'session=bob'})[0] == 403
        assert through('/act', 'POST', form, **{**sent, 'Origin': 'http://evil.test'})[0] == 403
        assert spool['bad'].get_files('.psv') == [filebase]
        assert through('/act', 'POST', form, **sent)[0] == 303
    (name,) = spool['out'].files
    record = spool['out'].history(name)[-1]
    assert (record['event'], record['by'], record['via']) == ('retried', 'ann', 'desk')


def test_behind_an_nginx_it_asks_for_a_password_and_takes_a_programs_forms(tmp_path: Path) -> None:
    config, page = tmp_path / 'switchboard.cfg', ROOT / 'docs/howto/desk.md'
    config.write_text('[switchboard]\nspool = spool\ndurability = lazy\n[queue.out]\nexternal = yes\n')
    spool = Spool.from_config(config)
    filebase = fail(spool, 'out', 'x')
    port, own, users = free_port(), free_port(), tmp_path / 'desk.users'
    users.write_text('ann:correct horse\n')
    users.chmod(0o640)
    line = settings_of_the_page('sh', page)
    for old, new in (
        ('127.0.0.1:8025', f'127.0.0.1:{own}'),
        ('desk.example.com', f'127.0.0.1:{port}'),
        ('/etc/switchboard/desk.users', str(users)),
    ):
        assert old in line, old
        line = line.replace(old, new)
    # As many sites have it: what is compressed has another tag.
    text = settings_of_the_page('nginx', page).replace('127.0.0.1:8025', f'127.0.0.1:{own}')
    text = text.replace('location / {', 'gzip on; gzip_min_length 1; gzip_types *; location / {')
    with desk_of(line, tmp_path, config), nginx_of(text, tmp_path, port):

        def through(what: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
            connection.request('GET' if body is None else 'POST', what, body, headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer

        assert through('/').status == 401
        ann = {'Authorization': f'Basic {base64.b64encode(b"ann:correct horse").decode()}'}
        seen = through('/static/desk.css', **ann, **{'Accept-Encoding': 'gzip'})
        tag = seen.headers['etag']
        assert (seen.status, tag[:2]) == (200, 'W/')
        assert through('/static/desk.css', **ann, **{'If-None-Match': tag}).status == 304
        form = {'Content-Type': 'application/x-www-form-urlencoded'}
        assert through('/api/act', b'x' * (2 << 20), **ann, **form).status == 413
        act = urllib.parse.urlencode({'act': 'retry', 'entry': f'bad/{filebase}', 'reason': 'why not'})
        assert through('/api/act', act.encode(), **ann, **form).status == 200
    assert spool['bad'].get_files('.psv') == []


def test_who_comes_to_the_socket_past_the_proxy_is_nobody(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[queue.out]\nexternal = yes\n')
    Spool.from_config(config)['out']
    with desk_of_the_page(tmp_path, config, tmp_path / 'desk.sock', 'localhost:8025'):
        assert ask(tmp_path / 'desk.sock', '/')[0] == 401
        assert oct((tmp_path / 'desk.sock').stat().st_mode & 0o777) == oct(0o660)
