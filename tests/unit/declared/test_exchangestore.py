"""Exchanges and bindings that programs declare: every publisher sees them at once, beside those of the exchange file."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.declared.exchangestore import DeclaredBinding, DeclaredExchange, Definitions
from switchboard.errors import (
    ExchangeInUseError,
    ExchangeMismatchError,
    NoRouteError,
    RouteError,
    RouteLoopError,
    UnknownExchangeError,
    UnknownQueueError,
)
from switchboard.routing.bindings import Target
from switchboard.routing.headers import HeaderMatch


@pytest.fixture
def other(spool: Spool, tmp_path: Path) -> Spool:
    return Spool(tmp_path / 'spool', durability='lazy')


def bind(spool: Spool, source: str, queue: str, match: str | HeaderMatch = '') -> DeclaredBinding:
    binding = DeclaredBinding(source, Target(queue), match)
    spool.declared.bind(binding)
    return binding


def to_exchange(source: str, target: str, match: str = '') -> DeclaredBinding:
    return DeclaredBinding(source, Target(target, is_exchange=True), match)


def test_publishers_in_other_processes_see_a_binding_at_their_next_publish(spool, other):
    spool.declare('in')
    spool.declared.exchanges.declare(DeclaredExchange('news', 'topic'))
    with pytest.raises(NoRouteError):
        other.publish('x', exchange='news', routing_key='a.b')
    binding = bind(spool, 'news', 'in', 'a.#')
    assert list(other.publish('x', exchange='news', routing_key='a.b')) == ['in']
    assert spool.declared.exchanges.unbind(binding)
    with pytest.raises(NoRouteError):
        other.publish('x', exchange='news', routing_key='a.b')
    assert not spool.declared.exchanges.unbind(binding)


def test_headers_and_alternates_are_kept(spool, other):
    for queue in ('pdf', 'rest'):
        spool.declare(queue)
    store = spool.declared.exchanges
    store.declare(DeclaredExchange('files', 'headers', alternate='others'))
    bind(spool, 'files', 'pdf', HeaderMatch('all', (('format', 'pdf'), ('kind', None))))
    with pytest.raises(NoRouteError):  # the alternate need not be there
        other.publish('x', exchange='files')
    store.declare(DeclaredExchange('others', 'fanout'))
    bind(spool, 'others', 'rest')
    assert list(other.publish('x', exchange='files', format='pdf', kind=1)) == ['pdf']
    assert list(other.publish('x', exchange='files', format='pdf')) == ['rest']


def test_what_is_declared_twice_must_be_the_same(spool, other):
    spool.declared.exchanges.declare(DeclaredExchange('a', 'topic', arguments={'x': 1}))
    other.declared.exchanges.declare(DeclaredExchange('a', 'topic', arguments={'x': 1}))
    for wrong in (DeclaredExchange('a', 'fanout', arguments={'x': 1}), DeclaredExchange('a', 'topic')):
        with pytest.raises(ExchangeMismatchError):
            other.declared.exchanges.declare(wrong)
    for impossible in (DeclaredExchange('b', 'x-delayed'), DeclaredExchange('')):
        with pytest.raises(ExchangeMismatchError):
            other.declared.exchanges.declare(impossible)


def test_a_binding_needs_both_ends(spool):
    spool.declared.exchanges.declare(DeclaredExchange('a'))
    with pytest.raises(UnknownQueueError):
        bind(spool, 'a', 'nowhere')
    spool.declare('in')
    with pytest.raises(UnknownExchangeError):
        bind(spool, 'b', 'in')
    with pytest.raises(UnknownExchangeError):
        spool.declared.bind(to_exchange('a', 'b'))
    assert spool.declared.exchanges.load().bindings == []


def test_exchanges_are_bound_to_exchanges_and_never_in_a_circle(spool):
    store = spool.declared.exchanges
    spool.declare('in')
    for name in ('a', 'b'):
        store.declare(DeclaredExchange(name, 'fanout'))
    spool.declared.bind(to_exchange('a', 'b'))
    bind(spool, 'b', 'in')
    assert list(spool.publish('x', exchange='a')) == ['in']
    with pytest.raises(RouteLoopError):
        spool.declared.bind(to_exchange('b', 'a'))
    assert len(store.load().bindings) == 2


def test_a_binding_goes_with_its_queue(spool, other):
    store = spool.declared.exchanges
    store.declare(DeclaredExchange('a', 'fanout'))
    spool.declare('in')
    bind(spool, 'a', 'in')
    other.delete('in')
    spool.declare('in')
    with pytest.raises(NoRouteError):
        spool.publish('x', exchange='a')


def test_an_exchange_goes_with_its_bindings_and_an_auto_delete_one_with_its_last(spool):
    store = spool.declared.exchanges
    spool.declare('in')
    store.declare(DeclaredExchange('a', 'fanout'))
    store.declare(DeclaredExchange('b', 'fanout', auto_delete=True))
    spool.declared.bind(to_exchange('a', 'b'))
    binding = bind(spool, 'b', 'in')
    with pytest.raises(ExchangeInUseError):
        store.delete('a', if_unused=True)
    store.unbind(binding)
    definitions = store.load()
    assert list(definitions.exchanges) == ['a']
    assert definitions.bindings == []
    assert store.delete('a', if_unused=True)
    assert not store.delete('a')


def test_the_exchange_file_has_the_first_word(tmp_path):
    (tmp_path / 'switchboard.cfg').write_text(
        '[switchboard]\nspool = spool\ndurability = lazy\n\n[queue.in]\nexternal = yes\n'
    )
    (tmp_path / 'exchange.cfg').write_text('[exchange.mail]\ntype = topic\nbindings =\n    in.# -> in\n')
    spool = Spool.from_config(tmp_path / 'switchboard.cfg')
    store = spool.declared.exchanges
    store.declare(DeclaredExchange('mail', 'topic'))
    with pytest.raises(ExchangeMismatchError):
        store.declare(DeclaredExchange('mail', 'direct'))
    with pytest.raises(ExchangeInUseError):
        store.delete('mail')
    spool.declare('copy')
    bind(spool, 'mail', 'copy', '#')
    assert list(spool.publish('x', exchange='mail', routing_key='in.a')) == ['in', 'copy']
    with pytest.raises(RouteError):
        bind(spool, 'mail', 'copy', HeaderMatch('all'))


def test_a_file_that_cannot_be_read_leaves_the_exchange_files_table(spool, other, caplog):
    spool.declared.exchanges.declare(DeclaredExchange('a', 'fanout'))
    Path(spool.path('.run', 'declared', '.exchanges')).write_text('{"exchanges": [{}], "bindings": []}')
    with pytest.raises(UnknownExchangeError):
        other.publish('x', exchange='a')
    assert 'exchanges unreadable' in caplog.text
    with pytest.raises(RouteError, match='cannot be read'):
        spool.declared.exchanges.declare(DeclaredExchange('b', 'fanout'))


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'[]',
        b'null',
        b'{"exchanges":1,"bindings":[]}',
        b'{"exchanges":["x"],"bindings":[]}',
        b'{"exchanges":[],"bindings":[1]}',
        b'{"exchanges":[],"bindings":[{"source":"a","target":null,"match":""}]}',
        b'[' * 100_000,
        b'{"exchanges":' * 1000,
        b'{"exchanges":[],"bindings":[],"n":NaN}',
        b'1' * 10_000,
        b'\xff',
    ],
    ids=range(12),
)
def test_a_file_that_anybody_may_have_written_is_wiring_or_an_error_that_says_so(content: bytes) -> None:
    with pytest.raises(ValueError, match='exchanges'):
        Definitions.load(content)
