"""A connection to RabbitMQ, and what its protocol, its alarms and its client ask for.

In reading order: frames (read, whatever a stranger has put into them), channels (one that the broker closed is gone), publisher (with
confirms), alarm (the broker takes no messages for now), delays (a queue for each length), driver.

It imports queue and the ground, and the library amqp.  Only brokers imports it.
"""
