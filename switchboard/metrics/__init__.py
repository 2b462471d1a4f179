"""Metrics for Prometheus: what the scoreboard and a count of the queues say, in its text format.

In reading order: families (every metric: name, type, labels, what it says), counting (the queues, within a time), collector (from
both to samples, and to text), exporter (both together, in the background), listener (an HTTP server for it), textfile (a file for the node exporter). Alert rules
and the dashboard lie in ``etc/``; shipped writes them where they are wanted.

Nothing here writes to a spool, and no scrape walks over a directory. It needs the extra ``metrics``; of runners, only the one of that name loads it.

It imports operating and below.  Only web and cli import it.
"""
