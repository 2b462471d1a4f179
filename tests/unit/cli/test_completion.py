"""What the shell is offered, and the man pages: every verb and option, and the names of the installation."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from switchboard import Spool
from switchboard.cli.app import VERBS, switchboard

PROGRAMS = ('switchboard-master', 'switchboard-runner')
ROOT = Path(__file__).resolve().parents[3]


def man_pages() -> dict[str, str]:
    specification = importlib.util.spec_from_file_location('manual', ROOT / 'bin' / '_manual.py')
    assert specification is not None
    assert specification.loader is not None
    manual = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(manual)
    return dict(manual.pages())


def test_each_option_of_each_verb_is_on_its_man_page_and_completed() -> None:
    pytest.importorskip('click_man', reason='the pages are made where releases are')
    pages = man_pages()
    shell = BashComplete(switchboard, {}, 'switchboard', '_SWITCHBOARD_COMPLETE')
    for name in VERBS:
        context = click.Context(switchboard)
        command = switchboard.get_command(context, name)
        assert command is not None
        options = [
            word
            for param in command.get_params(click.Context(command, parent=context))
            if isinstance(param, click.Option) and not param.hidden
            for word in param.opts
        ]
        page = pages[f'switchboard-{name}'].replace('\\-', '-')
        # A program that is also a verb has one page, the program's, which takes no spool alone.
        missing = [word for word in options if word not in page]
        assert missing == (['-s', '--spool'] if f'switchboard-{name}' in PROGRAMS else [])
        offered = {each.value for each in shell.get_completions([name], '-')}
        assert [word for word in options if word.startswith('--') and word not in offered] == []
        assert f'See \\fBswitchboard-{name}(1)' in pages['switchboard']


def test_a_man_page_names_its_verb_in_a_whole_sentence_and_keeps_the_lines_of_examples() -> None:
    pytest.importorskip('click_man', reason='the pages are made where releases are')
    pages = man_pages()
    for name, page in pages.items():
        lines = page.splitlines()
        assert not lines[lines.index('.SH NAME') + 1].endswith(('...', '- ')), name
        assert '\b' not in page, name
    listing = pages['switchboard-ls']
    assert "\n.nf\nswitchboard ls --where 'error:Timeout* older:1d -kind:mail'\nswitchboard ls in" in listing


@pytest.mark.parametrize(
    ('line', 'begun', 'offered'),
    [
        ('ls', '', ['in', 'parking', 'bad']),
        ('retry --queue', 'p', ['parking']),
        ('mv ENTRY --to', 'pa', ['parking']),
        ('drop', 'i', ['in']),
        ('restart', '', ['archive']),
        ('runner', 'a', ['archive']),
        ('scale', '', ['archive=']),
        ('route', '', ['mail']),
        ('enqueue --exchange', 'm', ['mail']),
        ('retry', 'ENTRY', ['ENTRY']),
        ('show', 'in/ENTRY', ['in/ENTRY']),
        ('edit', 'bad/', []),
        ('show', 'nowhere/', []),
        ('sample', 'systemd/switchboard.', ['systemd/switchboard.service']),
    ],
)
def test_the_shell_is_offered_the_names_of_the_installation(
    tmp_path: Path, line: str, begun: str, offered: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(
        '[switchboard]\nspool = spool\n[queue.in]\n[queue.parking]\n[runner.archive]\nclass = null\nqueue = in\n'
    )
    (tmp_path / 'exchange.cfg').write_text('[exchange.mail]\ntype = fanout\nbindings =\n    -> in\n')
    entry = Spool.from_config(config)['in'].enqueue('x')
    shell = BashComplete(switchboard, {}, 'switchboard', '_SWITCHBOARD_COMPLETE')
    words = line.replace('ENTRY', entry).split()
    found = shell.get_completions(['-C', str(config), *words], begun.replace('ENTRY', entry[:20]))
    expected = [each.replace('ENTRY', entry) for each in offered]
    assert [each.value for each in found if not each.value.startswith('-')] == expected
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('line', ['-C /nonexistent.cfg ls', '-C /dev/null restart', '-s /nonexistent show'])
def test_where_nothing_can_be_found_nothing_is_offered_and_nothing_said(
    line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shell = BashComplete(switchboard, {}, 'switchboard', '_SWITCHBOARD_COMPLETE')
    assert shell.get_completions(line.split(), '') == []
    assert capfd.readouterr() == ('', '')
