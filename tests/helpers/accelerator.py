"""The accelerator, compiled once for all tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.servers.place import missing

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / 'switchboard' / 'store' / 'accelerator.c'
NAME = 'switchboard_accelerator'
# A mistake that a compiler can see is an error.
FLAGS = (
    '-O2',
    '-std=c11',
    '-Wall',
    '-Wextra',
    '-Wpedantic',
    '-Wshadow',
    '-Wconversion',
    '-Wno-sign-conversion',
    '-Werror',
)


class NotBuiltError(Exception):
    """This machine has not got what it takes."""


def build(directory: Path) -> Path:
    """Compile it into a directory; a process that has the directory on its path uses it.

    :raises NotBuiltError: there is no compiler, or no header files of Python.
    """
    compiler, include = shutil.which('cc') or shutil.which('gcc'), sysconfig.get_path('include')
    if compiler is None:
        raise NotBuiltError('no C compiler: apt-get install gcc libc6-dev')
    if not Path(include, 'Python.h').exists():
        raise NotBuiltError('no Python.h: apt-get install python3-dev')
    target, draft = directory / f'{NAME}.abi3.so', directory / f'{NAME}.{os.getpid()}'
    command = [compiler, *FLAGS, '-fPIC', '-shared', f'-I{include}', '-o', str(draft), str(SOURCE)]
    subprocess.run(command, check=True)
    draft.rename(target)
    return target


def build_or_skip(directory: Path) -> Path:
    """Compile it, or say that this machine cannot, where that is forgiven."""
    try:
        return build(directory)
    except NotBuiltError as error:
        missing(f'the accelerator: {error}')
        raise


@cache
def steps() -> Any:
    """:return: the module, in this process."""
    with tempfile.TemporaryDirectory(prefix='accelerator.') as directory:
        spec = importlib.util.spec_from_file_location(NAME, build_or_skip(Path(directory)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
