"""Which of the tests that failed are tried once more, alone: those that depend on what other programs of this machine do.

What a test looks for by chance (a lost message after a kill, an order that no lock protects) is never forgiven: it may not come again.
"""

from __future__ import annotations

import os
from typing import Any

# The file in which ``bin/`` finds the tests that may have their second try, a line each.
AGAIN = 'SWITCHBOARD_AGAIN'
# More failures than these have a cause.
AT_MOST = 3
# A browser, a broker, a mail server, a terminal, processes on a machine that is busy with other tests.
OTHER_PROGRAMS = (
    'tests/acceptance/',
    'tests/browser/',
    'tests/kombu/',
    'tests/mailman/',
    'tests/servers/',
    'tests/test_documentation.py',
    'tests/unit/',
)
NEVER = ('tests/acceptance/storms/',)


class SecondTry:
    """Collects the failures; a plugin of the process that started the tests."""

    def __init__(self) -> None:
        self._failed: dict[str, None] = {}
        self._crashed = False

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not report.failed:
            return
        # A process that died has no phase of a test.
        self._crashed = self._crashed or report.when not in ('setup', 'call', 'teardown')
        self._failed[_without_group(report.nodeid)] = None

    def tests(self) -> list[str]:
        """:return: the tests that are tried once more; none of them if there is one that is not."""
        failed = list(self._failed)
        forgivable = all(
            test.startswith(OTHER_PROGRAMS) and not test.startswith(NEVER) and '\n' not in test
            for test in failed
        )
        return failed if forgivable and not self._crashed and len(failed) <= AT_MOST else []

    def pytest_sessionfinish(self) -> None:
        if path := os.environ.get(AGAIN):
            with open(path, 'w', encoding='utf-8') as file:
                file.writelines(f'{test}\n' for test in self.tests())


def _without_group(nodeid: str) -> str:
    """:return: the test's name without what xdist writes behind it: ``@`` and the group."""
    name, bracket, behind = nodeid.rpartition(']')
    return name + bracket + behind.partition('@')[0]
