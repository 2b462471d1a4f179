"""Other people's tests, run over our transport: each in a process of its own, all at the same time, for they mostly sleep."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1500


@dataclass(frozen=True)
class Outcome:
    """What came of one test: ``passed``, ``failed`` or ``skipped``."""

    group: str
    name: str
    result: str
    details: str = ''


class Suite:
    """A run of pytest in the background.

    :param directory: where it runs.
    :param report: the file that it writes.
    """

    def __init__(
        self, arguments: Sequence[str], *, directory: Path, report: Path, environment: Mapping[str, str]
    ) -> None:
        self.report = report
        self._log = report.with_suffix('.log').open('wb')
        options = ['-q', '-p', 'no:cacheprovider', '-o', 'filterwarnings=default', f'--junitxml={report}']
        self._process = subprocess.Popen(
            [sys.executable, '-m', 'pytest', *options, *arguments],
            cwd=directory,
            env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def outcomes(self) -> list[Outcome]:
        """Wait for the end.

        :return: the tests that were run, in order.
        """
        try:
            self._process.wait(TIMEOUT_S)
        finally:
            self.stop()
        said = self.report.with_suffix('.log').read_text(errors='replace')[-3000:]
        assert self.report.exists(), said
        found = [_outcome(case) for case in ElementTree.parse(self.report).iter('testcase')]
        assert found, said
        return found

    def stop(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        self._log.close()


def _outcome(case: ElementTree.Element) -> Outcome:
    group = case.get('classname', '').rpartition('.')[2].removeprefix('Test').removeprefix('test_')
    for kind, result in (('failure', 'failed'), ('error', 'failed'), ('skipped', 'skipped')):
        element = case.find(kind)
        if element is not None:
            return Outcome(group, case.get('name', ''), result, (element.text or '')[-2000:])
    return Outcome(group, case.get('name', ''), 'passed')


def mixins(source: Path, work: Path, transport: str = 'switchboard') -> Suite:
    """:return: kombu's integration tests."""
    urls = {'': '{spool}', 'INVALID': '{missing}', 'FAILOVER': '{missing};switchboard://localhost:1{spool}'}
    if transport == 'filesystem':
        urls = {'': '', 'INVALID': '', 'FAILOVER': ';filesystem://localhost:1'}
    return Suite(
        ['-c', os.devnull, f'--rootdir={ROOT}', str(ROOT / 'tests' / 'kombu' / 'mixins.py')],
        directory=ROOT,
        report=work / f'mixins-{transport}.xml',
        environment={
            'MIXINS_SOURCE': str(source),
            'MIXINS_URL': f'{transport}://{urls[""]}',
            'MIXINS_INVALID': f'{transport}://{urls["INVALID"]}',
            'MIXINS_FAILOVER': f'{transport}://{urls["FAILOVER"]}',
        },
    )


def simple_and_pidbox(source: Path, work: Path) -> Suite:
    """:return: kombu's unit tests of simple queues and mailboxes."""
    root = work / 'standin'
    root.mkdir()
    return Suite(
        ['-p', 'tests.kombu.standin', 't/unit/test_simple.py', 't/unit/test_pidbox.py'],
        directory=source,
        report=work / 'units.xml',
        environment={'STANDIN_ROOT': str(root)},
    )


def celery(source: Path, work: Path, module: str, choice: str = '', part: str = '') -> Suite:
    """:return: a module of Celery's integration tests, or a part of it: a real worker of processes."""
    spool, results = work / f'spool-{module}{part}', work / f'results-{module}{part}'
    spool.mkdir()
    results.mkdir()
    return Suite(
        ['-p', 'celery.contrib.pytest', '--force-reruns', '0', f't/integration/{module}.py', '-k', choice],
        directory=source,
        report=work / f'{module}{part}.xml',
        environment={'TEST_BROKER': f'switchboard://{spool}', 'TEST_BACKEND': f'file://{results}'},
    )
