"""``queues``, ``ls`` and ``shape``: what lists say about entries, and what they do not do to them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from zlib import crc32

import click
import pytest

from switchboard import Spool
from switchboard.cli.app import switchboard as group
from switchboard.cli.exits import Exit
from tests.helpers.commands import Ran, fail, succeed, switchboard
from tests.helpers.configurations import load

Look = Callable[..., Ran]


@pytest.fixture
def look(spool: Spool) -> Look:
    return lambda *words: succeed('-s', spool.directory, *words)


def names(ran: Ran) -> list[str]:
    """:return: the first column of a list."""
    return [line.split()[0] for line in ran.lines[1:]]


def test_queues_counts_what_waits_is_delayed_and_is_claimed(spool: Spool, look: Look) -> None:
    queue = spool['in']
    queue.enqueue('waits')
    queue.enqueue('waits too')
    queue.enqueue('later', delay=3600)
    claimed = queue.enqueue('claimed')
    queue.dequeue(claimed)
    dead = fail(spool, 'in', 'dead')
    one, bad = look('queues', '--json').objects
    assert (one['queue'], one['waiting'], one['delayed'], one['claimed'], one['in_bad']) == ('in', 2, 1, 1, 1)
    assert 0 <= one['oldest_age_s'] < 60
    assert 3500 < one['next_due_s'] <= 3600
    assert one['size_bytes'] == sum(path.stat().st_size for path in Path(queue.queue_directory).iterdir())
    assert (bad['queue'], bad['preserved'], bad['origins']) == ('bad', 1, {'in': 1})
    assert dead


def test_the_oldest_entry_is_the_oldest_that_could_be_taken(spool: Spool, look: Look) -> None:
    queue = spool['in']
    queue.dequeue(queue.enqueue('claimed', not_before=time.time() - 5000))
    queue.enqueue('delayed', delay=60)
    (one, _) = look('queues', '--json').objects
    assert one['oldest_age_s'] is None


def test_dropped_files_that_nobody_has_taken_in_are_named(spool: Spool, look: Look) -> None:
    Path(spool['in'].queue_directory, 'hello.eml').write_text('Subject: hello\n\n')
    assert 'in: 1 dropped file not taken in yet' in look('queues').err
    assert '1 dropped file not taken in yet' in look('show', 'in').out
    assert look('queues', 'in', '--json').objects[0]['dropped'] == 1


def test_queues_for_people_ends_with_the_bad_queue_and_where_it_came_from(spool: Spool, look: Look) -> None:
    fail(spool, 'in', 'a')
    fail(spool, 'in', 'b')
    fail(spool, 'out', 'c')
    lines = look('queues').lines
    assert lines[0].split() == [
        'QUEUE',
        'WAITING',
        'DELAYED',
        'HELD',
        'CLAIMED',
        'BYTES',
        'OLDEST',
        'NEXT',
        'BAD',
        'FLAGS',
    ]
    assert [line.split()[0] for line in lines[1:3]] == ['in', 'out']
    assert lines[-1].startswith('bad: 3 entries')
    assert lines[-1].endswith('(from in 2, out 1)')


def test_the_directories_of_a_maildir_are_no_foreign_names(spool: Spool, look: Look) -> None:
    directory = Path(spool['in'].queue_directory)
    for name in ('tmp', 'new', 'cur'):
        (directory / name).mkdir()
    assert 'are no entries' not in look('queues').err
    (directory / 'cur').rmdir()
    (directory / 'cur').write_text('')
    assert 'in: 1 name that is no entry' in look('queues').err


def test_foreign_files_are_told_of_and_not_counted(spool: Spool, look: Look) -> None:
    spool['in'].enqueue('one')
    Path(spool.path('in', 'notes.txt')).write_text('mine')
    Path(spool.path('in', 'foo.pck')).write_text('mine')
    ran = look('queues')
    assert ran.lines[1].split()[:2] == ['in', '1']
    assert 'in: 2 names that are no entries' in ran.err


def test_a_queue_that_the_disk_does_not_give_hides_no_other(tmp_path: Path) -> None:
    config = load(tmp_path, '[queue.broken]\n[queue.in]\n')
    spool = Spool.from_config(config)
    spool['in'].enqueue('x')
    Path(spool.directory, 'broken').symlink_to('broken')
    ran = switchboard('-C', config.path, 'queues', '--json')
    counted = {one['queue']: one['waiting'] for one in ran.objects}
    assert (counted['broken'], counted['in']) == (None, 1)
    assert 'broken: Too many levels' in ran.err
    shape = switchboard('-C', config.path, 'shape')
    assert 'in' in names(shape)
    assert ran.status == shape.status == Exit.PARTIAL
    assert switchboard('-C', config.path, 'queues', 'broken').status != 0


def test_what_came_into_a_bad_queue_that_the_disk_does_not_give_is_not_known(spool: Spool) -> None:
    spool['in'].enqueue('x')
    fail(spool, 'in', 'dead')
    bad = Path(spool.directory, 'bad')
    bad.rename(bad.parent.with_name('away'))
    bad.symlink_to('bad')
    for words in (('queues',), ('queues', 'in'), ('queues', '--no-bytes')):
        ran = switchboard('-s', spool.directory, *words)
        assert ran.lines[1].split()[-2] == '?', words
        assert 'bad: Too many levels' in ran.err
    (one,) = switchboard('-s', spool.directory, 'queues', 'in', '--json').objects
    assert (one['waiting'], one['in_bad']) == (1, None)
    found = switchboard('-s', spool.directory, 'queues', '--json').objects
    assert {one['preserved'] for one in found if one['queue'] == 'bad'} == {None}
    (shown,) = [line for line in succeed('-s', spool.directory, 'top').lines if line.startswith('in ')]
    assert shown.split()[-2] == '?'
    assert switchboard('-s', spool.directory, 'queues', 'bad').status == Exit.IO


def test_a_queue_that_is_not_there_is_no_input(spool: Spool) -> None:
    spool['incoming'].enqueue('x')
    ran = switchboard('-s', spool.directory, 'ls', 'incomin')
    assert ran.status == Exit.NO_INPUT
    assert 'did you mean incoming?' in ran.err
    assert not os.path.exists(spool.path('incomin'))


def test_looking_at_a_spool_that_is_not_there_makes_none(tmp_path: Path) -> None:
    ran = switchboard('-s', tmp_path / 'typo', 'queues')
    assert ran.status == Exit.NO_INPUT
    assert 'init' in ran.err
    assert not (tmp_path / 'typo').exists()


def test_ls_lists_entries_as_they_are_taken(spool: Spool, look: Look) -> None:
    queue = spool['in']
    first, second = queue.enqueue('first'), queue.enqueue('second')
    urgent = queue.enqueue('urgent', priority=9)
    assert names(look('ls', 'in')) == [urgent, first, second]
    assert names(look('ls', 'in', '--reverse')) == [second, first, urgent]


def test_ls_without_a_name_lists_the_bad_queue_with_the_reason(spool: Spool, look: Look) -> None:
    filebase = fail(spool, 'in', 'x', 'TimeoutError', 'no answer\x1b[31m')
    heading, line = look('ls').lines
    assert heading.split()[:2] == ['ENTRY', 'FROM']
    assert line.split()[:2] == [filebase, 'in']
    assert line.endswith('TimeoutError: no answer\\x1b[31m')


def test_ls_names_the_process_that_holds_an_entry(spool: Spool, look: Look) -> None:
    if not os.path.exists('/proc/locks'):
        pytest.skip('the kernel has no list of locks')
    spool['in'].dequeue(spool['in'].enqueue('x'))
    (entry,) = look('ls', 'in', '--json').objects
    assert (entry['state'], entry['owner_pid']) == ('claimed', os.getpid())
    assert f'claimed by {os.getpid()}' in look('ls', 'in').out


def test_a_long_list_is_cut_and_says_so(spool: Spool, look: Look) -> None:
    filebases = spool['in'].enqueue_many(str(n) for n in range(55))
    ran = look('ls', 'in')
    assert names(ran) == filebases[:50]
    assert ran.err == 'switchboard: ... and 5 more; --limit 0 shows all\n'
    assert names(look('ls', 'in', '--limit', '0')) == filebases
    assert sorted(names(look('ls', 'in', '--limit', '0', '--sort', 'none'))) == filebases
    ran = look('ls', 'in', '--limit', '3', '--sort', 'none')
    assert (len(names(ran)), ran.err) == (3, 'switchboard: ... and 52 more; --limit 0 shows all\n')


def test_ls_sorts_by_size_attempts_and_error(spool: Spool, look: Look) -> None:
    small, large = fail(spool, 'in', 'x', 'Beta'), fail(spool, 'in', 'x' * 100, 'Alpha')
    assert names(look('ls', '--sort', 'size')) == [large, small]
    assert names(look('ls', '--sort', 'error')) == [large, small]
    assert names(look('ls', '--sort', 'error', '--reverse', '--limit', '1')) == [small]


def test_entries_are_selected_by_what_is_known_of_them(spool: Spool, look: Look) -> None:
    timed_out = fail(spool, 'in', 'a', 'TimeoutError')
    wrong = fail(spool, 'out', {'json': 1}, 'ValueError')
    assert names(look('ls', '--error', 'timeout*')) == [timed_out]
    assert names(look('ls', '--origin', 'out')) == [wrong]
    assert names(look('ls', '--from', 'in')) == [timed_out]
    assert names(look('ls', '--kind', 'json')) == [wrong]
    ran = look('ls', '--older', '1h')
    assert (ran.out, ran.err) == ('', 'switchboard: no entry in bad fits\n')
    ran = switchboard('-s', spool.directory, 'ls', '--where', 'eror:ValueError')
    assert ran.err.endswith("fits; 'eror' is taken for a key of the metadata: did you mean error?\n")


def test_entries_are_selected_by_their_metadata(spool: Spool, look: Look) -> None:
    queue = spool['in']
    cats = queue.enqueue('x', rcpt=['cats@example.org', 'all@example.org'], size=3)
    queue.enqueue('x', rcpt=['dogs@example.org'], size=4)
    assert names(look('ls', 'in', '-m', 'rcpt=cats@example.org')) == [cats]
    assert names(look('ls', 'in', '-m', 'size=3')) == [cats]
    assert names(look('ls', 'in', '-m', 'size:=3')) == [cats]
    assert switchboard('-s', spool.directory, 'ls', '-m', 'size').status == Exit.USAGE


def test_entries_are_selected_by_state_and_age(spool: Spool, look: Look) -> None:
    queue = spool['in']
    old = queue.enqueue('old', not_before=time.time() - 7200)
    delayed = queue.enqueue('delayed', delay=60)
    queue.enqueue('new')
    renamed = f'{time.time() - 7200:.9f}{old[old.index("+") :]}'
    os.rename(spool.path('in', old + '.pck'), spool.path('in', renamed + '.pck'))
    assert names(look('ls', 'in', '--older', '1h')) == [renamed]
    assert names(look('ls', 'in', '--state', 'delayed')) == [delayed]
    assert len(names(look('ls', 'in', '--state', 'delayed', '--state', 'waiting'))) == 3


def test_all_queues_are_listed_with_their_names(spool: Spool, look: Look) -> None:
    waiting, dead = spool['in'].enqueue('x'), fail(spool, 'out', 'y')
    rows = [line.split()[:3] for line in look('ls', '--all').lines[1:]]
    assert sorted(rows) == sorted([[waiting, 'in', 'waiting'], [dead, 'bad', 'preserved']])


def test_a_damaged_entry_is_listed_as_such(spool: Spool, look: Look) -> None:
    filebase = spool['in'].enqueue('x' * 100)
    path = Path(spool.path('in', filebase + '.pck'))
    path.write_bytes(path.read_bytes()[:150])
    assert 'damaged: cut short: 150 of' in look('ls', 'in').out
    path.write_bytes(b'')
    assert 'damaged: no header' in look('ls', 'in').out


def test_shape_counts_by_age_in_minutes(spool: Spool, look: Look) -> None:
    queue = spool['in']
    for minutes in (1, 7, 7, 100, 5000):
        filebase = queue.enqueue('x')
        os.rename(
            spool.path('in', filebase + '.pck'),
            spool.path('in', f'{time.time() - minutes * 60:.9f}{filebase[filebase.index("+") :]}.pck'),
        )
    queue.enqueue('x', delay=60)
    (row,) = look('shape', '--json').objects
    assert (row['queue'], row['total'], row['later']) == ('in', 6, 1)
    assert {key: row[key] for key in ('5', '10', '20', '160', '1280+')} == {
        '5': 1, '10': 2, '20': 0, '160': 1, '1280+': 1,
    }  # fmt: skip
    heading, total, one = look('shape').lines
    assert heading.split() == [*'T 5 10 20 40 80 160 320 640 1280 1280+ LATER'.split()]
    assert total.split() == ['TOTAL', *one.split()[1:]]


def test_shape_by_a_key_of_the_metadata_counts_each_of_its_values(spool: Spool, look: Look) -> None:
    spool['out'].enqueue('x', rcpt=['a@example.org', 'b@Example.COM'])
    spool['out'].enqueue('x', rcpt='Anna <c@example.com>')
    spool['out'].enqueue('x')
    rows = {row['rcpt']: row['total'] for row in look('shape', '--by', 'rcpt', '--domain', '--json').objects}
    assert rows == {'example.com': 2, 'example.org': 1, '(none)': 1}


def test_shape_of_the_bad_queue_by_error(spool: Spool, look: Look) -> None:
    fail(spool, 'in', 'x', 'TimeoutError')
    assert look('shape').err == 'switchboard: no entries\n'
    rows = look('shape', 'bad', '--by', 'error', '--json').objects
    assert [(row['error'], row['total'], row['5']) for row in rows] == [('TimeoutError', 1, 1)]


def test_looking_changes_nothing(spool: Spool, look: Look) -> None:
    spool['in'].enqueue('x', delay=60)
    fail(spool, 'in', 'y')

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in Path(spool.directory).rglob('*') if path.is_file()}

    before = files()
    for words in (['queues'], ['ls', '--all'], ['shape'], ['shape', 'bad'], ['ls', '--sort', 'age']):
        look(*words)
    assert files() == before


HOSTILE = [
    {'event': 'preserved', 'time': 10**400, 'queue': 'in'},
    {'event': 'preserved', 'time': float('inf'), 'queue': 'in'},
    {'event': 'preserved', 'time': float('nan'), 'queue': ['in'], 'cause': {'a': 1}},
    {'event': 'failed', 'time': -1, 'error': 10**400, 'message': [1], 'traceback': 7},
    {'event': 10**400, 'time': 'soon', 'queue': 10**400, 'to': [], 'set': {'a': 10**400}, 'drop': [{}]},
    {'event': 'retried', 'time': None, 'set': {'expires': 10**400, 'queue_expires': float('-inf')}},
]


def test_one_hostile_entry_does_not_keep_the_others_from_being_seen(tmp_path: Path) -> None:
    spool = Spool(tmp_path, durability='lazy')
    hostile = []
    for record in HOSTILE:
        queue = spool['in']
        filebase = queue.enqueue('x')
        queue.dequeue(filebase)
        queue.annotate(filebase, record)
        queue.finish(filebase, preserve=True)
        hostile.append(filebase)
    filebase = fail(spool, 'in', 'deep')
    text = b'{"event":"failed","error":"E","set":' + b'{"a":' * 900 + b'1' + b'}' * 901
    digest = filebase.partition('+')[2].encode()
    with Path(spool.path('bad', f'{filebase}.psv')).open('ab') as stream:
        stream.write(b'\n#%d %08x %s' % (len(text), crc32(text, crc32(digest)), text))
    good = fail(spool, 'in', 'good')
    names = {*hostile, filebase, good}
    for words in (
        ['--sort', 'age'],
        ['--sort', 'error'],
        ['--sort', 'attempts'],
        ['--columns', 'entry,age,a,error'],
    ):
        ran = succeed('-s', tmp_path, 'ls', 'bad', *words)
        assert {line.split()[0] for line in ran.lines[1:]} == names, words
    assert {each['filebase'] for each in succeed('-s', tmp_path, 'ls', 'bad', '--json').objects} == names
    for name in names:
        for words in ([], ['--json']):
            assert switchboard('-s', tmp_path, 'show', name, *words).status in (0, Exit.DATA)
    assert succeed('-s', tmp_path, 'show', *names).status == 0
    for verb in (['shape', 'bad', '--by', 'error'], ['queues'], ['tidy'], ['tail', '--limit', '0', '--help']):
        succeed('-s', tmp_path, *verb)
    ran = switchboard('-s', tmp_path, 'retry', '--all', '--yes')
    assert good not in spool['bad'].get_files('.psv')
    assert 'mistake in this program' not in ran.err


def test_where_nothing_has_failed_ls_says_how_to_see_the_rest(spool: Spool) -> None:
    spool['in'].enqueue('waits')
    ran = succeed('-s', spool.directory, 'ls')
    assert (ran.raw, ran.err) == (
        b'',
        f'switchboard: no entries in bad; `switchboard -s {spool.directory} ls --all-queues` lists those of all queues\n',
    )
    assert len(succeed('-s', spool.directory, 'ls', '--all-queues', '--json').lines) == 1


# They wait, or read what there is to enqueue.
NOT_ASKED = {'enqueue', 'tail', 'top'}


def listing_verbs(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield each verb that shows things as JSON on request, and needs no name of any."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from listing_verbs(below, *path, name)
    elif not any(each.required for each in command.params):
        names = {each.name for each in command.params}
        if {'as_json', 'spool'} <= names and 'dry_run' not in names:
            yield path


LISTING = [path for path in listing_verbs(group) if not NOT_ASKED & set(path)]


@pytest.mark.parametrize('verb', LISTING, ids=' '.join)
def test_a_verb_that_has_nothing_to_show_says_so(verb: tuple[str, ...], tmp_path: Path) -> None:
    Spool(tmp_path / 'spool')
    ran = switchboard(*verb, '-s', tmp_path / 'spool')
    assert (ran.out + ran.err).strip()


def test_the_verbs_that_show_things_are_found() -> None:
    assert {('queues',), ('graph',), ('ls',), ('trash',), ('spares', 'show')} <= set(LISTING)
