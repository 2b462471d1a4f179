"""What operators see of a spool and do to it, for command line, web page and API alike.

In reading order: finding, summary (one entry), census (one queue), removing, holding, editing, janitor (what
has to be done now and then).

It imports spool and below.
"""
