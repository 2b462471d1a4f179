"""``retry``, ``mv``, ``rm``, ``restore``, ``hold`` and ``release``: entries that are named one by one, or selected by their fields.

Named entries are dealt with at once.  Selected ones are counted first and shown, and somebody must say yes.  The counted ones
are dealt with, and no others: an entry that comes meanwhile, such as one that was sent back and failed again, is not.

Names may come from standard input (``-``), one a line, and with ``--names`` go out so, which makes pipes of ``ls`` and these.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import click

from switchboard.cli.context import Installation, json_option, verb
from switchboard.cli.exits import Exit, exit_of, exit_of_all
from switchboard.cli.options import (
    DURATION,
    ENTRIES,
    RenamedOption,
    confirm,
    counts_text,
    queues_option,
    reason_option,
    selection_options,
    with_options,
    yes_option,
)
from switchboard.cli.output import (
    LOOK_EVERY_S,
    Progress,
    is_json,
    print_error,
    print_note,
    write_json,
    write_line,
)
from switchboard.errors import QueueError
from switchboard.operating.acts import (
    Act,
    ChosenEntry,
    Hold,
    Move,
    Release,
    Remove,
    Restore,
    Result,
    Retry,
    apply,
    by_queue,
    choose,
)
from switchboard.operating.finding import FoundEntry, find
from switchboard.operating.selection import Selection
from switchboard.operating.text import escape_terminal, intcomma, number
from switchboard.store.layout import BAD, TRASH

# A canary is given so long before the others have to be sent back by hand.
CANARY_TIMEOUT_S = 60.0
# Standard input is names, one a line; a longer line is none.
MAX_NAME = 1000


@dataclass
class ActRequest:
    """The selection of a command line: which entries, and how to go about it."""

    installation: Installation
    entries: Sequence[str]
    everything: bool
    queues: Sequence[str]
    selection: Selection
    limit: int | None
    dry_run: bool
    count_only: bool
    names_only: bool
    quiet: bool
    reason: str
    yes: bool
    missing: list[Exit] = field(default_factory=list)
    # How many were found, before an act says which of them it is for.
    _fitting: int = 0

    @property
    def is_named(self) -> bool:
        """Are entries named, not selected?"""
        return bool(self.entries)

    def find(self, default: Sequence[str]) -> list[FoundEntry] | Iterator[FoundEntry]:
        """Find the entries.  One that was named and is not there is reported, and decides the exit status.

        :param default: where selected ones are looked for, if the command line does not say.  Named ones are looked for in the queues that
            it says, or in all.
        """
        selected = self.everything or bool(self.selection)
        if self.entries and selected:
            raise click.UsageError('name entries, or select them with --all, --where and so on; not both')
        view = self.installation.view
        if selected:
            return self._counted(view.select(self.selection, self.queues or default))
        if not self.entries:
            raise click.UsageError('name an entry, or select some with --all, --where, --error, --older ...')
        queue_folders = view.queue_folders(self.queues)
        found = []
        for text in _names(self.entries):
            try:
                found.append(find(queue_folders, text))
            except QueueError as error:
                self.missing.append(exit_of(error))
                print_error(error)
        return found

    def _counted(self, found: Iterator[FoundEntry]) -> Iterator[FoundEntry]:
        for each in found:
            self._fitting += 1
            yield each

    def act(self, act: Act, default: Sequence[str], *, ask: str, always: bool = False) -> Exit:
        """Choose, ask, and do it; a failure is one line, and does not stop the others.

        :param ask: the act, as a question, with ``{}`` for the number of entries and their queues.
        :param always: ask also if they were named.
        """
        chosen = choose(self.find(default), act, named=self.is_named, limit=self.limit or 0)
        return self.act_on(chosen, act, ask=ask, always=always)

    def act_on(self, chosen: Sequence[ChosenEntry], act: Act, *, ask: str, always: bool = False) -> Exit:
        """The same for entries that were chosen already."""
        if self.count_only:
            write_line(len(chosen))
            return exit_of_all(self.missing, len(chosen))
        if not chosen and not self.missing and not self.quiet:
            print_note(self._why_nothing(act))
        if self.dry_run:
            for each in chosen:
                self.show(Result(each, None), planned=True)
            if not self.quiet:
                print_note(
                    f'would {ask.format(counts_text(by_queue(chosen)))}'
                    if chosen
                    else 'nothing would be done'
                )
            return exit_of_all(self.missing, len(chosen))
        if chosen and (always or not self.is_named):
            confirm(ask.format(counts_text(by_queue(chosen))), yes=self.yes)
        results = self.apply(chosen, act)
        failed = [*self.missing, *(exit_of(each.error) for each in results if each.error is not None)]
        done = sum(each.error is None for each in results)
        if len(chosen) + len(self.missing) > 1 and not self.quiet:
            print_note(
                f'{act.done} {number(done, *ENTRIES)}' + (f', {intcomma(len(failed))} not' if failed else '')
            )
        return exit_of_all(failed, done)

    def apply(self, chosen: Sequence[ChosenEntry], act: Act) -> list[Result]:
        """Do it to one entry after the other, and say what became of each."""
        session = self.installation.operator_session(self.reason)
        results = []
        for target in chosen:
            results.append(apply(act, target, session))
            self.show(results[-1])
        return results

    def _why_nothing(self, act: Act) -> str:
        if not self._fitting:
            return f'no entry fits: nothing to do{self.selection.hint_if_nothing_matches()}'
        return f'{number(self._fitting, "entry fits", "entries fit")}, and none is for `{act.name}`: {act.not_for}'

    def show(self, result: Result, *, planned: bool = False) -> None:
        """Say what became of one entry, or would."""
        target, now = result.target, result.now
        if result.error is not None:
            print_error(result.error, str(target))
        elif is_json():
            write_json(result.fields() | ({'planned': True} if planned else {}))
        elif self.names_only:
            write_line(f'{now.queue}/{now.filebase}' if now is not None else str(target))
        elif not self.quiet:
            write_line(f'{target} -> {now.queue}/{now.filebase}' if now is not None else str(target))


_OF_REQUEST = {each.name for each in fields(ActRequest)}


def _names(words: Sequence[str]) -> Iterator[str]:
    """:return: the names; for ``-``, those on standard input: the first word of each line, as `ls --names` and all verbs write them."""
    for word in words:
        if word != '-':
            yield word
            continue
        for line in sys.stdin:
            if name := line[:MAX_NAME].split(maxsplit=1)[:1]:
                yield name[0]


_SHARED: tuple[Callable[..., Any], ...] = (
    click.option('--limit', type=click.IntRange(min=1), metavar='N', help='The first N of them.'),
    click.option('--dry-run', is_flag=True, help='Show which they are, and do nothing.'),
    click.option('--count', 'count_only', is_flag=True, help='Print how many they are, and do nothing.'),
    click.option('--names', 'names_only', is_flag=True, help='Print where each is now, and nothing else.'),
    click.option('--quiet', is_flag=True, help='Print errors only.'),
    reason_option,
)


def entries_verb(
    *options: Callable[..., Any], searched: str, words: str = '[ENTRY|-]...'
) -> Callable[[Callable[..., Exit]], click.Command]:
    """Make a verb of a function that is handed an `ActRequest`, and returns the exit status.

    :param options: the options of this verb alone.
    :param searched: the queues to select in if none is named, for the help.
    """
    decorators: tuple[Callable[..., Any], ...] = (
        click.argument('entries', nargs=-1, metavar=words),
        click.option('--all', 'everything', is_flag=True, help='Select all entries of the queue.'),
        queues_option(f'Look in this queue only; default to select in: {searched}.'),
        selection_options,
        *options,
        *_SHARED,
        yes_option,
        json_option,
    )

    def make(function: Callable[..., Exit]) -> click.Command:
        def call(installation: Installation, **keys: Any) -> Exit:
            own = {name: keys.pop(name) for name in keys.keys() - _OF_REQUEST}
            return function(ActRequest(installation, **keys), **own)

        call.__name__ = function.__name__
        call.__doc__ = function.__doc__
        return verb()(with_options(call, decorators))

    return make


def _sent_back_before(chosen: Sequence[ChosenEntry]) -> str:
    before = sum(bool(each.sent_back) for each in chosen)
    return f', {before} of which {"was" if before == 1 else "were"} sent back before' if before else ''


@entries_verb(
    click.option('--to', metavar='QUEUE', help='Send them there, not to where they came from.'),
    click.option(
        '--canary',
        type=click.IntRange(min=1),
        metavar='N',
        help='Send N of them back first, and the others only if all of the N went through.',
    ),
    click.option(
        '--timeout', 'timeout_s', type=DURATION, help='With --canary: wait no longer than this; default: 1m.'
    ),
    searched=BAD,
)
def retry(request: ActRequest, to: str | None, canary: int | None, timeout_s: float | None) -> Exit:
    """Send entries back to where they failed last, which their history knows, ready at once.

    Their failures and recoveries are forgiven; the history keeps them, and counts how often an entry was sent back.
    A dead letter in any other queue, and an entry moved there after it failed, goes back too; an entry that waits for its next attempt is
    made ready where it is; of a working queue, only these are selected.

    \b
    switchboard retry 1795317402.6748                one entry
    switchboard retry --error TimeoutError --yes     of the bad queue, those that failed so
    switchboard retry --all --older 1d --to slow     somewhere else
    switchboard retry --all --queue out              do not wait any longer
    switchboard retry --all --canary 5               five of them first
    """
    act = Retry(to)
    if to is not None:
        request.installation.spool()[to]  # an unknown queue is an error before anybody is asked
    if 'state' in {term.field for term in request.selection.terms}:
        act = Retry(to, selects_all=True)
    chosen = choose(request.find([BAD]), act, named=request.is_named, limit=request.limit or 0)
    ask = 'send back {}' if request.is_named else f'send back {{}}{_sent_back_before(chosen)}'
    if canary is None or len(chosen) <= canary or request.dry_run or request.count_only:
        return request.act_on(chosen, act, ask=ask)
    return _with_canary(
        request, act, chosen, canary, CANARY_TIMEOUT_S if timeout_s is None else timeout_s, ask
    )


def _with_canary(
    request: ActRequest,
    act: Retry,
    chosen: Sequence[ChosenEntry],
    many: int,
    timeout_s: float,
    ask: str,
) -> Exit:
    """Send some back, look what becomes of them, and send back the others if all went through."""
    confirm(ask.format(counts_text(by_queue(chosen))) + f', {many} of them first', yes=request.yes)
    request.yes = True
    results = request.apply(chosen[:many], act)
    waiting = {each.now.filebase.partition('+')[2]: each for each in results if each.now is not None}
    back = len(results) - len(waiting)
    view = request.installation.view
    give_up_s = time.monotonic() + timeout_s
    with Progress() as progress:
        while waiting and not back:
            for digest, result in list(waiting.items()):
                assert result.now is not None
                try:
                    there = view.find(digest)
                except QueueError:
                    del waiting[digest]  # it was done
                    continue
                entry = there.look()
                has_failed = entry is not None and bool(entry.attempts + entry.recoveries)
                if has_failed or there.queue != result.now.queue:
                    back += 1
            progress.update(f'canary: {number(len(waiting), *ENTRIES)} not done yet')
            if time.monotonic() >= give_up_s:
                break
            if waiting and not back:
                time.sleep(LOOK_EVERY_S)
    left = len(chosen) - many
    through = len(results) - len(waiting)
    if back or waiting:
        what = (
            f'{intcomma(back)} failed again'
            if back
            else f'{number(len(waiting), *ENTRIES)} not done after {timeout_s:g}s'
        )
        print_note(
            f'canary: {through} of {many} went through, {what}: the other {intcomma(left)} stay where they are'
        )
        return Exit.PARTIAL
    print_note(f'canary: {many} of {many} went through; sending back the other {intcomma(left)}')
    return request.act_on(chosen[many:], act, ask=ask)


@entries_verb(
    click.option('--to', metavar='QUEUE', help='Move them there; then every word names an entry.'),
    searched=BAD,
    words='[ENTRY|-]... QUEUE',
)
def mv(request: ActRequest, to: str | None) -> Exit:
    """Move entries to another queue, as they are: same content, same time, same counts, history included.

    `retry` sends them back from there to where they failed.

    \b
    switchboard mv 1795317402.6748 quarantine
    switchboard mv --queue in --metadata list=dogs in-dogs
    """
    if to is None:
        if not request.entries:
            raise click.UsageError('name the queue to move to')
        *request.entries, to = request.entries
    request.installation.spool()[to]
    return request.act(Move(to), [BAD], ask=f'move {{}} to {escape_terminal(to)}')


@entries_verb(
    click.option(
        '--no-trash',
        cls=RenamedOption,
        old=('--now',),
        is_flag=True,
        help='Not into the trash: there is no way back.',
    ),
    searched=BAD,
)
def rm(request: ActRequest, no_trash: bool) -> Exit:
    """Put entries into the trash, from which `switchboard restore` brings them back; it asks, also for a single one.

    They stay there for a week, or for the `ttl` of a section [queue.trash].  Entries of the trash are removed for good.

    \b
    switchboard rm 1795317402.6748
    switchboard rm --error SpamError --older 30d --yes
    switchboard rm --all --queue test --no-trash
    """
    ask = 'remove {} for good' if no_trash or list(request.queues) == [TRASH] else 'remove {}'
    return request.act(Remove(no_trash or list(request.queues) == [TRASH]), [BAD], ask=ask, always=True)


@entries_verb(
    click.option('--to', metavar='QUEUE', help='Put them there, not to where they were removed from.'),
    searched=TRASH,
)
def restore(request: ActRequest, to: str | None) -> Exit:
    """Bring entries back out of the trash, to where they were removed from, as they were.

    \b
    switchboard trash
    switchboard restore 1795317402.6748
    switchboard restore --all --younger 1h
    """
    if not request.queues:
        request.queues = [TRASH]
    return request.act(Restore(to), [TRASH], ask='restore {}')


def _working(request: ActRequest) -> list[str]:
    # A preserved entry waits for nobody.
    return [name for name in request.installation.view.queue_names() if name not in (BAD, TRASH)]


@entries_verb(searched='all but bad')
def hold(request: ActRequest) -> Exit:
    """Keep entries from being taken until `switchboard release`, also over a restart.

    They stay in their queue.  While they are held they do not expire; messages with the same order key pass them.
    What a process is working on cannot be held, and what lies in the bad queue need not be.

    \b
    switchboard hold 1795317402.6748 --reason 'ask the author first'
    switchboard hold --queue out --metadata sender=eve@example.com
    """
    return request.act(Hold(), _working(request), ask='hold {}')


@entries_verb(searched='all but bad')
def release(request: ActRequest) -> Exit:
    """Let entries go that `switchboard hold` keeps: each has its old time and place.

    \b
    switchboard release 9999317402.6748
    switchboard release --all --queue out
    """
    return request.act(Release(), _working(request), ask='release {}')
