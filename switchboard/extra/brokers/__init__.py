"""Queues on RabbitMQ and Redis, with the same runners: for when one machine is no longer enough.

From below: ``wire`` and ``arriving`` turn entries into a broker's messages, and back; ``url`` reads an address; ``link`` is a connection
to a broker, over ``amqplink`` or ``redislink``, of which ``linking`` is what both have; ``board`` is a queue at a broker, made of ``inlet``,
``outlet`` and ``source``; ``handoff`` commits what goes from a directory to a broker, and back; ``spool`` finds such queues their place.
"""
