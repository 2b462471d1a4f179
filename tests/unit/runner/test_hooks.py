"""Classes that cannot work are refused before they are given a message, and what their hooks return and raise."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from typing import Any

import pytest

from switchboard import AsyncRunner, Runner
from switchboard.errors import ConfigError
from switchboard.options import RunnerOptions
from switchboard.runner import hooks
from tests.helpers.runs import make_runner, preserved


async def coroutine(self: Any, *args: Any) -> None:
    pass


def plain(self: Any, *args: Any) -> None:
    pass


def generator(self: Any, *args: Any) -> Any:
    yield


async def async_generator(self: Any, *args: Any) -> Any:
    yield


def usual(self: Any, msg: Any, msgdata: Any) -> None:
    pass


def too_few(self: Any, msg: Any) -> None:
    pass


async def too_few_async(self: Any, msg: Any) -> None:
    pass


def needs_more(self: Any, msg: Any, msgdata: Any, *, key: str) -> None:
    pass


@pytest.mark.parametrize(
    ('base', 'written', 'said'),
    [
        (Runner, {}, r'does not say what to do .* write dispose\(self, msg, msgdata\)'),
        (AsyncRunner, {}, 'does not say what to do'),
        (Runner, {'dispose': usual, 'confirm': lambda self: {}}, 'confirm is called on_batch_end now'),
        (Runner, {'dispose': coroutine}, 'a coroutine never runs here.*AsyncRunner'),
        (AsyncRunner, {'dispose': plain}, 'an AsyncRunner awaits it'),
        (Runner, {'dispose': generator}, 'generator'),
        (Runner, {'dispose': async_generator}, 'generator'),
        (AsyncRunner, {'dispose': generator}, 'generator'),
        (AsyncRunner, {'dispose': async_generator}, 'generator'),
        (Runner, {'dispose': too_few}, 'called with.*too many positional'),
        (Runner, {'dispose': needs_more}, "missing a required.*'key'"),
        (AsyncRunner, {'dispose': too_few_async}, 'too many positional'),
        (Runner, {'dispose': None}, 'not a method'),
        (Runner, {'dispose': staticmethod(too_few)}, ''),
        (Runner, {'dispose': staticmethod(lambda msg: None)}, 'too many positional'),
        (Runner, {'dispose': staticmethod(usual)}, 'missing a required'),
        (Runner, {'dispose': usual, 'snooze': usual}, 'snooze: it is called with'),
        (AsyncRunner, {'dispose': usual}, 'an AsyncRunner awaits it'),
        (Runner, {'dispose': usual}, ''),
        (Runner, {'dispose': plain, 'setup': coroutine}, r'setup: a coroutine'),
        (AsyncRunner, {'dispose': coroutine, 'cleanup': plain}, 'cleanup: an AsyncRunner awaits'),
        (Runner, {'dispose': plain, 'on_error': too_few}, 'on_error: it is called with'),
        (AsyncRunner, {'dispose': coroutine, 'on_error': coroutine}, 'on_error: a coroutine'),
        (Runner, {'dispose': plain}, ''),
        (AsyncRunner, {'dispose': coroutine}, ''),
        (Runner, {'dispose': functools.partialmethod(needs_more, key='x')}, ''),
        (Runner, {'dispose': classmethod(plain)}, ''),
        (Runner, {'dispose': functools.wraps(plain)(lambda *args: None)}, ''),
    ],
)
def test_a_class_that_cannot_work_is_refused_with_the_reason(
    spool: Any, base: Any, written: dict[str, Any], said: str
) -> None:
    cls = type('Mine', (base,), written)
    options = RunnerOptions('r', '', queue='in')
    if not said:
        cls(spool, options)
        return
    with pytest.raises(ConfigError, match=said) as caught:
        cls(spool, options)
    assert (caught.value.section, caught.value.key) == ('runner.r', 'class')


def test_a_usual_class_is_found_right_without_a_function_of_the_inspect_module(spool: Any) -> None:
    # A forked runner shares its master's memory for as long as it does not write to it, and each function that is called is a write.
    called = set()

    def note(frame: Any, event: str, _arg: Any) -> None:
        if event == 'call':
            called.add(frame.f_code.co_filename)

    cls = type('Mine', (Runner,), {'dispose': usual, 'setup': lambda self: None})
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        cls.check_class(RunnerOptions('r', '', queue='in'))
    finally:
        sys.setprofile(before)
    assert hooks.__file__ in called
    assert inspect.__file__ not in called


@pytest.mark.parametrize('hook', ['check', 'setup'])
@pytest.mark.parametrize(('base', 'dispose'), [(Runner, plain), (AsyncRunner, coroutine)])
def test_a_mistake_that_a_runner_finds_names_the_section(
    spool: Any, base: Any, dispose: Any, hook: str
) -> None:
    def refuse(*_args: Any) -> None:
        raise ConfigError('there is no such place', key='to')

    async def refuse_later(*_args: Any) -> None:
        refuse()

    written = {
        'check': classmethod(refuse),
        'setup': refuse_later if base is AsyncRunner else refuse,
    }
    cls = type('Mine', (base,), {'dispose': dispose, hook: written[hook]})
    with pytest.raises(ConfigError) as caught:
        cls(spool, RunnerOptions('r', '', queue='in')).run(once=True)
    assert str(caught.value) == '[runner.r] to: there is no such place'


def test_a_runner_without_a_queue_needs_no_dispose(spool: Any) -> None:
    Runner(spool, RunnerOptions('r', ''))


async def later() -> None:
    pass


def items() -> Any:
    yield 1


@pytest.mark.parametrize(
    ('result', 'said'),
    [
        (lambda: {'status': 200}, 'of type dict'),
        (lambda: 1, 'of type int'),
        (lambda: '', 'of type str'),
        (later, 'AsyncRunner'),
        (items, 'nothing runs what it yields'),
    ],
)
def test_what_dispose_returns_and_means_nothing_is_a_failure_that_says_so(
    spool: Any, result: Any, said: str
) -> None:
    spool['in'].enqueue('x')

    def dispose(runner: Any, msg: Any, msgdata: Any) -> object:
        runner.emit('out', msg)
        return result()

    make_runner(spool, dispose).run(until_empty=True)
    (reason,) = preserved(spool).values()
    assert reason.startswith('DisposeResultError: dispose returned an object of type ')
    assert said in reason
    assert spool['out'].files == []


@pytest.mark.parametrize('result', [None, False])
def test_none_and_false_are_done(spool: Any, result: object) -> None:
    spool['in'].enqueue('x')
    make_runner(spool, lambda *_: result).run(until_empty=True)
    assert spool['in'].get_files() == spool['bad'].get_files('.psv') == []


class Odd(BaseException):
    """What no library should raise."""


@pytest.mark.parametrize(
    'error',
    [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit, Odd],
)
@pytest.mark.parametrize('batch_size', [1, 4])
def test_whatever_leaves_dispose_is_a_failure_of_its_message_and_the_others_go_on(
    spool: Any, error: type[BaseException], batch_size: int
) -> None:
    filebases = spool['in'].enqueue_many(range(6))

    def dispose(runner: Any, msg: Any, msgdata: Any) -> None:
        runner.emit('out', msg)
        if msg == 2:
            raise error('on purpose')

    assert make_runner(spool, dispose, batch_size=batch_size).run(until_empty=True) == 0
    assert list(preserved(spool)) == [filebases[2]]
    failed = spool['bad'].history(filebases[2])[0]
    assert (failed['event'], failed['error']) == ('failed', error.__name__)
    assert 'in dispose' in failed['traceback']
    assert len(spool['out'].files) == 5


def test_on_error_does_not_end_the_process_either(spool: Any) -> None:
    from tests.helpers.runs import Recorder

    class Leaves(Recorder):
        def on_error(self, msg: Any, msgdata: Any, error: BaseException) -> None:
            raise SystemExit(1)

    def dispose(runner: Any, msg: Any, msgdata: Any) -> None:
        raise ValueError('first')

    spool['in'].enqueue('x')
    make_runner(spool, dispose, cls=Leaves).run(until_empty=True)
    assert 'first' in str(preserved(spool))
