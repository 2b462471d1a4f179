"""A directory that holds others and becomes a spool: it is told, and what is not the spool's is let be."""

from __future__ import annotations

import ast
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from switchboard import Spool
from switchboard.cli.exits import Exit
from tests.helpers.commands import fail, succeed, switchboard
from tests.helpers.processes import NOBODY, in_child

ROOT = Path(__file__).parents[3]
CHECKS = ROOT / 'switchboard' / 'operating' / 'health.py'
# What would change, or take away, directories that are not the spool's.
DANGEROUS = ('chown', 'chmod', 'delete')
# Names of another's directories; the second one is empty, and open to a group.
FOREIGN = {'cron': 0o700, 'mail': 0o2775, 'lost+found': 0o700, '.ssh': 0o700}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose spool is a directory of others, which is no spool yet."""
    path = tmp_path / 'switchboard.cfg'
    path.write_text('[switchboard]\nspool = var\n[runner.in]\nclass = null\nqueue = in\n')
    for name, mode in FOREIGN.items():
        (tmp_path / 'var' / name).mkdir(parents=True)
        (tmp_path / 'var' / name).chmod(mode)
    (tmp_path / 'var' / 'cron' / 'root').touch()
    for name in ('in', 'bad'):
        (tmp_path / 'var' / name).mkdir()
    (tmp_path / 'var' / 'log').symlink_to(tmp_path)
    (tmp_path / 'var').chmod(0o755)
    return path


def told(config: Path) -> str:
    return f'{config.parent / "var"} is no spool yet, and holds other directories (cron, mail)'


def spool_of(config: Path) -> tuple[str, Path]:
    return '-s', config.parent / 'var'


@pytest.mark.parametrize(
    'words',
    ['init', 'enqueue in', 'tidy', 'purge in --yes', 'declare orders'],
)
def test_every_verb_that_makes_a_directory_a_spool_tells_of_others_in_it(config: Path, words: str) -> None:
    assert told(config) in succeed('-C', config, *words.split(), input=b'x').err
    assert (config.parent / 'var' / '.spare').is_dir()
    assert told(config) not in switchboard('-C', config, 'enqueue', 'in', input=b'x').err


def test_a_spool_without_a_configuration_tells_of_others_too(config: Path) -> None:
    ran = succeed(*spool_of(config), 'enqueue', 'x', input=b'x')
    assert told(config).replace('mail)', 'in, mail)') in ran.err


def test_no_verb_makes_a_spool_behind_the_question() -> None:
    makers = {
        path.name
        for path in (ROOT / 'switchboard' / 'cli').rglob('*.py')
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and re.match(r'Spool(\.from_config)?$', ast.unparse(call.func))
    }
    # `purge` is at work in a spool that has been asked about.
    assert makers == {'context.py', 'queues.py'}


@pytest.mark.parametrize('is_made', [False, True])
def test_check_gives_no_advice_about_directories_of_others(config: Path, is_made: bool) -> None:
    checked = succeed('-C', config, 'check').out
    assert told(config) in checked
    if is_made:
        succeed('-C', config, 'init')
        if os.geteuid() == 0:
            os.chown(config.parent / 'var' / 'in', NOBODY, NOBODY)
        checked = succeed('-C', config, 'check').out
        assert told(config) not in checked
        assert 'directories without the set-group-id bit (var, ' in checked
        assert (
            'change these alone, for directories of others stand there as well (.ssh, cron, mail)' in checked
        )
        assert 'a directory cron, which this configuration does not declare as a queue' in checked
        assert 'an empty directory mail, which this configuration does not declare as a queue' in checked
    assert [word for word in DANGEROUS if word in checked] == []
    assert 'links' not in checked


def test_names_of_others_act_on_no_terminal(config: Path) -> None:
    (config.parent / 'var' / 'a\a\r\nwarning: b').mkdir(mode=0o700)
    for words in ('check', 'init', 'check'):
        ran = succeed('-C', config, words)
        assert [char for char in ran.out + ran.err if char in '\a\r'] == []
        assert not re.search('^warning: b', ran.out + ran.err, re.MULTILINE)
        assert r'a\x07\r\nwarning: b' in ran.out + ran.err


def test_who_follows_the_note_afterwards_gets_a_spool_alone(config: Path) -> None:
    var = config.parent / 'var'
    succeed('-C', config, 'enqueue', 'in', input=b'x')
    config.write_text(config.read_text().replace('spool = var', 'spool = var/spool'))
    ran = switchboard('-C', config, 'init')
    way_back = (
        f'name {var}; if that has become a spool by mistake, remove .spare there, which holds no messages'
    )
    assert (ran.status, way_back in ran.err) == (Exit.NO_INPUT, True)
    shutil.rmtree(var / '.spare')
    assert 'no spool' not in succeed('-C', config, 'init').err
    assert 'no mistakes' in succeed('-C', config, 'check').out


def test_a_spool_restored_without_its_spares_is_a_spool(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n[runner.in]\nclass = null\nqueue = in\n')
    succeed('-C', config, 'init')
    succeed('-C', config, 'declare', 'orders')
    succeed('-C', config, 'enqueue', 'orders', input=b'x')
    for name in ('declared', 'bare'):
        left_out = ('.spare', '.stage', *(('.run',) if name == 'bare' else ()))
        shutil.copytree(tmp_path / 'spool', tmp_path / name, ignore=shutil.ignore_patterns(*left_out))
    config.write_text(config.read_text().replace('spool = spool', 'spool = declared'))
    assert 'no mistakes' in succeed('-C', config, 'check').out
    for words in (('-C', config, 'init'), ('-s', tmp_path / 'bare', 'enqueue', 'orders')):
        assert 'no spool yet' not in succeed(*words, input=b'x').err


def test_an_entry_in_any_state_is_an_entry_and_what_wakes_watchers_is_none(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = spool\n')
    spool = Spool(tmp_path / 'spool')
    fail(spool, 'in', 'x')
    (tmp_path / 'spool' / 'bad').rename(tmp_path / 'spool' / 'old')
    _ = spool['woken'].files
    (tmp_path / 'spool' / 'woken' / '.wake').touch()
    checked = succeed('-C', config, 'check').out
    assert '1 entry in the queue old, which this configuration does not declare any more' in checked
    assert 'an empty queue woken, which this configuration does not declare any more' in checked
    assert 'other files' not in checked


@pytest.mark.skipif(os.geteuid() != 0, reason='needs a second user')
def test_a_spool_that_may_not_be_looked_into_is_one_warning_among_others() -> None:
    with tempfile.TemporaryDirectory(
        dir='/tmp'
    ) as name:  # pytest's own directories are closed to other users
        os.chmod(name, 0o755)
        config = Path(name, 'switchboard.cfg')
        config.write_text('[switchboard]\nspool = spool\n[queue.lonely]\n')
        succeed('-C', config, 'init')
        ran = in_child(lambda: switchboard('-C', config, 'check'), NOBODY)
    assert ran.status == Exit.OK, ran.err
    assert '[queue.lonely]: nobody consumes' in ran.lines[0]
    assert f'[switchboard] spool: cannot be looked into: {name}/spool: Permission denied; ' in ran.lines[1]
    assert '2 warnings' in ran.lines[2]


def warnings() -> Iterator[str]:
    """:return: the written text of each warning about a spool, with a space for what is put in."""
    functions = {
        each.name: each for each in ast.parse(CHECKS.read_text()).body if isinstance(each, ast.FunctionDef)
    }
    for name in ('_doubts_about', '_left_over', '_troubles_of'):
        for node in ast.walk(functions[name]):
            if (
                isinstance(node, ast.Yield)
                and node.value is not None
                and not isinstance(node.value, ast.Name)
            ):
                yield ''.join(
                    each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else ''
                    for each in ast.walk(node.value)
                )
    yield 'is no spool yet, and holds other directories'
    yield 'cannot be looked into'


def test_the_reference_names_every_warning_about_a_spool() -> None:
    page = (ROOT / 'docs' / 'reference' / 'configuration.md').read_text()
    part = page.split('## What `switchboard check` warns of')[1].split('\n## ')[0]
    named = re.findall(r'\*([a-z][^*]+)\*', part)
    texts = list(warnings())
    assert len(texts) > 8
    assert [text for text in texts if not any(phrase in text for phrase in named)] == []
    assert [phrase for phrase in named if not any(phrase in text for text in texts)] == []
