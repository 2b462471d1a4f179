"""Request and reply: answers find the one who asked, and his queue goes away with him."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from switchboard import Runner, Spool
from switchboard.errors import ReplyTimeoutError
from switchboard.operating.janitor import tidy
from switchboard.options import RunnerOptions
from switchboard.spool.replies import Replies


class Square(Runner):
    """Answers with the square."""

    def dispose(self, msg, msgdata):
        self.answered = self.reply(msgdata, msg * msg, unit='m2')


def work(spool: Spool) -> Square:
    runner = Square(spool, RunnerOptions('square', '', queue='square'))
    runner.run(until_empty=True)
    return runner


def test_an_answer_finds_the_one_who_asked(spool):
    with Replies(spool) as replies:
        question = replies.ask(7, routing_key='square')
        work(spool)
        answer, msgdata = replies.wait(question, 60)
    assert answer == 49
    assert msgdata['unit'] == 'm2'


def test_answers_may_come_in_another_order_than_the_questions(spool):
    with Replies(spool) as replies:
        questions = [replies.ask(number, routing_key='square') for number in range(5)]
        work(spool)
        answers = [replies.wait(question, 60)[0] for question in reversed(questions)]
    assert answers == [16, 9, 4, 1, 0]


def test_who_waits_is_woken_by_the_answer(spool):
    with Replies(spool) as replies:
        question = replies.ask(3, routing_key='square')
        runner = threading.Thread(target=work, args=(Spool(spool.directory, 'lazy'),))
        runner.start()
        assert replies.wait(question, 60)[0] == 9
        runner.join()


def test_an_answer_that_does_not_come_is_told_of(spool):
    with Replies(spool) as replies, pytest.raises(ReplyTimeoutError):
        replies.wait(replies.ask(3, routing_key='square'), 0.01)


def test_a_message_that_asks_for_no_answer_gets_none(spool):
    spool['square'].enqueue(3)
    assert work(spool).answered is False


def test_the_queue_of_answers_goes_away_when_it_is_closed(spool):
    with Replies(spool) as replies:
        assert replies.queue in spool.queue_names()
    assert replies.queue not in spool.queue_names()


def test_the_queue_of_answers_goes_away_with_a_process_that_is_killed(spool):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, Replies(Spool(spool.directory, 'lazy')).queue.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    queue = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert queue in spool.queue_names()
    assert tidy(spool).deleted_queues == 1
    assert queue not in spool.queue_names()


def test_an_answer_for_one_who_is_gone_is_not_stored_and_the_request_says_why(spool):
    with Replies(spool) as replies:
        replies.ask(3, routing_key='square')
    work(spool)
    assert not [name for name in spool.queue_names() if name.startswith('reply.')]
    [filebase] = spool['bad'].get_files('.psv')
    assert 'the program that asked is gone' in spool['bad'].history(filebase)[-1]['reason']
