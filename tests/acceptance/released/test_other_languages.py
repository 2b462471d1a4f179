"""Entries that are made without a line of ours: the examples of the how-to, run and read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.message.naming import is_filebase
from tests.helpers.waiting import PATIENCE_S
from tests.servers.place import missing

PAGE = Path(__file__).resolve().parents[3] / 'docs' / 'howto' / 'shell.md'
LANGUAGES = {'sh': 'enqueue.sh', 'node': 'enqueue.mjs'}
BODIES = (b'', b'Subject: x\n\nworld\n', b'\0\xff no end of line', b'x' * 300_000)
METADATA = {'sender': 'ann@example.com', 'text': 'ü \\ "quoted"\n', 'list': [1, None]}


def example(name: str) -> str:
    """:return: the text of a file that the page writes."""
    found = re.search(
        rf'<!-- file: {re.escape(name)} -->\n```\w*\n(.*?)^```', PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[1]


@pytest.fixture(params=LANGUAGES)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    program = shutil.which(request.param)
    if program is None:
        missing(f'{request.param} (apt-get install nodejs)')
    script = tmp_path / LANGUAGES[request.param]
    script.write_text(example(script.name))
    return [str(program), str(script)]


@pytest.mark.parametrize('body', BODIES, ids=lambda body: f'{len(body)} bytes')
def test_an_entry_of_another_language_is_read_as_it_was_meant(
    command: list[str], tmp_path: Path, body: bytes
) -> None:
    spool = Spool(tmp_path / 'spool')
    queue = spool['in']
    arguments = [*command, str(tmp_path / 'spool' / 'in'), 'bytes', json.dumps(METADATA)]
    names = []
    for _ in range(2):
        made = subprocess.run(arguments, input=body, capture_output=True, check=True, timeout=PATIENCE_S)
        assert made.stderr == b''
        names.append(made.stdout.decode().strip())
    assert all(is_filebase(name) for name in names)
    assert queue.files == names
    for name in names:
        assert queue.dequeue(name) == (body, {**METADATA, 'version': 3, '_parsemsg': False})
        queue.finish(name)
    assert list((tmp_path / 'spool' / '.drafts').iterdir()) == []


def test_the_example_for_the_shell_is_as_short_as_it_claims_to_be() -> None:
    assert len(example('enqueue.sh').splitlines()) <= 21


def test_the_example_for_the_shell_says_when_it_could_not_store(tmp_path: Path) -> None:
    script = tmp_path / 'enqueue.sh'
    script.write_text(example('enqueue.sh'))
    failed = subprocess.run(
        ['sh', str(script), str(tmp_path / 'nowhere' / 'in'), 'bytes'],
        input=b'x',
        capture_output=True,
        timeout=PATIENCE_S,
    )
    assert failed.returncode != 0
    assert failed.stdout == b''
