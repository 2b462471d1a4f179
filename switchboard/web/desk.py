"""One installation as the desk sees it: its view, which follows the configuration, its master, and the spool that acts work on."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switchboard.errors import ConfigError, ScoreboardError, SwitchboardError
from switchboard.operating.acts import OperatorSession
from switchboard.operating.audit import Operator
from switchboard.operating.health import mistakes_of
from switchboard.operating.selection import Selection
from switchboard.operating.spool_view import SpoolView
from switchboard.operating.text import system_words, with_installation
from switchboard.status.scoreboard import MasterRecord
from switchboard.status.snapshot import Snapshot, read_status
from switchboard.web.identity import Identity
from switchboard.web.settings import DeskSettings
from switchboard.web.spool_counts import BackgroundCounter

if TYPE_CHECKING:
    from switchboard.config.config import Config

# A command line with more names of entries than that is no help.
MAX_NAMES = 20
# So many answers to forms are kept, for browsers that send one twice; of more forms, only that they were sent.
MAX_ANSWERS, MAX_TICKETS = 8, 10_000
# The configuration's files are looked at this often.
LOOK_EVERY_S = 2.0


class Desk:
    """See the module.

    :param directory: the spool.
    :param config_path: its configuration; None for a spool without one.
    """

    def __init__(self, directory: Path, config_path: Path | None, settings: DeskSettings) -> None:
        self.directory = directory
        self.config_path = config_path
        self.settings = settings
        self.identity = Identity(settings)
        self.counter = BackgroundCounter(lambda: self.view)
        # Looks that took long: see `entry_pages`.
        self.list_cache: dict[tuple[str, int, str], Any] = {}
        self.config: Config | None = None
        self.config_errors: list[ConfigError] = []
        self._stamp: object = None
        self.looked_s = float('-inf')
        self._reading = threading.Lock()
        # A spool is made for one thread: acts go one after the other.
        self._acting = threading.Lock()
        self._answering = threading.Lock()
        # By ticket, in the order of the forms; None for an answer that is not kept any more.
        self._answers: dict[str, Future[dict[str, Any]] | None] = {}

    def command(self, *words: str) -> str:
        """:return: the command line that does the same as a page or an act: it teaches, and makes runbooks."""
        place = self.config_path or self.directory
        return shlex.join(['switchboard', '-s' if place.is_dir() else '-C', str(place), *words])

    def with_installation(self, text: str) -> str:
        """:return: the text, with commands that reach this installation."""
        return with_installation(text, self.config_path, self.directory)

    def command_for(self, verb: Sequence[str], selection: Selection, *more: str) -> str:
        """:return: the command line of a verb for all that fit a selection."""
        where = ('--where', str(selection)) if selection else ()
        return self.command(*verb, *where, *more)

    def command_for_names(self, verb: str, names: Sequence[str], *more: str) -> str:
        """:return: the command line of a verb for some entries; of many, from a file."""
        if len(names) <= MAX_NAMES:
            return self.command(verb, *names, *more)
        return f'{self.command(verb, "-", *more)} < names'

    @property
    def view(self) -> SpoolView:
        """The spool, to look at, by the configuration as it stands; one with mistakes changes nothing."""
        self.follow_config()
        return SpoolView(self.directory, self.config)

    def follow_config(self) -> None:
        """Look now and then whether the configuration is another by now."""
        with self._reading:
            if self.config_path is not None and time.monotonic() - self.looked_s >= LOOK_EVERY_S:
                self.looked_s = time.monotonic()
                self._read_config(self.config_path)

    def _read_config(self, path: Path) -> None:
        from switchboard.config.config import Config

        files = self.config.sources if self.config is not None else (path,)
        stamp = [_stamp(file) for file in files]
        if stamp == self._stamp:
            return
        try:
            self.config = Config.load(path)
            self.config_errors = []
        except ConfigError as error:
            self.config_errors = mistakes_of(error)
        self._stamp = [_stamp(file) for file in (self.config.sources if self.config is not None else (path,))]

    def snapshot(self) -> Snapshot:
        """:return: the state by the scoreboard; of one that cannot be read, why."""
        try:
            return read_status(self.directory)
        except (ScoreboardError, OSError) as error:
            text = system_words(error) if isinstance(error, OSError) else str(error)
            return Snapshot(self.directory, False, MasterRecord(), (), trouble=text)

    @contextmanager
    def operator_session(self, operator: Operator) -> Iterator[OperatorSession]:
        """Yield the spool, to act on; one act after the other."""
        from switchboard.spool.spool import Spool

        view = self.view
        with self._acting:
            spool = Spool.from_config(self.config) if self.config is not None else Spool(self.directory)
            try:
                yield OperatorSession(view, spool, operator)
            finally:
                self.list_cache.clear()
                spool.close()

    def answer_once(self, ticket: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do something the first time that a form is sent: a double click, a reload and the way back in a browser send it again.

        :param ticket: of the form; empty for a form that may be sent twice.
        :return: the answer of the act, now or before, and whether it is a repetition.  An act that has failed is done anew.
        :raises SwitchboardError: it was done before, and the answer is not kept any more.
        """
        if not ticket:
            return act() | {'is_repeated': False}
        with self._answering:
            is_first = ticket not in self._answers
            answer = self._answers.setdefault(ticket, Future())
            self._forget_answers()
        if answer is None:
            raise SwitchboardError('This form was sent before, and done once; the acts say what came of it')
        if is_first:
            try:
                answer.set_result(act())
            except BaseException as error:
                with self._answering:
                    self._answers.pop(ticket, None)
                answer.set_exception(error)
        return answer.result() | {'is_repeated': not is_first}

    def _forget_answers(self) -> None:
        # One that is under way is needed by the second form that waits for it.
        given = [ticket for ticket, answer in self._answers.items() if answer is not None and answer.done()]
        self._answers |= dict.fromkeys(given[:-MAX_ANSWERS])
        while len(self._answers) > MAX_TICKETS:
            del self._answers[next(iter(self._answers))]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
