"""Events: the lines of the log, written by one function, each with a word that the documentation explains.

An event has a word (what happened), the entry that it happened to, and fields.  As text it is ``FILEBASE WORD key=value ...``, so
that `grep FILEBASE` tells the story of a message and `grep ' preserved '` all that was preserved; as JSON each is a member of its
own, numbers are numbers, and nothing is cut.  No line is taken apart to make another.

A test sees to it that each word has its row in ``docs/howto/troubleshooting.md``, so two modules do not call one thing by two names.
"""

from __future__ import annotations

import json
import logging
import math
import re
from contextvars import ContextVar
from typing import Any

from switchboard.errors import MessageTooLargeError, QueueDrainingError, QueueFullError

# The entry that the running code works on: a thread has its own, and so has each task of an event loop.
FILEBASE_AT_WORK: ContextVar[str | None] = ContextVar('filebase_at_work', default=None)

# What may stand in a line without quotes.
PLAIN = re.compile(r'[^\s"=\\]+')


def log_event(log: logging.Logger, level: int, filebase: str | None, word: str, /, **fields: object) -> None:
    """Write one line.

    :param filebase: the entry that it is about, if it is about one.
    :param word: a constant, so that grep finds it.
    :param fields: the other parts of the line; those that are None are left out.  ``exc_info`` is an exception whose traceback is
        added, or True for the one that is being handled; ``named_process`` is the process whose line it is, name and process id, where
        that is not this one.
    """
    if not log.isEnabledFor(level):
        return
    exc_info: Any = fields.pop('exc_info', None)
    named_process = fields.pop('named_process', None)
    text = ' '.join(filter(None, (filebase, word, format_pairs(**fields))))
    members = {
        'filebase': filebase,
        'event': word,
        **{key: json_value(value) for key, value in fields.items()},
    }
    extra: dict[str, object] = {
        'members': {key: value for key, value in members.items() if value is not None}
    }
    if named_process is not None:
        extra['named_process'] = named_process
    log.log(level, '%s', text, exc_info=exc_info, extra=extra, stacklevel=2)


def refusal_log_level(error: object) -> int:
    """:return: the level of a line about a message that was not let in: an operator has closed its queue, or a limit of the queue says so; all else is a fault."""
    if isinstance(error, QueueDrainingError):
        return logging.INFO
    is_limit = isinstance(error, MessageTooLargeError) or (
        isinstance(error, QueueFullError) and not error.is_disk_full
    )
    return logging.WARNING if is_limit else logging.ERROR


def format_pairs(**fields: object) -> str:
    """:return: the fields as ``key=value``, quoted where a value has spaces; those that are `None` are left out."""
    return ' '.join(f'{key}={_quote(value)}' for key, value in fields.items() if value is not None)


def _quote(value: object) -> str:
    text = f'{value:.3f}' if isinstance(value, float) else str(value)
    text = text.encode('utf-8', 'backslashreplace').decode()  # half a character cannot be written
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def json_value(value: object) -> object:
    """:return: the value as JSON holds it: truth and numbers as they are, all else as text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
