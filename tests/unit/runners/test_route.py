"""The runner that sends messages on through an exchange."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchboard.errors import ConfigError, PermanentFailure
from switchboard.runner.api import Template
from switchboard.runners.route import Route
from tests.unit.runners.pipelines import Pipeline, mail

RUNNER = """
[runner.route]
class = runners.route:Route
queue = in
exchange = mail
[queue.lists]
[queue.archive]
[queue.rest]
"""
EXCHANGES = """
[exchange.mail]
type = topic
bindings =
    lists.*.post -> lists, archive
    one.#        -> lists
    back.#       -> in
"""


def pipeline(directory: Path, keys: str = '', exchanges: str = EXCHANGES) -> Pipeline:
    return Pipeline(directory, RUNNER.replace('exchange = mail\n', 'exchange = mail\n' + keys), exchanges)


def test_a_message_for_one_queue_is_moved_as_it_is(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    filebase = case.spool['in'].enqueue(mail(b'A: \xff\r\n\r\n\0'), routing_key='one.two', list='x')
    case.work(Route, 'route')
    assert case.waiting('in') == []
    assert case.waiting('lists') == [filebase]
    msg, msgdata = case.take('lists')
    assert msg.as_bytes() == b'A: \xff\r\n\r\n\0'
    assert msgdata['list'] == 'x'


def test_a_message_for_several_queues_is_copied(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    case.spool['in'].enqueue(mail(), routing_key='lists.garden.post')
    case.work(Route, 'route')
    assert case.waiting('in') == []
    assert case.take('lists')[0].as_bytes() == case.take('archive')[0].as_bytes() == mail().as_bytes()


def test_a_message_that_nobody_wants_goes_to_bad_with_its_key(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    case.spool['in'].enqueue('text', routing_key='nowhere')
    case.work(Route, 'route')
    assert "no route for key 'nowhere'" in case.reason()


def test_an_alternate_takes_what_nobody_wants(tmp_path: Path) -> None:
    case = pipeline(tmp_path, exchanges=EXCHANGES.replace('topic\n', 'topic\nalternate = rest\n'))
    case.spool['in'].enqueue('text')
    case.work(Route, 'route')
    assert case.take('rest')[0] == 'text'


def test_the_key_is_made_from_the_metadata(tmp_path: Path) -> None:
    case = pipeline(tmp_path, 'routing_key = lists.{list}.{action|post}\n')
    case.spool['in'].enqueue('text', list='garden')
    case.work(Route, 'route')
    assert len(case.waiting('lists')) == len(case.waiting('archive')) == 1


def test_a_message_without_the_value_goes_to_bad_with_its_name(tmp_path: Path) -> None:
    case = pipeline(tmp_path, 'routing_key = lists.{list}.post\n')
    case.spool['in'].enqueue('text')
    case.work(Route, 'route')
    assert 'needs list, and there is none' in case.reason()


def test_a_message_does_not_go_round_in_circles(tmp_path: Path) -> None:
    case = pipeline(tmp_path)
    case.spool['in'].enqueue('text', routing_key='back')
    case.work(Route, 'route')
    assert 'leads back' in case.reason()


def test_without_an_exchange_the_key_is_a_queue_and_an_unknown_one_makes_none(tmp_path: Path) -> None:
    case = Pipeline(tmp_path, RUNNER.replace('exchange = mail\n', ''))
    case.spool['in'].enqueue('known', routing_key='rest')
    case.spool['in'].enqueue('unknown', routing_key='made-up')
    case.work(Route, 'route')
    assert case.take('rest')[0] == 'known'
    assert 'made-up' in case.reason()
    assert not (tmp_path / 'spool' / 'made-up').exists()


def test_an_unknown_exchange_is_found_before_the_first_message(tmp_path: Path) -> None:
    case = pipeline(tmp_path, exchanges='')
    with pytest.raises(ConfigError, match='no exchange'):
        case.work(Route, 'route')


@pytest.mark.parametrize('text', ['{', '}', '{}', '{a!r}', '{:x}', '{colour:x}', '{|x}'])
def test_a_key_that_cannot_be_filled_in_is_an_error_of_the_configuration(tmp_path: Path, text: str) -> None:
    case = pipeline(tmp_path, f'routing_key = lists.{text}\n')
    with pytest.raises(ConfigError) as caught:
        case.runner(Route, 'route')
    assert caught.value.key == 'routing_key'


@pytest.mark.parametrize(
    ('template', 'key'),
    [
        ('plain.key', 'plain.key'),
        ('{sender}', 'Anna@Example.ORG'),
        ('{local:sender}.{domain:sender}', 'Anna.example.org'),
        ('{local:recipients}', 'list'),
        ('{domain:null|nobody}', 'nobody'),
        ('{header:subject}', 'two lines'),
        ('{header:x-none|}.end', '.end'),
        ('{number}.{truth}', '7.true'),
        ('{{literal}}', '{literal}'),
        ('{nothing|a b}', 'a b'),
    ],
)
def test_a_key_is_filled_in(template: str, key: str) -> None:
    metadata = {
        'sender': 'Anna@Example.ORG',
        'recipients': ['list@x', 'other@y'],
        'null': '',
        'number': 7,
        'truth': True,
        'map': {'a': 1},
    }
    assert Template(template).fill(mail(b'Subject: two\n lines\n\n'), metadata) == key


@pytest.mark.parametrize('template', ['{map}', '{none}', '{domain:number}', '{header:Subject}'])
def test_what_is_no_plain_value_is_not_there(template: str) -> None:
    with pytest.raises(PermanentFailure, match='there is none'):
        Template(template).fill('no mail', {'map': {'a': 1}, 'number': 7})
