"""Events: the lines of the log, written by one function, with its words in one list.

An event has a word (what happened), the entry that it happened to, and fields.  As text it is ``FILEBASE WORD key=value ...``, so
that `grep FILEBASE` tells the story of a message and `grep ' preserved '` all that was preserved; as JSON each is a member of its
own, numbers are numbers, and nothing is cut.  No line is taken apart to make another.

A word that is not in `WORDS` is refused by a test, so two modules do not call one thing by two names.
"""

from __future__ import annotations

import json
import logging
import math
import re
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

# The entry that the running code works on: a thread has its own, and so has each task of an event loop.
AT_WORK: ContextVar[str | None] = ContextVar('at_work', default=None)

# What may stand in a line without quotes.
PLAIN = re.compile(r'[^\s"=\\]+')

WORDS = MappingProxyType(
    {
        'abandoned': "a mail that a maildir's writer never finished was removed",
        'acted': 'an operator has done something to an entry or a queue',
        'alerted': "the operator's command was run for an alert",
        'answered': 'a mail server has answered for a recipient',
        'broker back': 'the connection to a broker stands again',
        'cannot import': "a runner's class cannot be imported; it is FATAL",
        'cannot run': "a runner's configuration cannot work; it is FATAL",
        'cannot start': 'the master, or a runner without one, did not start: another master is running, or the configuration cannot be used',
        'claim lost': 'the work was done, and the broker had given the message to another meanwhile',
        'clock set forward': 'what would be deleted by the new time is kept until the clock has stayed so for a while',
        'committed in part': 'a hand-off is committed, and recovery will finish publishing it',
        'configuration read': 'a publisher has read the configuration that is in force now',
        'configuration refused': 'the configuration was changed and cannot be used; the old one stays in force',
        'connection lost': 'a kept connection broke off; a new one is made',
        'control socket pauses': 'no descriptor or memory for another call; it is tried again in a second',
        'copy removed': 'a file with the name and the content of an entry was in its way: a copy made by hand',
        'dead letter loop': 'dead letters go round in circles; this one goes to the bad queue',
        'dead-lettered': "an entry went to its queue's dead letters",
        'declaration unreadable': "a declared queue's file cannot be read",
        'declared twice': 'a queue was declared with other options; the first declaration counts',
        'deletion waits': 'a deleted queue waits for entries at work',
        'directory replaced': "another directory stands in the place of one of the spool's; it is used from now on",
        'disk back': 'what the disk had refused is done',
        'disk refused': 'the disk refused; it is tried again',
        'dropped': "an entry was thrown away because the queue's options say so",
        'duplicate': 'a message that was done or taken already',
        'ended': "a runner's process has ended",
        'ended leftovers': 'what runners of an earlier master had started and left behind was ended',
        'exchanges unreadable': 'what programs declared of exchanges cannot be read, and is left out',
        'failed': 'a message failed for good',
        'flag unreadable': 'whether a queue is paused or draining cannot be read; it counts as it was',
        'gave up': 'a runner is FATAL',
        'hangs': "a runner's process hangs and is being ended",
        'heartbeat failed': 'no sign of life could be given to a broker',
        'hidden configuration': 'a configuration in the working directory is used, and not the installed one',
        'history not written': 'a record could not be appended to an entry',
        'history read-only': "an entry is another user's, and a record was left out",
        'ignored': 'a file in a queue that is no entry; logged once',
        'imported': 'a dropped file has become an entry',
        'janitor hangs': 'the janitor is not back in time and cannot be killed',
        'janitor killed': 'the janitor was not back in time; another one is sent',
        'janitor not started': 'there was no process for the janitor; it is tried again',
        'keys not forgotten': 'the keys that a deleted queue had seen are still there',
        'killing': "a runner's process and all that it started are being killed",
        'listening': 'a server has opened its place',
        'log not reopened': 'a log file could not be opened anew; the old one is in use',
        'log lines lost': 'nobody read the log, or its disk was full, for so long that lines were dropped',
        'logged badly': 'a line of somebody else could not be formatted',
        'master failed': 'the master cannot go on',
        'mistake': 'an error in Switchboard itself; please report it',
        'not alerted': "the operator's command could not be run for an alert",
        'not acknowledged': 'a message is done, and the broker does not know it yet',
        'not answered': 'a request could not be answered',
        'not closed': 'something could not be closed',
        'not collected': 'files that were dropped cannot be taken in for now',
        'not counted': 'something that is counted was not',
        'not dead-lettered': 'dead letters could not be delivered; the entry goes to the bad queue',
        'not declared lasting': 'a broker may forget a queue if it is killed now',
        'not dropped': 'an entry of a deleted queue is still there',
        'not evicted': 'an entry could not make room for a new one',
        'not noted': 'something that is to be remembered could not be written down',
        'not preserved': 'an entry could not be put into the bad queue',
        'not published': 'publishers could not be notified of the new configuration',
        'not read': 'something could not be looked at',
        'not copied': 'a file of another user went to the bad queue as it is; its history is not believed',
        'not recovered': 'something that a dead process left could not be repaired; it is tried again',
        'not released': 'an entry could not be given back; recovery will do it',
        'not removed': 'something could not be removed',
        'not routed': "a recipient's mail cannot be routed for now",
        'not sent': 'a mail could not be handed on to some of its recipients; it is tried again for them',
        'not settled': 'an entry stays claimed for now, because the disk refused its next step',
        'not signed off': 'that a runner has gone could not be noted',
        'not started': 'there was no process for a runner; it is tried again',
        'not stored': 'mails could not be stored; their sender keeps them',
        'not synced': 'a hand-off is committed, and a sync failed',
        'not taken': 'an entry could not be read; others were',
        'not taken back': 'a hand-off was not committed, and the disk may not know that',
        'not taken over': "a queue file of Mailman's could not be read; it is tried again at the next start",
        'not tidied': 'the janitor could not do its work',
        'not unwatched': 'a broker still tells of a queue',
        'not waited for': 'another process does not get on with a hand-off',
        'not watched': 'a broker does not tell of a queue',
        'no more taken': 'as many messages are held as the limit of open files allows',
        'nothing to scale': 'a signal asked for another number of slices, and no runner has a queue',
        'nothing taken': 'the disk or the broker gives no message; it is tried again',
        'on_error failed': "a runner's own hook failed",
        'preserved': 'an entry went to the bad queue',
        'printed': "a line that a runner's own code has written to standard output or standard error",
        'put off': 'so many messages are held that a task whose time has not come waits in its queue',
        'queue deleted': 'a queue was deleted',
        'ready': 'all runners have begun their loop, or failed to',
        'records stay': 'records of finished hand-offs could not be removed; recovery will',
        'recovered': 'an entry whose holder died is ready again',
        'redelivered': 'a broker has given a message to its holder again',
        'refused': 'a recipient or a request was refused',
        'released': 'an entry whose holder was killed on request is ready again; that is not counted',
        'reload failed': 'the configuration cannot be used; the old one stays in force',
        'reloaded': 'another configuration is in force',
        'removed': 'an entry was removed',
        'replacement failed': 'new processes cannot start; the old ones go on',
        'request began': 'what somebody has asked for is under way',
        'request failed': 'what somebody has asked for could not be done',
        'request finished': 'what somebody has asked for is over',
        'requeued': "trouble that is not the message's own: it stays where it was",
        'retried': 'a message failed and is tried again later',
        'rolled forward': "a dead process's hand-off was finished",
        'runner failed': "a runner's process ended by an error",
        'running': 'a runner has begun its loop',
        'scoreboard mended': 'somebody has cut the scoreboard; it was written anew',
        'scoreboard unreadable': 'somebody has damaged the scoreboard',
        'session failed': "a mail server's session was ended by an error of ours",
        'signal received': 'the master has received a signal',
        'skipped': 'a message was left for somebody else',
        'started': 'the master has started',
        'stop requested': 'the master was asked to stop',
        'stopped': 'the master has stopped',
        'stopped early': 'a server was stopped while mails arrived',
        'stopping': 'a runner was asked to stop',
        'stored': 'a message has arrived',
        'tidied': 'the janitor is back',
        'unroutable': 'no queue wants a message',
        'waits': 'a runner starts again when something that it had started has ended',
        'was late': 'the master was stopped or frozen for a while; that time counts against no runner',
        'will do': 'what a reload is going to do with a runner, and why',
    }
)


def event(log: logging.Logger, level: int, filebase: str | None, word: str, /, **fields: object) -> None:
    """Write one line.

    :param filebase: the entry that it is about, if it is about one.
    :param word: one of `WORDS`.
    :param fields: the other parts of the line; those that are None are left out.  ``exc_info`` is an exception whose traceback is
        added, or True for the one that is being handled; ``speaker`` is the process whose line it is, name and process id, where
        that is not this one.
    """
    if not log.isEnabledFor(level):
        return
    exc_info: Any = fields.pop('exc_info', None)
    speaker = fields.pop('speaker', None)
    text = ' '.join(filter(None, (filebase, word, pairs(**fields))))
    members = {'filebase': filebase, 'event': word, **{key: member(value) for key, value in fields.items()}}
    extra: dict[str, object] = {
        'members': {key: value for key, value in members.items() if value is not None}
    }
    if speaker is not None:
        extra['speaker'] = speaker
    log.log(level, '%s', text, exc_info=exc_info, extra=extra, stacklevel=2)


def pairs(**fields: object) -> str:
    """:return: the fields as ``key=value``, quoted where a value has spaces; those that are `None` are left out."""
    return ' '.join(f'{key}={_quote(value)}' for key, value in fields.items() if value is not None)


def _quote(value: object) -> str:
    text = f'{value:.3f}' if isinstance(value, float) else str(value)
    text = text.encode('utf-8', 'backslashreplace').decode()  # half a character cannot be written
    return text if PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def member(value: object) -> object:
    """:return: the value as JSON holds it: truth and numbers as they are, all else as text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
