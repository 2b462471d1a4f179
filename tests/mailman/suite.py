"""Mailman's own tests, run twice: as they are, and with its queues on this switchboard.

::

    python -m tests.mailman.suite [--version 3.3.10] [--whole] [--page docs/explanation/mailman-suite.md]

The source distribution is fetched by version from the package index, into a cache; nothing of it is part of this project.  Every test's
result is compared with the result of the same test without the plugin.  What differs must stand in `EXPECTED`, with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

VERSIONS = ('3.3.10', '3.3.9')

# Kept from run to run, and no part of the project.
CACHE = ROOT / '.mailman'

# Newer ones cannot be used by these versions of Mailman: they are not our matter.
CONSTRAINTS = ('sqlalchemy<2.1',)

# The tests of queues and runners, for every day; `whole` takes some four minutes a run.
QUICK = (
    'mailman.core',
    'mailman.runners',
    'mailman.app.tests.test_inject',
    'mailman.rest.tests.test_queues',
    'mailman.email',
)

PLUGIN = """
[plugin.switchboard]
class: switchboard.mailman.Plugin
enabled: yes
"""

# Tests that cannot give the same result, and why.
_LOG = 'expects a traceback of the very call of os.rename in Mailman itself; ours is logged as one event'
_QFILE = 'mailman qfile reads a pickle by its path; `switchboard show` reads an entry, and unpickles nothing'
_PLUGINS = 'prints the names of all plugins, of which there is one more now'
EXPECTED: Mapping[str, str] = {
    'test_log_exception_in_finish (mailman.core.tests.test_switchboard.TestSwitchboard.test_log_exception_in_finish)': _LOG,
    'mailman/commands/docs/qfile.rst': _QFILE,
    'mailman/plugins/docs/intro.rst': _PLUGINS,
    'test_all_sections (mailman.rest.tests.test_systemconf.TestSystemConfiguration.test_all_sections)': _PLUGINS,
}

_RESULT = re.compile(r'^(?P<test>\S.*?) \.\.\. (?P<result>ok|FAIL|ERROR|skipped.*|expected failure)$')


@dataclass
class Comparison:
    """What became of each test without the plugin and with it."""

    plain: dict[str, str] = field(default_factory=dict)
    ours: dict[str, str] = field(default_factory=dict)

    def differences(self) -> dict[str, tuple[str, str]]:
        """The tests whose results are not the same: without the plugin, and with it."""
        return {
            test: (self.plain.get(test, 'missing'), self.ours.get(test, 'missing'))
            for test in sorted({*self.plain, *self.ours})
            if self.plain.get(test) != self.ours.get(test)
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
        self.environment = cache / f'environment-{version}'
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
        if not self.source.exists():
            with tempfile.TemporaryDirectory(dir=cache) as fetched:
                pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--no-binary', 'mailman']
                subprocess.run([*pip, '-d', fetched, f'mailman=={self.version}'], check=True)
                [archive] = Path(fetched).glob('*.tar.gz')
                with tarfile.open(archive) as tar:
                    tar.extractall(cache, filter='data')
        if not (self.environment / 'installed').exists():
            subprocess.run([sys.executable, '-m', 'venv', '--clear', self.environment], check=True)
            needed = [
                f'mailman=={self.version}',
                *CONSTRAINTS,
                'nose2',
                'flufl.testing',
                'pytest',
                'pytest-timeout',
            ]
            subprocess.run([self.python, '-m', 'pip', 'install', '-q', *needed, '-e', ROOT], check=True)
            (self.environment / 'installed').touch()

    def run(self, tests: Sequence[str], *, with_plugin: bool, directory: Path) -> dict[str, str]:
        """Run some of Mailman's tests, or all.

        :param tests: prefixes of dotted names; empty for all.
        :return: ``ok``, ``FAIL`` and so on, by test.
        """
        environment = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
        if with_plugin:
            extra = directory / 'plugin.cfg'
            extra.write_text(PLUGIN)
            environment['MAILMAN_EXTRA_TESTING_CFG'] = str(extra)
        # A dotted name chooses the pages in the folder of that name, too.
        patterns = [word for test in tests for word in ('-P', re.escape(test).replace(r'\.', '[./]'))]
        command = [self.python, '-m', 'nose2', '-v', *patterns]
        done = subprocess.run(
            command,
            cwd=self.source,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        kind = 'with' if with_plugin else 'without'
        (directory / f'{kind}.log').write_text(done.stdout)
        return results(done.stdout, self.source)


def results(output: str, source: Path) -> dict[str, str]:
    """Read what nose2 printed: each test's name and what became of it."""
    found = {}
    for line in output.splitlines():
        if match := _RESULT.match(line):
            name = match['test'].replace(f'{source}/src/', '')
            found[name] = match['result'].partition(' ')[0]
    return found


def compare(tree: MailmanTree, tests: Sequence[str], directory: Path) -> Comparison:
    """Run the tests without the plugin, and then with it.

    Some of Mailman's tests wait for a process for so many seconds: what differs is run once more, alone, in both ways.
    """
    comparison = Comparison(
        tree.run(tests, with_plugin=False, directory=directory),
        tree.run(tests, with_plugin=True, directory=directory),
    )
    if again := [_pattern(test) for test in comparison.unexpected()]:
        for known, with_plugin in ((comparison.plain, False), (comparison.ours, True)):
            known |= tree.run(again, with_plugin=with_plugin, directory=directory)
    return comparison


def _pattern(test: str) -> str:
    """What chooses one test: its dotted name, or the path of a page."""
    name, bracket, dotted = test.partition(' (')
    return dotted.rstrip(')') if bracket else name


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--version', default=VERSIONS[0])
    parser.add_argument(
        '--whole', action='store_true', help='all of its tests, and not those of queues and runners alone'
    )
    parser.add_argument('--cache', type=Path, default=CACHE)
    options = parser.parse_args()
    tree = MailmanTree(options.version, options.cache)
    tree.prepare()
    with tempfile.TemporaryDirectory() as directory:
        comparison = compare(tree, () if options.whole else QUICK, Path(directory))
    print(json.dumps({'tests': len(comparison.ours), 'differences': comparison.differences()}, indent=1))
    return 1 if comparison.unexpected() else 0


if __name__ == '__main__':
    sys.exit(main())
