"""Files on the disk, and the locks on them: everything that must be right for a message to survive.

In reading order: layout (every name below the spool), disk (the only door to the file system; kernel has what
Python does not name, and accelerator.c several calls in one), folder (a directory by descriptor), renewal (of large directories), claims (a
claim is a lock), pool (where entries are written, and where finished files wait), publishing (a
rename makes an entry visible), reading, limits (and how full a queue is), order_lock (of keys in strict order), flags,
published_options (what `drop` knows), forks (what a child lets go).

It imports message and the ground.  Any room above may import it.
"""
