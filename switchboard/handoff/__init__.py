"""Finishing an input and publishing the outputs made from it, as one step.

In reading order: handoff (the steps, and what a crash at each leaves), commit (many with the flushes of one), transaction (what a
runner fills), stage (the directory between), moving, publish_many, deduplication (the same message only once).

It imports queue and below.  Any room above may import it.
"""
