"""The keys of a queue on Redis, and the scripts that are one step each.

kombu takes a message out of its list and then notes that it has it, so a crash in between loses it.  Here both are one script.  The lists are
kombu's own (``QUEUE`` and, by priority, ``QUEUE\x06\x163 ...6 ...9``), so its programs and ours read and write the same queue.  Our own keys:

``switchboard:QUEUE:held``
    a hash: the messages that somebody has, each behind the number of its list, by the number of this taking.
``switchboard:QUEUE:leases``
    a sorted set: until when each is its holder's, in milliseconds, by tag.  A holder that lives renews it.  A tag is the list's number, the
    SHA-1 of the message and the number of this taking.
``switchboard:QUEUE:deaths``
    a hash: how often a lease ran out, by SHA-1; and when somebody looked for such leases last, in milliseconds, as ``looked``; and when
    these keys came to be, as ``born``.
``switchboard:QUEUE:delayed``
    a sorted set: messages that wait, each behind the number of its list, by the time they are due.
``switchboard:QUEUE:wake``
    a channel: something has come.

No Redis Cluster: the keys of a queue have no hash tag, and a cluster would have them on different nodes.

Times are those of the server, so that the clocks of its clients do not matter.  Its own clock may be turned, and it may be away for longer than a lease: every
consumer looks four times in the time of a lease, and where nobody has looked for half of one, nobody can have renewed: the leases that were running then run on for one more.

**Lost data.**  An empty server may take the place of one that has failed, and ``FLUSHALL`` is one word.  What waited is gone then; what somebody holds is not, and
would be, if its holder were to believe that another one has it.  So each holder sees by ``born`` that its leases were lost and did not run out, and puts its messages there again.

**A script that is stopped** in the middle is not undone.  Redis stops it at a command that its user may not call (an access list, a renamed command), and at a key that is
of another type.  So a script puts a message where it goes before it takes it away from where it was, and begins by calling the commands that take away in a way
that changes nothing: so a refusal comes while nothing is lost, and nothing is there twice.  A notice that cannot be published is left out.

Where Redis has used up its ``maxmemory``, it stops a script at its first write if that is one that may need memory; if the first is one
that needs no memory (``HDEL``, ``ZREM``, ``LTRIM``), Redis runs the rest of the script even above ``maxmemory``.  What ends, renews or gives back a message must go on there,
or a full Redis would take messages from the consumers that work on them, and could not be emptied: so these scripts begin with such a write.
Rejected: the flag ``allow-oom``, because it is Redis 7's.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

KEY_PARTS = ('held', 'leases', 'deaths', 'delayed')


def redis_key(queue: str, part: str) -> str:
    """:return: the name of one of our own keys of a queue."""
    return f'switchboard:{queue}:{part}'


SCRIPTS = ('TAKE', 'ACK', 'REQUEUE', 'RECOVER', 'RENEW', 'RECLAIM', 'PUT', 'DELAY', 'NEXT_DUE')


@cache
def read_script(name: str) -> str:
    """:return: the text of a script, with the names of its keys before it.  See ``scripts/``."""
    folder = files('switchboard.brokers.redis') / 'scripts'
    return ''.join((folder / f'{part}.lua').read_text('utf-8') for part in ('names', name.lower()))


def message_key(tag: str) -> str:
    """:return: the SHA-1 of the message that a tag is of."""
    return tag.split(':')[1]
