"""Which verbs ask: as the manual says, and ``--yes`` is taken by every one that changes something."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from switchboard import Spool
from switchboard.cli.app import TAKES_YES, VERBS
from switchboard.cli.app import switchboard as program
from switchboard.cli.exits import READ_ONLY_VERBS, Exit
from tests.helpers.commands import fail, succeed, switchboard

PAGE = Path(__file__).parents[3] / 'docs' / 'reference' / 'cli.md'
ROW = re.compile(r'^\| (`.*`) \| (?:always|if the .*) \|$', re.MULTILINE)
ASKING = sorted(verb for row in ROW.findall(PAGE.read_text()) for verb in re.findall(r'`([\w-]+)`', row))


def option(verb: str) -> click.Option | None:
    command = program.get_command(click.Context(program), verb)
    assert command is not None
    found = [each for each in command.params if '--yes' in each.opts]
    assert len(found) < 2
    return found[0] if found and isinstance(found[0], click.Option) else None


def test_every_verb_that_changes_something_takes_the_answer_and_those_that_ask_show_it() -> None:
    options = {verb: found for verb in VERBS if (found := option(verb)) is not None}
    assert options.keys() == TAKES_YES
    assert sorted(verb for verb, found in options.items() if not found.hidden) == ASKING
    assert {'pause', 'drain', 'resume', 'declare', 'tidy', 'spares', 'edit', 'reload'} <= options.keys()
    assert not READ_ONLY_VERBS & options.keys()


@pytest.mark.parametrize('verb', ASKING)
def test_a_verb_of_the_table_asks(spool: Spool, verb: str) -> None:
    spool['in'].enqueue('waiting')
    held = spool['in'].enqueue('held')
    failed = fail(spool, 'in', 'failed')
    place = ('-s', spool.directory)
    succeed(*place, 'hold', held)
    if verb == 'restore':
        succeed(*place, 'rm', '--yes', failed)
    words = {'rm': [failed], 'purge': ['in'], 'delete': ['in'], 'mv': ['--all', 'out']}.get(verb, ['--all'])
    ran = switchboard(*place, verb, *words)
    assert (ran.status, 'say --yes' in ran.err) == (Exit.USAGE, True), ran.err
    succeed(*place, verb, '--yes', *words)


@pytest.mark.parametrize('words', [('pause', 'in'), ('declare', 'fresh'), ('tidy',), ('spares', 'empty')])
def test_what_does_not_ask_takes_the_answer(spool: Spool, words: tuple[str, ...]) -> None:
    spool['in']
    succeed('-s', spool.directory, *words, '--yes')
