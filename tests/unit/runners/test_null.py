"""The runner that forgets."""

from __future__ import annotations

from pathlib import Path

from switchboard.runners.null import Null
from tests.unit.runners.pipelines import Pipeline, mail


def test_every_message_is_finished_and_leaves_nothing(tmp_path: Path) -> None:
    case = Pipeline(tmp_path, '[runner.null]\nclass = runners.null:Null\nqueue = in\n')
    case.spool['in'].enqueue_many([mail(), b'\0', 'text', {'json': None}])
    case.work(Null, 'null')
    for suffix in ('.pck', '.bak', '.psv'):
        assert case.spool['in'].get_files(suffix) == case.spool['bad'].get_files(suffix) == []
