"""The operators' view of a spool and their acts on it, for command line, web page and API alike.  Nothing here prints, asks or knows of a terminal.

To look, nothing is made or claimed: summary (one entry), finding (one by its name), selection (many, by the selection language),
spool_view (the queues of a spool), queue_counts (how many), grouping (by error, sender ...), queue_info (options, consumers, flags, throughput), health (alarms and problems), entry_fields
(an entry for programs, and who holds it), text (words, numbers and safe text).

To act: acts (`choose`, then `apply`) with holding below it, editing, audit (who did what, and why); and janitor (the round of chores
now and then).

It imports spool and below.  Any room above may import it.
"""
