"""An installation from a wheel, as a user has it: an environment of its own, and no checkout on its path."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name

from tests.servers.place import ROOT, missing

BUILD_TIMEOUT_S = 240


def built_once(factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build for all tests of this run, whichever process they run in.

    :return: as `build`; nobody writes beside them.
    """
    own = factory.getbasetemp()
    place = (own.parent if 'PYTEST_XDIST_WORKER' in os.environ else own) / 'released'
    place.mkdir(exist_ok=True)
    done = place / 'built.json'
    with (place / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            directory = place / 'wheels'
            directory.mkdir()
            done.write_text(json.dumps([each.name for each in build(directory)]))
    source, wheel = (place / 'wheels' / name for name in json.loads(done.read_text()))
    return source, wheel


def build(directory: Path) -> tuple[Path, Path]:
    """Build as a packager does, from a copy, and the wheel from what was released as source.

    :return: the source distribution and the wheel, with all wheels beside it that it needs.
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
    environment = {**os.environ, 'PYTHONPATH': '', 'PYTHONDONTWRITEBYTECODE': '1'}
    for name in ('CI', 'PIP_REQUIRE_VIRTUALENV'):
        environment.pop(name, None)
    command = 'import sys; sys.path.insert(0, "bin"); import _backend; print(getattr(_backend, sys.argv[1])(sys.argv[2]))'

    def made(what: str, where: Path) -> Path:
        done = subprocess.run(
            [sys.executable, '-c', command, what, str(directory)],
            cwd=where,
            env=environment,
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
    for name in needed('switchboard-queue'):
        pack(name, directory)
    return source, made('build_wheel', released)


# Where the ways that the page about installing names put it: into an environment, below the user's home, into a directory; into an environment
# that a program for programs makes; into the system's own place.
WAYS = ('venv', 'user', 'target', 'pipx', 'uv', 'debian')
# The interpreter below the environment of the tests, which has nothing of the checkout on its path.
BASE = Path(getattr(sys, '_base_executable', sys.executable))
DEBIAN = Path('/usr/bin/python3')
# So that what a package of Debian's would be is seen by these commands alone, and is gone with them.
OWN_USR_LOCAL = ('unshare', '--user', '--map-root-user', '--mount', 'sh', '-c')
MOUNT = 'mount --bind "$0" /usr/local && exec "$@"'


class Installed:
    """One installation.

    :param wheel: what is installed, with the wheels beside it that it needs; nothing is fetched.
    :param way: one of `WAYS`.
    """

    def __init__(self, directory: Path, wheel: Path, way: str = 'venv') -> None:
        self.directory = directory
        self.home = directory / 'home'
        self.home.mkdir(parents=True)
        self.bin, self.python = directory / 'bin', BASE
        # What stands before each command.
        self.prefix: tuple[str, ...] = ()
        self.environment = {
            'HOME': str(self.home),
            'LC_ALL': 'C.UTF-8',
            'TERM': 'dumb',
            'NO_COLOR': '1',
            'COLUMNS': '100',
            'TZ': 'UTC',
        }
        for name in ('PIP_NO_INDEX', 'UV_NO_INDEX', 'UV_OFFLINE'):
            self.environment[name] = '1'
        self.environment['PIP_FIND_LINKS'] = self.environment['UV_FIND_LINKS'] = str(wheel.parent)
        self.environment['PIP_DISABLE_PIP_VERSION_CHECK'] = '1'
        self.environment['PIP_ROOT_USER_ACTION'] = 'ignore'
        # Python compiles what it uses; the rest, which pip would compile as well, takes as long as all else of an installation.
        self.environment['PIP_COMPILE'] = '0'
        install = getattr(self, f'_by_{way}')(wheel)
        self.environment['PATH'] = os.pathsep.join(
            [str(self.bin), str(self.python.parent), '/usr/local/bin', '/usr/bin', '/bin']
        )
        # Where man pages and completion are.
        beside = self.python if way in ('pipx', 'uv') else self.bin / 'python'
        self.share = beside.parents[1] / 'share'
        self.run(*install)
        place = Path(
            self.run(self.python, '-c', 'import switchboard; print(switchboard.__path__[0])').strip()
        )
        assert ROOT not in place.parents, place

    def _pip(self, *options: str | Path) -> list[str | Path]:
        return [sys.executable, '-m', 'pip', '--python', self.python, 'install', '--quiet', *options]

    def add(self, wheel: str | Path) -> None:
        """Install another one into the same environment."""
        self.run(*self._pip(wheel))

    def _by_venv(self, wheel: Path) -> list[str | Path]:
        """:return: the command that installs it; what is set here says where it will be then."""
        venv = self.directory / 'venv'
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True, timeout=120)
        self.bin, self.python = venv / 'bin', venv / 'bin' / 'python'
        return self._pip(wheel)

    def _by_user(self, wheel: Path) -> list[str | Path]:
        self.bin = self.home / '.local' / 'bin'
        self.environment['PIP_BREAK_SYSTEM_PACKAGES'] = '1'
        return self._pip('--user', wheel)

    def _by_target(self, wheel: Path) -> list[str | Path]:
        target = self.directory / 'target'
        self.bin = target / 'bin'
        self.environment['PYTHONPATH'] = str(target)
        return self._pip('--target', target, wheel)

    def _by_pipx(self, wheel: Path) -> list[str | Path]:
        home = self.directory / 'pipx'
        self.python = home / 'venvs' / 'switchboard-queue' / 'bin' / 'python'
        self.environment |= {'PIPX_HOME': str(home), 'PIPX_BIN_DIR': str(self.bin)}
        self.environment['PIPX_DEFAULT_PYTHON'] = str(BASE)
        return [tool('pipx'), 'install', wheel]

    def _by_uv(self, wheel: Path) -> list[str | Path]:
        tools = self.directory / 'uv'
        self.python = tools / 'switchboard-queue' / 'bin' / 'python'
        self.environment |= {'UV_TOOL_DIR': str(tools), 'UV_TOOL_BIN_DIR': str(self.bin)}
        return [tool('uv'), 'tool', 'install', '--quiet', '--python', BASE, wheel]

    def _by_debian(self, wheel: Path) -> list[str | Path]:
        pip = DEBIAN.with_name('pip3')
        version = f'python{sys.version_info[0]}.{sys.version_info[1]}'
        if not pip.exists() or DEBIAN.resolve().name != version:
            missing(f"Debian's pip, of a {version} (apt-get install python3-pip)")
        self.python, self.bin = DEBIAN, Path('/usr/local/bin')
        local = self.directory / 'local'
        local.mkdir()
        self.prefix = (*OWN_USR_LOCAL, MOUNT, str(local))
        if subprocess.run([*self.prefix, 'true'], check=False).returncode:
            missing('namespaces for users (unshare --user --mount)')
        # What Debian asks who does it by hand.
        return [pip, 'install', '--quiet', '--break-system-packages', wheel]

    def run(self, *words: str | Path, input: str = '', status: int = 0, directory: Path | None = None) -> str:
        """:return: what a command wrote on standard output.

        :param directory: where it is run; the user's home, if nothing is said.
        """
        command = [*self.prefix, *map(str, words)]
        done = subprocess.run(
            command,
            executable=shutil.which(command[0], path=self.environment['PATH']),
            cwd=directory or self.home,
            env=self.environment,
            input=input,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == status, f'{words}: {done.returncode}\n{done.stdout}{done.stderr}'
        return done.stdout


def tool(name: str) -> str:
    """:return: a program that installs others; those of the tests are beside their interpreter."""
    found = shutil.which(name, path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    if found is None:
        missing(name)
    return str(found)


def needed(name: str) -> set[str]:
    """:return: the distributions that one needs here, without its extras, and what those need."""
    found: set[str] = set()
    ahead = [name]
    while ahead:
        for text in distribution(ahead.pop()).requires or ():
            requirement = Requirement(text)
            each = canonicalize_name(requirement.name)
            if each not in found and (
                requirement.marker is None or requirement.marker.evaluate({'extra': ''})
            ):
                found.add(each)
                ahead.append(each)
    return found


def pack(name: str, directory: Path) -> Path:
    """Make the wheel anew that a distribution was installed from in the environment of the tests.

    :return: the wheel, in `directory`.
    """
    found = distribution(name)
    files = {
        str(file): file for file in found.files or () if '..' not in file.parts and file.suffix != '.pyc'
    }
    # Its own, and none of a distribution that it carries with it.
    [wheel] = [path for path in files if re.fullmatch(r'[^/]+\.dist-info/WHEEL', path)]
    about = wheel.removesuffix('/WHEEL')
    fitting = set(map(str, sys_tags()))
    tags = re.findall(r'^Tag: (\S+)$', found.read_text('WHEEL') or '', re.MULTILINE)
    tag = next(each for each in tags if each in fitting)
    left_out = {f'{about}/{each}' for each in ('RECORD', 'INSTALLER', 'REQUESTED', 'direct_url.json')}
    record = []
    target = directory / f'{about.removesuffix(".dist-info")}-{tag}.whl'
    with zipfile.ZipFile(target, 'w') as archive:
        for path in sorted(files.keys() - left_out):
            content = Path(str(files[path].locate())).read_bytes()
            archive.writestr(path, content)
            digest = urlsafe_b64encode(sha256(content).digest()).rstrip(b'=').decode()
            record.append(f'"{path}",sha256={digest},{len(content)}\n')
        archive.writestr(f'{about}/RECORD', ''.join([*record, f'{about}/RECORD,,\n']))
    return target
