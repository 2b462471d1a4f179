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


def describe(routes: Iterable[tuple[str, Callable[..., Any], tuple[str, ...]]]) -> dict[str, Any]:
    """:return: the description.

    :param routes: of each page, its path, its function, and the parameters of its query.
    """
    paths: dict[str, Any] = {}
    for path, function, taken in routes:
        parameters: list[dict[str, Any]] = [
            {'name': name, 'in': 'path', 'required': True, 'schema': {'type': 'string'}}
            for name in re.findall(r'{(\w+)}', path)
        ]
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
                },
            }
        }
    return {'openapi': '3.1.0', 'info': {'title': 'Switchboard desk', 'version': __version__}, 'paths': paths}
