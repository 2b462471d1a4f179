"""Every metric: its name, its type, its labels and what it says.  The reference page and the tests read this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = 'switchboard_'
Type = Literal['gauge', 'counter', 'histogram']


@dataclass(frozen=True, slots=True)
class Family:
    """One metric, under its name without the prefix; that of a counter lacks ``_total``."""

    name: str
    type: Type
    labels: tuple[str, ...]
    says: str


def _table(*rows: tuple[str, Type, str, str]) -> dict[str, Family]:
    return {name: Family(name, kind, tuple(labels.split()), says) for name, kind, labels, says in rows}


FAMILIES = _table(
    (
        'queue_entries',
        'gauge',
        'queue state',
        'Entries by state: waiting, delayed, held, claimed, preserved.',
    ),
    ('queue_foreign_files', 'gauge', 'queue', 'Files in the directory that are no entries.'),
    ('queue_bytes', 'gauge', 'queue', 'Size of all entries.'),
    (
        'queue_oldest_claimable_timestamp_seconds',
        'gauge',
        'queue',
        'Since when the oldest entry that could be taken is waiting; absent when there is none.',
    ),
    (
        'queue_oldest_claimable_age_seconds',
        'gauge',
        'queue',
        'How long the oldest entry that could be taken is waiting; 0 when there is none.',
    ),
    (
        'queue_next_due_timestamp_seconds',
        'gauge',
        'queue',
        'When the next delayed entry is due; absent when there is none.',
    ),
    ('queue_paused', 'gauge', 'queue', 'Whether nothing is taken out of it, by an operator.'),
    ('queue_draining', 'gauge', 'queue', 'Whether nothing is let into it, by an operator.'),
    (
        'queue_census_truncated',
        'gauge',
        'queue',
        'Whether the time for the count was over before all was counted: its numbers are lower bounds.',
    ),
    (
        'bad_entries',
        'gauge',
        'error',
        'Entries in the bad queue by the class of their last error: the 20 most frequent, and `other`; `none` has no error.',
    ),
    ('entries_done', 'counter', 'runner', 'Messages finished.'),
    ('entries_failed', 'counter', 'runner', 'Messages sent to the bad queue.'),
    ('entries_retried', 'counter', 'runner', 'Messages put back to be tried again after a failure.'),
    ('entries_kept', 'counter', 'runner', 'Messages that the runner kept in their queue.'),
    (
        'entries_failed_by_error',
        'counter',
        'runner error',
        'Messages sent to the bad queue by the class of the error: the first 20, and `other`.',
    ),
    ('entries_recovered', 'counter', 'runner', 'Messages whose process died with them, ready again.'),
    (
        'entry_process_seconds',
        'histogram',
        'runner',
        'How long a message was at work, whatever became of it.',
    ),
    ('entry_wait_seconds', 'histogram', 'runner', 'How long a message could have been taken before it was.'),
    ('runner_slices', 'gauge', 'runner', 'Slices that are at work.'),
    ('runner_slices_wanted', 'gauge', 'runner', 'Slices that there should be.'),
    ('runner_busy_slices', 'gauge', 'runner', 'Slices that have a message at work.'),
    ('runner_restarts', 'counter', 'runner', 'Processes started again after they ended by themselves.'),
    (
        'runner_heartbeat_timestamp_seconds',
        'gauge',
        'runner',
        'The last time the loop turned; of several slices, the one that is behind most.',
    ),
    (
        'runner_claim_since_timestamp_seconds',
        'gauge',
        'runner',
        'Since when a message is at work; of several slices, the longest; absent when none is busy.',
    ),
    ('runner_deadline_overrun_slices', 'gauge', 'runner', 'Slices whose message is past `max_seconds`.'),
    ('runner_queue_info', 'gauge', 'runner queue', '1: which queue a runner of the configuration works on.'),
    ('master_up', 'gauge', '', 'Whether a master holds the spool.'),
    ('master_start_timestamp_seconds', 'gauge', '', 'When the master, or the last one, started.'),
    (
        'config_last_reload_successful',
        'gauge',
        '',
        'Whether the last reload succeeded; if not, the old configuration is in force.',
    ),
    (
        'config_last_reload_success_timestamp_seconds',
        'gauge',
        '',
        'When the configuration in force was read; absent when a reload has failed since.',
    ),
    ('spool_free_bytes', 'gauge', 'spool', 'Room on the file system of the spool.'),
    ('spool_size_bytes', 'gauge', 'spool', 'Size of the file system of the spool.'),
    ('spool_free_inodes', 'gauge', 'spool', 'Files that can still be made on the file system of the spool.'),
    ('build_info', 'gauge', 'version python scoreboard_version', '1: the versions of this exporter.'),
    ('exporter_scrape_seconds', 'gauge', '', 'How long it took to gather these numbers.'),
    (
        'exporter_census_timestamp_seconds',
        'gauge',
        '',
        'When the queues were last counted; 0 before the first time.',
    ),
    (
        'exporter_errors',
        'counter',
        '',
        'Times that something could not be counted or read, by this exporter.',
    ),
)
