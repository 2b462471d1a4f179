"""Cuts the power of real file systems and writes the table into the page ``docs/explanation/proof.md``.

::

    python -m tests.power.report [CUTS]    # as root; of each file system and way to flush

"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.faults.harness.report import PAGE, replace, table, tell
from tests.power import images
from tests.power.images import FILE_SYSTEMS
from tests.power.test_power_cuts import Tally, cut_often

CUTS = 50
MODES = {'full': 'as few as it allows', 'two': 'two', 'none': 'none: a disk that lies'}
HEADS = [
    'file system',
    'flushes',
    'cuts',
    'workers killed',
    'messages looked for',
    'notes of hand-offs',
    'under way',
    'retries with a key',
    'lost',
    'doubled',
    'made up',
]


def row(name: str, mode: str, tally: Tally) -> list[str]:
    lost = sum('there 0 times' in error for error in tally.errors)
    made_up = sum('never sent' in error for error in tally.errors)
    looked_at = tally.checked, tally.notes, tally.under_way, tally.retried
    numbers = tally.cuts, tally.kills, *looked_at, lost, len(tally.errors) - lost - made_up, made_up
    return [name, MODES[mode], *(f'{number:,}' for number in numbers)]


def main() -> int:
    if why := images.why_not():
        tell(why)
        return 1
    cuts = int(sys.argv[1]) if sys.argv[1:] else CUTS
    rows, is_clean = [], True
    for kind in FILE_SYSTEMS:
        for mode in MODES:
            with tempfile.TemporaryDirectory(prefix='power-') as work:
                tell(f'{kind}, flushes: {MODES[mode]}')
                tally = cut_often(kind, mode, Path(work), cuts if mode != 'none' else max(1, cuts // 10))
            for error in tally.errors if mode != 'none' else ():
                tell(error)
            is_clean = is_clean and bool(tally.errors) == (mode == 'none')
            rows.append(row(kind.name, mode, tally))
    PAGE.write_text(replace(PAGE.read_text(), 'images', table(HEADS, rows)))
    return 0 if is_clean else 1


if __name__ == '__main__':
    sys.exit(main())
