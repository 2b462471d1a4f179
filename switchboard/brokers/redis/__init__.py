"""A connection to Redis, which has neither acknowledgements nor delays: they are made of leases and scripts.

In reading order: keys (of a queue, and ``scripts/*.lua``, which work on them), payload (kombu's), subscription (while idle), driver.

It imports message and the ground, and the library redis.  Only brokers imports it.
"""
