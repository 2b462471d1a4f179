"""The program that mail servers pipe messages into: standard input becomes an entry, or the exit status asks the mail server to try again later.

In reading order: request (the arguments), program (the way of a message), dedupe (where the same mail may come
twice).

It imports spool, config, store, message and the ground: the first two in dedupe alone, when it is needed, because a process is started for each mail.  Only cli imports it.
"""
