"""The alerts: when each one fires, what it means, and what to do.  ``shipped`` writes rules for Prometheus and the runbook from it."""

from __future__ import annotations

from typing import Literal, NamedTuple

_BY_QUEUE = 'on (job, instance, queue)'
_UNLESS_PAUSED = f'unless {_BY_QUEUE} switchboard_queue_paused == 1'
_ENDED = 'increase(switchboard_entries_done_total[10m]) + increase(switchboard_entries_failed_total[10m])'


class Alert(NamedTuple):
    """One rule.

    :ivar holds: how long it has to be so before it is sent.
    :ivar meaning: the trouble, for the person it wakes.
    :ivar advice: the steps to take, in Markdown.
    """

    name: str
    expression: str
    holds: str
    severity: Literal['critical', 'warning', 'info']
    summary: str
    meaning: str
    advice: str


ALERTS = (
    Alert(
        'SwitchboardDown',
        'switchboard_master_up == 0 or absent(switchboard_master_up)',
        '2m',
        'critical',
        'No master holds the spool',
        'No master is running, or the exporter does not answer. Without a master no message is taken out of the queues; new messages are stored all the same.',
        '`switchboard status` says whether a master runs. If none does, `systemctl status switchboard` and the end of the log say why it ended; after a start it recovers '
        'the messages that were at work. If one runs, look at the exporter (`systemctl status switchboard-metrics`) and at the scrape.',
    ),
    Alert(
        'OldestClaimableTooOld',
        f'time() - switchboard_queue_oldest_claimable_timestamp_seconds > 300 {_UNLESS_PAUSED}',
        '5m',
        'critical',
        '{{ $labels.queue }} has an entry that nobody takes for {{ $value | humanizeDuration }}',
        'An entry has been ready for more than five minutes, and the queue is not paused: the runner is too slow, stuck, or gone.',
        '`switchboard status` shows whether the runner works and on which entry, `switchboard shape QUEUE` how old the other entries are. A runner that does not keep up gets more slices: '
        '`switchboard scale RUNNER=N`. A runner that waits for a server or a full queue says so in its last error.',
    ),
    Alert(
        'QueueWithoutRunner',
        'switchboard_queue_entries{state="waiting"} > 0 '
        f'and {_BY_QUEUE} (sum by (job, instance, queue) (switchboard_runner_queue_info '
        '* on (job, instance, runner) group_left () switchboard_runner_slices) == 0) '
        f'{_UNLESS_PAUSED}',
        '5m',
        'critical',
        '{{ $labels.queue }} has {{ $value }} entries and no runner at work',
        'Entries wait in a queue, and no slice of its runner is at work.',
        '`switchboard status` shows the runner. If it is FATAL, the reason stands below the table; mend it, then `switchboard restart RUNNER`. If it was scaled to nothing: `switchboard scale RUNNER=N`.',
    ),
    Alert(
        'QueueGrowing',
        'deriv(switchboard_queue_entries{state="waiting"}[30m]) > 0 '
        f'and {_BY_QUEUE} deriv(switchboard_queue_oldest_claimable_age_seconds[30m]) > 0 '
        f'and {_BY_QUEUE} switchboard_queue_entries{{state="waiting"}} > 10',
        '30m',
        'warning',
        '{{ $labels.queue }} grows, and so does the age of its oldest entry',
        'For an hour now more messages have come in than were handled.',
        '`switchboard shape QUEUE` shows the ages: does a rush end by itself? Otherwise add slices (`switchboard scale RUNNER=N`), or see how long a message takes '
        '(the dashboard, row Durations). If the disk is in danger, `switchboard drain QUEUE` refuses new messages.',
    ),
    Alert(
        'FailureRatioHigh',
        f'increase(switchboard_entries_failed_total[10m]) / ({_ENDED}) > 0.05 and ({_ENDED}) >= 20',
        '5m',
        'warning',
        '{{ $value | humanizePercentage }} of the messages of {{ $labels.runner }} fail',
        'In ten minutes at least twenty messages were handled, and more than one in twenty of them went to the bad queue.',
        '`switchboard shape bad --by error` counts the errors; `switchboard show bad/ENTRY` has the traceback. When the cause is mended, `switchboard retry --error CLASS --canary 2` sends two back, and the rest if both go through.',
    ),
    Alert(
        'BadQueueGrew',
        'delta(switchboard_queue_entries{queue="bad", state="preserved"}[15m]) > 0',
        '0m',
        'info',
        '{{ $value | humanize }} more entries are in the bad queue',
        'Messages have failed for good within the last quarter of an hour.',
        'As for the warning below; there is time until the morning.',
    ),
    Alert(
        'BadQueueGrew',
        'delta(switchboard_queue_entries{queue="bad", state="preserved"}[15m]) > 10',
        '0m',
        'warning',
        '{{ $value | humanize }} more entries are in the bad queue',
        'More than ten messages have failed for good within the last quarter of an hour.',
        '[Look into the bad queue](look-into-bad.md). If all have one error, mend its cause and send them back; until then `switchboard pause QUEUE` keeps other messages from failing too.',
    ),
    Alert(
        'RunnerCrashLoop',
        'increase(switchboard_runner_restarts_total[15m]) > 3',
        '0m',
        'warning',
        '{{ $labels.runner }} was started again {{ $value | humanize }} times in 15 minutes',
        'The processes of a runner end by themselves: the kernel kills them for memory, a library crashes, or `setup` fails.',
        '`switchboard status` has the reason, the log has the traceback. A message that kills its runner three times goes to the bad queue, with the cause `recoveries`.',
    ),
    Alert(
        'SlicesMissing',
        'switchboard_runner_slices < switchboard_runner_slices_wanted',
        '10m',
        'warning',
        '{{ $labels.runner }} has {{ $value }} slices at work, and should have more',
        'Some slices do not start, or have given up. Their share of the messages waits.',
        '`switchboard status` shows which slices, and why; `switchboard restart "RUNNER 2/3"` starts one again.',
    ),
    Alert(
        'EntryStuck',
        'switchboard_runner_deadline_overrun_slices > 0 or time() - switchboard_runner_claim_since_timestamp_seconds > 3600',
        '5m',
        'warning',
        '{{ $labels.runner }} is at one message for very long',
        'A message is past the `max_seconds` of its runner, or at work for more than an hour.',
        '`switchboard status` names the message, `switchboard show ENTRY` shows it and the process that holds it. If the job should not take so long, `switchboard restart RUNNER` ends it after `stop_timeout`; the message is tried again, and this end is not counted against it.',
    ),
    Alert(
        'HeartbeatOld',
        'time() - switchboard_runner_heartbeat_timestamp_seconds > 600 unless on (job, instance, runner) switchboard_runner_busy_slices > 0',
        '5m',
        'warning',
        'The loop of {{ $labels.runner }} has not turned for {{ $value | humanizeDuration }}',
        'A runner has no message at work and does not look for one: it hangs in a hook, or in a call to the disk.',
        '`switchboard restart RUNNER`. The master ends a hanging runner by itself after `hang_timeout`, and writes its traceback to the log; if that did not happen, the master hangs, or `hang_timeout` is very long.',
    ),
    Alert(
        'SpoolFillsIn24h',
        'predict_linear(switchboard_spool_free_bytes[6h], 86400) < 0 or predict_linear(switchboard_spool_free_inodes[6h], 86400) < 0',
        '30m',
        'warning',
        'The file system of the spool is full within a day, if it goes on like this',
        'Room or inodes of the disk run out. A queue on a full disk refuses new messages, and loses none.',
        '`switchboard queues` shows the largest queues, `df -h` and `df -i` the disk. `switchboard spares empty` frees the spare files, `switchboard rm --now` removes messages that nobody needs.',
    ),
    Alert(
        'ReloadFailed',
        'switchboard_config_last_reload_successful == 0',
        '5m',
        'warning',
        'The configuration cannot be used; the old one is in force',
        'The configuration was changed and has a mistake. The old one is in force; the next start will fail.',
        '`switchboard check` shows every mistake with file and line. Mend it, then `switchboard reload`.',
    ),
    Alert(
        'PausedTooLong',
        'switchboard_queue_paused == 1',
        '1h',
        'info',
        '{{ $labels.queue }} is paused for more than an hour',
        'An operator has paused the queue, and perhaps forgotten it.',
        '`switchboard show QUEUE` says who paused it, and why; `switchboard resume QUEUE`.',
    ),
    Alert(
        'CensusStale',
        'time() - switchboard_exporter_census_timestamp_seconds > 900 or switchboard_queue_census_truncated == 1',
        '15m',
        'info',
        'The numbers of the queues are old, or lower bounds',
        'The exporter has not counted the queues for a quarter of an hour, or had no time to count all entries.',
        'With millions of entries give it more time: `--budget 60s`. If it does not count at all, its log says why; perhaps its user may not read the spool.',
    ),
    Alert(
        'EntriesRecovered',
        'increase(switchboard_entries_recovered_total[1h]) > 0',
        '0m',
        'warning',
        'A process of {{ $labels.runner }} died with a message at work',
        'Messages were recovered from dead processes. Either a message kills its runner, or the machine has too little memory.',
        'The log (`grep " recovered "`) names the messages; `journalctl -k` shows whether the kernel killed a process. After the third death a message goes to the bad queue.',
    ),
)
