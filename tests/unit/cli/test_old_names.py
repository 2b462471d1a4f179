"""Options by the names that they had before: understood as before, and shown nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from switchboard.cli.app import VERBS, switchboard
from switchboard.cli.options import RenamedOption
from tests.helpers.commands import switchboard as program

# By type, a value that is not the default.
VALUES = {'duration': '7m', 'integer range': '7', 'text': 'red'}


def renamed() -> Iterator[tuple[str, RenamedOption, str]]:
    for verb in VERBS:
        command = switchboard.get_command(click.Context(switchboard), verb)
        assert command is not None
        for param in command.params:
            if isinstance(param, RenamedOption):
                yield from ((verb, param, old) for old in param.old)


RENAMED = list(renamed())


def parsed(verb: str, option: str, param: RenamedOption) -> object:
    command = switchboard.get_command(click.Context(switchboard), verb)
    assert command is not None
    args = [option] if param.is_flag else [option, VALUES[param.type.name]]
    context = command.make_context(verb, args, resilient_parsing=True)
    assert param.name is not None
    return context.params[param.name]


def test_there_are_some() -> None:
    assert {verb for verb, *_ in RENAMED} >= {'ls', 'tail', 'rm', 'queues', 'check', 'metrics', 'web'}


@pytest.mark.parametrize(('verb', 'param', 'old'), RENAMED, ids=lambda each: str(getattr(each, 'name', each)))
class TestEach:
    def test_means_the_same(self, verb: str, param: RenamedOption, old: str) -> None:
        assert (
            parsed(verb, old, param)
            == parsed(verb, param.opts[-1], param)
            != param.get_default(click.Context(switchboard))
        )

    def test_is_not_offered(self, verb: str, param: RenamedOption, old: str) -> None:
        if not old.startswith('--'):  # a letter is no beginning of a word
            return
        ran = program(verb, f'{old}x')
        assert ran.status == 2
        assert f"'{old}'" not in ran.err
        assert f"'{param.opts[-1]}'" in ran.err

    def test_is_shown_nowhere(self, verb: str, param: RenamedOption, old: str) -> None:
        assert old not in param.opts
        command = switchboard.get_command(click.Context(switchboard), verb)
        assert command is not None
        assert f'{old} ' not in command.get_help(click.Context(command, info_name=verb)).replace(',', ' ')
