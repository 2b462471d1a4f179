"""A connection to RabbitMQ, and what its protocol and its client ask for.

In reading order: driver, publisher.
"""
