"""The spool as a kombu broker: what speaks kombu, Celery first, can use a directory instead of a server.

::

    app = Celery('shop', broker='switchboard:///var/spool/shop')

A message is an entry like all others: a claim is a lock, so what a dead worker held is ready again at once, and what a living one
holds is its own for as long as it lives; there is no visibility time-out.  Queues, exchanges and bindings are on the disk and
the same for all processes (see `switchboard.declarations`).

The modules, from below: ``address`` reads the URL, ``naming`` makes directory names of queue names, ``arguments`` reads AMQP's
arguments, ``faults`` turns errors into those that kombu's users catch, ``payload`` packs messages, ``broker`` has the boards and
publishes, ``entities`` is the part of a channel that declares, ``deliveries`` keeps what is not acknowledged, ``channel``, ``watch``
sleeps, ``transport``.
"""

from __future__ import annotations

from switchboard.extra.kombu.channel import Channel
from switchboard.extra.kombu.transport import Transport
from switchboard.extra.kombu_alias import register

register()

__all__ = ['Channel', 'Transport']
