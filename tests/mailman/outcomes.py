"""What becomes of each of Mailman's tests: a plugin of nose2 that writes one line of JSON for each, and one at the end.

What is printed will not do: tests print between a name and its result, and a test with a docstring is called by that.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nose2.events import Plugin

from tests.mailman.suite import ENDED, UNEXPECTED, VARIABLE


class Outcomes(Plugin):
    """Write the outcome of each test: ``passed``, ``failed`` and so on, marked where it is not the one expected."""

    configSection = 'outcomes'  # noqa: N815 - nose2's name
    alwaysOn = True  # noqa: N815 - nose2's name

    def testOutcome(self, event: Any) -> None:  # noqa: N802 - nose2's name
        # A subtest that passed is a part of its test, which has an outcome of its own.
        if event.outcome == 'subtest' and event.exc_info is None:
            return
        is_fine = event.expected or event.outcome == 'skipped'
        outcome = event.outcome if is_fine else f'{event.outcome}, {UNEXPECTED}'
        self._write(str(event.test), outcome)

    def afterSummaryReport(self, event: Any) -> None:  # noqa: N802 - nose2's name
        self._write(ENDED, '')

    def _write(self, test: str, outcome: str) -> None:
        with Path(os.environ[VARIABLE]).open('a') as file:
            file.write(json.dumps([test, outcome]) + '\n')
