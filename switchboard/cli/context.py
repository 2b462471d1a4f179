"""The installation that a command is about: its configuration, its spool, its queues.

Commands that look (``ls``, ``status``) and the one that ends things (``stop``) must work when somebody has just broken the
configuration, and with a spool that has none; so they ask for directories, and tell mistakes in a warning.  Commands
that put messages somewhere ask for the configuration, and end with its mistakes.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from switchboard.cli.output import print_note
from switchboard.errors import ConfigError
from switchboard.operating.text import with_installation
from switchboard.suggestions import did_you_mean

if TYPE_CHECKING:
    from switchboard.config.config import Config
    from switchboard.operating.acts import OperatorSession
    from switchboard.operating.audit import Operator
    from switchboard.operating.spool_view import SpoolView
    from switchboard.routing.exchange import ExchangeTable
    from switchboard.spool.spool import Spool

CONFIG_VARIABLE = 'SWITCHBOARD_CONFIG'
SEARCHED = ('switchboard.cfg', 'etc/switchboard.cfg', '/etc/switchboard/switchboard.cfg')

P = ParamSpec('P')
R = TypeVar('R')


def _is_there(path: str) -> bool:
    """:return: whether a configuration stands at one of the places that are searched.

    A working directory that this user may not look into holds no configuration that this user could mean: ``runuser -u switchboard -- switchboard init`` is typed in a directory of root.

    :raises PermissionError: the installed one may not be looked for.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        if os.path.isabs(path):
            raise
        return False
    except OSError:
        return False


class Installation:
    """The installation that ``-C`` and ``-s`` name, or the default one.  Files are read when they are needed."""

    def __init__(self) -> None:
        self.named_config: Path | None = None
        self.named_spool: Path | None = None
        # Of `init`, which has made it just now.
        self.made_config: Path | None = None
        self._config: Config | None = None
        self._spool: Spool | None = None
        self._is_broken = False
        # A verb that shows the mistakes of the configuration itself needs no warning of them.
        self.warns = True
        # Standard error takes a log.
        self.logs = False
        self._has_warned = False
        # Errors are objects then, too.
        self.as_json = False
        # What runs.
        self.verb = ''

    def with_installation(self, text: str) -> str:
        """:return: the text, with commands that reach this installation."""
        return with_installation(text, self.named_config, self.named_spool)

    @property
    def config_path(self) -> Path | None:
        """The configuration file: named, or the first that is found; None for a bare spool, or if there is none."""
        if self.named_spool is not None:
            return None
        if self.named_config is not None or self.made_config is not None:
            return self.named_config or self.made_config
        named = os.environ.get(CONFIG_VARIABLE)
        if named:
            return Path(named)
        found = [Path(path) for path in SEARCHED if _is_there(path)]
        # Somebody who stands in a checkout by chance may mean the installed one.
        if self.warns and not self._has_warned and len(found) > 1 and SEARCHED[-1] == str(found[-1]):
            self._has_warned = True
            text = f'using ./{found[0]}, not {found[-1]}; name one with -C or {CONFIG_VARIABLE}'
            if self.logs:
                from switchboard.master.programs import log_to_stderr

                log_to_stderr(found[0], text)
            else:
                print_note(text)
        return found[0] if found else None

    @property
    def config(self) -> Config:
        """The configuration.

        :raises ConfigError: there is none, or it has mistakes; all of them.
        """
        if self._config is None:
            path = self.config_to_load
            from switchboard.config.config import Config

            self._config = Config.load(path)
        return self._config

    @property
    def config_to_load(self) -> Path:
        """The file of the configuration, which may have mistakes.

        :raises ConfigError: there is none.
        """
        path = self.config_path
        if path is None and self.named_spool is not None:
            raise click.UsageError(
                'this needs a configuration, not a spool alone: give -C FILE instead of -s'
            )
        if path is None:
            raise ConfigError(
                f'no configuration was found ({" or ".join(SEARCHED)}): name one with -C FILE or '
                f'{CONFIG_VARIABLE}, or make one with `switchboard init DIRECTORY`'
            )
        return path

    @property
    def config_or_none(self) -> Config | None:
        """The configuration, if there is one that can be used; its mistakes are a warning."""
        if self._config is None and self.named_spool is None and not self._is_broken:
            try:
                return self.config
            except ConfigError as error:
                path = self.config_path
                if path is None or not path.is_file():
                    raise
                self._is_broken = True
                if self.warns:
                    from switchboard.operating.health import mistakes_alarm, mistakes_of

                    print_note(f'warning: {mistakes_alarm(path, mistakes_of(error))}')
        return self._config

    @property
    def directory(self) -> Path:
        """The spool's directory, also that of a configuration which has mistakes elsewhere.

        :raises ConfigError: nothing says which it is.
        :raises FileNotFoundError: it is a queue of a spool, or stands above a spool: messages in a queue of a queue, or beside the spool, are found by nobody.
        """
        if (config := self.config_or_none) is not None:
            return config.spool  # a wrong place is among the mistakes of a configuration
        from switchboard.config.spool_place import why_not_a_spool

        named = self.named_spool
        directory = named.absolute() if named is not None else self._spool_of_a_broken_config()
        if reason := why_not_a_spool(directory):
            raise FileNotFoundError(errno.ENOENT, reason, str(directory))
        return directory

    def _spool_of_a_broken_config(self) -> Path:
        from switchboard.config.inifile import Problems, parse_ini, read_config_file

        path = self.config_path
        assert path is not None
        for section in parse_ini(read_config_file(path), str(path), Problems()):
            if section.name == 'switchboard' and 'spool' in section.options:
                return Path(os.path.normpath(path.absolute().parent / section.options['spool'].value))
        return self.config.spool  # raises: all that is wrong with it

    def existing_directory(self) -> Path:
        """:return: the spool's directory.

        :raises FileNotFoundError: it is not there.
        """
        directory = self.directory
        if not directory.is_dir():
            hint = 'there is no spool there; `switchboard init` makes one'
            error = FileNotFoundError(errno.ENOENT, hint, str(directory))
            if text := self.master_elsewhere():
                error.add_note(text)
            raise error
        return directory

    def master_elsewhere(self) -> str:
        """:return: that a master of this configuration is at work on another spool, because `spool` was changed since it was started."""
        from switchboard.operating.health import elsewhere_alarm

        return str(elsewhere_alarm(self.config_path, self.directory) or '')

    def spool(self, *, make: bool = False) -> Spool:
        """:return: the spool, to work on it.

        :param make: also if its directory is not there yet.
        """
        if self._spool is None:
            from switchboard.config.spool_place import why_not_alone
            from switchboard.spool.spool import Spool
            from switchboard.store.disk import Disk
            from switchboard.store.folder import Folder

            if not make:
                self.existing_directory()
            elif not self.directory.is_dir():
                # All of its users may work in it, whichever verb comes first.
                root = Folder(self.directory, Disk())
                root.make()
                root.share_with_group()
            config = self.config if self.named_spool is None else None
            if reason := why_not_alone(self.directory, config.queue_names() if config is not None else ()):
                print_note(f'warning: {reason}')
            self._spool = Spool(self.directory) if config is None else Spool.from_config(config)
        return self._spool

    @property
    def view(self) -> SpoolView:
        """The spool, to look at; nothing is made."""
        from switchboard.operating.spool_view import SpoolView

        return SpoolView(self.existing_directory(), self.config_or_none)

    def operator(self, reason: str = '') -> Operator:
        """:return: the user who runs this, for the record of what operators do.

        :param reason: why something is done.
        """
        from switchboard.operating.audit import Operator, user_name

        return Operator(user_name(), 'cli', reason)

    def operator_session(self, reason: str) -> OperatorSession:
        """:return: the spool, to act on its entries as the user who runs this.

        :param reason: why, for the history of each entry.
        """
        from switchboard.operating.acts import OperatorSession

        return OperatorSession(self.view, self.spool(), self.operator(reason))

    def check_runner(self, name: str) -> None:
        """:raises FileNotFoundError: the configuration declares no such runner.  A broken one is not asked."""
        config = self.config_or_none
        if config is not None and name not in config.runners:
            known = '; there are ' + ', '.join(sorted(config.runners)) if config.runners else ''
            hint = did_you_mean(name, config.runners) or known
            raise FileNotFoundError(errno.ENOENT, f'there is no such runner{hint}', name)

    def exchanges(self) -> ExchangeTable:
        """:return: the exchanges of the configuration, and those that programs have declared in the spool, if it is there."""
        if self.named_spool is not None or self.config.spool.is_dir():
            return self.spool().exchanges
        return self.config.exchanges

    def takes(self, queue: str) -> bool:
        """:return: whether a message may be sent to this queue: a bare spool makes queues as they are named."""
        if self.named_spool is not None:
            return True
        if self.config.spool.is_dir():
            return self.spool().declared.is_known(queue)
        return queue in self.config.queue_names()


def _remember(name: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def callback(context: click.Context, _param: click.Parameter, value: Path | None) -> None:
        if value is None:
            return
        installation = context.ensure_object(Installation)
        setattr(installation, name, value)
        if installation.named_config is not None and installation.named_spool is not None:
            raise click.UsageError('give -C or -s, not both: a spool alone has no configuration')

    return callback


def installation_options(command: Callable[P, R], *, short: bool = False) -> Callable[P, R]:
    """Add ``-C`` and ``-s``, which may stand before the verb and behind it."""
    searched = (
        f'  Default: ${CONFIG_VARIABLE}, {", ".join(f"./{path}" for path in SEARCHED[:-1])}, {SEARCHED[-1]}.'
    )
    config = click.option(
        '-C',
        '--config',
        type=click.Path(path_type=Path, dir_okay=False, readable=False),
        expose_value=False,
        callback=_remember('named_config'),
        help=f'The configuration file.{"" if short else searched}',
    )
    spool = click.option(
        '-s',
        '--spool',
        type=click.Path(path_type=Path, file_okay=False, readable=False),
        metavar='DIR',
        expose_value=False,
        callback=_remember('named_spool'),
        help='Work on this spool, without a configuration.',
    )
    return config(spool(command))


def verb(**settings: Any) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a verb of a function: a click command that is handed the `Installation` first, and returns its exit status, if that is not 0."""

    def make(function: Callable[..., int | None]) -> click.Command:
        function.__dict__.setdefault('__click_params__', [])

        @functools.wraps(function)
        def call(*args: Any, **keys: Any) -> int | None:
            installation = click.get_current_context().ensure_object(Installation)
            return function(installation, *args, **keys)

        # Everyone has these two, so they stand last in the help.
        options: list[click.Parameter] = function.__dict__['__click_params__']
        own = options.copy()
        options.clear()
        installation_options(call, short=True)
        options.extend(own)
        command: click.Command = click.command(**settings)(call)
        return command

    return make


def _remember_json(context: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Installation).as_json = True


def make_json_option(name: str, text: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """:return: the option ``--json`` with its line in the help; `is_json` says whether it was given."""
    return click.option('--json', name, is_flag=True, expose_value=False, callback=_remember_json, help=text)


json_option = make_json_option('as_json', 'One JSON object a line, for programs.')
# For verbs that say what they have done by `report`.
json_report_option = make_json_option('json', 'The results as JSON objects, for programs; errors too.')
