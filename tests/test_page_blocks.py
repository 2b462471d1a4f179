"""What a page shows and no test can run as it stands (another machine's files, a service's commands) is at least well-formed.

Commands have verbs and options that there are, configurations are read without a mistake, scripts are scripts.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from switchboard.cli.app import switchboard as group
from switchboard.config.config import Config
from switchboard.errors import ConfigErrors
from tests.test_documentation import PAGES as ALL_PAGES
from tests.test_documentation import ROOT, blocks_of

PAGES = [page for page in ALL_PAGES if 'changes' not in page.parts]
FENCED = re.compile(r'^ *```.*?^ *```[^`\n]*$', re.DOTALL | re.MULTILINE)
SPAN = re.compile(r'`(switchboard [^`\n]+)`')
COMMAND = re.compile(r'(?:^|\$ |[|;&(] ?| -- |-exec )switchboard (?P<words>[^|;&#<>)\n]*)', re.MULTILINE)
# They stand for any verb.
ANY_VERB = {'VERB', '$@'}

OURS = re.compile(r'^\[(switchboard|master|runner\.|queue\.|exchange\.)', re.MULTILINE)
# A page shows a part: its queues stand elsewhere.
OF_OTHER_PARTS = re.compile(
    r'there is no (queue|exchange)|nobody consumes this queue|no declared queue is called so'
)
# Shown for the sake of its mistakes.
WRONG_ON_PURPOSE = 'spol = '


def commands_of(page: str) -> Iterator[str]:
    for block in blocks_of(page):
        if block.language in ('console', 'sh'):
            lines = block.text.splitlines()
            typed = lines if block.language == 'sh' else [line for line in lines if line[:2] in ('$ ', '> ')]
            yield from (match['words'] for match in COMMAND.finditer('\n'.join(typed)))
    for span in SPAN.finditer(FENCED.sub('', page)):
        yield from (match['words'] for match in COMMAND.finditer(span[1]))


def mistake_in(words: str) -> str | None:
    """:return: a verb or an option of a command that there is not."""
    try:
        parts = shlex.split(words)
    except ValueError:  # cut off in the middle of a text
        parts = words.split()
    command: click.Command = group
    common = group.params
    rest = iter(parts)
    for part in rest:
        if part == '--':
            break
        if part.startswith('-') and part != '-':
            name = part.partition('=')[0] if part.startswith('--') else part[:2]
            found = [
                each
                for each in (*command.params, *common)
                if isinstance(each, click.Option) and name in (*each.opts, *each.secondary_opts)
            ]
            if not found and name != '--help':
                return f'{command.name} has no option {part}'
            if found and not found[0].is_flag and part == name:
                next(rest, None)
        elif isinstance(command, click.Group):
            below = command.get_command(click.Context(command), part)
            if below is None:
                return None if part in ANY_VERB else f'{command.name} has no verb {part}'
            command = below
    return None


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_command_of_a_page_has_a_verb_and_options_that_there_are(path: Path) -> None:
    assert [(each, wrong) for each in commands_of(path.read_text()) if (wrong := mistake_in(each))] == []


def test_a_command_that_there_is_not_is_noticed() -> None:
    page = '```console\n$ switchboard -C a.cfg lst\n$ x | switchboard ls in --jsn; switchboard ls --limit 3 --json\n```\n`switchboard spares fil`\n'
    assert [mistake_in(each) for each in commands_of(page)] == [
        'switchboard has no verb lst',
        'ls has no option --jsn',
        None,
        'spares has no verb fil',
    ]


def mistakes_in_configuration(text: str, directory: Path) -> list[str]:
    sections = re.split(r'^(?=\[)', text, flags=re.MULTILINE)
    is_exchange = [each.startswith('[exchange.') for each in sections]
    others = ''.join(each for each, is_one in zip(sections, is_exchange, strict=True) if not is_one)
    if '[switchboard]\n' not in others:
        others = f'[switchboard]\n{others}'
    if not re.search(r'^spool =', others, re.MULTILINE):
        others = others.replace('[switchboard]\n', '[switchboard]\nspool = spool\n')
    (directory / 'switchboard.cfg').write_text(others)
    exchanges = ''.join(each for each, is_one in zip(sections, is_exchange, strict=True) if is_one)
    (directory / 'exchange.cfg').write_text(exchanges)
    try:
        found = Config.load(directory / 'switchboard.cfg').warnings
    except ConfigErrors as errors:
        found = [*errors.errors, *errors.warnings]
    return [str(each) for each in found if not OF_OTHER_PARTS.search(str(each))]


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_configuration_of_a_page_has_no_mistake(path: Path, tmp_path: Path) -> None:
    for block in blocks_of(path.read_text()):
        if block.language == 'ini' and OURS.search(block.text) and WRONG_ON_PURPOSE not in block.text:
            assert mistakes_in_configuration(block.text, tmp_path) == [], block.line


def test_a_mistake_in_a_configuration_is_noticed(tmp_path: Path) -> None:
    [wrong] = mistakes_in_configuration('[queue.in]\nmax_mesages = 3\n', tmp_path)
    assert 'did you mean max_messages' in wrong


@pytest.mark.parametrize('path', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_script_of_a_page_is_one(path: Path) -> None:
    for block in blocks_of(path.read_text()):
        if block.language == 'sh':
            subprocess.run(['sh', '-n'], input=block.text, text=True, check=True, timeout=60)
