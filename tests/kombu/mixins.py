"""kombu's own integration tests, for the transport that ``MIXINS_URL`` names.  Run by `test_conformance`, in a process of its own.

``{spool}`` in a URL stands for a directory that is there, ``{missing}`` for one that is not.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import kombu
import pytest

import switchboard.extra.kombu  # noqa: F401  makes the name known


def load(path: Path) -> ModuleType:
    """Import a file of kombu's source distribution."""
    spec = importlib.util.spec_from_file_location('kombu_common', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules['kombu_common'] = module
    spec.loader.exec_module(module)
    return module


common: Any = load(Path(os.environ['MIXINS_SOURCE']) / 't' / 'integration' / 'common.py')
IS_FILES = os.environ['MIXINS_URL'].startswith('filesystem')


def connect(url: str, tmp_path: Path, *, folder: str = 'spool') -> kombu.Connection:
    (tmp_path / 'spool').mkdir(exist_ok=True)
    options: dict[str, Any] = {}
    if IS_FILES:
        path = str(tmp_path / folder)
        options = {'data_folder_in': path, 'data_folder_out': path, 'control_folder': path}
    url = url.format(spool=tmp_path / 'spool', missing=tmp_path / 'missing')
    return kombu.Connection(url, transport_options=options)


@pytest.fixture
def connection(tmp_path):
    return connect(os.environ['MIXINS_URL'], tmp_path)


@pytest.fixture
def invalid_connection(tmp_path):
    return connect(os.environ['MIXINS_INVALID'], tmp_path, folder='missing/one')


@pytest.fixture
def failover_connection(tmp_path):
    return connect(os.environ['MIXINS_FAILOVER'], tmp_path)


class TestBasicFunctionality(common.BasicFunctionality):
    pass


class TestBaseExchangeTypes(common.BaseExchangeTypes):
    pass


class TestBaseTimeToLive(common.BaseTimeToLive):
    pass


class TestBasePriority(common.BasePriority):
    pass


class TestBaseMessage(common.BaseMessage):
    pass


if hasattr(common, 'BaseEventLoop'):  # from kombu 5.7 on

    class TestBaseEventLoop(common.BaseEventLoop):
        pass


class TestBaseFailover(common.BaseFailover):
    pass
