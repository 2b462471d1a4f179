"""Every metric: its name, its type, its labels and what it says.  The reference page and the tests read this table."""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = 'switchboard_'
Type = Literal['gauge', 'counter', 'histogram']


class Family(NamedTuple):
    """One metric, under its name without the prefix; that of a counter lacks ``_total``."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str


# By type, and by labels.
_TABLE: dict[tuple[Type, str], dict[str, str]] = {
    ('gauge', 'queue state'): {
        'queue_entries': 'Entries by state: waiting, delayed, held, claimed, preserved.'
    },
    ('gauge', 'queue'): {
        'queue_dropped_files': 'Mails in its maildir and plain files that no consumer has taken in yet.',
        'queue_foreign_files': 'Files in the directory that are no entries.',
        'queue_bytes': 'Size of all entries.',
        'queue_oldest_claimable_timestamp_seconds': 'Since when the oldest entry that could be taken is waiting; absent when there is none.',
        'queue_oldest_claimable_age_seconds': 'How long the oldest entry that could be taken is waiting; 0 when there is none.',
        'queue_next_due_timestamp_seconds': 'When the next delayed entry is due; absent when there is none.',
        'queue_paused': 'Whether nothing is taken out of it, by an operator.',
        'queue_draining': 'Whether nothing is let into it, by an operator.',
        'queue_census_truncated': 'Whether the time for the count was over before all was counted: its numbers are lower bounds.',
    },
    ('gauge', 'error'): {
        'bad_entries': 'Entries in the bad queue by the class of their last error: the 20 most frequent, and `other`; `none` has no error.'
    },
    ('counter', 'queue'): {
        'queue_evicted': 'Messages that made room for newer ones in a full queue, as its `overflow` says.'
    },
    ('counter', 'runner'): {
        'entries_done': 'Messages finished.',
        'entries_failed': 'Messages sent to the bad queue.',
        'entries_retried': 'Messages put back to be tried again after a failure.',
        'entries_kept': 'Messages that the runner kept in their queue.',
        'entries_recovered': 'Messages whose process died with them, ready again.',
        'runner_restarts': 'Processes started again after they ended by themselves.',
    },
    ('counter', 'runner error'): {
        'entries_failed_by_error': 'Messages sent to the bad queue by the class of the error: the first 20, and `other`.'
    },
    ('histogram', 'runner'): {
        'entry_process_seconds': 'How long a message was at work, whatever became of it.',
        'entry_wait_seconds': 'How long a message could have been taken before it was.',
    },
    ('gauge', 'runner'): {
        'runner_slices': 'Slices that are at work.',
        'runner_slices_wanted': 'Slices that there should be.',
        'runner_busy_slices': 'Slices that have a message at work.',
        'runner_heartbeat_timestamp_seconds': 'The last time the loop turned; of several slices, the one that is behind most.',
        'runner_claim_since_timestamp_seconds': 'Since when a message is at work; of several slices, the longest; absent when none is busy.',
        'runner_deadline_overrun_slices': 'Slices whose message is past `message_time_limit`.',
    },
    ('gauge', 'runner queue'): {
        'runner_queue_info': '1: which queue a runner of the configuration works on.'
    },
    ('gauge', ''): {
        'master_up': 'Whether a master holds the spool.',
        'master_start_timestamp_seconds': 'When the master, or the last one, started.',
        'config_last_reload_successful': 'Whether the last reload succeeded; if not, the old configuration is in force, or a runner could not take up the new one.',
        'config_last_reload_success_timestamp_seconds': 'When the configuration in force was read; absent when a reload has failed since.',
        'exporter_scrape_seconds': 'How long it took to gather these numbers.',
        'exporter_census_timestamp_seconds': 'When the queues were last counted; 0 before the first time.',
    },
    ('gauge', 'spool'): {
        'spool_free_bytes': 'Room on the file system of the spool.',
        'spool_size_bytes': 'Size of the file system of the spool.',
        'spool_free_inodes': 'Files that can still be made on the file system of the spool.',
    },
    ('gauge', 'version python scoreboard_version'): {'build_info': '1: the versions of this exporter.'},
    ('counter', ''): {
        'exporter_errors': 'Times that something could not be counted or read, by this exporter.'
    },
}
FAMILIES = {
    name: Family(name, kind, tuple(labels.split()), text)
    for (kind, labels), metrics in _TABLE.items()
    for name, text in metrics.items()
}
