"""Queues, exchanges and bindings that programs declare while they run, on the disk and the same for all processes.

In reading order: declarations (one file a queue), presence (which processes use it), removal (how a queue
goes away), exchangestore, declared_queues (the parts together).

It imports config and below.  Only spool, operating and kombu_transport import it.
"""
