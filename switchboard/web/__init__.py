"""The desk: a web page for operators, which looks at a spool and, unless it is read-only, acts on it as the command line does.

In reading order: settings (where it listens, who may come), guard (requests refused before any page, and the headers of every answer), identity (the user
of a request), forms (bounded reading of requests); desk (one installation), spool_counts (counts in the background), pages (of the
installation), entry_pages, message_body (an entry's content, safely), acts, edit (of one message); render (to HTML and pictures), openapi; app (the table of routes), server.

A page is a function that returns an object for programs: ``/api/`` sends it as JSON, and a template shows the same.

It imports metrics, master, runner and below.  Only cli imports it.
"""
