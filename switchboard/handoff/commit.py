"""The commit of hand-offs: many of them, with the flushes of one.

`switchboard.handoff.handoff` says what the steps are, and what a crash at each leaves.  A hand-off that cannot take a step is thrown away, and the
others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from switchboard.errors import DurabilityError, QueueError
from switchboard.events import log_event
from switchboard.handoff.handoff import Handoff
from switchboard.handoff.stage import OrderKey
from switchboard.store.folder import Folder, add_path_to_error
from switchboard.store.kernel import CONTENT_ONLY, WITH_ALL_NAMES, WITH_NAME
from switchboard.store.publishing import as_queue_error, is_one_flush, relied_fsync_scope

log = logging.getLogger('switchboard.queue')

STUCK = 'an earlier message of the same order key is committed, and the disk refuses to publish it'

H = TypeVar('H', bound=Handoff)


def commit_all(handoffs: Sequence[H]) -> dict[H, QueueError]:
    """Commit many hand-offs with the flushes of one.

    :return: the hand-offs that were not committed, and why: their outputs are thrown away and their inputs stay claimed.  After
        step 3 nothing fails any more: what the disk refuses then is logged, and recovery does it.
    """
    commit = _Commit()
    commit.run(handoffs)
    return commit.failed


class _Commit:
    def __init__(self) -> None:
        self.failed: dict[Any, QueueError] = {}

    def run(self, handoffs: Sequence[Handoff]) -> None:
        if handoffs and handoffs[0].stage.is_stuck:
            handoffs = self._not_behind(handoffs)
        with_outputs = [handoff for handoff in handoffs if handoff.items]
        without_outputs = [handoff for handoff in handoffs if not handoff.items]
        if with_outputs:
            there = self._each(with_outputs, Handoff.make_room)
            _publish(self._rename_inputs(self._stage(there)))
            if without_outputs and with_outputs[0].stage.is_stuck:
                without_outputs = self._not_behind(without_outputs)
        for handoff in without_outputs:
            try:
                handoff.finish_input()
            except QueueError as error:
                self.failed[handoff] = error

    def _each(self, handoffs: Sequence[Handoff], step: Callable[[Handoff], None]) -> list[Handoff]:
        """Take a step with each of some hand-offs.

        :return: the hand-offs that could.
        """
        done = []
        for handoff in handoffs:
            try:
                step(handoff)
                done.append(handoff)
            except (OSError, QueueError) as error:
                self._fail((handoff,), error)
                if isinstance(error, FileNotFoundError):
                    handoff.stage.recreate_if_removed()  # for the next one
        return done

    def _fail(self, handoffs: Iterable[Handoff], error: OSError | QueueError) -> None:
        for handoff in handoffs:
            queue = handoff.items[0].queue if handoff.items else ''
            # What a failed sync left in the page cache is not to be trusted with the next message.
            handoff.discard(reusable=isinstance(error, QueueError))
            self.failed[handoff] = as_queue_error(error, 'hand-off', queue, handoff.stage.folder.path)

    def _not_behind(self, handoffs: Sequence[Handoff]) -> list[Handoff]:
        """Try again to publish what the disk refused before.

        :return: the hand-offs that may go on: no output or forwarded input of theirs would pass one of the same order key.
        """
        try:
            waiting = handoffs[0].stage.publish_stuck()
        except OSError as error:
            self._fail(handoffs, error)
            return []
        behind = [handoff for handoff in handoffs if not handoff.order_keys().isdisjoint(waiting)]
        for handoff in behind:
            self._fail((handoff,), DurabilityError(STUCK, step='rename'))
        return [handoff for handoff in handoffs if handoff not in self.failed]

    def _stage(self, handoffs: Sequence[Handoff]) -> list[Handoff]:
        """Steps 1 and 2."""
        fsync_scope = _fsync_scope(handoffs)
        try:
            written = [item.draft.fd for each in handoffs if each.is_durable for item in each.items]
            if written and not all(is_one_flush(each.directory_sync, each.stage.folder) for each in handoffs):
                handoffs[0].stage.disk.sync_files(written)
        except OSError as error:
            add_path_to_error(error, handoffs[0].stage.pool.folder.path)
            self._fail(handoffs, error)
            return []
        staged = self._each(handoffs, Handoff.stage_outputs)
        try:
            if fsync_scope == CONTENT_ONLY:
                _flush(staged, [handoff.stage.folder for handoff in staged])
            else:
                _flush_files(
                    staged, [item.draft.fd for each in staged if each.is_durable for item in each.items]
                )
        except OSError as error:
            self._fail(staged, error)
            return []
        return staged

    def _rename_inputs(self, staged: Sequence[Handoff]) -> list[Handoff]:
        """Step 3."""
        committed = self._each(staged, Handoff.rename_input)
        fsync_scope = _fsync_scope(committed)
        try:
            records = [handoff.record_fd for handoff in committed]
            if fsync_scope == CONTENT_ONLY:
                _flush(committed, [handoff.stage.folder for handoff in committed])
            else:
                # In order: the last one brings those before it along.
                _flush_files(committed, records[-1:] if fsync_scope == WITH_ALL_NAMES else records)
        except OSError as error:
            self._take_back(committed, error)
            return []
        return committed

    def _take_back(self, committed: Sequence[Handoff], error: OSError) -> None:
        """Undo step 3, of which nobody knows how much is on the disk."""
        taken_back = []
        for handoff in committed:
            if handoff.take_back_input():
                taken_back.append(handoff)
            else:
                handoff.unlock()
        try:
            # Before an output goes: a power cut that left the record and no outputs would have lost the input.
            if any(handoff.is_durable for handoff in taken_back):
                for folder in {id(each.input_folder): each.input_folder for each in taken_back}.values():
                    folder.sync_renames()
        except OSError as another:
            log_event(log, logging.ERROR, None, 'not rolled back', error=another)
        self._fail(taken_back, error)


def _publish(committed: Sequence[Handoff]) -> None:
    """Step 4.  What fails here is left to recovery, and nothing of the same order key passes it."""
    published, left = [], []
    stuck: set[OrderKey] = set()
    for handoff in committed:
        try:
            if not stuck or handoff.order_keys().isdisjoint(stuck):
                handoff.publish_outputs()
                published.append(handoff)
                continue
        except OSError as error:
            log_event(log, logging.ERROR, None, 'committed in part', transaction=handoff.name, error=error)
        stuck |= handoff.order_keys()
        left.append(handoff.name)
        handoff.unlock()
    fsync_scope = _fsync_scope(published)
    items = [item for handoff in published for item in handoff.items]
    try:
        if fsync_scope == CONTENT_ONLY:
            _flush(published, [item.folder for item in items])
        elif fsync_scope == WITH_NAME:
            _flush_files(published, [item.draft.fd for item in items])
        # In order: a record that is gone tells that the outputs' names are there, and until then it tells of them itself.
        for handoff in published:
            handoff.remove_record()
    except OSError as error:
        log_event(log, logging.ERROR, None, 'records not removed', error=error)
    for handoff in published:
        handoff.unlock()
    if left:
        committed[0].stage.retry_publishing(left)


def _fsync_scope(handoffs: Sequence[Handoff]) -> int:
    """:return: the effect of a flush of a file on names that is relied on: the least of all."""
    return min(
        (relied_fsync_scope(each.directory_sync, each.stage.folder) for each in handoffs),
        default=CONTENT_ONLY,
    )


def _flush(handoffs: Sequence[Handoff], folders: Iterable[Folder]) -> None:
    """Have the names in directories on the disk."""
    if any(handoff.is_durable for handoff in handoffs):
        for folder in {id(folder): folder for folder in folders}.values():
            folder.sync()


def _flush_files(handoffs: Sequence[Handoff], fds: Sequence[int]) -> None:
    """Have files on the disk, by a scope of `WITH_NAME` or better: their content and their names."""
    if fds and any(handoff.is_durable for handoff in handoffs):
        handoffs[0].stage.disk.sync_files(fds, names=True)
