"""The health of a spool and of its master: judged once, and shown with the same words by command line and desk.

Alarms tell of this moment; problems stand in the configuration, or in the spool that it names.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from switchboard.errors import ConfigError
from switchboard.message.naming import is_queue_name
from switchboard.operating.text import (
    age,
    ago,
    duration,
    escape_terminal,
    flag_lines,
    local_time,
    number,
    one_line,
    quoted,
    system_advice,
    system_words,
)
from switchboard.status.alive import is_suspended, master_directory, masters_elsewhere, process_age_s
from switchboard.status.scoreboard import ProcessState, SliceRecord

if TYPE_CHECKING:
    from switchboard.config.config import Config
    from switchboard.config.spool_place import Directories
    from switchboard.status.snapshot import Snapshot

# ``bad``: messages wait, or nobody knows; ``warn``: somebody has asked for it, or it goes on all the same; empty: no alarm, which a face shows where it has room.
Level = Literal['', 'warn', 'bad']


class Alarm(NamedTuple):
    """One thing that is so at this moment.

    :param subject: ``master``, a slice as `status` calls it, a runner, a queue; empty where the text names it.
    """

    level: Level
    subject: str
    text: str

    def __str__(self) -> str:
        return f'{self.subject}: {self.text}' if self.subject else self.text


_ENDED: Mapping[str, tuple[Level, str]] = {
    'stopped': ('warn', 'not running; it was stopped'),
    'died': ('bad', 'NOT RUNNING; it died (pid {pid})'),
    'not started': ('bad', 'NOT RUNNING; the last start failed; `switchboard start` says why'),
}


def master_alarm(snapshot: Snapshot, now_s: float) -> Alarm:
    """:return: the state of the master; of the empty level, if it is at work."""
    level, text = _master_state(snapshot, now_s)
    return Alarm(level, 'master', text)


def _master_state(snapshot: Snapshot, now_s: float) -> tuple[Level, str]:
    master = snapshot.master
    if snapshot.trouble:
        return 'bad', f'whether one runs cannot be seen: {snapshot.trouble}'
    if not snapshot.has_scoreboard:
        return 'warn', 'is starting' if snapshot.alive else 'not running; none was ever started here'
    if snapshot.ended:
        level, text = _ENDED[snapshot.ended]
        return level, text.format(pid=master.pid)
    state = master.state.value
    if is_suspended(master.pid):
        return 'bad', f'{state}, and stopped by a signal: `kill -CONT {master.pid}` lets it go on'
    lives_s = process_age_s(master.pid, now_s - master.started_ns / 1e9)
    since = f'since {local_time(master.started_ns / 1e9)}, {duration(lives_s)}'
    return '', f'{state}, pid {master.pid}, {since}'


def reload_alarm(snapshot: Snapshot, now_s: float) -> Alarm | None:
    """:return: when the configuration was read again last, and the mistake in it; None if it never was."""
    master = snapshot.master
    if not master.reloaded_ns:
        return None
    when = ago(now_s - master.reloaded_ns / 1e9)
    if not master.reload_error:
        return Alarm('', 'reload', when)
    return Alarm('bad' if snapshot.alive else '', 'reload', f'failed {when}, {one_line(master.reload_error)}')


def runners_without_process(snapshot: Snapshot, config: Config | None) -> dict[str, str]:
    """:return: the runners of the configuration that have no slice, and how each gets one: it was scaled to 0, or the master has not read its section yet."""
    if not (snapshot.alive and snapshot.has_scoreboard) or config is None:
        return {}
    missing = sorted(config.runners.keys() - {record.runner for record in snapshot.records})
    if not missing:
        return {}
    from switchboard.spool.active_config import is_active

    if not is_active(config, str(snapshot.directory)):
        return dict.fromkeys(missing, '`switchboard reload` starts it')
    return {name: f'`switchboard scale {quoted(name)}=1` gives it one' for name in missing}


def untaken(snapshot: Snapshot, config: Config | None, waiting: Mapping[str, int]) -> dict[str, int]:
    """:return: by runner, how many messages wait in its queue, if no process of any runner takes from it.

    :param waiting: by queue, how many messages wait there.
    """
    runners = config.runners if config is not None else {}
    at_work = {record.runner for record in snapshot.records if record.pid}
    taken = {options.queue for name, options in runners.items() if name in at_work}
    return {
        name: waiting.get(options.queue, 0)
        for name, options in runners.items()
        if options.queue and options.queue not in taken
    }


def runner_alarms(
    snapshot: Snapshot,
    without_process: Mapping[str, str],
    now_s: float,
    waiting: Mapping[str, int] | None = None,
) -> Iterator[Alarm]:
    """:return: of each slice that has something to tell of, why it is as it is, and its last error; of a master that is gone, these are no alarms any more.

    A runner that has no process because somebody wanted it so is an alarm when messages wait for it.

    :param waiting: see `untaken`, where it is known.
    """
    many = waiting or {}
    for record in snapshot.records:
        if (alarm := _slice_alarm(record, now_s)) is not None:
            more = waits(many.get(record.runner, 0))
            yield alarm._replace(text=alarm.text + more) if snapshot.alive else alarm._replace(level='')
        if record.last_error and one_line(record.last_error) != one_line(record.reason):
            when = ago(now_s - record.last_error_ns / 1e9)
            yield Alarm('', record.title, f'last error {when}: {one_line(record.last_error)}')
    idle = {name: f'has no process; {advice}' for name, advice in without_process.items()}
    for name, text in (_stopped(snapshot) | idle).items():
        more = waits(many.get(name, 0))
        yield Alarm('bad' if more else '', name, text + more)


def _stopped(snapshot: Snapshot) -> dict[str, str]:
    """:return: the runners that somebody has stopped, while the master goes on."""
    if not snapshot.alive or snapshot.master.state is not ProcessState.RUNNING:
        return {}
    states: dict[str, set[ProcessState]] = {}
    for record in snapshot.records:
        states.setdefault(record.runner, set()).add(record.state)
    return {
        name: f'stopped; `switchboard restart {quoted(name)}` starts it'
        for name, found in states.items()
        if found == {ProcessState.EXITED}
    }


def waits(many: int) -> str:
    """:return: the end of an alarm of a queue, or of a runner that should take from it: how many messages wait in it."""
    return f'; {number(many, "message waits", "messages wait")}' if many > 0 else ''


def _slice_alarm(record: SliceRecord, now_s: float) -> Alarm | None:
    reason = one_line(record.reason)
    if record.state is ProcessState.FATAL:
        return Alarm('bad', record.title, f'FATAL: {reason or "it gave up"}')
    if record.state is ProcessState.BACKOFF:
        wait_s = record.next_restart_ns / 1e9 - now_s
        return Alarm('bad', record.title, f'starts again {age(-wait_s) if wait_s > 0 else "now"}: {reason}')
    return Alarm('warn', record.title, reason) if reason else None


def flag_alarms(queue: str, flagged: Mapping[str, Mapping[str, Any]]) -> list[Alarm]:
    """:return: the things that operators have said to a queue: that it is paused, since when, by whom, and why."""
    return [Alarm('warn', escape_terminal(queue), line) for line in flag_lines(flagged)]


def mistakes_of(error: ConfigError) -> list[ConfigError]:
    """:return: each mistake for which a configuration cannot be used."""
    return [*getattr(error, 'errors', ())] or [error]


def mistakes_alarm(path: Path, mistakes: Sequence[ConfigError]) -> Alarm:
    """:return: that a configuration has mistakes, and how many."""
    shows = f'`switchboard check` shows {"it" if len(mistakes) == 1 else "them"}'
    return Alarm('bad', '', f'{path} has {number(len(mistakes), "mistake")}; {shows}')


def elsewhere_alarm(config_path: Path | None, spool: Path) -> Alarm | None:
    """:return: that a master of this configuration is at work on another spool, because `spool` was changed since it was started."""
    if config_path is None:
        return None
    for pid, place in masters_elsewhere(escape_terminal(str(config_path.absolute())), spool):
        text = (
            f'master {pid} of this configuration is at work on {place}, the spool that it named before: '
            f'`switchboard -s {quoted(place)} stop` ends it'
        )
        return Alarm('bad', '', text)
    return None


Problem = tuple[Literal['error', 'warning'], ConfigError]


def spool_problems(config: Config) -> Iterator[Problem]:
    """:return: the problems of the spool that a configuration names, and of the brokers; nothing is run or called."""
    for warning in _spool_warnings(config):
        yield 'warning', warning
    yield from _url_problems(config)


def _url_problems(config: Config) -> Iterator[Problem]:
    """Read the URLs of queues that are on brokers, as a program that opens them would; nobody is called."""
    urls = {name: options for name in config.queue_names() if (options := config.queue_options(name)).url}
    if not urls:
        return
    from switchboard.brokers import need_library
    from switchboard.brokers.producer import limits_of
    from switchboard.brokers.url import read_broker_url

    for name, options in urls.items():
        rule = config.queues.deciding(name, 'url')
        assert rule is not None
        assert options.url is not None
        try:
            broker = read_broker_url(options.url)
            need_library(broker)
            limits_of(options, broker)
            if warning := broker.password_warning(rule.section.name):
                warning.file = str(config.path)
                yield 'warning', warning
        except ConfigError as error:
            error.file = error.file or str(config.path)
            error.section = error.section or rule.section.name
            yield 'error', error


def _spool_warnings(config: Config) -> Iterator[ConfigError]:
    """Look for directories of the spool in which one user may make what another one cannot use, and for those that no section names any more."""

    def warning(reason: str) -> ConfigError:
        return ConfigError(reason, file=str(config.path), section='switchboard', key='spool')

    try:
        yield from map(warning, _doubts_about(config.spool, config.queue_names()))
    except OSError as error:
        advice = system_advice(error)
        yield warning(f'cannot be looked into: {system_words(error)}' + (f'; {advice}' if advice else ''))


def _doubts_about(root: Path, queues: Collection[str]) -> Iterator[str]:
    from switchboard.config.spool_place import directories_in, why_not_alone

    if reason := why_not_alone(root, queues):
        yield reason  # advice about a spool would be for somebody else's directories
    elif root.is_dir():  # `init` makes it as it should be
        found = directories_in(root, queues)
        yield from _troubles_of(root, found)
        yield from _left_over(root, found)


def _left_over(root: Path, found: Directories) -> Iterator[str]:
    from switchboard.config.spool_place import is_entry

    for name in found.undeclared:
        if not is_queue_name(name):
            yield f'a directory {name!r}, which can be no queue: lists leave it out'
            continue
        try:
            files = [each for each in os.listdir(root / name) if each[0] != '.']
        except OSError:  # another user's
            continue
        if count := sum(map(is_entry, files)):
            yield (
                f'{number(count, "entry", "entries")} in the queue {name}, which this configuration does not declare any more: nobody takes them; '
                f'give it a section again, or `switchboard mv --queue {quoted(name)} --all QUEUE`'
            )
        elif files:
            yield f'a directory {name}, which this configuration does not declare as a queue, and which holds no entry and other files'
        elif name in found.others:
            yield f'an empty directory {name}, which this configuration does not declare as a queue, and which was not made as one'
        else:
            yield f'an empty queue {name}, which this configuration does not declare any more: `switchboard delete {quoted(name)}`'


def _troubles_of(root: Path, found: Directories) -> Iterator[str]:
    from switchboard.config.spool_place import some

    def mended_by(command: str) -> str:
        if not found.others:
            return f'`{command}`'
        return f'change these alone, for directories of others stand there as well ({some(found.others)})'

    owner = root.stat()
    if found.links:
        yield (
            f'links in the place of queues ({some(found.links)}): a queue is on the file system of its spool, and lists leave them out; '
            'one that belongs to neither root nor the owner is not followed: put directories in their places'
        )
    places = [root, *(root / name for name in found.ours)]
    closed = [place.name for place in places if not place.stat().st_mode & stat.S_ISGID]
    if closed:
        yield (
            f'directories without the set-group-id bit ({some(closed)}): a file that another user makes there has the group of that user; '
            + mended_by(f'find {quoted(root)} -type d -exec chmod g+s {{}} +')
        )
    # Of a spool that is open to its group each member may make a directory, as the first one who needs the trash does.
    is_shared = owner.st_mode & stat.S_IRWXG == stat.S_IRWXG
    foreign = [
        place.name
        for place in places
        if place.stat().st_gid != owner.st_gid or (place.stat().st_uid != owner.st_uid and not is_shared)
    ]
    if foreign:
        yield (
            f'directories of another user or group than the spool ({some(foreign)}): '
            + mended_by(f'chown -R --reference={quoted(root)} {quoted(root)}')
        )
    own = master_directory(root)
    if os.path.isdir(own) and own.lstat().st_uid != owner.st_uid:
        yield (
            f'{own} belongs to another user than the spool: a master was started as that user, and the owner can start none; '
            f'stop it, and `chown -R --reference={quoted(root)} {quoted(own)}`'
        )
    # A spool that is one user's alone may well have such directories.
    shut = [place.name for place in places if owner.st_mode & stat.S_IRWXG & ~place.stat().st_mode]
    if shut:
        yield (
            f'directories that are not open to the group, as the spool is ({some(shut)}): only their owner can work there; '
            + mended_by(f'find {quoted(root)} -type d -exec chmod g+rwx {{}} +')
        )
