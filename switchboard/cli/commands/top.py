"""``switchboard top``: the master, every runner and the queues that have entries, live."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from switchboard.cli.commands.queues import QUEUE_COLUMNS, count_queues, origins_in_bad, queue_row
from switchboard.cli.commands.status import (
    COLOURS,
    RUNNER_COLUMNS,
    alarm_line,
    runner_row,
    under_way,
    write_status_json,
)
from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.options import DURATION
from switchboard.cli.output import is_json, write_json, write_line
from switchboard.cli.tables import Cell, Column, write_table
from switchboard.operating.health import Alarm, master_alarm, runner_alarms, runners_without_process
from switchboard.operating.queue_info import count_fields
from switchboard.status.scoreboard import SliceRecord
from switchboard.status.snapshot import Snapshot, read_status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

INTERVAL_S = 1.0
COUNT_SHARE = 20
RATE = Column('PER S', align_right=True)
# Of long errors and many of them, a screen has room for the first.
MAX_ALARMS = 5


class Look(NamedTuple):
    """One look: the master, the rows of the runners and of the queues that have something in them, and alarms."""

    master: Alarm
    runners: list[list[Cell]]
    queues: list[list[Cell]]
    alarms: list[Alarm]


class Screen:
    """The live table, from one look to the next."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._directory = installation.existing_directory()
        self._done: dict[int, tuple[float, int]] = {}
        self._queues: list[list[Cell]] = []
        self._count_again_s = 0.0

    def look(self) -> Look:
        """:return: the next look."""
        snapshot, now_s = read_status(self._directory), time.time()
        rows = []
        for record in snapshot.records:
            cells = runner_row(record, now_s, alive=snapshot.alive)
            cells.insert(4, self._rate(record) if snapshot.alive else '')
            rows.append(cells)
        if time.monotonic() >= self._count_again_s:
            self._count(now_s)
        missing = without_process(snapshot, self._installation)
        alarms = [*runner_alarms(snapshot, missing, now_s)]
        return Look(master_alarm(snapshot, now_s), rows, self._queues, alarms)

    def _rate(self, record: SliceRecord) -> str:
        now_s, done = time.monotonic(), record.done + record.failed
        before_s, before = self._done.get(record.index, (now_s, done))
        self._done[record.index] = (now_s, done)
        return f'{(done - before) / (now_s - before_s):.1f}' if now_s > before_s and done >= before else ''

    def _count(self, now_s: float) -> None:
        started_s = time.monotonic()
        counts = count_queues(self._installation, ())
        origins = origins_in_bad(counts)
        self._queues = [
            queue_row(one, origins, now_s)
            for one in counts
            if one.entries or (origins is not None and origins[one.queue])
        ]
        took_s = time.monotonic() - started_s
        self._count_again_s = time.monotonic() + took_s * COUNT_SHARE


def without_process(snapshot: Snapshot, installation: Installation) -> dict[str, str]:
    """:return: the runners of the configuration that have no slice, and are not about to have one, and how each gets one."""
    missing = runners_without_process(snapshot, installation.config_or_none)
    # The master is asked only where there is something to ask about: a screen looks each second.
    return {} if missing and under_way(snapshot) else missing


def runner_columns() -> Sequence[Column]:
    """:return: the columns of `status`, and how many messages a second."""
    return (*RUNNER_COLUMNS[:4], RATE, *RUNNER_COLUMNS[4:])


@verb()
@click.option(
    '--interval', 'interval_s', type=DURATION, default=INTERVAL_S, help='Between two looks; default: 1s.'
)
@click.option(
    '--count', type=click.IntRange(min=1), metavar='N', help='Stop after so many looks; default in a pipe: 1.'
)
@json_option
def top(installation: Installation, interval_s: float, count: int | None) -> None:
    """Show the master, every runner and the queues that have entries, live.  Ctrl-C ends it."""
    screen = Screen(installation)
    interval_s = max(0.1, interval_s)
    if sys.stdout.isatty() and not is_json():
        _live(screen, interval_s, count)
        return
    for number in range(count or 1):
        if number:
            time.sleep(interval_s)
        if is_json():
            snapshot = read_status(installation.existing_directory())
            write_status_json(snapshot, (), without_process(snapshot, installation))
            for one in count_queues(installation, ()):
                write_json({'type': 'queue', **count_fields(one, (), time.time())})
            continue
        if number:
            write_line('')
        look = screen.look()
        write_line(alarm_line(look.master))
        write_table(runner_columns(), look.runners)
        for alarm in look.alarms:
            write_line(alarm_line(alarm))
        write_table(QUEUE_COLUMNS, look.queues)


def _live(screen: Screen, interval_s: float, count: int | None) -> None:
    from rich.live import Live

    from switchboard.cli.output import console

    terminal = console()
    looks = 0
    with Live(console=terminal, screen=count is None, auto_refresh=False) as live:
        while True:
            live.update(_picture(screen, terminal.width), refresh=True)
            looks += 1
            if count is not None and looks >= count:
                return
            time.sleep(interval_s)


def _picture(screen: Screen, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from switchboard.cli.tables import rich_table

    look = screen.look()
    parts: list[RenderableType] = [_line(look.master, 'green'), Text('')]
    if look.runners:
        parts += [rich_table(runner_columns(), look.runners, width), Text('')]
    parts.append(
        rich_table(QUEUE_COLUMNS, look.queues, width)
        if look.queues
        else Text('all queues are empty', style='dim')
    )
    if look.alarms:
        parts.append(Text(''))
    return Group(*parts, *(_line(alarm, 'red') for alarm in look.alarms[:MAX_ALARMS]))


def _line(alarm: Alarm, fine: str) -> Text:
    from rich.text import Text

    return Text(alarm_line(alarm), style=COLOURS.get(alarm.level, fine), no_wrap=True, overflow='ellipsis')
