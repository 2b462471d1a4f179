"""Messages as bytes, and back: names, header, metadata, kinds, history.  Pure: no file is touched.

In reading order: naming (the grammar of names), entry_header (the first line of a file), typed_json, metadata, serializers (kinds:
mail and flatten, pickles), packing (a message becomes the bytes of a file), entry (and back, and what
was changed of it), journal (the history), expiry, content_types (what others call a body), mail_envelope and
delivery_headers (what a mail server tells of a mail).

It imports the ground.  Any room above may import it.
"""
