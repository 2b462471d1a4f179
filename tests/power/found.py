"""``python -m tests.power.found SPOOL`` prints what is there after a recovery, as JSON.

A process of its own, so that nothing is open any more when the file system is to be unmounted.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from tests.faults.world import observe_after_cut

if __name__ == '__main__':
    logging.getLogger('switchboard').addHandler(logging.NullHandler())
    print(json.dumps(observe_after_cut(Path(sys.argv[1]))[0]))
