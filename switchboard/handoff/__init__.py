"""Finishing an input and publishing the outputs made from it, as one step.

In reading order: transaction (the steps, what a crash at each leaves, and many with the flushes of one), stage
(the directory between), moving, publish_many, deduplication (the same message only once).

It imports queue and below.
"""
