"""Queues on brokers that speak TLS, and want to see a certificate: who is believed, who is refused, and what an operator sees of that."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from switchboard.errors import BrokerDownError
from tests.helpers.commands import switchboard
from tests.helpers.waiting import eventually, take_next
from tests.servers.bridge.bridging import Site
from tests.servers.brokers.broker import Broker, rabbitmq, redis, started
from tests.servers.brokers.broker_queues import OnBroker, queue_of, wait_for_broker
from tests.servers.certificates import Authority, Pair

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


@dataclass
class Secure:
    """A broker that speaks TLS, its authority, one that it does not know, and a client's certificate."""

    server: Broker
    authority: Authority
    stranger: Authority
    client: Pair

    @property
    def options(self) -> str:
        """Of the URL: all that is needed."""
        return f'&ssl_ca_certs={self.authority.own.certificate}{self.certified}'

    @property
    def certified(self) -> str:
        return f'&ssl_certfile={self.client.certificate}&ssl_keyfile={self.client.key}'


@pytest.fixture(scope='module', params=[rabbitmq, redis], ids=['rabbitmq', 'redis'])
def secure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    directory = tmp_path_factory.mktemp('secure')
    authority = Authority(directory / 'known', 'known')
    stranger = Authority(directory / 'stranger', 'stranger')
    for server in started(request.param(directory, authority=authority)):
        yield Secure(server, authority, stranger, authority.sign('client'))


@pytest.fixture
def open_queue(secure: Secure, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A queue, by options of the URL, and by another name of the same host."""
    places = []

    def open_queue(options: str, host: str = 'localhost') -> Any:
        url = secure.server.url.replace('localhost', host)
        places.append(OnBroker(url, tmp_path / f'spool{len(places)}'))
        return queue_of(places[-1], options)

    yield open_queue
    for place in places:
        place.queues[0].close()


def why_refused(queue: Any) -> str:
    with pytest.raises(BrokerDownError) as caught:
        queue.enqueue('x')
    assert caught.value.retry_after_s > 0
    return str(caught.value)


class TestWhoIsBelieved:
    def test_messages_go_and_come_and_wake_who_sleeps(
        self, secure: Secure, open_queue: Callable[..., Any]
    ) -> None:
        queue = open_queue(secure.options)
        messages = ['x' * 1_000_000, *range(300)]
        queue.enqueue_many(messages)
        taken = [queue.take() for _ in messages]
        assert [one.msg for one in taken] == messages
        for one in taken:
            queue.finish(one.filebase)
        wakeup = queue.make_wakeup()
        wakeup.arm()
        assert not queue.has_ready()
        place = OnBroker(secure.server.url, queue.bad.queue_directory)
        place.prefix = queue.all_queues[0].partition('.')[0]
        other = queue_of(place, secure.options)
        threading.Timer(0.3, other.enqueue, ['y']).start()
        assert wakeup.wait(30)
        wakeup.disarm()
        wakeup.close()
        assert queue.take().msg == 'y'
        other.close()

    def test_a_connection_is_made_anew(self, secure: Secure, open_queue: Callable[..., Any]) -> None:
        queue = open_queue(secure.options)
        queue.enqueue('x')
        for _ in range(2):
            queue.connection.abort()  # of localhost, though kombu has written another name of it down by now
            queue.connection.connect()
        assert take_next(queue).msg == 'x'

    def test_one_whose_certificate_names_another_host_if_that_is_said(
        self, secure: Secure, open_queue: Callable[..., Any]
    ) -> None:
        queue = open_queue(f'{secure.options}&ssl_check_hostname=no', '127.0.0.1')
        queue.enqueue('x')
        assert queue.count() == 1

    def test_anybody_if_that_is_said(self, secure: Secure, open_queue: Callable[..., Any]) -> None:
        queue = open_queue(f'{secure.certified}&ssl_cert_reqs=none', '127.0.0.1')
        queue.enqueue('x')
        assert queue.count() == 1

    def test_a_child_leaves_the_connection_of_its_parent_alone(
        self, secure: Secure, open_queue: Callable[..., Any]
    ) -> None:
        queue = open_queue(secure.options)
        queue.enqueue_many(['parent', 'child'])
        assert queue.take().msg == 'parent'
        connection_number = queue.connection.connection_number
        pid = os.fork()
        if pid == 0:
            os._exit(0 if queue.take().msg == 'child' else 1)
        assert os.waitpid(pid, 0)[1] == 0
        queue.enqueue('again')
        assert queue.connection.connection_number == connection_number


class TestWhoIsNot:
    def test_one_whom_an_unknown_authority_has_signed(
        self, secure: Secure, open_queue: Callable[..., Any]
    ) -> None:
        queue = open_queue(f'{secure.certified}&ssl_ca_certs={secure.stranger.own.certificate}')
        assert 'certificate verify failed' in why_refused(queue)

    def test_the_same_if_nothing_is_said(self, secure: Secure, open_queue: Callable[..., Any]) -> None:
        assert 'certificate verify failed' in why_refused(open_queue(secure.certified))

    def test_one_whose_certificate_names_another_host(
        self, secure: Secure, open_queue: Callable[..., Any]
    ) -> None:
        reason = why_refused(open_queue(secure.options, '127.0.0.1'))
        assert 'certificate verify failed' in reason
        assert "not valid for '127.0.0.1'" in reason

    def test_we_ourselves_without_a_certificate(self, secure: Secure, open_queue: Callable[..., Any]) -> None:
        reason = why_refused(open_queue(f'&ssl_ca_certs={secure.authority.own.certificate}'))
        assert 'certificate required' in reason or 'may want a certificate' in reason

    @pytest.mark.parametrize('option', ['ssl_ca_certs', 'ssl_certfile', 'ssl_keyfile'])
    def test_a_file_that_is_not_there_is_named(
        self, secure: Secure, open_queue: Callable[..., Any], tmp_path: Path, option: str
    ) -> None:
        missing = tmp_path / 'no.pem'
        queue = open_queue(f'{secure.options}&{option}={missing}')
        assert f'{option} = {missing}: No such file' in why_refused(queue)


SECTIONS = """
[queue.far]
url = {url}?{options}
[queue.out]
[runner.work]
class = runners.null:Null
queue = far
[runner.up]
class = runners.bridge:ToBroker
queue = out
url = {url}?{options}
remote_queue = out
"""


def test_renewed_certificates_are_read_without_a_restart(
    secure: Secure, open_queue: Callable[..., Any], tmp_path: Path
) -> None:
    theirs, mine = secure.client.certificate.parent, tmp_path / 'mine'
    shutil.copytree(theirs, mine)
    files = {'ca_certs': 'authority.pem', 'certfile': 'client.pem', 'keyfile': 'client.key'}
    queue = open_queue(''.join(f'&ssl_{option}={mine / name}' for option, name in files.items()))
    filebase = queue.enqueue('first')
    assert queue.take().msg == 'first'
    renewed = Authority(theirs, 'renewed')
    renewed.sign('server')
    renewed.sign('client')
    queue.finish(filebase)  # a connection that lives goes on
    secure.server.stop()
    secure.server.start()
    queue.connection.abort()
    assert 'certificate' in why_refused(queue)
    shutil.copytree(theirs, mine, dirs_exist_ok=True)
    wait_for_broker(queue)
    queue.enqueue('second')
    assert take_next(queue).msg == 'second'


def test_an_operator_sees_why_nothing_goes_on(secure: Secure, tmp_path: Path) -> None:
    options = f'{secure.certified}&ssl_ca_certs={secure.stranger.own.certificate}'.lstrip('&')
    site = Site(tmp_path, SECTIONS.format(url=secure.server.url, options=options))
    try:
        site.start()
        site.spool['out'].enqueue('x')
        # Each tries again and again, and a busy broker may once be too slow to show its certificate.
        why = 'certificate verify failed'

        def logged(name: str) -> bool:
            return any(f'runner={name}' in line and why in line for line in site.told().splitlines())

        def shown() -> int:
            status = switchboard('-C', site.config, 'status', '--json')
            return [why in str(json.loads(line)) for line in status.out.splitlines()].count(True)

        site.wait_for(lambda: logged('work') and logged('up'), 'logged by both runners')
        site.wait_for(lambda: shown() == 2, 'shown of both runners')
        site.wait_for(lambda: why in switchboard('-C', site.config, 'queues').err, 'told beside the queues')
    finally:
        site.close()


BOTH_WAYS = """
[queue.out]
[queue.in]
consumed_externally = yes
[runner.up]
class = runners.bridge:ToBroker
queue = out
url = {url}?{options}
remote_queue = round
[runner.down]
class = runners.bridge:FromBroker
queue =
url = {url}?{options}
remote_queue = round
routing_key = in
own_messages = accept
"""


def test_a_bridge_goes_both_ways(secure: Secure, tmp_path: Path) -> None:
    site = Site(tmp_path, BOTH_WAYS.format(url=secure.server.url, options=secure.options.lstrip('&')))
    try:
        site.start()
        site.spool['out'].enqueue('x')
        assert eventually(site.spool['in'].take, 'back').msg == 'x'
    finally:
        site.close()
