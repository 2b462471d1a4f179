"""Every example in the documentation is run: what a page shows is what a reader gets.

One page is one test.  Its blocks run from top to bottom in one temporary directory, one Python namespace and one shell;
CONTRIBUTING.md says how blocks are marked.  A library for this (sybil, pytest's ``--doctest-glob``) was rejected because a
page here mixes Python, shell and configuration, and they must see each other's files.
"""

from __future__ import annotations

import ast
import doctest
import os
import re
import selectors
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.processes import GOING_S, remaining

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path for path in [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md')] if path.exists())

# Longer than any command of a page should take, shorter than the time-out of a test.
COMMAND_TIMEOUT_S = 120.0

FENCE = re.compile(
    r'^(?:<!--[ ](?P<mark>run|file:[ ]\S+)[ ]-->\n\s*)?^(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$',
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    mark: str
    line: int


def blocks_of(page: str) -> Iterator[Block]:
    for match in FENCE.finditer(page):
        text = ''.join(line.removeprefix(match['indent']) for line in match['text'].splitlines(keepends=True))
        line = page.count('\n', 0, match.start('text'))
        yield Block(match['language'], text, match['mark'] or '', line)


class Shell:
    """One ``sh`` that outlives its commands, so that ``cd`` and variables hold from block to block."""

    def __init__(self, directory: Path) -> None:
        self._mark = f'SWITCHBOARD-DOCUMENTATION-{uuid.uuid4().hex}'
        bin_directories = [Path(sys.executable).parent, ROOT / 'bin']
        environment = {
            'DOCUMENTATION_SESSION': self._mark,
            'HOME': str(directory),
            'LC_ALL': 'C.UTF-8',
            'COLUMNS': '100',
            'NO_COLOR': '1',
            'TERM': 'dumb',
            'TZ': 'UTC',
            'PATH': os.pathsep.join([*map(str, bin_directories), '/usr/local/bin', '/usr/bin', '/bin']),
        }
        self._process = subprocess.Popen(
            ['/bin/sh'],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: str) -> tuple[str, int]:
        """:return: all that the command wrote, and its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.write(f'{{ {command}\n}} </dev/null\necho "{self._mark} $?"\n'.encode())
        self._process.stdin.flush()
        written, _, status = self._read_to_mark(command).partition(self._mark)
        return written, int(status)

    def _read_to_mark(self, command: str) -> str:
        assert self._process.stdout is not None
        pattern = re.compile(self._mark.encode() + rb' \d+\n')
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        written = b''
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not pattern.search(written):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f'{command!r} has not ended in {COMMAND_TIMEOUT_S} s: {written!r}')
                piece = os.read(self._process.stdout.fileno(), 65536)
                if not piece:
                    raise AssertionError(f'{command!r} ended the shell: {written!r}')
                written += piece
        return written.decode(errors='replace')

    def close(self, going_s: float) -> list[str]:
        """End the shell and whatever the page has left running.

        :param going_s: how long what ends may take for it.
        :return: the command lines of what was left.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(COMMAND_TIMEOUT_S)
        return remaining('DOCUMENTATION_SESSION', self._mark, kill=True, within_s=going_s)


@dataclass
class Page:
    """The state that the blocks of one page share."""

    name: str
    directory: Path
    shell: Shell
    namespace: dict[str, object] = field(default_factory=lambda: {'__name__': '__main__'})

    def run(self, block: Block) -> None:
        if block.mark.startswith('file: '):
            path = self.directory / block.mark.removeprefix('file: ')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        if block.language == 'python':
            self._run_python(block)
        elif block.mark == 'run':
            assert block.language == 'console', f'{self.name}:{block.line}: only console blocks can be run'
            self._run_console(block)

    def _run_python(self, block: Block) -> None:
        if '>>>' not in block.text:
            if block.mark == 'run':
                exec(compile(block.text, f'{self.name}:{block.line}', 'exec'), self.namespace)
            else:
                ast.parse(block.text, f'{self.name}:{block.line}')
            return
        parsed = doctest.DocTestParser().get_doctest(block.text, {}, self.name, self.name, block.line)
        parsed.globs = self.namespace
        reports: list[str] = []
        flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
        results = doctest.DocTestRunner(optionflags=flags).run(parsed, out=reports.append, clear_globs=False)
        assert results.failed == 0, ''.join(reports)

    def _run_console(self, block: Block) -> None:
        checker = doctest.OutputChecker()
        for line, command, wanted in commands_of(block):
            written, status = self.shell.run(command)
            written = '\n'.join(part.rstrip() for part in written.splitlines()) + '\n' if written else ''
            place = f'{self.name}:{line}: $ {command}'
            example = doctest.Example(command, wanted)
            assert checker.check_output(wanted, written, doctest.ELLIPSIS), (
                f'{place}\n{checker.output_difference(example, written, doctest.ELLIPSIS)}'
            )
            assert status == 0, f'{place}\nexited with {status}'


def commands_of(block: Block) -> Iterator[tuple[int, str, str]]:
    """:return: line, command and expected output; lines that begin with ``> `` continue a command."""
    pieces = re.split(r'^\$ ', block.text, flags=re.MULTILINE)
    assert not pieces[0].strip(), f'line {block.line}: a console block begins with a prompt'
    line = block.line + pieces[0].count('\n') + 1
    for piece in pieces[1:]:
        lines = piece.splitlines()
        last = 1
        while last < len(lines) and lines[last].startswith('> '):
            last += 1
        command = '\n'.join([lines[0], *(continued[2:] for continued in lines[1:last])])
        wanted = [part.rstrip() for part in lines[last:]]
        while wanted and not wanted[-1]:
            wanted.pop()
        yield line, command, ''.join(f'{part}\n' for part in wanted)
        line += len(lines)


def run_page(
    text: str, name: str, directory: Path, monkeypatch: pytest.MonkeyPatch, going_s: float = GOING_S
) -> None:
    monkeypatch.chdir(directory)
    monkeypatch.syspath_prepend(directory)
    modules_before = set(sys.modules)
    shell = Shell(directory)
    try:
        page = Page(name, directory, shell)
        for block in blocks_of(text):
            page.run(block)
    finally:
        left = shell.close(going_s)
        for module in set(sys.modules) - modules_before:
            if str(directory) in str(getattr(sys.modules[module], '__file__', None)):
                del sys.modules[module]
    assert left == [], f'{name} has left processes running'


@pytest.mark.parametrize(
    'path',
    [
        # Programs that a page starts take seconds.
        pytest.param(path, id=str(path.relative_to(ROOT)), marks=[pytest.mark.slow] if runs_programs else [])
        for path in PAGES
        for runs_programs in ['<!-- run -->' in path.read_text()]
    ],
)
def test_every_example_of_a_page_does_what_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_page(path.read_text(), str(path.relative_to(ROOT)), tmp_path, monkeypatch)


GOOD_PAGE = """
<!-- file: greeting.txt -->
```
hello
```

<!-- run -->
```console
$ cat greeting.txt
hello
$ where=here
```

```python
>>> open('greeting.txt', 'a').write('again')  # doctest: +SKIP
>>> words = ['he...']
```

```python
>>> words
['he...']
```

<!-- run -->
```console
$ cat <<END
> $where
> END
here
```
"""

BAD_BLOCKS = {
    'another output': '<!-- run -->\n```console\n$ echo one\ntwo\n```\n',
    'a failing command': '<!-- run -->\n```console\n$ false\n```\n',
    'a doctest': '```python\n>>> 1 + 1\n3\n```\n',
    'a syntax error': '```python\ndef f(:\n```\n',
    'a process left': '<!-- run -->\n```console\n$ sleep 600 & sleep 1\n```\n',
}


def test_blocks_of_a_page_share_directory_namespace_and_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(list(blocks_of(GOOD_PAGE))) == 5
    run_page(GOOD_PAGE, 'good', tmp_path, monkeypatch)


@pytest.mark.parametrize(
    'block',
    [
        pytest.param(each, id=name, marks=[pytest.mark.slow] if 'sleep' in each else [])
        for name, each in BAD_BLOCKS.items()
    ],
)
def test_an_example_that_does_not_hold_is_noticed(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((AssertionError, SyntaxError)):
        run_page(block, 'bad', tmp_path, monkeypatch, going_s=1.0)


def test_every_page_stands_in_the_index_under_its_title() -> None:
    index = (ROOT / 'docs' / 'README.md').read_text()
    for page in PAGES:
        place = page.relative_to(ROOT / 'docs').as_posix() if page.is_relative_to(ROOT / 'docs') else ''
        if place and place != 'README.md' and not place.startswith('changes/'):
            title = page.read_text().splitlines()[0].removeprefix('# ')
            assert f'[{title}]({place})' in index
