"""Pinned names of what lies elsewhere: ``kombu`` (`switchboard.kombu_transport`) and ``kombu_alias`` (its ``alias``)."""
