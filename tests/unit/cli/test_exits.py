"""The table of exit statuses: it is whole, it is what the manual says, and every error is one line."""

from __future__ import annotations

import errno
import inspect
import os
import re
from pathlib import Path

import click
import pytest

from switchboard import Spool, Switchboard, errors
from switchboard.cli.app import switchboard as verbs_group
from switchboard.cli.exits import Exit, advice, error_lines, exit_of
from switchboard.master.programs import master
from switchboard.operating.text import NEED_CONFIGURATION, system_advice, with_installation
from switchboard.store.publishing import as_queue_error
from tests.helpers.commands import succeed, switchboard

PAGE = Path(__file__).parents[3] / 'docs' / 'reference' / 'exit-codes.md'

TREE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.SwitchboardError) and kind is not errors.SwitchboardError
]


def made(kind: type[errors.SwitchboardError]) -> errors.SwitchboardError:
    """:return: an error of a class, with whatever its constructor wants."""
    values = {
        'errors': [errors.ConfigError('wrong')],
        'cycle': ['a', 'b'],
        'candidates': ['a', 'b'],
        'pid': 7,
        'expected': 17,
        'found': 18,
    }
    if '__init__' not in vars(kind) and not issubclass(kind, errors.ConfigError | errors.QueueError):
        return kind('word')
    named = inspect.signature(kind).parameters.values()
    words = {
        each.name: values.get(each.name, 'word')
        for each in named
        if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    return kind(**words)


@pytest.mark.parametrize('kind', TREE, ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_has_a_status_of_its_own_meaning_and_one_line(
    kind: type[errors.SwitchboardError],
) -> None:
    error = made(kind)
    assert exit_of(error) not in (Exit.OK, Exit.PARTIAL, Exit.USAGE, Exit.SOFTWARE)
    assert all('\n' not in line for line in error_lines(error))


def test_the_page_of_the_manual_is_this_table() -> None:
    rows = re.findall(r'^\| (\d+) \| (\w*) ?\| (.*?) \|$', PAGE.read_text(), re.MULTILINE)
    sysexits = {getattr(os, name): name for name in dir(os) if name.startswith('EX_')}
    assert [(int(status), meaning) for status, _, meaning in rows] == [
        (each.value, each.meaning) for each in Exit
    ]
    assert [name for _, name, _ in rows] == [
        sysexits.get(each, '') if each >= 64 or each == 0 else '' for each in Exit
    ]


def test_each_help_that_lists_statuses_lists_those_of_the_manual() -> None:
    rows = dict(re.findall(r'^\| (`.*`) \| (\d.*?) \|$', PAGE.read_text(), re.MULTILINE))
    of_verbs = {verb: text for verbs, text in rows.items() for verb in re.findall(r'`(\S+)`', verbs)}
    context = click.Context(verbs_group)
    commands = {verb: verbs_group.get_command(context, verb) for verb in of_verbs}
    commands['switchboard-master'] = master
    compared = []
    for verb, text in of_verbs.items():
        command = commands[verb]
        assert command is not None, verb
        _, _, listed = (command.help or '').lower().partition('exit status')
        statuses = set(re.findall(r'\b\d{1,3}\b', listed))
        manual = set(re.findall(r'\b\d{1,3}\b', text))
        if '0' in statuses:
            assert statuses == manual, verb
            compared.append(verb)
        assert statuses <= manual, verb  # it names what is peculiar
    assert {'master', 'switchboard-master', 'start', 'stop', 'status'} <= set(compared)


@pytest.mark.parametrize(
    ('number', 'status'),
    [
        (errno.ENOSPC, Exit.TEMPORARY),
        (errno.EDQUOT, Exit.TEMPORARY),
        (errno.EACCES, Exit.NO_PERMISSION),
        (errno.ENOENT, Exit.NO_INPUT),
        (errno.EROFS, Exit.CANNOT_CREATE),
        (errno.EIO, Exit.IO),
    ],
)
def test_an_error_of_the_system_goes_by_its_number(number: int, status: Exit) -> None:
    error = OSError(number, os.strerror(number), '/spool/in')
    assert exit_of(error) is status
    assert error_lines(error)[0].startswith(f'/spool/in: {os.strerror(number)}')


@pytest.mark.parametrize(
    ('number', 'status', 'word'),
    [
        (errno.EACCES, Exit.NO_PERMISSION, "spool's owner"),
        (errno.EPERM, Exit.NO_PERMISSION, "spool's owner"),
        (errno.EROFS, Exit.CANNOT_CREATE, 'mounted'),
        (errno.EDQUOT, Exit.TEMPORARY, 'df -h'),
        (errno.EMFILE, Exit.TEMPORARY, 'ulimit -n'),
        (errno.EIO, Exit.IO, 'dmesg'),
        (errno.ENOENT, Exit.IO, 'dmesg'),
    ],
)
def test_a_write_that_a_disk_in_good_order_refuses_as_well_is_not_laid_to_the_disk(
    number: int, status: Exit, word: str
) -> None:
    error = errors.DurabilityError(os.strerror(number), step='write', queue='in')
    error.__cause__ = OSError(number, os.strerror(number), 'draft')
    assert exit_of(error) is status
    assert word in advice(error)
    assert ('look at the disk' in advice(error)) is (status is Exit.IO)


# What no other message would have met as well is not among them.
TROUBLE = [errno.EIO, errno.EUCLEAN, errno.ENODEV, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM]  # fmt: skip


@pytest.mark.parametrize('number', TROUBLE, ids=os.strerror)
def test_trouble_of_the_disk_says_what_to_do_about_it_however_it_is_wrapped(number: int) -> None:
    bare = OSError(number, os.strerror(number), '/spool/in')
    for error in (bare, as_queue_error(bare, 'read', 'in', '')):
        (line,) = error_lines(error)
        assert system_advice(bare)
        assert line.endswith(f'; {system_advice(bare)}')
        assert exit_of(error) is exit_of(bare)


def test_a_queue_that_the_disk_does_not_give_is_no_empty_one(tmp_path: Path) -> None:
    config = tmp_path / 'shop.cfg'
    config.write_text('[switchboard]\nspool = spool\n[queue.in]\n[queue.out]\n')
    succeed('-C', config, 'init')
    (tmp_path / 'spool' / 'in').rmdir()
    (tmp_path / 'spool' / 'in').symlink_to('in')  # a circle
    for words in (('queues',), ('queues', '--no-bytes'), ('shape',), ('shape', '--by', 'error')):
        found = switchboard('-C', config, *words)
        assert found.status == Exit.PARTIAL, words
        assert 'in: Too many levels of symbolic links' in found.err, words
    for words in (('queues', 'in'), ('shape', 'in'), ('ls', 'in'), ('tail', 'in', '-n', '1')):
        assert switchboard('-C', config, *words).status == Exit.IO, words


def test_every_mistake_of_a_configuration_is_a_line() -> None:
    mistakes = [
        errors.ConfigError('wrong', file='a.cfg', line=3),
        errors.ConfigError('bad', file='a.cfg', line=5),
    ]
    assert error_lines(errors.ConfigErrors(mistakes)) == ['a.cfg:3: wrong', 'a.cfg:5: bad']


def test_an_error_says_what_to_do_next() -> None:
    assert 'switchboard start' in advice(errors.NotRunningError('no master'))
    assert 'no master; `switchboard start`' in error_lines(errors.NotRunningError('no master'))[0]


@pytest.mark.parametrize(
    ('text', 'config', 'spool', 'wanted'),
    [
        ('`switchboard start` starts one', None, None, '`switchboard start` starts one'),
        ('`switchboard start` starts one', 'a b.cfg', None, "`switchboard -C 'a b.cfg' start` starts one"),
        ('`switchboard start` starts one', None, 'spool', '`switchboard -C FILE start` starts one'),
        ('a; `switchboard ls -q x` or `switchboard trash`', None, 's', 'a; `switchboard -s s ls -q x` or `switchboard -s s trash`'),
        ('`switchboard -s other stop` ends it', 'a.cfg', None, '`switchboard -s other stop` ends it'),
        ('see `switchboard ls --help`', 'a.cfg', None, 'see `switchboard ls --help`'),
    ],
)  # fmt: skip
def test_an_advice_reaches_the_installation_that_the_call_has_named(
    text: str, config: str | None, spool: str | None, wanted: str
) -> None:
    assert with_installation(text, config and Path(config), spool and Path(spool)) == wanted


@pytest.mark.parametrize('words', [('reload',), ('ls', 'gone'), ('show', 'nothing'), ('pause', 'gone')])
def test_whatever_an_error_advises_can_be_typed_as_it_stands(tmp_path: Path, words: tuple[str, ...]) -> None:
    config, spool = tmp_path / 'shop.cfg', tmp_path / 'spool'
    config.write_text('[switchboard]\nspool = spool\n[queue.in]\n')
    succeed('-C', config, 'init')
    for options in (f'-C {config}', f'-s {spool}'):
        for json in ((), ('--json',)):
            err = switchboard(*options.split(), *words, *json).err
            commands = re.findall(r'`switchboard (-[Cs] \S+)', err)
            assert commands
            assert set(commands) <= {options, '-C FILE'}
            assert err.count('`switchboard') == len(commands)


def test_what_a_verb_says_that_is_no_error_can_be_typed_too(tmp_path: Path) -> None:
    assert f'`switchboard -s {tmp_path} ls --all-queues`' in switchboard('-s', tmp_path, 'ls').err


@pytest.mark.parametrize('verb', sorted(NEED_CONFIGURATION))
def test_a_verb_that_is_advised_with_a_file_does_not_work_on_a_spool_alone(tmp_path: Path, verb: str) -> None:
    more = ['in'] if verb in ('run', 'runner') else []
    assert 'this needs a configuration, not a spool alone' in switchboard('-s', tmp_path, verb, *more).err


def test_a_note_on_an_error_is_shown_in_its_line() -> None:
    error = errors.QueueFullError('full', queue='in')
    error.add_note('3 messages are stored')
    assert error_lines(error)[0].startswith('in: full; 3 messages are stored; ')


def test_a_mistake_of_the_program_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise ZeroDivisionError('oh\x1b[31m')

    monkeypatch.setattr('platform.python_version', broken)
    ran = switchboard('version')
    assert ran.status == Exit.SOFTWARE
    assert 'a mistake in this program: ZeroDivisionError: oh\\x1b[31m' in ran.err
    monkeypatch.setenv('SWITCHBOARD_TRACEBACK', '1')
    with pytest.raises(ZeroDivisionError):
        switchboard('version')


def test_wrong_use_is_one_line_that_names_the_help() -> None:
    ran = switchboard('ls', '--sorted')
    assert ran.status == Exit.USAGE
    assert len(ran.err.splitlines()) == 1
    assert 'switchboard ls --help' in ran.err


@pytest.mark.parametrize(
    ('words', 'help'),
    [
        (('rm', '--all', '-q'), 'switchboard rm --help'),
        (('ls', '--limit'), 'switchboard ls --help'),
        (('ls', '--json=yes'), 'switchboard ls --help'),
        (('-C',), 'switchboard --help'),
    ],
)
def test_an_option_without_its_value_names_the_help_of_its_verb(words: tuple[str, ...], help: str) -> None:
    ran = switchboard(*words)
    assert ran.status == Exit.USAGE
    assert f'; see `{help}`' in ran.err


def test_a_misspelled_verb_gets_a_hint() -> None:
    ran = switchboard('queus')
    assert ran.status == Exit.USAGE
    assert 'did you mean queues?' in ran.err


def test_without_a_verb_the_help_is_shown() -> None:
    ran = switchboard()
    assert ran.status == Exit.USAGE
    assert 'Look:' in ran.err


# What looks, and what would make something.
LOOKS_AND_ACTS = [('enqueue', 'in'), ('queues',), ('ls', 'in'), ('init',), ('status',), ('top',), ('pause', 'in'), ('declare', 'in'), ('purge', 'in', '--yes'), ('tidy',), ('spares', 'fill', '1'), ('stop',)]  # fmt: skip


def tree(directory: Path) -> list[str]:
    """:return: all that is there, but for what stands in the dot directories."""
    return sorted(str(each) for each in directory.rglob('*') if '/.' not in str(each))


def taken_for_a_spool(directory: Path, place: str, sections: str) -> tuple[Spool, Path]:
    """:return: a spool, and a configuration that names another place."""
    spool = Spool(directory / 'x' / 'spool', durability='lazy')
    spool['in'].enqueue('x')
    config = directory / 'switchboard.cfg'
    config.write_text(f'[switchboard]\nspool = {place}\n{sections}')
    return spool, config


@pytest.mark.parametrize('words', LOOKS_AND_ACTS, ids=' '.join)
@pytest.mark.parametrize('names', ['spool', 'link', 'configuration'])
@pytest.mark.parametrize(('place', 'what'), [('x/spool/in', 'in a spool'), ('x', 'above a spool')])
def test_a_directory_in_or_above_a_spool_is_not_taken_for_a_spool(
    tmp_path: Path, words: tuple[str, ...], names: str, place: str, what: str
) -> None:
    spool, config = taken_for_a_spool(tmp_path, place, '[queue.in]\n')
    before = tree(tmp_path)
    link = tmp_path / 'link'
    link.symlink_to(place)
    places = {'spool': ('-s', tmp_path / place), 'link': ('-s', link), 'configuration': ('-C', config)}
    ran = switchboard(*places[names], *words, input=b'lost')
    assert ran.status in (Exit.NO_INPUT, Exit.CONFIG)
    named = Path(spool.directory) if what == 'in a spool' or names != 'link' else link / 'spool'
    assert f'this is a directory {what}, and no spool: name {named}\n' in ran.err
    link.unlink()
    assert tree(tmp_path) == before


@pytest.mark.parametrize('words', [('check',), ('start',), ('start', '-f')], ids=' '.join)
@pytest.mark.parametrize(('place', 'what'), [('x/spool/in', 'in a spool'), ('x', 'above a spool')])
def test_a_configuration_that_takes_it_for_a_spool_is_a_mistake(
    tmp_path: Path, words: tuple[str, ...], place: str, what: str
) -> None:
    spool, config = taken_for_a_spool(tmp_path, place, '[runner.out]\nclass = null\n')
    before = tree(tmp_path)
    ran = switchboard('-C', config, *words)
    assert ran.status == Exit.CONFIG
    reason = f'this is a directory {what}, and no spool: name {spool.directory}'
    assert f'{config}:2 [switchboard] spool: {reason}' in ran.out + ran.err
    assert tree(tmp_path) == before


# Asked with verbs that would do nothing to it.
@pytest.mark.parametrize('place', ['/', '//', '/usr/..'])
def test_the_root_of_the_file_system_is_no_spool(tmp_path: Path, place: str) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(f'[switchboard]\nspool = {place}\n[runner.out]\nclass = null\nqueue = out\n')
    told = 'this is the root of the file system, and no spool'
    ran = switchboard('-C', config, 'check')
    assert (ran.status, told in ran.out + ran.err) == (Exit.CONFIG, True)
    ran = switchboard('-s', place, 'queues')
    assert (ran.status, told in ran.err) == (Exit.NO_INPUT, True)


@pytest.mark.parametrize('place', ['/proc/spool', '/proc/x/spool', '/sys/kernel/x/spool', '/dev/null/spool'])
def test_a_place_where_nothing_can_be_made_is_told_of(tmp_path: Path, place: str) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text(f'[switchboard]\nspool = {place}\n[queue.out]\n')
    ran = switchboard('-C', config, 'init')
    assert ran.status not in (Exit.OK, Exit.SOFTWARE)
    assert place.removesuffix('/spool') in ran.err


def test_a_spool_whose_name_in_another_one_is_a_link_is_a_spool(tmp_path: Path) -> None:
    Spool(tmp_path / 'one')
    Spool(tmp_path / 'two')['in'].enqueue('x')
    link = tmp_path / 'one' / 'two'
    link.symlink_to('../two')
    assert [one['waiting'] for one in succeed('-s', link, 'queues', 'in', '--json').objects] == [1]


def test_of_several_spools_below_one_is_named(tmp_path: Path) -> None:
    for name in ('b', 'a', 'c'):
        Spool(tmp_path / name, durability='lazy')['in'].enqueue('x')
    assert f'name {tmp_path / "a"}, or one of 2 others' in switchboard('-s', tmp_path, 'queues').err
    # One that is a spool itself is one, whatever stands in it.
    Spool(tmp_path / 'a' / 'in')['in'].enqueue('x')
    assert 'in ' in succeed('-s', tmp_path / 'a', 'queues').out


def test_queues_that_stand_without_a_spool_are_looked_at_as_before(tmp_path: Path) -> None:
    board = Switchboard('in', tmp_path / 'queues' / 'in')
    board.dequeue(board.enqueue('x'))
    assert succeed('-s', tmp_path / 'queues', 'queues', '--json').objects[0]['claimed'] == 1


@pytest.mark.parametrize(
    ('is_loop', 'place', 'words'),
    [
        (True, '.run/declared/in', ('status',)),
        (True, '.run/declared/in', ('enqueue', 'in')),
        (True, '.run/declared/.lock', ('delete', 'in', '--yes')),
        (True, '.run/declared/.lock', ('enqueue', 'in')),
        (False, '.run/declared/in', ('status',)),
        (False, '.run/declared/in', ('enqueue', 'in')),
        (False, '.run/paused/in', ('resume', 'in')),
    ],
)
def test_a_file_of_the_spool_that_the_system_refuses_is_named_with_its_whole_path(
    spool: Spool, is_loop: bool, place: str, words: tuple[str, ...]
) -> None:
    spool['in'].enqueue('x')
    path = Path(spool.directory, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_loop:
        path.symlink_to(path.name)
    else:
        path.mkdir()
    ran = switchboard('-s', spool.directory, *words, input=b'x')
    assert ran.status in (Exit.IO, Exit.NO_INPUT)
    assert str(path) in ran.err
