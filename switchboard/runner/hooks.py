"""The form of a runner's class, checked so that a class that cannot work is refused before it is given a message.

An ``async def dispose`` in a `Runner` would never run, a plain one in an `AsyncRunner` would do its work and fail afterwards, and
one with other parameters fails with each message: all of them mistakes of the program, which no retry mends.
"""

from __future__ import annotations

import inspect
import weakref
from types import FunctionType
from typing import Any

from switchboard.errors import ConfigError

# The hooks, and what they are called with.
HOOKS = {
    'dispose': ('msg', 'msgdata'),
    'setup': (),
    'cleanup': (),
    'periodic': (),
    'on_batch_end': (),
    'snooze': ('filecnt',),
    'on_error': ('msg', 'msgdata', 'error'),
}

# Hooks that were called otherwise: nobody calls them by these names any more.
OLD_HOOKS = {
    'confirm': ('on_batch_end', ()),
    'longest_s': ('message_time_limit_s', ('values', 'options')),
}

# What makes a function one of another kind, or one that takes more.
CALL_FLAGS = (
    inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_VARARGS
    | inspect.CO_VARKEYWORDS
)

# Classes that were found right.  To look takes memory, which a forked runner shares with its master, so it is done once.
CHECKED_CLASSES: weakref.WeakSet[type[Any]] = weakref.WeakSet()


def check_hooks(cls: type[Any], base: type[Any], section: str, *, has_queue: bool) -> None:
    """Look at the hooks of a class.

    :param base: `Runner` or `AsyncRunner`: what the class does not write itself is this one's, and right.
    :param has_queue: a runner without a queue needs no ``dispose``.
    :raises ConfigError: one of them could never be called.
    """
    if cls in CHECKED_CLASSES:
        return
    for old, (name, words) in OLD_HOOKS.items():
        # A method that is called otherwise is something of its own.
        if hasattr(cls, old) and not _wrong(cls, old, getattr(cls, old), words, wants_coroutine=False):
            raise ConfigError(f'{cls.__name__}.{old} is called {name} now', section=section, key='class')
    for name, words in HOOKS.items():
        hook = getattr(cls, name, None)
        model = getattr(base, name)
        if hook is model:
            if name == 'dispose' and has_queue:
                raise ConfigError(
                    f'{cls.__name__} does not say what to do with a message: write dispose(self, msg, msgdata)',
                    section=section,
                    key='class',
                )
            continue
        if _is_like(cls, name, model):
            continue
        reason = _wrong(cls, name, hook, words, wants_coroutine=inspect.iscoroutinefunction(model))
        if reason:
            raise ConfigError(f'{cls.__name__}.{name}: {reason}', section=section, key='class')
    if has_queue:
        CHECKED_CLASSES.add(cls)


def _is_like(cls: type[Any], name: str, model: Any) -> bool:
    """Is the hook a plain method, of the same kind as the base's own and with as many parameters?

    Nearly all are, and so `inspect` need not run: a runner of a user's class is looked at in its own process, where each function that is called takes
    pages from the memory that it shares with its master, and those of `inspect` took 0.4 MB.
    """
    found = next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)
    return type(found) is FunctionType and not vars(found) and _form(found) == _form(model)  # not decorated


def _form(function: FunctionType) -> tuple[int, ...]:
    code = function.__code__
    return code.co_flags & CALL_FLAGS, code.co_argcount, code.co_kwonlyargcount


def _wrong(cls: type[Any], name: str, hook: Any, words: tuple[str, ...], *, wants_coroutine: bool) -> str:
    """:return: why the hook cannot be called; empty if it can."""
    if not callable(hook):
        return 'not a method'
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        return 'a generator never runs: take the yield out of it'
    is_coroutine = inspect.iscoroutinefunction(hook)
    if is_coroutine and not wants_coroutine:
        return 'a coroutine never runs here: write it without async, or make the class an AsyncRunner'
    if wants_coroutine and not is_coroutine:
        return 'an AsyncRunner awaits it: write it with async, or make the class a Runner'
    is_bound = isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
    try:
        inspect.signature(hook).bind(*(() if is_bound else ('self',)), *words)
    except TypeError as error:
        return f'it is called with ({", ".join(words)}): {error}'
    except ValueError:
        pass  # written in another language: nobody knows
    return ''
