"""The builder of distributions: setuptools, and before it the man pages and completion, which are made from the verbs themselves.

A source distribution holds them, so a wheel that is built from one needs no more than setuptools.  From a checkout they are
made anew for each build, which needs click-man and the libraries that the verbs import.  An editable installation has none.
"""

from __future__ import annotations

import configparser
import sys
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the other hooks are setuptools' own

ROOT = Path(__file__).resolve().parent.parent


def is_released() -> bool:
    """:return: whether this is an unpacked source distribution, which has the pages of its verbs."""
    return (ROOT / 'PKG-INFO').exists()


def needed_for_pages() -> list[str]:
    """:return: the distributions that must be installed to make the pages."""
    if is_released():
        return []
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    libraries = config['options']['install_requires'].split('\n')
    tools = config['options.extras_require']['release'].split('\n')
    return [*filter(None, libraries), *(each for each in tools if each.startswith('click-man'))]


def make_pages() -> None:
    """Write the pages below ``share/``, where setup.cfg takes them from."""
    if not is_released():
        # In this process, which has the environment that pip builds in, where click-man is, on its path.  Of a new one pip's own hook would take the checkout
        # away again, where an editable installation of it belongs to pip's environment.
        sys.path.insert(0, str(ROOT))
        import _manual

        _manual.write(ROOT / 'share')


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """See PEP 517."""
    return build_meta.get_requires_for_build_sdist(config_settings) + needed_for_pages()


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """See PEP 517."""
    return build_meta.get_requires_for_build_wheel(config_settings) + needed_for_pages()


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """See PEP 517."""
    make_pages()
    return build_meta.build_sdist(sdist_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """See PEP 517."""
    make_pages()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
