"""The shared half of a bridge's two directions: the broker's address, the declarations there, and the way that a message has come.

A message that goes through bridges has a list of the installations that sent it on, in the header ``x-switchboard-path`` at the
broker and in ``bridge_path`` in the metadata.  Its length ends circles over several installations; its last item tells an
installation what it has sent itself.  The history of its entries goes along in the same way, and is the beginning of the
history of the next.
"""

from __future__ import annotations

import dataclasses
import shlex
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from switchboard import Runner
from switchboard.brokers import connect, need_library
from switchboard.brokers.message import HEADER_PREFIX
from switchboard.brokers.url import BrokerUrl, read_broker_url
from switchboard.errors import ConfigError
from switchboard.runner.api import (
    RunnerOptions,
    Setting,
    boolean,
    choice,
    duration_s,
    read_secret,
    word_list,
)

if TYPE_CHECKING:
    from switchboard.brokers.connection import Connection

Record = Mapping[str, Any]

PATH_HEADER = f'{HEADER_PREFIX}path'
PATH_KEY = 'bridge_path'
# How a record of another installation is distinguished from those of this one, which count failures.
REMOTE_EVENT = 'elsewhere'
# Of a history that came along, so many of the last records are kept.
MAX_HISTORY_RECORDS = 30

PORTS = {'amqp': 5672, 'pyamqp': 5672, 'amqps': 5671, 'redis': 6379, 'rediss': 6379}
EXCHANGE_TYPES = ('direct', 'topic', 'fanout', 'headers')
# How class paths end, whichever way a section spells them.
OUTWARDS, INWARDS = 'runners.bridge:ToBroker', 'runners.bridge:FromBroker'


def arguments(text: str) -> dict[str, Any]:
    """Read ``x-queue-type=quorum x-max-length=1000``.

    :raises ValueError: it is not of that form.
    """
    found: dict[str, Any] = {}
    for word in shlex.split(text):
        name, sign, value = word.partition('=')
        if not sign or not name:
            raise ValueError(f'{word[:60]!r} is no argument: write name=value')
        number = value.removeprefix('-').isdecimal()
        found[name] = int(value) if number else {'true': True, 'false': False}.get(value, value)
    return found


class Bridge(Runner):
    """A runner with a connection to a broker."""

    settings: ClassVar[Mapping[str, Setting]] = {
        'url': Setting(str, required=True),
        'password_file': Setting(),
        'heartbeat': Setting(duration_s),
        'connect_timeout': Setting(duration_s, default=5.0),
        'timeout': Setting(duration_s, default=30.0),
        'remote_exchange': Setting(str, default=''),
        'remote_exchange_type': Setting(choice(*EXCHANGE_TYPES), default='topic'),
        'remote_queue': Setting(str, default=''),
        'remote_bindings': Setting(word_list, default=()),
        'remote_arguments': Setting(arguments, default={}),
        'declare': Setting(boolean, default=True),
        'origin_name': Setting(str, default='', old_name='site'),
    }

    @classmethod
    def check(
        cls, values: Mapping[str, Any], options: RunnerOptions, runners: Mapping[str, RunnerOptions]
    ) -> None:
        """See `Runner`."""
        key = 'url'
        try:
            broker = broker_of(values)
            if values['remote_exchange']:
                key = 'remote_exchange_type'
                broker.check_exchange_type(values['remote_exchange'], values[key])
        except ConfigError as error:
            error.key = error.key or key
            raise
        if values['remote_bindings'] and not (values['remote_exchange'] and values['remote_queue']):
            raise ConfigError(
                'needs remote_exchange and remote_queue: the two that are to be bound', key='remote_bindings'
            )

    @classmethod
    def warnings(cls, values: Mapping[str, Any], options: RunnerOptions) -> list[ConfigError]:
        """See `Runner`."""
        found = broker_of(values).password_warning(
            f'runner.{options.name}', has_password=bool(values['password_file'])
        )
        return [*super().warnings(values, options), *([] if found is None else [found])]

    def setup(self) -> None:
        """Make the connection; it connects when it is used first."""
        self.connection = self.make_connection()
        directory = getattr(self.spool, 'directory', '')
        self.origin_name = self.setting_values['origin_name'] or f'{socket.gethostname()}:{directory}'
        self._declared_at = -1

    def broker_url(self) -> BrokerUrl:
        """:return: where the broker is, with the password that stands in a file of its own.

        :raises ConfigError: the file cannot be read.
        """
        values = self.setting_values
        url = broker_of(values)
        if values['password_file']:
            password = read_secret(values['password_file'])
            addresses = [_with_password(each, password) for each in url.address.split(';')]
            url = dataclasses.replace(url, address=';'.join(addresses))
        return url

    def make_connection(self) -> Connection:
        """:return: the connection to the broker, not made yet."""
        values = self.setting_values
        return connect(
            self.broker_url(),
            connect_timeout_s=values['connect_timeout'],
            confirm_timeout_s=values['timeout'],
        )

    def cleanup(self) -> None:
        """Give back unacknowledged messages, and disconnect."""
        self.connection.close()

    def connect(self) -> bool:
        """Have a connection, with all declared that is to be.

        :return: whether it is another one than before.
        :raises BrokerDownError: the broker is away.
        :raises SwitchboardError: a queue or exchange to be declared is there already, and is different.
        """
        self.connection.connect()
        if self.connection.connection_number == self._declared_at:
            return False
        connection_number = self.connection.connection_number
        if self.setting_values['declare']:
            self.declare()
        elif self.setting_values['remote_exchange']:
            self.connection.expect_exchange(
                self.setting_values['remote_exchange'], self.setting_values['remote_exchange_type']
            )
        self._declared_at = connection_number
        return True

    def declare(self) -> None:
        """Make at the broker all that the section names."""
        values, connection = self.setting_values, self.connection
        exchange, queue = values['remote_exchange'], values['remote_queue']
        if exchange:
            connection.declare_exchange(exchange, values['remote_exchange_type'])
        if queue:
            connection.declare_queue(queue, arguments=values['remote_arguments'] or None)
        if exchange and queue:
            for key in values['remote_bindings'] or ('',):
                connection.bind(queue, exchange, key)


def _with_password(address: str, password: str) -> str:
    parts = urlsplit(address)
    place = parts.netloc.rpartition('@')[2]
    user = quote(unquote(parts.username or ''), safe='')
    return urlunsplit(parts._replace(netloc=f'{user}:{quote(password, safe="")}@{place}'))


def broker_of(values: Mapping[str, Any]) -> BrokerUrl:
    """:return: where the broker is.

    :raises ConfigError: the URL cannot be read, or a library is missing.
    """
    broker = read_broker_url(values['url'])
    need_library(broker)
    if values['heartbeat'] is not None:
        broker = dataclasses.replace(broker, heartbeat_s=values['heartbeat'])
    return broker


def remote_targets(settings: Mapping[str, str]) -> tuple[str, str, str]:
    """:return: the broker, and the exchange and queue there that a section names."""
    url = urlsplit(settings.get('url', '').partition(';')[0].partition('?')[0])
    place = f'{url.hostname}:{url.port or PORTS.get(url.scheme)}{url.path}'
    return place, settings.get('remote_exchange', ''), settings.get('remote_queue', '')


def path_of(value: Any) -> list[str]:
    """:return: the installations that have sent a message on, the last one last; empty if that cannot be read."""
    return [str(one) for one in value] if isinstance(value, list | tuple) else []


def remote_history(records: Sequence[Any], origin: str) -> list[Record]:
    """:return: the history that a message had at another installation, each record marked so that it counts for nothing here.

    :param origin: the installation that sent it.
    """
    marked: list[Record] = []
    for record in records[-MAX_HISTORY_RECORDS:]:
        if not isinstance(record, Mapping):
            continue
        if record.get('event') == REMOTE_EVENT:
            marked.append(record)
            continue
        when = {'time': record['time']} if 'time' in record else {}
        marked.append({'event': REMOTE_EVENT, **when, 'site': origin, 'record': dict(record)})
    return marked
