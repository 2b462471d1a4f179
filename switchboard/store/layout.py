"""Every name below the spool that is not a queue's or an entry's, once.

::

    <spool>/<queue>/            entries: <filebase>.pck .bak
    <spool>/<queue>/tmp new cur a maildir, in a queue that has one
    <spool>/bad/                preserved entries: <filebase>.psv
    <spool>/trash/              removed entries that may be restored: <filebase>.psv
    <spool>/.spare/             files to be written: new entries, and finished ones that are kept for them
    <spool>/.stage/             hand-offs between being written and being seen, and commit records
    <spool>/.dedupe@<queue>/    the keys that a queue has seen
    <spool>/.held@<queue>/      what processes hold of a queue on a broker
    <spool>/.gone@<digest>/     such a directory of a queue that was deleted, to be removed
    <spool>/.run/               the state of running programs, and the words of operators and programs

Nothing here imports anything: `drop` reads it, too.
"""

from __future__ import annotations

# The queue of the entries that cannot be processed.
BAD = 'bad'
# The queue of the entries that operators have removed and may restore.
TRASH = 'trash'

# Files to be written, and finished ones.  Emptied by nobody but their owners; a file here means nothing.
SPARE = '.spare'
# Outputs of hand-offs (`<transaction>:<number>:<queue>:<filebase>`) and commit records (`<transaction>:commit`).
STAGE = '.stage'
# Prefixes and names that stand below.
RUN = '.run'

# Markers of keys, and the locks of their buckets.
DEDUPE_PREFIX = '.dedupe@'
KEY_LOCK_PREFIX = '.lock'  # there, and two digits: held while a key of this bucket is looked for
GONE_PREFIX = '.gone@'
# Of queues on brokers: what each process of this machine holds, and how often a holder has died.
DELIVERIES_PREFIX, DELIVERIES_SUFFIX = '.held@', '.held'

# In any directory: a file that is being written, to be renamed over another one; in the spool, a directory that is to be renamed over an empty one.
DRAFT_PREFIX = '.new-'
# In a queue: the directories of its maildir, and of each `FileStore`.
MAILDIR_DIRECTORIES = ('tmp', 'new', 'cur')
# That one of them into which others move a mail when it is whole.
MAILDIR_NEW = 'new'
# In a queue: made and removed at once, to wake watchers.
WAKE = '.wake'

# Below `.run`.
MASTER = 'master'  # directory: the master's own files; only its user writes there
MASTER_LOCK = 'master.lock'  # there: held by the master for life
MASTER_PID = 'master.pid'  # there: which process that is, for people and service managers
MASTER_LOG = 'master.log'  # there: of a master in the background, if the configuration names no other
SCOREBOARD = 'scoreboard'  # there: what master and runners are doing, read and written by calls
CONTROL = 'control'  # there: the socket on which the master can be asked for something
PAUSED = 'paused'  # directory: a file for each queue that is paused, with the reason
DRAINING = 'draining'  # directory: a file for each queue that lets nothing in
ORDER = 'order'  # directory: a file for each queue of strict order, whose bytes are its keys' locks
COUNTS = 'room'  # directory: how full each queue with limits is
ACTS, OLD_ACTS = 'acts', 'acts.old'  # what operators have done, a line of JSON for each act
PUBLISHED_OPTIONS = 'queues'  # what `drop` knows of the configuration
UNUSED_SPARES = 'spares'  # since when how many finished files have lain unused, for giving them back slowly
CLOCK = 'clock'  # the clocks at the last look, for deleting by the time of day
ACTIVE_CONFIG = 'inforce'  # the digest of the configuration that was put into force
DECLARED = 'declared'  # directory: a record for each queue that a program declared
DECLARED_LOCK = '.lock'  # there: who changes a record holds it
DECLARED_EXCHANGES = '.exchanges'  # there: exchanges and bindings
OWNERS = 'owners'  # directory: a locked file for each process that owns queues
CONSUMERS = 'consumers'  # directory: for each queue, a locked file for each of its consumers

# What stands below `.run` about one queue, one file each, and goes with it.
PER_QUEUE = (PAUSED, DRAINING, ORDER, COUNTS)
