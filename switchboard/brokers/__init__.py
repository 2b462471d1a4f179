"""Queues on RabbitMQ and Redis, with the same runners: for when one machine is no longer enough.

From below:

- a message: ``wire`` makes one of an entry, ``arriving`` an entry of what has come; ``headers`` are the names
  that are ours;
- an address: ``url``, with ``tls``; ``options`` are those of a queue that a broker can keep;
- a connection: ``link`` makes one.  ``remote`` is what is asked of it, and ``linking`` what both kinds have.  RabbitMQ's is ``amqplink``, over
  ``amqppublishing`` (with ``confirms``), ``amqpqueues`` and ``amqpchannels``; ``bell`` wakes who sleeps on it.  Redis's is ``redislink``, with ``redisscripts``,
  ``redismessages`` and ``redisears``;
- a queue: ``board``, made of ``inlet``, ``outlet`` and ``source``, where ``claims`` are what is held, ``ledger`` counts who died with it, ``wakeup`` waits, and
  ``depositing`` puts elsewhere what cannot stay;
- ``handoff`` commits what goes from a directory to a broker, and back; ``spool`` finds such queues their place.
"""
