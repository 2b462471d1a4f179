"""An installation from a wheel, as a user has it: an environment of its own, and no checkout on its path."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_S = 240


def build(directory: Path) -> tuple[Path, Path]:
    """Build as ``bin/release`` does, from a copy, and the wheel from what was released as source.

    :return: the source distribution and the wheel.
    """
    copy = directory / 'checkout'
    left_out = shutil.ignore_patterns(
        *(
            '.git',
            '.venv*',
            '__pycache__',
            '*.egg-info',
            '.*_cache',
            '.hypothesis',
            'build',
            'dist',
            'share',
            'var',
        )
    )
    shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
    environment = {**os.environ, 'PYTHONPATH': str(copy), 'PYTHONDONTWRITEBYTECODE': '1'}
    for name in ('CI', 'PIP_REQUIRE_VIRTUALENV'):
        environment.pop(name, None)
    command = 'import setuptools.build_meta as b, sys; print(getattr(b, sys.argv[1])(sys.argv[2]))'

    def made(what: str, where: Path) -> Path:
        done = subprocess.run(
            [sys.executable, '-c', command, what, str(directory)],
            cwd=where,
            env={**environment, 'PYTHONPATH': ''},
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        # A file that is left out because it is in no package: setuptools warns, and goes on.
        assert 'importable' not in done.stderr, done.stderr[-3000:]
        return directory / done.stdout.split()[-1]

    source = made('build_sdist', copy)
    shutil.unpack_archive(source, directory / 'released', filter='data')
    [released] = (directory / 'released').iterdir()
    return source, made('build_wheel', released)


# How pip can be told where to: into an environment, below the user's home, into a directory.
WAYS = ('venv', 'user', 'target')
# The interpreter below the environment of the tests, which has nothing of the checkout on its path.
BASE = Path(getattr(sys, '_base_executable', sys.executable))


class Installed:
    """One installation.

    :param wheel: what is installed; what it needs is copied from the environment of the tests, so that no network is needed.
    :param way: one of `WAYS`.
    """

    def __init__(self, directory: Path, wheel: Path, way: str = 'venv') -> None:
        self.directory = directory
        self.home = directory / 'home'
        self.home.mkdir(parents=True)
        python, options, extra = BASE, [f'--{way}'], {}
        if way == 'venv':
            subprocess.run(
                [sys.executable, '-m', 'venv', '--without-pip', str(directory / 'venv')],
                check=True,
                timeout=120,
            )
            python, options = directory / 'venv' / 'bin' / 'python', []
            self.bin = python.parent
        elif way == 'user':
            self.bin = self.home / '.local' / 'bin'
        else:
            self.bin = directory / 'target' / 'bin'
            options.append(str(self.bin.parent))
            extra['PYTHONPATH'] = str(self.bin.parent)
        self.environment = {
            'PATH': f'{self.bin}:{python.parent}:/usr/local/bin:/usr/bin:/bin',
            'HOME': str(self.home),
            **extra,
            'LC_ALL': 'C.UTF-8',
            'TERM': 'dumb',
            'NO_COLOR': '1',
            'COLUMNS': '100',
            'TZ': 'UTC',
        }
        pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check', '--python', str(python))
        install = ('install', '--quiet', '--no-deps', '--no-index', '--no-warn-script-location')
        subprocess.run(
            [*pip, *install, *options, str(wheel)],
            env={**self.environment, 'PIP_BREAK_SYSTEM_PACKAGES': '1', 'PIP_ROOT_USER_ACTION': 'ignore'},
            check=True,
            timeout=BUILD_TIMEOUT_S,
        )
        code = 'import switchboard; print(switchboard.__path__[0])'
        place = Path(self.run(python, '-c', code).strip()).parent
        assert directory in place.parents, place
        for name in needed('switchboard-queue'):
            copy(name, place)

    def run(self, *words: str | Path, input: str = '', status: int = 0, directory: Path | None = None) -> str:
        """:return: what a command wrote on standard output.

        :param directory: where it is run; the user's home, if nothing is said.
        """
        done = subprocess.run(
            [str(word) for word in words],
            executable=shutil.which(str(words[0]), path=self.environment['PATH']),
            cwd=directory or self.home,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == status, f'{words}: {done.returncode}\n{done.stdout}{done.stderr}'
        return done.stdout


def needed(name: str) -> set[str]:
    """:return: the distributions that one needs here, without its extras, and what those need."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for requirement in distribution(ahead.pop()).requires or ():
            wanted, _, marker = requirement.partition(';')
            each = re.split(r'[^\w.-]', wanted.strip(), maxsplit=1)[0].lower()
            if 'extra' in marker or each in found:
                continue
            try:
                distribution(each)
            except ModuleNotFoundError:
                continue  # for another system
            found.add(each)
            ahead.append(each)
    return found


def copy(name: str, place: Path) -> None:
    """Copy a distribution from the environment of the tests."""
    for file in distribution(name).files or ():
        if '..' not in file.parts and '__pycache__' not in file.parts:
            target = place / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(file.locate()), target)
