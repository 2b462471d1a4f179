"""What the desk does to entries, queues and runners, by whom, and what it refuses to do."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from switchboard.operating.audit import recent_acts
from switchboard.operating.spool_view import read_flags
from switchboard.web import acts, desk
from switchboard.web.app import MAX_PAGES, MAX_PAGES_BYTES, AnswerPages, Routes
from tests.helpers.commands import at_work, fail, succeed
from tests.helpers.waiting import PATIENCE_S
from tests.unit.web.desks import Browser, browser


def hidden(text: str) -> dict[str, list[str]]:
    """:return: what the form of a confirmation page sends."""
    from html import unescape

    found: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', text):
        found.setdefault(name, []).append(unescape(value))
    return found


def confirmed(here: Browser, fields: dict[str, Any]) -> Any:
    """Tick, confirm, and do it, as a browser does."""
    page = here.post('/confirm', fields)
    assert page.status_code == 200, page.text
    return here.post('/act', {**hidden(page.text), 'reason': 'because'})


def test_one_is_sent_back_and_its_history_says_by_whom_and_why(here: Browser) -> None:
    filebase = fail(here.spool, 'out', 'x')
    answer = confirmed(here, {'act': 'retry', 'entry': f'bad/{filebase}'})
    assert '1 done' in answer.text
    (name,) = here.spool['out'].files
    record = here.spool['out'].history(name)[-1]
    assert (record['event'], record['by'], record['via'], record['reason']) == (
        'retried',
        'desk',
        'desk',
        'because',
    )
    assert recent_acts(here.desk.directory)[0]['reason'] == 'because'


def test_all_that_match_are_those_and_no_others(here: Browser) -> None:
    for number in range(12):
        fail(here.spool, 'out', number, 'TimeoutError' if number % 3 else 'Other')
    page = here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'error:TimeoutError'})
    assert 'Send back 8 entries' in page.text
    assert 'error:TimeoutError' in page.text
    answer = here.post('/act', hidden(page.text))
    assert '8 done' in answer.text
    assert len(here.spool['out'].files) == 8
    assert len(here.spool['bad'].get_files('.psv')) == 4


def test_a_set_that_grew_is_refused_and_nothing_is_done(here: Browser) -> None:
    for number in range(3):
        fail(here.spool, 'out', number)
    page = here.post('/confirm', {'act': 'rm', 'scope': 'all', 'q': 'queue:bad'})
    fail(here.spool, 'out', 'one more')
    answer = here.post('/act', hidden(page.text))
    assert answer.status_code == 409
    assert '4 entries fit now, and 3 were counted' in answer.text
    assert len(here.spool['bad'].get_files('.psv')) == 4


def test_all_without_a_number_is_refused(here: Browser) -> None:
    fail(here.spool, 'out', 'x')
    assert here.post('/act', {'act': 'rm', 'scope': 'all', 'q': 'queue:bad'}).status_code == 400
    assert here.post('/act', {'act': 'rm'}).status_code == 400
    assert len(here.spool['bad'].get_files('.psv')) == 1


def test_a_stale_tick_is_gone_and_the_others_are_done(here: Browser) -> None:
    names = [fail(here.spool, 'out', number) for number in range(5)]
    page = here.post('/confirm', {'act': 'retry', 'entry': [f'bad/{name}' for name in names]})
    succeed('-C', here.config, 'rm', f'bad/{names[2]}', '--yes')
    answer = here.post('/act', hidden(page.text))
    assert answer.status_code == 200
    assert '4 done, 1 gone' in answer.text


def test_of_two_operators_one_is_told_who_was_first(tmp_path: Path) -> None:
    with browser(tmp_path, user_header='x-user') as here:
        here.client.headers['x-user'] = 'ann'
        filebase = fail(here.spool, 'out', 'x')
        pages = [here.post('/confirm', {'act': 'retry', 'entry': f'bad/{filebase}'}) for _ in range(2)]
        first, second = (hidden(page.text) for page in pages)
        from switchboard.operating.acts import ChosenEntry, Result
        from switchboard.web.acts import _why

        assert '1 done' in here.post('/act', first).text
        assert '1 gone' in here.post('/act', second).text
        result = Result(ChosenEntry('bad', filebase, '.psv'), None, ValueError('no such entry'))
        assert 'ann was first (retry' in _why(here.desk, result)
        assert len(here.spool['out'].files) == 1


def test_what_a_process_works_on_is_not_taken_away(here: Browser) -> None:
    with at_work(here.spool, 'in', 'x') as filebase:
        answer = confirmed(here, {'act': 'rm', 'entry': f'in/{filebase}'})
        assert '0 done, 1 not' in answer.text
        assert here.spool['in'].get_files('.bak') == [filebase]


def test_removed_is_in_the_trash_and_comes_back_byte_for_byte(here: Browser) -> None:
    filebase = fail(here.spool, 'out', {'a': 1})
    before = here.get(f'/entries/bad/{filebase.replace("+", "%2B")}/download').content
    confirmed(here, {'act': 'rm', 'entry': f'bad/{filebase}'})
    (one,) = here.json('/entries?q=queue:trash')['entries']
    assert one['origin'] == 'bad'
    confirmed(here, {'act': 'restore', 'entry': f'trash/{one["filebase"]}'})
    (back,) = here.json('/entries')['entries']
    path = f'/entries/bad/{back["filebase"].replace("+", "%2B")}'
    assert here.get(f'{path}/download').content == before
    assert [record['event'] for record in here.json(path)['history']][-2:] == ['removed', 'restored']


def test_moving_holding_and_releasing(here: Browser) -> None:
    filebase = here.spool['in'].enqueue('x')
    assert here.post('/confirm', {'act': 'mv', 'entry': f'in/{filebase}'}).status_code == 400
    assert here.post('/confirm', {'act': 'mv', 'entry': f'in/{filebase}', 'to': 'nowhere'}).status_code == 404
    confirmed(here, {'act': 'mv', 'entry': f'in/{filebase}', 'to': 'orders'})
    (name,) = here.spool['orders'].files
    confirmed(here, {'act': 'hold', 'entry': f'orders/{name}'})
    (held,) = here.json('/entries?q=queue:orders')['entries']
    assert held['state'] == 'held'
    confirmed(here, {'act': 'release', 'entry': f'orders/{held["filebase"]}'})
    (free,) = here.json('/entries?q=queue:orders')['entries']
    assert free['state'] == 'waiting'


def test_names_that_lead_out_of_the_spool_are_refused(here: Browser) -> None:
    for name in ('../../etc/passwd', 'in/../../x', '/etc/passwd', 'in/', 'bad/x', '.run/acts'):
        assert here.post('/confirm', {'act': 'rm', 'entry': name}).status_code in (400, 404), name
        assert here.get(f'/entries/{name}').status_code in (400, 404, 200) if name == 'in/' else True


def test_a_pause_says_by_whom_and_why(here: Browser) -> None:
    answer = here.post('/queues/in/say', {'say': 'pause', 'reason': 'the disk'})
    assert (answer.status_code, answer.headers['location']) == (303, '/queues/in')
    said = read_flags(here.desk.directory, 'in')['paused']
    assert (said['by'], said['reason']) == ('desk', 'the disk')
    assert 'by desk: the disk' in here.get('/queues/in').text
    here.post('/queues/in/say', {'say': 'resume'})
    assert read_flags(here.desk.directory, 'in') == {}
    assert here.post('/queues/nowhere/say', {'say': 'pause'}).status_code == 404
    assert here.post('/queues/in/say', {'say': 'delete'}).status_code == 400


def test_a_runner_without_a_master_is_not_scaled(here: Browser) -> None:
    assert here.post('/runners/out/do', {'do': 'scale', 'instances': '3'}).status_code == 503
    assert here.post('/runners/out/do', {'do': 'scale', 'instances': '9999'}).status_code == 400
    assert here.post('/runners/none/do', {'do': 'restart'}).status_code == 400


def test_a_canary_goes_first_and_the_rest_is_offered_when_it_went_through(here: Browser) -> None:
    for number in range(5):
        fail(here.spool, 'out', number)
    page = here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'queue:bad', 'canary': '2'})
    assert 'Send back 2 of 5' in page.text
    answer = here.post('/act', hidden(page.text))
    assert answer.status_code == 303
    place = answer.headers['location']
    assert 'rest …' not in here.get(place).text
    assert here.json(place)['counts']['not done yet'] == 2
    queue = here.spool['out']
    for filebase in queue.files:
        queue.dequeue(filebase)
        queue.finish(filebase)
    found = here.json(place)
    assert (found['counts']['went through'], found['is_over']) == (2, True)
    assert 'Send back the rest' in here.get(place).text
    assert len(here.spool['bad'].get_files('.psv')) == 3


def test_a_form_that_is_sent_twice_is_done_once(here: Browser) -> None:
    for number in range(6):
        fail(here.spool, 'out', number)
    page = here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'queue:bad', 'canary': '2'})
    first, second = (here.post('/act', hidden(page.text)) for _ in range(2))
    assert first.status_code == second.status_code == 303
    assert first.headers['location'] == second.headers['location']
    assert len(here.spool['out'].files) == 2
    page = here.post('/confirm', {'act': 'rm', 'entry': f'bad/{here.spool["bad"].get_files(".psv")[0]}'})
    assert 'sent before' not in here.post('/act', hidden(page.text)).text
    again = here.post('/act', hidden(page.text)).text
    assert '1 done' in again
    assert 'This form was sent before' in again
    # Another confirmation is another form; so is one that was refused.
    page = here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'queue:bad'})
    late = fail(here.spool, 'out', 'late')
    assert here.post('/act', hidden(page.text)).status_code == 409
    succeed('-C', here.config, 'rm', f'bad/{late}', '--yes')
    assert '3 done' in here.post('/act', hidden(page.text)).text


def test_a_form_that_is_sent_again_after_many_others_is_not_done_again(
    here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, 'MAX_ANSWERS', 1)
    for number in range(6):
        fail(here.spool, 'out', number)
    pages = [
        here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'queue:bad', 'canary': '1'})
        for _ in range(3)
    ]
    assert [here.post('/act', hidden(page.text)).status_code for page in pages] == [303] * 3
    again = here.post('/act', hidden(pages[0].text))
    assert again.status_code == 409
    assert 'sent before, and done once' in again.text
    assert here.post('/act', hidden(pages[2].text)).status_code == 303
    assert len(here.spool['out'].files) == 3


def test_the_second_form_waits_for_the_first_whatever_is_done_meanwhile(here: Browser) -> None:
    ran: list[int] = []
    begun, going = threading.Event(), threading.Event()

    def act() -> dict[str, Any]:
        ran.append(1)
        begun.set()
        assert going.wait(PATIENCE_S)
        return {}

    with ThreadPoolExecutor() as pool:
        first = pool.submit(here.desk.answer_once, 'ticket', act)
        assert begun.wait(PATIENCE_S)
        for number in range(desk.MAX_ANSWERS + 1):
            here.desk.answer_once(f'other {number}', dict)
        second = pool.submit(here.desk.answer_once, 'ticket', act)
        going.set()
        assert [first.result(PATIENCE_S), second.result(PATIENCE_S)] == [
            {'is_repeated': False},
            {'is_repeated': True},
        ]
    assert ran == [1]


def test_no_form_is_answered_by_a_page_that_only_the_form_can_show_again(tmp_path: Path) -> None:
    with browser(tmp_path, allow_edit=True) as here:
        writing = [
            route
            for route in Routes(here.desk).all()
            if 'POST' in (route.methods or ()) and not route.path.startswith('/api')
        ]
        filebase = fail(here.spool, 'out', 'x')
        seen = here.json(f'/entries/bad/{filebase.replace("+", "%2B")}/edit')['seen']
        fields = {
            'act': 'retry',
            'entry': f'bad/{filebase}',
            'say': 'pause',
            'seen': seen,
            'metadata': '{}',
            'body': 'y',
        }
        answered = []
        for route in sorted(writing, key=lambda one: one.path == '/act'):
            path = route.path.format(
                name='in' if '/say' in route.path else 'bad', filebase=filebase.replace('+', '%2B')
            )
            answer = here.send(path, fields)
            # A runner is directed by a master, and there is none.
            assert answer.status_code == (400 if path.endswith('/do') else 303), (path, answer.text)
            answered.append(answer.headers.get('location', ''))
        pages = [place for place in answered if place.startswith('/answers/')]
        assert len(pages) == len(set(pages)) == len(writing) - 2
        for place in pages:
            first, again = here.get(place), here.get(place)
            assert first.status_code == again.status_code == 200
            assert first.text == again.text


def test_an_answer_is_for_the_user_who_sent_the_form_and_is_not_kept_for_ever(tmp_path: Path) -> None:
    with browser(tmp_path, user_header='x-user') as here:
        here.client.headers['x-user'] = 'ann'
        filebase = fail(here.spool, 'out', 'x')
        fields = {'act': 'retry', 'entry': f'bad/{filebase}'}
        place = here.send('/confirm', fields).headers['location']
        assert here.get(place).status_code == 200
        assert here.get(place, headers={'x-user': 'bob'}).status_code == 404
        for _ in range(MAX_PAGES):
            here.send('/confirm', fields)
        answer = here.get(place)
        assert answer.status_code == 404
        assert 'not kept any more' in answer.text


def test_the_kept_answers_take_no_more_than_so_much() -> None:
    answers = AnswerPages()
    keys = [answers.keep('ann', 'x' * (MAX_PAGES_BYTES // 3)) for _ in range(4)]
    assert [answers.page('ann', key) is not None for key in keys] == [False, True, True, True]
    large = answers.keep('ann', 'x' * (MAX_PAGES_BYTES + 1))
    assert answers.page('ann', large)
    assert answers.page('ann', keys[-1]) is None


def test_the_command_of_a_part_is_about_no_more_than_that(
    here: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        fail(here.spool, 'out', number)
    monkeypatch.setattr(acts, 'MAX_CHOSEN', 3)
    page = here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'queue:bad'})
    assert 'Send back 3 entries' in page.text
    assert 'retry --where queue:bad --limit 3' in page.text


def test_a_canary_that_failed_again_is_told(here: Browser) -> None:
    for number in range(3):
        fail(here.spool, 'out', number)
    page = here.post('/confirm', {'act': 'retry', 'scope': 'all', 'q': 'queue:bad', 'canary': '1'})
    place = here.post('/act', hidden(page.text)).headers['location']
    queue = here.spool['out']
    (filebase,) = queue.files
    queue.dequeue(filebase)
    queue.annotate(filebase, {'event': 'failed', 'attempt': 1, 'error': 'ValueError', 'message': 'again'})
    queue.finish(filebase, preserve=True)
    assert here.json(place)['counts']['failed again'] == 1


def test_what_came_back_three_times_is_warned_of(here: Browser) -> None:
    queue = here.spool['out']
    filebase = fail(here.spool, 'out', 'x')
    for _ in range(3):
        succeed('-C', here.config, 'retry', f'bad/{filebase}')
        (filebase,) = queue.files
        queue.dequeue(filebase)
        queue.annotate(filebase, {'event': 'failed', 'attempt': 1, 'error': 'ValueError', 'message': 'again'})
        queue.finish(filebase, preserve=True)
    (filebase,) = here.spool['bad'].get_files('.psv')
    page = here.post('/confirm', {'act': 'retry', 'entry': f'bad/{filebase}'})
    assert 'came back three times or more' in page.text
