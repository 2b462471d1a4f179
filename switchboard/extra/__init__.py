"""Pinned names of what lies elsewhere: ``kombu`` (`switchboard.kombu_transport`), ``kombu_alias`` (its ``alias``) and ``brokers``
(`switchboard.brokers`).

It imports kombu_transport, brokers and the ground.  No room imports it: it is for programs and configurations of others.
"""
