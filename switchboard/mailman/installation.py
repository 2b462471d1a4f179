"""Putting our queues in the place of Mailman's, in a running process."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

from mailman.config import config
from mailman.core import switchboard as original

from switchboard.mailman.queue import MailmanQueue

NAME = 'Switchboard'


def install() -> None:
    """Have Mailman use this switchboard from now on, in this process.

    The class ``Switchboard`` of ``mailman.core.switchboard`` is replaced, wherever a module of Mailman's has it by name, and
    so are the queues that the configuration has made already.  A second call changes nothing.
    """
    theirs = getattr(original, NAME)
    if theirs is MailmanQueue:
        return
    for module in _modules_with(theirs):
        setattr(module, NAME, MailmanQueue)
    for name, queue in list(config.switchboards.items()):
        config.switchboards[name] = MailmanQueue(name, queue.queue_directory)
    # What this switchboard has to say stands in Mailman's log of its runners, wherever and however that is kept.
    logging.getLogger('switchboard').parent = logging.getLogger('mailman.runner')


def _modules_with(theirs: object) -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition('.')[0] == 'mailman' and vars(module).get(NAME) is theirs
    ]
