"""Mailman's own tests, with its queues on this switchboard, and those that do not pass, as they are.

::

    python -m tests.mailman.suite [--version 3.3.10] [--whole] [--logs DIRECTORY]

The source distribution is fetched by version from the package index, into a cache; nothing of it is part of this project.  A test that
passes with the plugin has nothing to be compared with; each other result must be that of the same test without the plugin, or stand in
`EXPECTED`, with the reason.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.cache import cache

ROOT = Path(__file__).resolve().parents[2]

VERSIONS = ('3.3.10', '3.3.9')

# Kept from run to run, for all checkouts, and no part of the project.
CACHE = cache() / 'mailman'

# Newer ones cannot be used by these versions of Mailman: they are not our matter.
CONSTRAINTS = ('sqlalchemy<2.1',)
# What its tests, and our own beside it, are run by.
TOOLS = ('nose2', 'flufl.testing', 'pytest', 'pytest-timeout')
DISTRIBUTION = 'switchboard-queue'

# The tests of queues and runners, as patterns of their names, where a dot stands for the slash of a page as well.  Each half has its day; `whole`
# takes some four minutes a run.
HALVES = {
    'all but runners l to o': (
        'mailman.core',
        'mailman.email',
        'mailman.app.tests.test_inject',
        'mailman.rest.tests.test_queues',
        'mailman.runners.(tests.test_|docs.)[^l-o]',
    ),
    'runners l to o': ('mailman.runners.(tests.test_|docs.)[l-o]',),
}

PLUGIN = """
[plugin.switchboard]
class: switchboard.mailman.Plugin
enabled: yes
"""

# The variable of the environment that says where the outcomes go, the outcome of most, and what stands behind one that is not as it should be.
VARIABLE, PASSED, UNEXPECTED = 'SWITCHBOARD_OUTCOMES', 'passed', 'not as expected'
# What stands in the place of a test's name at the end: without it, the run was broken off.
ENDED = 'ended'

# Tests that cannot give the same result, and why.
_LOG = 'makes os.rename fail by a patch of its module, where ours has taken it from when it was loaded: nothing fails, and nothing is logged'
_QFILE = 'mailman qfile reads a pickle by its path; `switchboard show` reads an entry, and unpickles nothing'
_PLUGINS = 'prints the names of all plugins, of which there is one more now'
EXPECTED: Mapping[str, str] = {
    'test_log_exception_in_finish (mailman.core.tests.test_switchboard.TestSwitchboard.test_log_exception_in_finish)': _LOG,
    'mailman/commands/docs/qfile.rst': _QFILE,
    'mailman/plugins/docs/intro.rst': _PLUGINS,
    'test_all_sections (mailman.rest.tests.test_systemconf.TestSystemConfiguration.test_all_sections)': _PLUGINS,
}


def beside_ours() -> dict[str, str]:
    """:return: an environment in which Mailman finds this checkout."""
    return {**os.environ, 'PYTHONPATH': str(ROOT)}


@dataclass
class Comparison:
    """What became of each test with the plugin, and of each that did not pass without it."""

    ours: dict[str, str]
    plain: dict[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, object]:
        """:return: how many tests there are, how many did not go well, and which differ."""
        return {
            'tests': len(self.ours),
            'failed': sum(UNEXPECTED in outcome for outcome in self.ours.values()),
            'and without the plugin as well': sum(UNEXPECTED in outcome for outcome in self.plain.values()),
            'differences': self.differences(),
            'without a reason': sorted(self.unexpected()),
        }

    def others(self) -> list[str]:
        """The tests that did not pass: most of them are skipped."""
        return sorted(test for test, outcome in self.ours.items() if outcome != PASSED)

    def differences(self) -> dict[str, tuple[str, str]]:
        """The tests that did not pass, and whose results are not the same without the plugin: these, and with it."""
        return {
            test: (plain, self.ours[test])
            for test in self.others()
            if (plain := self.plain.get(test, 'missing')) != self.ours[test]
        }

    def unexpected(self) -> dict[str, tuple[str, str]]:
        """The differences that nobody has given a reason for."""
        return {test: pair for test, pair in self.differences().items() if test not in EXPECTED}


class MailmanTree:
    """One version of Mailman: its unpacked source distribution, and an environment with all that its tests need.

    :param cache: kept from run to run.
    """

    def __init__(self, version: str, cache: Path) -> None:
        self.version = version
        self.source = cache / f'mailman-{version}'
        # This checkout is found by its path, what it needs is installed.
        ours = [need for need in importlib.metadata.requires(DISTRIBUTION) or () if 'extra ==' not in need]
        self._needed = [
            f'mailman=={version}',
            *CONSTRAINTS,
            *TOOLS,
            *(str(Requirement(each)) for each in ours),
        ]
        # Checkouts that need something else, or run another Python, have another one.
        kind = zlib.crc32('\n'.join([sys.version, *self._needed]).encode())
        self.environment = cache / f'environment-{version}-{kind:08x}'
        self.python = self.environment / 'bin' / 'python'

    def is_prepared(self) -> bool:
        """Is everything there?"""
        return self.source.exists() and (self.environment / 'installed').exists()

    def pytest(self, *words: str) -> list[str]:
        """The command that runs some of our own tests beside Mailman."""
        options = [
            '-q',
            '-c',
            os.devnull,
            '--rootdir',
            str(ROOT),
            '--confcutdir',
            words[0],
            '-p',
            'no:cacheprovider',
        ]
        # Mailman's own modules use what is deprecated.
        return [
            str(self.python),
            '-m',
            'pytest',
            *options,
            '--import-mode=importlib',
            '-W',
            'ignore',
            '--timeout',
            '100',
            *words,
        ]

    def prepare(self) -> None:
        """Fetch and install what is not there yet.

        :raises subprocess.CalledProcessError: the package index was not to be had.
        """
        cache = self.source.parent
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / 'lock').open('w') as lock:
            # Those who ask at the same time find it prepared when the first has done it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._prepare(cache)

    def _prepare(self, cache: Path) -> None:
        if not self.source.exists():
            with tempfile.TemporaryDirectory(dir=cache) as fetched:
                pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--no-binary', 'mailman']
                subprocess.run([*pip, '-d', fetched, f'mailman=={self.version}'], check=True)
                [archive] = Path(fetched).glob('*.tar.gz')
                with tarfile.open(archive) as tar:
                    tar.extractall(cache, filter='data')
        if not (self.environment / 'installed').exists():
            subprocess.run([sys.executable, '-m', 'venv', '--clear', self.environment], check=True)
            subprocess.run([self.python, '-m', 'pip', 'install', '-q', *self._needed], check=True)
            (self.environment / 'installed').touch()

    def run(self, tests: Iterable[str], *, with_plugin: bool, directory: Path) -> dict[str, str]:
        """Run some of Mailman's tests, or all.

        :param tests: patterns of dotted names; empty for all.
        :param directory: what was printed is left here.
        :return: what `Outcomes` has written, by test.
        :raises RuntimeError: the run was broken off.
        """
        kind = 'with' if with_plugin else 'without'
        outcomes = directory / f'{kind}.outcomes'
        outcomes.unlink(missing_ok=True)
        environment = {**beside_ours(), VARIABLE: str(outcomes)}
        if with_plugin:
            extra = directory / 'plugin.cfg'
            extra.write_text(PLUGIN)
            environment['MAILMAN_EXTRA_TESTING_CFG'] = str(extra)
        patterns = [word for test in tests for word in ('-P', test)]
        command = [str(self.python), '-m', 'nose2', '-v', '--plugin', 'tests.mailman.outcomes', *patterns]
        with (directory / f'{kind}.log').open('ab') as log:
            subprocess.run(
                command,
                cwd=self.source,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return read_outcomes(outcomes, self.source)


def read_outcomes(file: Path, source: Path) -> dict[str, str]:
    """:return: what became of each test; a page of documentation is named by its path below the source.

    A test with subtests has more than one line; one that is not as expected is enough.

    :raises RuntimeError: the run was broken off.
    """
    found: dict[str, str] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        name, outcome = json.loads(line)
        name = name.replace(f'{source}/src/', '')
        if UNEXPECTED not in found.get(name, ''):
            found[name] = outcome
    if found.pop(ENDED, None) is None:
        raise RuntimeError(f'{file}: a run of {len(found)} tests was broken off')
    return found


def compare(tree: MailmanTree, tests: Sequence[str], directory: Path) -> Comparison:
    """Run the tests with the plugin, and those that do not pass without it.

    Some of Mailman's tests wait for a process for so many seconds: what differs is run once more, alone, in both ways.
    """
    comparison = Comparison(tree.run(tests, with_plugin=True, directory=directory))
    if others := comparison.others():
        comparison.plain |= tree.run(map(_pattern, others), with_plugin=False, directory=directory)
    if again := [_pattern(test) for test in comparison.unexpected()]:
        for known, with_plugin in ((comparison.plain, False), (comparison.ours, True)):
            known |= tree.run(again, with_plugin=with_plugin, directory=directory)
    return comparison


def _pattern(test: str) -> str:
    """What chooses one test: its dotted name, or the path of a page."""
    name, bracket, dotted = test.partition(' (')
    return re.escape(dotted.rstrip(')') if bracket else name)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--version', default=VERSIONS[0])
    parser.add_argument(
        '--whole', action='store_true', help='all of its tests, and not those of queues and runners alone'
    )
    parser.add_argument('--cache', type=Path, default=CACHE)
    parser.add_argument('--logs', type=Path, help='keep here what was printed')
    options = parser.parse_args()
    tree = MailmanTree(options.version, options.cache)
    tree.prepare()
    with tempfile.TemporaryDirectory() as directory:
        logs = options.logs or Path(directory)
        logs.mkdir(parents=True, exist_ok=True)
        quick = tuple(itertools.chain(*HALVES.values()))
        comparison = compare(tree, () if options.whole else quick, logs)
    print(json.dumps(comparison.summary(), indent=1))
    return 1 if comparison.unexpected() else 0


if __name__ == '__main__':
    sys.exit(main())
