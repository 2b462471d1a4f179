"""From an exchange, a routing key and metadata to the queues that get a copy.  Pure: no file, no clock, no state.

In reading order: bindings (the records), topics and headers (the matchers), exchange (the table), topology
(the same as text and as DOT, which Graphviz draws).

It imports message and the ground.  Any room above may import it.
"""
