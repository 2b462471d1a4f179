"""The tests that kombu and Celery ship with their source distributions: fetched by version, and never a part of this project."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers.cache import cache

FETCH_TIMEOUT_S = 300


def source_of(package: str) -> Path:
    """:return: the unpacked source distribution of the installed version of a package.

    Where it cannot be fetched, a test is skipped.
    """
    version = importlib.metadata.version(package)
    unpacked = cache() / f'{package}-{version}'
    if not unpacked.is_dir():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as place:
            _fetch(package, version, Path(place))
            with suppress(OSError):  # another run was faster
                (Path(place) / unpacked.name).rename(unpacked)
    return unpacked


def _fetch(package: str, version: str, place: Path) -> None:
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--retries', '5']
    done = subprocess.run(
        [*command, '--no-deps', '--no-binary', ':all:', '--dest', str(place), f'{package}=={version}'],
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        missing = f'the source of {package} {version} cannot be fetched: {done.stderr.strip()[-500:]}'
        pytest.skip(missing)
    with tarfile.open(place / f'{package}-{version}.tar.gz') as archive:
        archive.extractall(place, filter='data')
