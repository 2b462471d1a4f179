"""The operators' desk as a runner without a queue: a web page that the master starts and watches.

::

    [runner.desk]
    class = web
    queue =
    listen = /run/switchboard/desk.sock
    environment = production
    environment_colour = red

It has the master's rights.  A desk that can only look is a process of another user: ``switchboard web --read-only``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from switchboard import AsyncRunner
from switchboard.errors import ConfigError
from switchboard.runner.api import Setting, boolean, file_mode, install_advice, log_event, word_list

log = logging.getLogger('switchboard.web')


class Web(AsyncRunner):
    """Serves the desk of its own installation."""

    settings: ClassVar[Mapping[str, Setting]] = {
        **AsyncRunner.settings,
        'listen': Setting(str, '127.0.0.1:8025'),
        'allowed_hosts': Setting(word_list, (), old_name='hosts'),
        'read_only': Setting(boolean, False),
        'allow_edit': Setting(boolean, False, old_name='edit'),
        'users_file': Setting(str, ''),
        'user_header': Setting(str, ''),
        'environment': Setting(str, ''),
        'environment_colour': Setting(str, 'grey', old_name='colour'),
        'redact': Setting(word_list, ()),
        'socket_mode': Setting(file_mode, 0o660),
    }

    async def setup(self) -> None:
        """See `AsyncRunner`.

        :raises ConfigError: it must not, or cannot, listen there.
        """
        try:
            from switchboard.web.desk import Desk
            from switchboard.web.server import listener, make_server
            from switchboard.web.settings import DeskSettings
        except ImportError as error:
            raise ConfigError(
                install_advice('the desk', error.name or 'starlette', 'web'), key='class'
            ) from error
        if self.options.instances > 1:
            raise ConfigError('there is one desk', key='instances')
        own = self.settings.keys() - AsyncRunner.settings.keys()
        settings = DeskSettings.of(**{key: self.setting_values[key] for key in own})
        spool: Any = self.spool
        config = spool.config
        self._desk = Desk(Path(spool.path()), config.path if config is not None else None, settings)
        self._server = make_server(self._desk)
        sockets = [listener(self._desk)]
        self._desk.counter.start()
        self._serving = asyncio.create_task(self._server.serve(sockets))
        log_event(log, logging.INFO, None, 'listening', runner=self.name, place=settings.listen)

    async def cleanup(self) -> None:
        """See `AsyncRunner`."""
        self._server.should_exit = True
        await self._serving
        self._desk.counter.close()
