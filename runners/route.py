"""Sends messages on through an exchange: the key is in the metadata, or is made from them.

::

    [runner.route]
    class = route
    queue = in
    exchange = mail
    routing_key = {list}.{action|post}

In the key, ``{name}`` is a value of the metadata, ``{header:List-Id}`` a header of the mail, ``{local:name}`` and
``{domain:name}`` the two halves of the address that the metadata hold, or of the first one if it is a list.  What stands
behind a bar is taken where there is no such value; without it, a message that has none goes to bad.  Without a
``routing_key``, the one that the producer gave counts.

A message that goes to one queue is moved by one rename, and one that goes to several is copied, as one step.  It is not read
for that, nor changed.  What no binding wants, and no ``alternate`` takes, goes to bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from switchboard import Runner
from switchboard.errors import ConfigError, PermanentFailure, RouteError, UnknownQueueError
from switchboard.runner.api import Setting, Template

_MAX_SHOWN = 60


class Route(Runner):
    """Sends each message on through an exchange."""

    settings: ClassVar[Mapping[str, Setting]] = {
        'exchange': Setting(default=''),
        'routing_key': Setting(Template, Template('{routing_key|}')),
    }

    def setup(self) -> None:
        """See `Runner`.

        :raises ConfigError: there is no such exchange.
        """
        exchange = self.setting_values['exchange']
        if exchange not in self.spool.exchanges:
            known = ', '.join(self.spool.exchanges.exchanges) or 'none'
            raise ConfigError(f'there is no exchange {exchange!r}; there are: {known}', key='exchange')

    def dispose(self, msg: Any, msgdata: dict[str, Any]) -> None:
        """See `IRunner`.

        :raises PermanentFailure: there is no way to go.
        """
        key = self.setting_values['routing_key'].fill(msg, msgdata)
        try:
            queues = self.spool.exchanges.route(self.setting_values['exchange'], key, msgdata)
            if self.queue is not None and self.queue.name in queues:
                raise PermanentFailure(f'key {key[:_MAX_SHOWN]!r} leads back to the queue {self.queue.name}')
            self.forward(*queues)
        except (RouteError, UnknownQueueError) as error:
            raise PermanentFailure(str(error)) from error
