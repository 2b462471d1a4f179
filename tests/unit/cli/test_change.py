"""``retry``, ``mv``, ``rm``: named or selected, counted and asked about, each one claimed first."""

from __future__ import annotations

import os
from pathlib import Path

from switchboard import Spool
from switchboard.cli.exits import Exit
from tests.helpers.commands import at_work, fail, succeed, switchboard


def preserved(spool: Spool) -> list[str]:
    return spool['bad'].get_files('.psv')


def test_retry_sends_an_entry_back_to_where_it_came_from(spool: Spool) -> None:
    first, second = fail(spool, 'in', 'first'), fail(spool, 'out', 'second')
    ran = succeed('-s', spool.directory, 'retry', first[:20], second)
    (again,), (other,) = spool['in'].files, spool['out'].files
    assert ran.lines == [f'bad/{first} -> in/{again}', f'bad/{second} -> out/{other}']
    assert preserved(spool) == []
    assert spool['in'].dequeue(again)[0] == 'first'
    assert [r['event'] for r in spool['in'].history(again)][-1] == 'retried'


def test_retry_to_another_queue(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x')
    succeed('-s', spool.directory, 'retry', filebase, '--to', 'slow')
    assert len(spool['slow'].files) == 1


def test_a_selection_is_counted_and_nobody_there_to_ask_is_wrong_use(spool: Spool) -> None:
    fail(spool, 'in', 'x')
    fail(spool, 'in', 'y')
    ran = switchboard('-s', spool.directory, 'retry', '--all')
    assert ran.status == Exit.USAGE
    assert 'send back 2 entries (bad 2)' in ran.err
    assert '--yes' in ran.err
    assert len(preserved(spool)) == 2


def test_a_selection_is_sent_back_in_its_order(spool: Spool) -> None:
    for n in range(20):
        fail(spool, 'in', n, 'TimeoutError' if n % 2 else 'ValueError')
    ran = succeed('-s', spool.directory, 'retry', '--error', 'TimeoutError', '--yes')
    assert ran.err == 'switchboard: sent back 10 entries\n'
    assert [spool['in'].dequeue(filebase)[0] for filebase in spool['in'].files] == list(range(1, 20, 2))
    assert len(preserved(spool)) == 10


def test_what_was_sent_back_before_is_marked(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x')
    succeed('-s', spool.directory, 'retry', filebase)
    (again,) = spool['in'].files
    spool['in'].finish(again, preserve=True, reason='still no way')
    (entry,) = succeed('-s', spool.directory, 'ls', '--json').objects
    assert (entry['sent_back'], entry['attempts']) == (1, 0)
    ran = switchboard('-s', spool.directory, 'retry', '--all')
    assert '1 of which was sent back before' in ran.err


def test_a_delayed_entry_is_made_ready_in_its_own_queue(spool: Spool) -> None:
    delayed = spool['out'].enqueue('later', delay=3600)
    waiting = spool['out'].enqueue('now')
    succeed('-s', spool.directory, 'retry', '--all', '--queue', 'out', '--yes')
    first, second = spool['out'].files
    assert first == waiting, 'an entry that waits already keeps its place'
    assert second.partition('+')[2] == delayed.partition('+')[2]


def test_a_dead_letter_in_a_queue_of_its_own_goes_back_too(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = s\n[queue.in]\ndead_letter = dead\n[queue.dead]\n')
    spool = Spool.from_config(config)
    filebase = spool['in'].enqueue('x')
    spool['in'].dequeue(filebase)
    spool['in'].finish(filebase, preserve=True, reason='no way')
    mine = spool['dead'].enqueue('not a dead letter')
    (listed, _) = succeed('-C', config, 'ls', 'dead', '--sort', 'error', '--reverse', '--json').objects
    assert (listed['origin'], listed['cause']) == ('in', 'rejected')
    ran = succeed('-C', config, 'retry', '--all', '--queue', 'dead', '--yes')
    assert len(ran.lines) == len(spool['in'].files) == 1
    assert spool['dead'].files == [mine]


def test_an_entry_of_unknown_origin_wants_a_queue_to_be_named(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    spool['bad'].enqueue('make the directory')
    os.rename(spool.path('in', filebase + '.pck'), spool.path('bad', filebase + '.psv'))
    ran = switchboard('-s', spool.directory, 'retry', filebase)
    assert ran.status == Exit.UNAVAILABLE
    assert 'name a queue' in ran.err
    succeed('-s', spool.directory, 'retry', filebase, '--to', 'in')


def test_one_entry_that_cannot_go_does_not_stop_the_others(spool: Spool) -> None:
    torn, whole = fail(spool, 'in', 'x' * 50), fail(spool, 'in', 'y')
    path = Path(spool.path('bad', torn + '.psv'))
    content = bytearray(path.read_bytes())
    content[content.index(b'xxx')] = 0
    path.write_bytes(content)
    ran = switchboard('-s', spool.directory, 'retry', '--all', '--yes')
    assert ran.status == Exit.PARTIAL
    assert len(ran.lines) == 1
    assert whole in ran.lines[0]
    assert ran.err.splitlines()[0].startswith(f'switchboard: bad/{torn}: torn')
    assert ran.err.splitlines()[-1] == 'switchboard: sent back 1 entry, 1 not'
    assert preserved(spool) == [torn]


def test_if_none_can_go_the_status_says_why(spool: Spool) -> None:
    with at_work(spool, 'in', 'x') as filebase:
        assert switchboard('-s', spool.directory, 'rm', filebase, '--yes').status == Exit.TEMPORARY
        assert switchboard('-s', spool.directory, 'rm', '1234', '5678', '--yes').status == Exit.NO_INPUT
        assert switchboard('-s', spool.directory, 'rm', '1234', filebase, '--yes').status == Exit.PARTIAL


def test_entries_are_named_or_selected_and_not_both(spool: Spool) -> None:
    fail(spool, 'in', 'x')
    for words in (
        ['retry'],
        ['rm'],
        ['mv'],
        ['mv', 'in'],
        ['retry', '1234', '--all'],
        ['rm', '1234', '--older', '1h'],
    ):
        assert switchboard('-s', spool.directory, *words, '--yes').status == Exit.USAGE, words


def test_a_selection_that_fits_nothing_is_no_failure(spool: Spool) -> None:
    spool['in'].enqueue('x')
    assert (
        succeed('-s', spool.directory, 'retry', '--all').err == 'switchboard: no entry fits: nothing to do\n'
    )


def test_mv_moves_entries_as_they_are(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x', list='dogs')
    spool['in'].enqueue('y', list='cats')
    delayed = spool['in'].enqueue('z', list='dogs', delay=60)
    succeed('-s', spool.directory, 'mv', '--queue', 'in', '-m', 'list=dogs', '--yes', 'dogs')
    assert spool['dogs'].get_files('.pck') == [filebase, delayed]
    assert [r['event'] for r in spool['dogs'].history(filebase)] == ['moved']
    assert len(spool['in'].get_files('.pck')) == 1


def test_mv_to_the_bad_queue_and_back(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    succeed('-s', spool.directory, 'mv', filebase, 'bad')
    assert preserved(spool) == [filebase]
    succeed('-s', spool.directory, 'retry', filebase)
    assert len(spool['in'].files) == 1


def test_nothing_takes_what_another_process_works_on(spool: Spool) -> None:
    for words in (['mv', '{}', 'out'], ['rm', '{}', '--yes'], ['retry', '{}']):
        with at_work(spool, 'in', 'x') as filebase:
            ran = switchboard('-s', spool.directory, *(word.format(filebase) for word in words))
            assert ran.status == Exit.TEMPORARY
            assert 'a process is working on it' in ran.err
            assert spool['in'].get_files('.bak')[-1] == filebase


def test_mv_refuses_a_kind_that_the_queue_does_not_accept(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = s\n[queue.in]\n[queue.mails]\naccept = mail\n')
    spool = Spool.from_config(config)
    filebase = spool['in'].enqueue('no mail')
    ran = switchboard('-C', config, 'mv', filebase, 'mails')
    assert ran.status == Exit.DATA
    assert spool['in'].files == [filebase]
    assert switchboard('-C', config, 'mv', filebase, 'nowhere').status == Exit.NO_INPUT


def test_rm_asks_also_for_a_single_entry(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x')
    ran = switchboard('-s', spool.directory, 'rm', filebase)
    assert ran.status == Exit.USAGE
    assert preserved(spool) == [filebase]
    ran = succeed('-s', spool.directory, 'rm', filebase, '--yes', '--json')
    assert ran.objects == [{'entry': filebase, 'from': 'bad', 'queue': 'trash', 'filebase': filebase}]
    assert preserved(spool) == []
    ran = succeed('-s', spool.directory, 'rm', filebase, '--yes', '--json')
    assert ran.objects == [{'entry': filebase, 'from': 'trash', 'queue': None, 'filebase': None}]


def test_rm_removes_entries_of_any_queue(spool: Spool) -> None:
    filebases = spool['in'].enqueue_many(str(n) for n in range(5))
    succeed('-s', spool.directory, 'rm', *filebases[:2], '-y')
    assert spool['in'].files == filebases[2:]
    succeed('-s', spool.directory, 'rm', '--all', '--queue', 'in', '-y')
    assert os.listdir(spool.path('in')) == []


def test_a_queue_whose_section_was_removed_can_be_emptied(tmp_path: Path) -> None:
    config = tmp_path / 'switchboard.cfg'
    config.write_text('[switchboard]\nspool = s\n[queue.in]\n')
    Spool(tmp_path / 's')['old'].enqueue('x')
    assert 'old' in succeed('-C', config, 'queues').out
    succeed('-C', config, 'mv', '--all', '--queue', 'old', 'in', '-y')
    assert len(Spool.from_config(config)['in'].files) == 1


def test_spares_are_shown_made_and_removed(spool: Spool) -> None:
    assert succeed('-s', spool.directory, 'spares').out.startswith('0 spares')
    assert succeed('-s', spool.directory, 'spares', 'fill', '7', '--size', '100').out == '7 spares made\n'
    (shown,) = succeed('-s', spool.directory, 'spares', '--json').objects
    assert (shown['spares'], shown['size_bytes']) == (7, 700)
    assert succeed('spares', 'empty', '-s', spool.directory).out == '7 spares deleted\n'


def test_a_queue_is_paused_drained_and_resumed(spool: Spool) -> None:
    spool['in'].enqueue('x')
    succeed('-s', spool.directory, 'pause', 'in', '--reason', 'the server is moved')
    assert spool.flags.is_set('paused', 'in')
    assert (spool.flags.read('paused', 'in') or {})['reason'] == 'the server is moved'
    succeed('-s', spool.directory, 'drain', 'in')
    (shown, _) = succeed('-s', spool.directory, 'queues', '--json').objects
    assert shown['flags'] == ['paused', 'draining']
    assert 'paused, draining' in succeed('-s', spool.directory, 'queues').lines[1]
    assert 'in: paused since ' in (out := succeed('-s', spool.directory, 'queues').out)
    assert ': the server is moved\n' in out
    assert succeed('-s', spool.directory, 'resume', 'in').out == 'in: resumed\n'
    assert succeed('-s', spool.directory, 'queues', '--json').objects[0]['flags'] == []
    assert succeed('-s', spool.directory, 'resume', 'in').out == 'in: was not paused\n'
    assert switchboard('-s', spool.directory, 'pause', 'inn').status == Exit.NO_INPUT


def test_an_entry_that_is_named_with_a_queue_is_looked_for_there_only(spool: Spool) -> None:
    filebase = spool['in'].enqueue('x')
    spool['old'].enqueue('y')
    for verb in (['rm', '--yes'], ['retry'], ['mv', '--to', 'out'], ['hold'], ['release'], ['restore']):
        ran = switchboard('-s', spool.directory, *verb, filebase[:20], '-q', 'old')
        assert ran.status == Exit.NO_INPUT, verb
        assert spool['in'].files == [filebase]


def test_names_come_from_standard_input_and_go_out(spool: Spool) -> None:
    filebases = [fail(spool, 'in', n) for n in range(3)]
    names = succeed('-s', spool.directory, 'ls', '--names').raw
    assert names.decode().split() == [f'bad/{filebase}' for filebase in filebases]
    moved = succeed('-s', spool.directory, 'mv', '-', '--to', 'parked', '--names', input=names)
    assert moved.lines == [f'parked/{filebase}' for filebase in filebases]
    succeed('-s', spool.directory, 'retry', '-', '--quiet', input=moved.raw)
    assert len(spool['in'].files) == 3


def test_what_was_moved_after_it_failed_goes_back_to_where_it_failed(spool: Spool) -> None:
    filebase = fail(spool, 'in', 'x')
    waiting = spool['parked'].enqueue('not failed')
    succeed('-s', spool.directory, 'mv', filebase, 'parked')
    ran = succeed('-s', spool.directory, 'retry', '--all', '-q', 'parked', '--yes')
    assert ran.lines == [f'parked/{filebase} -> in/{spool["in"].files[0]}']
    assert spool['parked'].files == [waiting]


def test_what_is_counted_shown_or_limited(spool: Spool) -> None:
    filebases = [fail(spool, 'in', n) for n in range(5)]
    assert succeed('-s', spool.directory, 'rm', '--all', '--count').lines == ['5']
    assert succeed('-s', spool.directory, 'ls', '--count').lines == ['5']
    ran = succeed('-s', spool.directory, 'rm', '--all', '--limit', '2', '--dry-run')
    assert ran.lines == [f'bad/{filebase}' for filebase in filebases[:2]]
    assert 'would remove 2 entries (bad 2)' in ran.err
    assert preserved(spool) == filebases
    succeed('-s', spool.directory, 'retry', '--all', '--limit', '2', '--yes', '--quiet')
    assert preserved(spool) == filebases[2:]


def test_a_selection_is_a_text_or_options_or_both(spool: Spool) -> None:
    small, large = fail(spool, 'in', 'x', text='no route'), fail(spool, 'out', 'x' * 3000, text='refused')
    for words, expected in {
        ('--where', 'error:Value* size:>1K'): [large],
        ('--where', 'origin:in', '--where', 'tries:>0'): [small],
        ('--larger', '1K'): [large],
        ('--smaller', '1K'): [small],
        ('--match', 'ROUTE'): [small],
        ('--not', 'match:route'): [large],
        ('--not', 'origin:in origin:out'): [],
        ('--newer', '1h', '--from', 'in'): [small],
        ('--younger', '1h', '--origin', 'out'): [large],
    }.items():
        ran = succeed('-s', spool.directory, 'ls', '--names', *words)
        assert ran.lines == [f'bad/{filebase}' for filebase in expected], words
    assert switchboard('-s', spool.directory, 'rm', '--where', 'what').status == Exit.USAGE
    assert switchboard('-s', spool.directory, 'ls', '--where', 'queue:nosuch').status == Exit.NO_INPUT


def test_who_did_what_and_why_is_in_the_history_and_in_the_list_of_acts(spool: Spool) -> None:
    from switchboard.operating.audit import recent_acts, user_name

    filebase = fail(spool, 'in', 'x')
    succeed('-s', spool.directory, 'retry', filebase, '--reason', 'the server is back')
    (again,) = spool['in'].files
    record = spool['in'].history(again)[-1]
    assert (record['event'], record['by'], record['via'], record['reason']) == (
        'retried',
        user_name(),
        'cli',
        'the server is back',
    )
    (act,) = recent_acts(Path(spool.directory))
    assert (act['act'], act['queue'], act['entry'], act['to']) == ('retry', 'bad', filebase, f'in/{again}')
    assert act['reason'] == 'the server is back'
    held = succeed('-s', spool.directory, 'hold', again, '--reason', 'wait').lines[0].split('/')[-1]
    succeed('-s', spool.directory, 'release', held)
    succeed('-s', spool.directory, 'mv', again, 'out', '--reason', 'there')
    assert [record.get('reason') for record in spool['out'].history(again)[-3:]] == ['wait', None, 'there']
    assert all(record['by'] == user_name() for record in spool['out'].history(again)[-3:])
    assert [act['act'] for act in recent_acts(Path(spool.directory), 2)] == ['mv', 'release']


def test_a_canary_that_fails_keeps_the_others_where_they_are(spool: Spool) -> None:
    for n in range(4):
        fail(spool, 'in', n)
    ran = switchboard('-s', spool.directory, 'retry', '--all', '--canary', '2', '--yes', '--timeout', '0s')
    assert ran.status == Exit.PARTIAL
    assert 'the other 2 stay where they are' in ran.err
    assert (len(spool['in'].files), len(preserved(spool))) == (2, 2)


def test_a_canary_that_goes_through_is_followed_by_the_others(spool: Spool) -> None:
    import threading

    for n in range(4):
        fail(spool, 'in', n)
    done = threading.Event()

    def work() -> None:
        other, finished = Spool(spool.directory, durability='lazy'), 0
        while finished < 2 and not done.is_set():
            taken = other['in'].take()
            if taken is not None:
                other['in'].finish(taken.filebase)
                finished += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        ran = succeed('-s', spool.directory, 'retry', '--all', '--canary', '2', '--yes')
    finally:
        done.set()
        worker.join()
    assert '2 of 2 went through' in ran.err
    assert (len(spool['in'].files), preserved(spool)) == (2, [])


class TestTrash:
    def test_what_is_removed_is_restored_as_it_was(self, spool: Spool) -> None:
        filebase = fail(spool, 'in', 'x')
        history = spool['bad'].history(filebase)
        succeed('-s', spool.directory, 'rm', filebase, '--yes', '--reason', 'spam')
        (entry,) = succeed('-s', spool.directory, 'trash', '--json').objects
        assert (entry['filebase'], entry['origin'], entry['state']) == (filebase, 'bad', 'preserved')
        assert succeed('-s', spool.directory, 'trash').lines[1].split()[1] == 'bad'
        ran = succeed('-s', spool.directory, 'restore', filebase[:20])
        assert ran.lines == [f'trash/{filebase} -> bad/{filebase}']
        assert spool['bad'].history(filebase)[: len(history)] == history
        succeed('-s', spool.directory, 'retry', filebase)
        assert len(spool['in'].files) == 1

    def test_a_waiting_and_a_held_entry_are_restored_to_their_place(self, spool: Spool) -> None:
        filebases = spool['in'].enqueue_many(['x', 'y'])
        held = succeed('-s', spool.directory, 'hold', filebases[1]).lines[0].split('/')[-1]
        succeed('-s', spool.directory, 'rm', filebases[0], held, '--yes')
        assert spool['in'].files == []
        succeed('-s', spool.directory, 'restore', '--all', '--yes')
        succeed('-s', spool.directory, 'release', held)
        assert spool['in'].files == filebases

    def test_at_once_means_for_good(self, spool: Spool) -> None:
        filebase = fail(spool, 'in', 'x')
        succeed('-s', spool.directory, 'rm', filebase, '--yes', '--no-trash')
        assert succeed('-s', spool.directory, 'trash', '--count').lines == ['0']
        assert switchboard('-s', spool.directory, 'restore', filebase).status == Exit.NO_INPUT

    def test_the_janitor_empties_it_after_its_time(self, tmp_path: Path) -> None:
        from switchboard.message.naming import NS_PER_S
        from switchboard.operating.janitor import tidy
        from switchboard.queue.expiry_clock import SETTLES_S
        from switchboard.testing import FakeClock

        for section, kept_s in (('', 7 * 86400), ('[queue.trash]\nttl = 1h\n', 3600)):
            root = tmp_path / str(kept_s)
            root.mkdir()
            config = root / 'switchboard.cfg'
            config.write_text(f'[switchboard]\nspool = s\n[queue.in]\n{section}')
            spool = Spool.from_config(config)
            filebase = spool['in'].enqueue('x')
            succeed('-C', config, 'rm', filebase, '--yes')
            for later_s, left in ((kept_s - 600, 1), (kept_s + 60, 0)):
                clock = FakeClock(spool.clock.time_ns() / NS_PER_S + later_s)
                tidy(Spool.from_config(config, clock=clock))
                clock.advance(SETTLES_S)  # a clock that was set forward is believed after that
                tidy(Spool.from_config(config, clock=clock))
                assert succeed('-C', config, 'trash', '--count').lines == [str(left)]
