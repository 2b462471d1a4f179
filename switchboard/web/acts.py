"""The acts: first a page that names act, filter and number, then the act itself, and a result for each entry by its name.

Ticked entries are named; *all that match* is a filter and the number that was shown, and if more fit by then nothing is done.  Each act claims its
entries, so of two operators one learns that an entry is gone.  An act has a time: the entries left then are counted, and can be gone on with.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from switchboard.config.keys import MAX_INSTANCES
from switchboard.errors import MasterError, SelectionGrewError
from switchboard.events import log_event
from switchboard.master.control import ask
from switchboard.message.naming import is_filebase
from switchboard.operating.acts import ACTS, ChosenEntry, Result, apply, by_queue, choose
from switchboard.operating.audit import MAX_REASON, Operator, note_act, recent_acts
from switchboard.operating.selection import Budget, Selection
from switchboard.operating.text import local_time
from switchboard.store.layout import BAD, TRASH
from switchboard.web.desk import Desk
from switchboard.web.entry_pages import MAX_SELECTION, locate_or_none, selection_of
from switchboard.web.forms import BadRequestError, Form

log = logging.getLogger('switchboard.web')

MAX_TICKED = 500
MAX_CHOSEN = 10_000
# A question about all that match is to name their number: it may take longer than a page to look at.
CHOOSE_S, ACT_S = 5.0, 20.0
ASK_TIMEOUT_S = 15.0

WORDS = {
    'retry': 'Send back',
    'mv': 'Move',
    'hold': 'Hold',
    'release': 'Release',
    'rm': 'Put into the trash',
    'restore': 'Restore',
}


class RequestedAct:
    """The request of a form: an act, and the entries that it is for."""

    def __init__(self, desk: Desk, form: Form, seconds: float = CHOOSE_S) -> None:
        name = form.choice('act', ACTS)
        self.to = form.text('to', limit=200)
        self.act = ACTS[name](self.to)
        if self.to:
            desk.view.check_queues([self.to])
        if name == 'mv' and not self.to:
            raise BadRequestError('name the queue to move to')
        self.reason = form.text('reason', limit=MAX_REASON)
        self.names = form.all('entry', MAX_TICKED)
        self.is_all = form.text('scope') == 'all'
        self.canary = form.number('canary', 0, 0, 50)
        if bool(self.names) is self.is_all:
            raise BadRequestError('nothing is ticked: tick entries, or choose all that match')
        self.selection = (
            selection_of(form) if self.is_all else Selection.parse(form.text('q', limit=MAX_SELECTION))
        )
        self.gone: list[str] = []
        self.budget = Budget(seconds, MAX_CHOSEN * 2)
        self.targets = self._choose(desk)

    @property
    def is_whole(self) -> bool:
        """Was all looked at?"""
        return not self.budget.is_spent and len(self.targets) < MAX_CHOSEN

    def _choose(self, desk: Desk) -> list[ChosenEntry]:
        if self.is_all:
            queues = () if self.selection.values('queue') else (TRASH if self.act.name == 'restore' else BAD,)
            return choose(desk.view.select(self.selection, queues, self.budget), self.act, limit=MAX_CHOSEN)
        found = []
        for name in self.names:
            queue, _, filebase = name.partition('/')
            if not is_filebase(filebase):
                raise BadRequestError('that is no name of an entry')
            if (one := locate_or_none(desk, queue, filebase)) is not None:
                found.append(one)
            else:
                self.gone.append(name)
        return choose(found, self.act, named=True)

    def command(self, desk: Desk) -> str:
        """:return: the same on the command line."""
        more = [*(('--to', self.to) if self.to else ()), *(('--reason', self.reason) if self.reason else ())]
        if self.canary:
            more += ['--canary', str(self.canary)]
        elif self.is_all and not self.is_whole:
            more += ['--limit', str(len(self.targets))]
        if self.is_all:
            return desk.command_for(
                (self.act.name, *(() if self.selection else ('--all',))), self.selection, *more
            )
        return desk.command_for_names(self.act.name, self.names, *more)

    def fields(self, desk: Desk) -> dict[str, Any]:
        """:return: the request, for its page and for programs."""
        return {
            'act': self.act.name,
            'word': WORDS[self.act.name],
            'to': self.to or None,
            'reason': self.reason,
            'selection': str(self.selection),
            'is_all': self.is_all,
            'entries': [] if self.is_all else [str(each) for each in self.targets],
            'count': len(self.targets),
            'is_whole': self.is_whole,
            'by_queue': dict(by_queue(self.targets)),
            'gone': self.gone,
            'sent_back_before': sum(bool(each.sent_back) for each in self.targets),
            'comes_back': sum(each.sent_back >= 3 for each in self.targets),
            'canary': self.canary,
            'command': self.command(desk),
        }


def confirm(desk: Desk, form: Form) -> dict[str, Any]:
    """:return: the question that somebody says yes to before the act; sent with its ``ticket``, the answer counts once."""
    return RequestedAct(desk, form).fields(desk) | {'ticket': secrets.token_hex(8)}


def act(desk: Desk, form: Form, operator: Operator) -> dict[str, Any]:
    """Do it, once for each form.

    :return: the fate of each entry: ``done``, ``not_done`` with the reason, ``gone``; and how many are ``left``.
    :raises SelectionGrewError: more fit than somebody has agreed to; nothing was done.
    """
    return desk.answer_once(form.text('ticket', limit=40), lambda: _act(desk, form, operator))


def _act(desk: Desk, form: Form, operator: Operator) -> dict[str, Any]:
    expect = form.number('expect', -1, 0, MAX_CHOSEN)
    requested = RequestedAct(desk, form, ACT_S if form.text('is_whole', 'yes') == 'yes' else CHOOSE_S)
    targets = requested.targets
    if requested.is_all:
        if expect < 0:
            raise BadRequestError('expect is missing: how many was it said that there are?')
        if form.text('is_whole', 'yes') != 'yes':
            targets = targets[:expect]
        if len(targets) > expect:
            raise SelectionGrewError(expect, len(targets))
    if requested.canary:
        targets = targets[: requested.canary]
    results: list[Result] = []
    until_s = time.monotonic() + ACT_S
    with desk.operator_session(operator) as session:
        for each in targets:
            if time.monotonic() > until_s:
                break
            results.append(apply(requested.act, each, session))
    log_event(log, logging.INFO, None, 'operator acted', act=requested.act.name, by=operator.by, via=operator.via, filter=str(requested.selection), number=len(results), reason=operator.reason)  # fmt: skip
    done = [one.fields() for one in results if one.error is None]
    return {
        'act': requested.act.name,
        'word': WORDS[requested.act.name],
        'done': done,
        'not_done': [one.fields() | {'why': _why(desk, one)} for one in results if one.error is not None],
        'gone': [
            Result(ChosenEntry(queue, filebase, ''), None).fields()
            | {'why': _who_was_first(desk, filebase, queue) or 'it is not there any more'}
            for queue, _, filebase in (name.partition('/') for name in requested.gone)
        ],
        'left': len(targets) - len(results),
        'canary': requested.canary,
        'selection': str(requested.selection) if requested.is_all else form.text('q', limit=MAX_SELECTION),
        'command': requested.command(desk),
    }


def _why(desk: Desk, result: Result) -> str:
    """:return: why nothing was done; of an entry that is gone, who was first, if the acts say it."""
    first = _who_was_first(desk, result.target.filebase, result.target.queue)
    return f'{result.error}: {first}' if first else str(result.error)


def _who_was_first(desk: Desk, filebase: str, queue: str) -> str:
    """:return: the operator's name, act and time of the last act on an entry of a queue; empty if the acts do not say it."""
    for one in recent_acts(desk.directory, 200):
        if one.get('entry') == filebase:
            if queue == TRASH and one.get('act') == 'rm' and one.get('queue') != TRASH:
                return 'its time in the trash was over'
            when = local_time(float(one.get('time', 0)))
            return f'{one.get("by", "somebody")} was first ({one.get("act")}, {when})'
    return ''


def flag_queue(desk: Desk, form: Form, name: str, operator: Operator) -> dict[str, Any]:
    """Pause, drain or resume a queue."""
    what = form.choice('say', ('pause', 'drain', 'resume'))
    desk.view.check_queues([name])
    more = {}
    with desk.operator_session(operator) as session:
        spool = session.spool
        if what == 'resume':
            more['was'] = spool.resume(name)
        else:
            getattr(spool, what)(name, operator.reason, operator.by)
    note_act(desk.directory, operator, what, name)
    return {'act': what, 'queue': name, **more, 'command': desk.command(what, name)}


def control_runner(desk: Desk, form: Form, name: str, operator: Operator) -> dict[str, Any]:
    """Restart or scale a runner, by its master.

    :raises MasterError: there is no master, or it says no.
    """
    what = form.choice('do', ('restart', 'scale'))
    if desk.config is not None and name not in desk.config.runners:
        raise BadRequestError('there is no such runner')
    request: dict[str, object] = {'do': what, 'runner': name}
    words = [what, name]
    if what == 'scale':
        request['instances'] = form.number('instances', 1, 0, MAX_INSTANCES)
        words = ['scale', f'{name}={request["instances"]}']
    before = sum(record.runner == name for record in desk.snapshot().records)
    try:
        answer = ask(desk.directory, request, ASK_TIMEOUT_S)
    except TimeoutError:
        answer = {'ok': True, 'pending': True}
    if not answer.get('ok'):
        raise MasterError('; '.join(map(str, answer.get('errors', ['the master gave no reason']))))
    note_act(desk.directory, operator, what, '', to=name)
    return {
        'act': what,
        'runner': name,
        'slice': None,
        'before': before,
        'slices': request.get('instances'),
        'pending': bool(answer.get('pending')),
        'command': desk.command(*words),
    }
