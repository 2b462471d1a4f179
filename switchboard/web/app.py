"""The table of routes.  A desk that is read-only has no route that writes: they are not mounted, so no handler has to ask."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from switchboard.errors import (
    DurabilityError,
    ForeignFileError,
    MasterError,
    SelectionError,
    SelectionGrewError,
    SwitchboardError,
    UnknownEntryError,
    UnknownQueueError,
)
from switchboard.installing import install_advice
from switchboard.operating.audit import MAX_REASON, Operator
from switchboard.operating.text import system_advice, system_words
from switchboard.web import entry_pages, openapi, pages
from switchboard.web.desk import Desk
from switchboard.web.forms import HALVES, MAX_TEXT, BadRequestError, Form
from switchboard.web.guard import Guard
from switchboard.web.identity import User
from switchboard.web.message_body import Body
from switchboard.web.render import sparkline, template_environment, topology_svg
from switchboard.web.spool_counts import SLOTS

Page = Callable[..., dict[str, Any]]
# Starlette runs one that is no coroutine in a thread of its pool.
Endpoint = Callable[[Request], Response | Awaitable[Response]]

# Path, page, template, parameters of the query.
PAGES: tuple[tuple[str, Page, str, tuple[str, ...]], ...] = (
    ('/', pages.overview, 'overview', ()),
    ('/queues/{name}', pages.queue, 'queue', ()),
    ('/entries', entry_pages.entries, 'entries', ('q', 'limit', 'after')),
    ('/entries/{name}/{filebase}', entry_pages.entry, 'entry', ()),
    ('/groups', pages.groups, 'groups', ('by',)),
    ('/canary', entry_pages.canary, 'canary', ('q', 'entry')),
    ('/runners', pages.runners, 'runners', ()),
    ('/topology', pages.topology, 'topology', ()),
    ('/configuration', pages.configuration, 'configuration', ()),
    ('/acts', pages.acts, 'acts', ('limit',)),
)
STATIC = {'desk.css': 'text/css', 'desk.js': 'text/javascript', 'icon.svg': 'image/svg+xml'}
# Which status an error is; the first that fits.
STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (BadRequestError, 400),
    (SelectionError, 400),
    (SelectionGrewError, 409),
    (UnknownEntryError, 404),
    (UnknownQueueError, 404),
    (ForeignFileError, 404),
    (MasterError, 503),
    (DurabilityError, 503),
    (SwitchboardError, 409),
    (PermissionError, 403),
    (FileNotFoundError, 404),
    # The disk's trouble, or the machine's: the request is in order, and nothing can be read or written now.
    (OSError, 503),
)
# Members that are another number at each look, though nothing has happened.
VOLATILE = ('_age_s', 'age_s', 'next_due_s', 'current_s', 'counted_at_ns')
COLUMNS = ('queue', 'filebase', 'state', 'ready_at_ns', 'age_s', 'kind', 'body_bytes', 'attempts', 'recoveries', 'sent_back', 'origin', 'cause', 'error', 'message', 'damage')  # fmt: skip


# The pages that answered forms: a browser may show one of the last again, by the way back.
MAX_PAGES, MAX_PAGES_BYTES = 100, 16 << 20


class AnswerPages:
    """The pages that answered the last forms, each at an address of its own, for the user who sent the form.

    A form is answered by the way to one of them: a page that is the answer itself cannot be shown again, by the way back or a reload, without sending the form again.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._keeping = threading.Lock()

    def keep(self, user: str, page: str) -> str:
        """Keep a page.

        :return: its key.
        """
        key = secrets.token_hex(16)
        with self._keeping:
            self._kept[key] = user, page
            while len(self._kept) > MAX_PAGES or sum(len(text) for _, text in self._kept.values()) > max(
                MAX_PAGES_BYTES, len(page)
            ):
                self._kept.popitem(last=False)
        return key

    def page(self, user: str, key: str) -> str | None:
        """:return: the page; None if it is not kept any more, or is another user's."""
        with self._keeping:
            whose, page = self._kept.get(key, ('', ''))
        return page if page and whose == user else None


class Json(Response):
    """An answer for programs, in ASCII: a path that is no text, and half a character of a message, are written out."""

    media_type = 'application/json'

    def render(self, content: Any) -> bytes:
        """See `Response`."""
        return json.dumps(content, allow_nan=False, separators=(',', ':')).encode('ascii')


def make_app(desk: Desk) -> ASGIApp:
    """:return: the application of one desk."""
    routes = Routes(desk)
    inner = Starlette(
        routes=routes.all(),
        exception_handlers={
            HTTPException: routes.on_http_error,
            SwitchboardError: routes.on_our_error,
            OSError: routes.on_our_error,
            Exception: routes.on_error,
        },
    )
    return Guard(inner, desk.settings.answered_hosts(), desk.identity)


class Routes:
    """The handlers: each reads a request, calls a page or an act, and answers with HTML or JSON."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._pages = AnswerPages()
        self._templates = template_environment()
        self._static = {name: (files('switchboard.web') / 'static' / name).read_bytes() for name in STATIC}
        self._version = hashlib.sha256(b''.join(self._static.values())).hexdigest()[:12]

    def all(self) -> list[Route]:
        """:return: the routes that this desk has."""
        found = [
            Route('/static/{name}', self._file),
            Route('/spark/{kind}/{name}.svg', self._spark),
            Route('/topology.svg', self._topology),
            Route('/entries/{name}/{filebase}/download', self._download),
            Route('/export.{format}', self._export),
            Route('/help', partial(self._html, template='help', shown={'command': ''})),
            Route('/metrics', self._metrics),
            Route('/api/openapi.json', self._openapi),
        ]
        for path, page, template, _ in PAGES:
            found.append(Route(path, self._page(page, template)))
            found.append(Route(f'/api{path}', self._page(page, '')))
        if not self.desk.settings.read_only:
            found += self._writing()
        return found

    def _writing(self) -> list[Route]:
        """:return: the routes that change something.  A desk that only looks has not even loaded what they do."""
        from switchboard.web import acts, edit

        entry, is_editing = '/entries/{name}/{filebase}', self.desk.settings.allow_edit
        act_routes: list[tuple[str, Endpoint]] = [
            ('/confirm', self._write(acts.confirm, 'acts/confirm', needs_operator=False)),
            ('/act', self._write(acts.act, 'acts/result')),
            ('/queues/{name}/say', self._write(acts.flag_queue, 'queue')),
            ('/runners/{name}/do', self._write(acts.control_runner, 'acts/runner')),
        ]
        if is_editing:
            act_routes += [
                (
                    f'{entry}/review',
                    self._write(edit.review, 'acts/review', needs_operator=False, longest=edit.MAX_FIELD),
                ),
                (f'{entry}/store', self._write(edit.store, 'acts/result', longest=edit.MAX_FIELD)),
            ]
        found = [
            Route(f'{beginning}{path}', handler, methods=['POST'])
            for path, handler in act_routes
            for beginning in ('', '/api')
        ]
        found.append(Route('/answers/{key}', self._answer_again))
        if is_editing:
            found.append(Route(f'{entry}/edit', self._page(edit.editable, 'acts/edit')))
            found.append(Route(f'/api{entry}/edit', self._page(edit.editable, '')))
        return found

    # What looks.

    def _page(self, page: Page, template: str) -> Endpoint:
        return partial(self._answer, page, template)

    def _answer(self, page: Page, template: str, request: Request) -> Response:
        self.desk.follow_config()
        shown = page(self.desk, _query(request), **request.path_params)
        tag = _etag(shown, template, self._version)
        if request.headers.get('if-none-match') == tag:
            return Response(status_code=304, headers={'etag': tag})
        if not template:
            return Json(shown, headers={'etag': tag})
        return self._html(request, template, shown, headers={'etag': tag})

    def _html(
        self,
        request: Request,
        template: str,
        shown: dict[str, Any],
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        return Response(self._render(request, template, shown), status, headers, media_type='text/html')

    def _render(self, request: Request, template: str, shown: dict[str, Any]) -> str:
        user: User = request.scope['user']
        settings = self.desk.settings
        counter = self.desk.counter
        return self._templates.get_template(f'{template}.html').render(
            page=shown,
            template=template,
            path=request.url.path,
            query=request.url.query,
            environment=settings.environment,
            colour=settings.environment_colour,
            read_only=settings.read_only,
            can_edit=settings.allow_edit,
            user=user.name,
            token='' if settings.read_only else self.desk.identity.token(user),
            version=self._version,
            queue_names=self._queue_names(),
            since_ns=counter.started_ns,
        )

    def _queue_names(self) -> list[str]:
        try:
            return self.desk.view.queue_names()
        except OSError:
            return []  # the page that says so must not fail by it

    def on_our_error(self, request: Request, error: Exception) -> Response:
        """Answer with the reason for which a page or an act could not be."""
        advice = system_advice(error)
        status = next((number for kind, number in STATUSES if isinstance(error, kind)), 500)
        if advice and status == 409:
            status = 503  # the disk has refused it, or the machine
        if status == 404 and not os.path.exists(self.desk.directory):
            status = 503  # all of the spool is away, and with it what may well be there again
        text = system_words(error) if isinstance(error, OSError) else str(error) or type(error).__name__
        return self._say_wrong(request, status, f'{text}; {advice}' if advice else text)

    def _say_wrong(self, request: Request, status: int, text: str) -> Response:
        if _is_api(request):
            return Json({'error': text}, status)
        shown = {'status': status, 'text': text, 'is_act': request.method == 'POST', 'command': ''}
        return self._html(request, 'error', shown, status)

    async def on_http_error(self, request: Request, error: Exception) -> Response:
        """Answer for a route that is not there."""
        assert isinstance(error, HTTPException)
        return self._say_wrong(request, error.status_code, error.detail)

    async def on_error(self, request: Request, error: Exception) -> Response:
        """Answer for a mistake of ours, without a traceback."""
        return self._say_wrong(request, 500, f'{type(error).__name__}; the log says more')

    async def _file(self, request: Request) -> Response:
        name = request.path_params['name']
        if name not in STATIC:
            raise HTTPException(404)
        # Weak, as a proxy that compresses would make it.
        headers = {'etag': f'W/"{self._version}"', 'cache-control': 'public, max-age=3600'}
        if request.headers.get('if-none-match') == headers['etag']:
            return Response(status_code=304, headers=headers)
        return Response(self._static[name], headers=headers, media_type=STATIC[name])

    async def _spark(self, request: Request) -> Response:
        kind, name = request.path_params['kind'], request.path_params['name']
        counter = self.desk.counter
        values = {'waiting': counter.waiting_history, 'done': counter.done_history}.get(kind)
        if values is None:
            raise HTTPException(404)
        return Response(sparkline(list(values.get(name, ())), SLOTS), media_type='image/svg+xml')

    def _topology(self, request: Request) -> Response:
        config, queues = self.desk.view.config, self.desk.counter.last.queues
        waiting = {name: max(0, counts.waiting) + counts.preserved for name, counts in queues.items()}
        drawn = topology_svg(config.graph(), waiting) if config is not None else None
        if drawn is None:
            return self._say_wrong(request, 404, 'there is no picture of it')
        return Response(drawn, media_type='image/svg+xml')

    def _download(self, request: Request) -> Response:
        found = entry_pages.locate(self.desk, **request.path_params)
        body = Body(found)
        name = ''.join(
            char for char in found.filebase if char.isascii() and (char.isalnum() or char in '.+-')
        )
        headers = {
            'content-disposition': f'attachment; filename="{name}.bin"',
            'content-length': str(body.length),
            'content-security-policy': "default-src 'none'; frame-ancestors 'none'; sandbox",
        }
        return StreamingResponse(body.chunks(), headers=headers, media_type='application/octet-stream')

    def _export(self, request: Request) -> Response:
        kind = request.path_params['format']
        if kind not in ('csv', 'json'):
            return self._say_wrong(request, 404, 'there are csv and json')
        rows, is_whole = entry_pages.export(self.desk, _query(request))
        headers = {
            'content-disposition': f'attachment; filename="entries.{kind}"',
            'x-is-whole': 'yes' if is_whole else 'no',
        }
        if kind == 'json':
            return Json({'entries': rows, 'is_whole': is_whole}, headers=headers)
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
        return Response(
            out.getvalue().encode('utf-8', 'backslashreplace'), headers=headers, media_type='text/csv'
        )

    def _metrics(self, request: Request) -> Response:
        """Answer a scrape: the numbers of the exporter, from the counts that the pages show."""
        try:
            from switchboard.metrics.collector import render
            from switchboard.metrics.counting import NO_ERROR, Count
        except ImportError:
            return Json({'error': install_advice('/metrics', 'prometheus-client', 'metrics')}, 404)
        spool_counts = self.desk.counter.last
        rows = spool_counts.bad.by.get('error', ())
        errors = {NO_ERROR if row.name == '(none)' else row.name: row.total for row in rows}
        failures = self.desk.counter.failures
        count = Count(spool_counts.at_ns, spool_counts.queues, errors, failures)
        accept = request.headers.get('accept', '')
        text, kind = render(self.desk.directory, count, self.desk.view.config, accept=accept)
        self.desk.counter.failures += count.failures - failures
        return Response(text, headers={'content-type': kind})

    async def _openapi(self, request: Request) -> Response:
        acts = [
            path
            for path in openapi.ACTS
            if any(route.path == f'/api{path}' for route in request.app.routes if isinstance(route, Route))
        ]
        return Json(openapi.describe_api(((path, page, taken) for path, page, _, taken in PAGES), acts))

    # What acts.

    def _write(
        self,
        act: Callable[..., dict[str, Any]],
        template: str,
        *,
        needs_operator: bool = True,
        longest: int = MAX_TEXT,
    ) -> Endpoint:
        async def handle(request: Request) -> Response:
            body = await request.body()
            return await run_in_threadpool(self._do, request, body, act, template, needs_operator, longest)

        return handle

    def _do(
        self,
        request: Request,
        body: bytes,
        act: Callable[..., dict[str, Any]],
        template: str,
        needs_operator: bool,
        longest: int,
    ) -> Response:
        form = _form(request, body, longest)
        user: User = request.scope['user']
        is_ours = request.scope['is_program'] or self.desk.identity.is_token(
            form.text('token', limit=200), user
        )
        if not is_ours:
            return self._say_wrong(request, 403, 'This form is stale, or not of this desk. Go back, load the page again, and do it once more.')  # fmt: skip
        words: dict[str, Any] = dict(request.path_params)
        if needs_operator:
            via = 'api' if _is_api(request) else 'desk'
            words['operator'] = Operator(user.name, via, form.text('reason', limit=MAX_REASON))
        shown = act(self.desk, form, **words)
        if _is_api(request):
            return Json(shown)
        if template == 'queue':
            return RedirectResponse(f'/queues/{shown["queue"]}', 303)
        if shown.get('canary') and template == 'acts/result' and shown['done']:
            sent = [('entry', f'{one["queue"]}/{one["filebase"]}') for one in shown['done'] if one['queue']]
            return RedirectResponse(
                '/canary?' + urlencode([('q', shown['selection']), *sent], errors=HALVES), 303
            )
        return RedirectResponse(
            f'/answers/{self._pages.keep(user.name, self._render(request, template, shown))}', 303
        )

    async def _answer_again(self, request: Request) -> Response:
        user: User = request.scope['user']
        page = self._pages.page(user.name, request.path_params['key'])
        if page is None:
            return self._say_wrong(
                request, 404, 'The answer to that form is not kept any more; the page Acts shows all acts.'
            )
        return Response(page, media_type='text/html')


def _is_api(request: Request) -> bool:
    return request.url.path.startswith('/api/')


def _query(request: Request) -> Form:
    return Form.parse(request.url.query)


def _form(request: Request, body: bytes, longest: int) -> Form:
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind != 'application/x-www-form-urlencoded':
        raise BadRequestError('send application/x-www-form-urlencoded')
    try:
        return Form.parse(body.decode('ascii'), longest)
    except UnicodeDecodeError as error:
        raise BadRequestError('the form is not encoded') from error


def _etag(shown: Any, template: str, version: str) -> str:
    text = json.dumps(_steady(shown), sort_keys=True, default=str)
    return f'W/"{hashlib.sha256(f"{template} {version} {text}".encode()).hexdigest()[:32]}"'


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(one) for key, one in value.items() if not str(key).endswith(VOLATILE)}
    if isinstance(value, list | tuple):
        return [_steady(one) for one in value]
    return value


def _cell(value: Any) -> Any:
    """:return: a cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ('=', '+', '-', '@', '\t', '\r') else value
