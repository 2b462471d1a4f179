"""A connection to Redis: leases, scripts that are one step, and a subscription for idle runners.

In reading order: driver, and its ``scripts/*.lua``.
"""
