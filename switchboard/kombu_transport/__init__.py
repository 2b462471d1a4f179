"""The spool as a kombu broker: programs that speak kombu, Celery first, can use a directory instead of a server.

::

    app = Celery('shop', broker='switchboard:///var/spool/shop')

A message is an entry like all others: a claim is a lock, so a dead worker's messages are ready again at once, and a living one
keeps its own for as long as it lives; there is no visibility time-out.  Queues, exchanges and bindings are on the disk and
the same for all processes (see `switchboard.declared.declarations`).

In reading order: address (the URL), queue_names (directory names of queue names), arguments (AMQP's), errors (those that kombu's
users catch), payload and content (messages packed, and read by others), spool_connection (publishes), entities (declares), unacked (messages
that are delivered and not acknowledged), batch, channel, transport; alias makes the name known to kombu.

It imports operating and below, and kombu.  Only extra imports it: everybody names it by ``switchboard.extra.kombu``.
"""
