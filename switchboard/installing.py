"""The way in which this copy of Switchboard was installed, and so the command that adds a library to it.

``pip install`` alone is no answer: it may be another Python's pip, or bring the package into another place than the one that is at work,
and the name of the import is not the name of the distribution.
"""

from __future__ import annotations

import os
import sys

DISTRIBUTION = 'switchboard-queue'


def install_advice(what: str, library: str, extra: str) -> str:
    """:return: the advice where a library is missing, with the command that brings it."""
    return f'{what} needs the library {library}, which is not installed: {install_command(extra)}'


def install_command(extra: str, *, package: str | None = None) -> str:
    """:return: the command that adds the libraries of an extra to the copy that is at work.

    :param package: the directory of that copy; only tests name another.
    """
    # Nothing of this is loaded unless something is missing: nearly all programs load this module.
    import shlex
    import site
    import sysconfig

    place = os.path.dirname(package or os.path.dirname(os.path.abspath(__file__)))
    wanted = f'{DISTRIBUTION}[{extra}]'
    if os.path.exists(os.path.join(place, 'setup.cfg')):
        return _install('-e', f'{place}[{extra}]')
    if os.path.exists(os.path.join(sys.prefix, 'pipx_metadata.json')):
        return f'pipx install --force {shlex.quote(wanted)}'
    if os.path.exists(os.path.join(sys.prefix, 'uv-receipt.toml')):
        return f'uv tool install {shlex.quote(wanted)}'
    if sys.prefix == sys.base_prefix:
        force = ['--break-system-packages'] if _is_managed() else []
        if place == site.getusersitepackages():
            return _install(*force, '--user', wanted)
        if place in site.getsitepackages():
            return _install(*force, wanted)
    elif place in (sysconfig.get_path('purelib'), sysconfig.get_path('platlib')):
        return _install(wanted)
    return _install('--target', place, wanted)


def _install(*arguments: str) -> str:
    import shlex

    if _made_by_uv():
        return shlex.join(['uv', 'pip', 'install', '--python', sys.executable, *arguments])
    return shlex.join([sys.executable, '-m', 'pip', 'install', *arguments])


def _made_by_uv() -> bool:
    """:return: whether it is an environment without a pip of its own."""
    try:
        with open(os.path.join(sys.prefix, 'pyvenv.cfg')) as lines:
            return any(line.startswith('uv =') for line in lines)
    except OSError:
        return False


def _is_managed() -> bool:
    """:return: whether the system's package manager wants to be asked (PEP 668)."""
    import sysconfig

    return os.path.exists(os.path.join(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED'))
