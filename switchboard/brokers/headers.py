"""The names of the headers that are ours in a broker's messages.  What is in them: see ``wire``.

They stand apart because a bridge knows a message by them before it has loaded anything of a broker's.
"""

OURS = 'x-switchboard-'
# What a message of an installation of ours has, and none of others.
KIND = f'{OURS}kind'
WHEN = f'{OURS}when'
METADATA = f'{OURS}metadata'
HISTORY = f'{OURS}history'
DUE = f'{OURS}due'
