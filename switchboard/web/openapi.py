"""The description of ``/api/``, as OpenAPI: written from the table of routes, so that none is left out."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from switchboard import __version__

PARAMETERS: Mapping[str, tuple[str, str]] = {
    'q': ('string', 'a selection, as `switchboard ls --where` takes it'),
    'limit': ('integer', 'how many'),
    'after': ('string', 'queue/name of the last entry of the page before: `next` of its answer'),
    'by': ('string', 'error or frame'),
    'entry': ('string', 'queue/name; may be given several times'),
}


_CHOICE = ('act', 'to', 'reason', 'entry', 'scope', 'q', 'canary')
_CHANGE = ('seen', 'metadata', 'body', 'undo', 'to', 'reason')
# What acts: in a word, and the fields of its form.
ACTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    '/confirm': ('Tell what would be done, and to how many; nothing is.', _CHOICE),
    '/act': (
        'Do it; with scope=all, to no more than `expect`.  With the `ticket` of `/confirm`, it is done once, however often it is sent.',
        (*_CHOICE, 'expect', 'ticket'),
    ),
    '/queues/{name}/say': ('Pause, drain or resume a queue.', ('say', 'reason')),
    '/runners/{name}/do': ('Restart or scale a runner, by its master.', ('do', 'instances', 'reason')),
    '/entries/{name}/{filebase}/review': (
        'Tell what a change would make of a message; nothing is done.',
        _CHANGE,
    ),
    '/entries/{name}/{filebase}/store': ('Change a message; one of the bad queue is sent back.', _CHANGE),
}


def describe_act(path: str) -> dict[str, Any]:
    """:return: the description of what acts at a path, below ``/api``."""
    summary, fields = ACTS[path]
    form = {'type': 'object', 'properties': {name: {'type': 'string'} for name in fields}}
    return {
        'post': {
            'summary': summary,
            'parameters': _in_path(path),
            'requestBody': {'content': {'application/x-www-form-urlencoded': {'schema': form}}},
            'responses': {
                '200': {'description': 'what became of it', 'content': {'application/json': {}}},
                '403': {'description': 'it comes from elsewhere, or without an Authorization'},
                '409': {'description': 'something is another by now, and nothing was done'},
                '503': {'description': 'the disk does not give or take it, or no master answers'},
            },
        }
    }


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {'name': name, 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
        for name in re.findall(r'{(\w+)}', path)
    ]


def describe_api(
    routes: Iterable[tuple[str, Callable[..., Any], tuple[str, ...]]], acts: Iterable[str] = ()
) -> dict[str, Any]:
    """:return: the description.

    :param acts: the paths of what acts here, each of `ACTS`.
    :param routes: of each page, its path, its function, and the parameters of its query.
    """
    paths: dict[str, Any] = {}
    for path, function, taken in routes:
        parameters = _in_path(path)
        for name in taken:
            kind, words = PARAMETERS[name]
            parameters.append({'name': name, 'in': 'query', 'description': words, 'schema': {'type': kind}})
        summary = (inspect.getdoc(function) or '').partition('\n')[0]
        paths[f'/api{path}'] = {
            'get': {
                'summary': summary,
                'parameters': parameters,
                'responses': {
                    '200': {
                        'description': 'an object; times in nanoseconds are texts',
                        'content': {'application/json': {}},
                    },
                    '304': {'description': 'nothing has changed since the ETag of If-None-Match'},
                    '404': {'description': 'there is no such thing'},
                    '503': {'description': 'the disk does not give it'},
                },
            }
        }
    for path in acts:
        paths[f'/api{path}'] = describe_act(path)
    return {'openapi': '3.1.0', 'info': {'title': 'Switchboard desk', 'version': __version__}, 'paths': paths}
