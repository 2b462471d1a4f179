"""Pinned names of what lies elsewhere: ``kombu`` (`switchboard.kombu_transport`) and ``kombu_alias`` (its ``alias``).

It imports kombu_transport.  No room imports it: it is for programs and configurations of others.
"""
