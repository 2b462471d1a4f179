"""Finishing an input and publishing the outputs made from it, as one step.

In reading order: transaction (the steps, and what a crash at each leaves), stage (the directory between),
commit (many with the flushes of one), moving, publish_many, deduplication and deduplicated_outputs (the same
message only once).

It imports queue and below.
"""
