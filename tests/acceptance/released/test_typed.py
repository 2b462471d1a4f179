"""README and tutorial, typed into a real terminal as a person does: from a checkout, and from an installed wheel."""

from __future__ import annotations

import doctest
import os
import pty
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cli.terminal import ESCAPES
from tests.acceptance.released.wheel import ROOT, Installed, built_once
from tests.helpers.waiting import PATIENCE_S
from tests.test_documentation import Block, blocks_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGES = ('README.md', 'docs/tutorial/first-queue.md')
# Installing has been done, and programs of a checkout have tests of their own.
NOT_TYPED = ('pip install ', 'bin/')
LOG_LINE = re.compile(r'^\d+\.\d{9}\+[0-9a-f]{40} .*\n', re.MULTILINE)
PROMPT = 'typed$ '
# Where it is typed: each page in one of them a day, and the other page in the other.
INSTALLATIONS = ('checkout', 'wheel')


class Typist:
    """An interactive program on a terminal.

    :param prompts: what it shows when it waits for the next line.
    """

    def __init__(self, words: list[str], directory: Path, environment: dict[str, str], *prompts: str) -> None:
        self._prompts = prompts
        self._end, slave = pty.openpty()
        self._process = subprocess.Popen(
            words,
            cwd=directory,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._until_it_waits()

    def type(self, line: str) -> tuple[str, str]:
        """Type one line and Enter.

        :return: what is shown until it waits again, and with which prompt.
        """
        os.write(self._end, line.encode() + b'\n')
        shown, prompt = self._until_it_waits()
        return shown.partition('\n')[2], prompt  # the terminal repeats what is typed

    def _until_it_waits(self) -> tuple[str, str]:
        shown, give_up_s = '', time.monotonic() + PATIENCE_S
        while True:
            for prompt in self._prompts:
                if shown == prompt or shown.endswith('\n' + prompt):
                    return shown.removesuffix(prompt), prompt
            ready, _, _ = select.select([self._end], [], [], max(0.0, give_up_s - time.monotonic()))
            assert ready, f'it does not wait for the next line after {shown[-2000:]!r}'
            shown += ESCAPES.sub('', os.read(self._end, 65536).decode()).replace('\r', '')

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp('wheel') / 'installed', built_once(tmp_path_factory)[1])


@pytest.fixture(params=INSTALLATIONS)
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    common = {'HOME': str(tmp_path), 'LC_ALL': 'C.UTF-8', 'TERM': 'dumb', 'NO_COLOR': '1', 'PS1': PROMPT}
    if request.param == 'wheel':
        installed: Installed = request.getfixturevalue('wheel')
        return {**installed.environment, **common}
    python = shutil.which('python', path=str(ROOT / '.venv' / 'bin')) or pytest.skip(
        'no environment in .venv'
    )
    return {**common, 'PATH': f'{ROOT / "bin"}:{Path(python).parent}:/usr/local/bin:/usr/bin:/bin'}


def typed_python(block: Block, python: Typist, page: str) -> None:
    """Type a block line by line, and compare what is shown with what the page shows."""
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS
    wanted: list[str] = []
    shown = ''

    def compare(place: str) -> None:
        nonlocal shown
        text = ''.join(f'{line}\n' for line in wanted if line)
        seen = LOG_LINE.sub('', shown)
        assert checker.check_output(text, seen, flags), (
            f'{page}, before {place!r}: wanted {text!r}, got {seen!r}'
        )
        wanted.clear()
        shown = ''

    prompt = '>>> '
    for line in block.text.splitlines():
        if line.startswith(('>>> ', '... ')) or line in ('>>>', '...'):
            assert line[:3] == prompt[:3], f'{page}:{block.line}: {line!r} is typed where {prompt!r} waits'
            if line.startswith('>>>'):
                compare(line)
            more, prompt = python.type(line[4:])
            shown += more
        else:
            wanted.append(line)
    assert prompt == '>>> ', f'{page}:{block.line}: the block leaves a statement open'
    compare('the end')


def typed_console(block: Block, shell: Typist, page: str) -> None:
    for line in block.text.splitlines():
        command = line.removeprefix('$ ')
        if line.startswith('$ ') and not command.startswith(NOT_TYPED):
            shown, _ = shell.type(command)
            status, _ = shell.type('echo $?')
            assert status.strip() == '0', f'{page}: {line}\n{shown}'


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Iterator[Typist]:
    made = Typist(['/bin/sh'], tmp_path, environment, PROMPT)
    yield made
    made.close()


@pytest.fixture
def python(environment: dict[str, str], tmp_path: Path) -> Iterator[Typist]:
    found = shutil.which('python', path=environment['PATH'])
    assert found
    made = Typist([found, '-q'], tmp_path, {**environment, 'PYTHON_BASIC_REPL': '1'}, '>>> ', '... ')
    yield made
    made.close()


@pytest.mark.parametrize('page', PAGES)
@pytest.mark.in_turns('environment', INSTALLATIONS)
def test_each_block_runs_as_it_is_printed(page: str, tmp_path: Path, shell: Typist, python: Typist) -> None:
    for block in blocks_of((ROOT / page).read_text()):
        if block.mark.startswith('file: '):
            (tmp_path / block.mark.removeprefix('file: ')).write_text(block.text)
        if block.language == 'python' and '>>>' in block.text:
            typed_python(block, python, page)
        elif block.language == 'console':
            typed_console(block, shell, page)


def test_the_first_screen_says_how_to_install() -> None:
    first = (ROOT / 'README.md').read_text().splitlines()[:24]
    assert '$ pip install switchboard-queue' in first


def test_a_block_that_leaves_a_statement_open_is_noticed(python: Typist) -> None:
    block = next(blocks_of('```python\n>>> if 1:\n...     2\n```\n'))
    with pytest.raises(AssertionError, match='leaves a statement open'):
        typed_python(block, python, 'page')
