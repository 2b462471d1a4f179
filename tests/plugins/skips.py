"""Skips: forgiven to somebody who tries something out, and failures where nothing may be missing, as in ``.ci/run``.

A test says by ``pytest.skip``, ``skipif`` or ``importorskip`` what it lacks, and here alone it is judged.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

# Set where everything that tests need has been installed.
REQUIRED = 'SWITCHBOARD_REQUIRE_SERVERS'
# How the reasons begin that stand everywhere, and why no preparation helps.
FORGIVEN = {
    'this implementation has no ': 'a queue on a broker cannot do all that one on the disk can',
    'new in kombu ': 'the lowest versions have not got it',
    'the kernel has no list of locks': 'so it is in some containers',
    'power cuts of real file systems: no loop devices': 'so it is in some containers',
    'no control group can be made here': 'so it is in some containers',
    'podman cannot run a container here': 'so it is in some containers',
    'needs the package ': 'what is put into a container comes from the packages that are there',
    "needs Debian's Python to be that of the tests": 'the tests may run with any',
    'no extended attributes here': 'a matter of the file system',
    'this file system makes no directory that large': 'a matter of the file system',
    'no such large files here': 'a matter of the file system',
    'not known of ': 'a matter of the C library',
    'only root may make a device': 'in some containers root may not',
    'another user ': 'the checkout may lie where nobody else may look',
    'not a git checkout': 'a distribution of the source is tested, too',
    'no environment in .venv': '`bin/test --python` makes it elsewhere',
}


def unforgiven(report: Any) -> str:
    """:return: the reason of a skip that is a failure where nothing may be missing; an empty text for what is none."""
    if not report.skipped or hasattr(report, 'wasxfail'):
        return ''
    path, line, said = report.longrepr
    reason = said.removeprefix('Skipped: ')
    return '' if reason.startswith(tuple(FORGIVEN)) else f'{path}:{line}: skipped: {reason}'


class Skips:
    """Makes failures of skips; a plugin of each process that runs tests."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Any:
        return self._judged((yield))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Any:
        return self._judged((yield))

    def _judged(self, report: Any) -> Any:
        if os.environ.get(REQUIRED) == '1' and (reason := unforgiven(report)):
            report.outcome, report.longrepr = (
                'failed',
                f'{reason}, where {REQUIRED} says that nothing is missing',
            )
        return report
