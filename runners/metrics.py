"""Numbers for Prometheus, served beside the other runners: no queue, no messages.

::

    [runner.metrics]
    class = metrics
    queue =
    listen = 127.0.0.1:9736

It ends with the master.  A server of its own (``switchboard metrics --listen``) goes on then, and can be given fewer rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from switchboard import Runner
from switchboard.errors import ConfigError
from switchboard.runner.api import Setting, duration_s, install_advice, word_list


class Metrics(Runner):
    """The exporter: a runner without a queue."""

    settings: ClassVar[Mapping[str, Setting]] = {
        'listen': Setting(str, default='127.0.0.1:9736'),
        'allowed_hosts': Setting(word_list, default=(), old_name='hosts'),
        'count_timeout': Setting(duration_s, default=10.0, old_name='budget'),
    }

    def setup(self) -> None:
        """See `IRunner`."""
        try:
            from switchboard.metrics.exporter import exporter_of
            from switchboard.metrics.listener import Listener
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition('.')[0] != 'prometheus_client':
                raise
            reason = install_advice('a runner of class `metrics`', 'prometheus-client', 'metrics')
            raise ConfigError(reason, key='class') from error
        self.exporter = exporter_of(self.spool, self.setting_values['count_timeout'])
        try:
            self.listener = Listener(
                self.exporter.render, self.setting_values['listen'], self.setting_values['allowed_hosts']
            )
        except OSError as error:
            raise ConfigError(
                f'{self.setting_values["listen"]}: {error.strerror or error}', key='listen'
            ) from error
        self.exporter.start()
        self.listener.start()

    def cleanup(self) -> None:
        """See `IRunner`."""
        self.listener.close()
        self.exporter.close()
