"""``python -m tests.power.found SPOOL [NUMBER...]`` prints what is there after a recovery, as JSON.

And what is there when producers have tried again to put in the messages with these numbers, whose key is the number.

A process of its own, so that nothing is open any more when the file system is to be unmounted.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from switchboard import Spool
from switchboard.store.layout import STAGE
from tests.faults.world import observe_after_cut, read_state
from tests.power.work import enqueue_with_key

if __name__ == '__main__':
    logging.getLogger('switchboard').addHandler(logging.NullHandler())
    path = Path(sys.argv[1])
    found = observe_after_cut(path)[0]
    staged = [file.name for file in path.glob(f'{STAGE}/*:*')]
    spool = Spool(path)
    for number in sys.argv[2:]:
        enqueue_with_key(spool, f'{number}:again')
    print(json.dumps({'found': found, 'staged': staged, 'again': read_state(path)}))
