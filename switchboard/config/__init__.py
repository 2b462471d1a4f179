"""The configuration: text in, records and mistakes out.  It reads its own files and touches no queue.

In reading order: units and inifile (how values are written, and every mistake with its line), url_options, keys,
queue_sections, exchangefile, spool_place (may a directory be the spool?), checks (of the whole), config (the
whole, and what a reload changes), remote_queues.

It imports store and below.  Any room above may import it.
"""
