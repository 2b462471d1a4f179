"""kombu's own integration tests, for the transport that ``MIXINS_URL`` names.  Run by `test_conformance`, in a process of its own.

``{spool}`` in a URL stands for a directory that is there, ``{missing}`` for one that is not.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import kombu
import pytest

import switchboard.extra.kombu  # noqa: F401  makes the name known


def load(folder: Path, name: str) -> ModuleType:
    """Import a file of kombu's source distribution."""
    package = sys.modules.setdefault('kombu_integration', ModuleType('kombu_integration'))
    package.__path__ = [str(folder)]
    return importlib.import_module(f'kombu_integration.{name}')


FOLDER = Path(os.environ['MIXINS_SOURCE']) / 't' / 'integration'
common: Any = load(FOLDER, 'common')
# Those of a transport that delivers one message a call, as all but py-amqp do: the common ones of priorities call once for three.
one_a_call: Any = load(FOLDER, 'test_mongodb').test_MongoDBPriority
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
    test_publish_consume = one_a_call.test_publish_consume
    test_publish_requeue_consume = one_a_call.test_publish_requeue_consume


class TestBaseMessage(common.BaseMessage):
    pass


if hasattr(common, 'BaseEventLoop'):  # from kombu 5.7 on

    class TestBaseEventLoop(common.BaseEventLoop):
        pass


class TestBaseFailover(common.BaseFailover):
    pass
