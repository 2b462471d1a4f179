"""The alerts: when each one fires, what it means, and what to do.  ``shipped`` writes rules for Prometheus and the runbook from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_BY_QUEUE = 'on (job, instance, queue)'
_UNLESS_PAUSED = f'unless {_BY_QUEUE} switchboard_queue_paused == 1'
_ENDED = 'increase(switchboard_entries_done_total[10m]) + increase(switchboard_entries_failed_total[10m])'


@dataclass(frozen=True, slots=True)
class Alert:
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
        'No master is running, or nobody can be asked: nothing is taken out of the queues. What comes in is stored all the same.',
        '`systemctl status switchboard` and the end of the log say why it ended. `switchboard status` shows what it left. Start it: '
        'what its runners had at work is recovered. If it runs, the exporter does not: look at `switchboard-metrics`, and at the scrape.',
    ),
    Alert(
        'OldestClaimableTooOld',
        f'time() - switchboard_queue_oldest_claimable_timestamp_seconds > 300 {_UNLESS_PAUSED}',
        '5m',
        'critical',
        '{{ $labels.queue }} has an entry that nobody takes for {{ $value | humanizeDuration }}',
        'An entry that could be taken is waiting for more than five minutes, and the queue is not paused: its runner is too slow, stuck, or not there.',
        '`switchboard status` shows whether the runner works and on what; `switchboard shape QUEUE` how old the others are. If it works and does not keep up: '
        '`switchboard scale RUNNER=N`. If it waits for a server or a full target, its last error says so.',
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
        'Entries wait in a queue for which the configuration has a runner, and no slice of that is at work.',
        '`switchboard status`: a runner that is FATAL says why it gave up; `switchboard restart RUNNER` gives it a new chance. One that was scaled to nothing, or stopped, is started by '
        '`switchboard start RUNNER` or `switchboard scale RUNNER=N`.',
    ),
    Alert(
        'QueueGrowing',
        'deriv(switchboard_queue_entries{state="waiting"}[30m]) > 0 '
        f'and {_BY_QUEUE} deriv(switchboard_queue_oldest_claimable_age_seconds[30m]) > 0 '
        f'and {_BY_QUEUE} switchboard_queue_entries{{state="waiting"}} > 10',
        '30m',
        'warning',
        '{{ $labels.queue }} grows, and so does the age of its oldest entry',
        'More comes in than is worked off, for an hour by now.',
        'Is it a rush that ends? `switchboard shape QUEUE` shows the ages. Otherwise more slices (`switchboard scale RUNNER=N`), or a look at what each message takes '
        '(the dashboard, row Durations). `switchboard drain QUEUE` refuses what comes, if the disk is at stake.',
    ),
    Alert(
        'FailureRatioHigh',
        f'increase(switchboard_entries_failed_total[10m]) / ({_ENDED}) > 0.05 and ({_ENDED}) >= 20',
        '5m',
        'warning',
        '{{ $value | humanizePercentage }} of the messages of {{ $labels.runner }} fail',
        'Of at least twenty messages in ten minutes more than one in twenty went to the bad queue.',
        '`switchboard shape bad --by error` says what goes wrong; `switchboard show bad/ENTRY` has the traceback. Once it is mended, `switchboard retry --error CLASS --canary 2` tries two, and then the rest.',
    ),
    Alert(
        'BadQueueGrew',
        'delta(switchboard_queue_entries{queue="bad", state="preserved"}[15m]) > 0',
        '0m',
        'info',
        '{{ $value | humanize }} more entries are in the bad queue',
        'Messages have failed for good within the last quarter of an hour.',
        'See the next one; there is time until the morning.',
    ),
    Alert(
        'BadQueueGrew',
        'delta(switchboard_queue_entries{queue="bad", state="preserved"}[15m]) > 10',
        '0m',
        'warning',
        '{{ $value | humanize }} more entries are in the bad queue',
        'More than ten messages have failed for good within the last quarter of an hour.',
        '[Look into the bad queue](look-into-bad.md): by error, the newest first. If all have one error, mend that and send them back; `switchboard pause QUEUE` keeps the others from following.',
    ),
    Alert(
        'RunnerCrashLoop',
        'increase(switchboard_runner_restarts_total[15m]) > 3',
        '0m',
        'warning',
        '{{ $labels.runner }} was started again {{ $value | humanize }} times in 15 minutes',
        'Its processes end by themselves: killed by the system (memory), by a library, or in `setup`.',
        '`switchboard status` has the reason, the log the traceback. A message that kills its runner goes to the bad queue the third time, as `recoveries`.',
    ),
    Alert(
        'SlicesMissing',
        'switchboard_runner_slices < switchboard_runner_slices_wanted',
        '10m',
        'warning',
        '{{ $labels.runner }} has {{ $value }} slices at work, and should have more',
        'Some slices do not start, or have given up: their share of the messages waits.',
        '`switchboard status` shows which, and why; `switchboard restart "RUNNER 2/3"` gives one a new chance.',
    ),
    Alert(
        'EntryStuck',
        'switchboard_runner_deadline_overrun_slices > 0 or time() - switchboard_runner_claim_since_timestamp_seconds > 3600',
        '5m',
        'warning',
        '{{ $labels.runner }} is at one message for very long',
        'A message is past the `max_seconds` of its runner, or at work for more than an hour.',
        '`switchboard status` names it, `switchboard show ENTRY` shows it and who holds it. If that is no long job: `switchboard restart RUNNER` ends it after `stop_timeout`, and the message is tried again, which is not counted against it.',
    ),
    Alert(
        'HeartbeatOld',
        'time() - switchboard_runner_heartbeat_timestamp_seconds > 600 unless on (job, instance, runner) switchboard_runner_busy_slices > 0',
        '5m',
        'warning',
        'The loop of {{ $labels.runner }} has not turned for {{ $value | humanizeDuration }}',
        'It has no message at work and does not look for one: it hangs in a hook, or in a call to the disk.',
        'The master ends a runner whose `hang_timeout` is over, and writes its traceback to the log; if it did not, the master itself hangs, or the time is set very long. `switchboard restart RUNNER`.',
    ),
    Alert(
        'SpoolFillsIn24h',
        'predict_linear(switchboard_spool_free_bytes[6h], 86400) < 0 or predict_linear(switchboard_spool_free_inodes[6h], 86400) < 0',
        '30m',
        'warning',
        'The file system of the spool is full within a day, if it goes on like this',
        'Room or inodes run out. A queue refuses messages then, and loses none.',
        '`switchboard queues` shows the largest queues. `switchboard spares empty` gives room back, `switchboard rm --now` removes what nobody wants. Is it somebody else on that disk? `df -h`, `df -i`.',
    ),
    Alert(
        'ReloadFailed',
        'switchboard_config_last_reload_successful == 0',
        '5m',
        'warning',
        'The configuration cannot be used; the old one is in force',
        'Somebody has changed the configuration and made a mistake. All works on as before, and the next start will fail.',
        '`switchboard check` shows every mistake with file and line. Mend it, `switchboard reload`.',
    ),
    Alert(
        'PausedTooLong',
        'switchboard_queue_paused == 1',
        '1h',
        'info',
        '{{ $labels.queue }} is paused for more than an hour',
        'Somebody has paused it, and perhaps forgotten that.',
        '`switchboard queues` says who and why; `switchboard resume QUEUE`.',
    ),
    Alert(
        'CensusStale',
        'time() - switchboard_exporter_census_timestamp_seconds > 900 or switchboard_queue_census_truncated == 1',
        '15m',
        'info',
        'The numbers of the queues are old, or lower bounds',
        'The exporter did not count them for a quarter of an hour, or had no time to count all.',
        'With millions of entries give it more time: `--budget 60s`. If it did not count at all, its log says why: it may not be allowed to read the spool.',
    ),
    Alert(
        'EntriesRecovered',
        'increase(switchboard_entries_recovered_total[1h]) > 0',
        '0m',
        'warning',
        'A process of {{ $labels.runner }} died with a message at work',
        'Messages were recovered from dead processes. A message that kills its runner looks like this, and so does a machine without memory.',
        '`switchboard ls QUEUE --where "tries:>0"` and the log (`recovered`) name them; `journalctl -k` tells of the system\'s killing. The third death sends a message to the bad queue.',
    ),
)
