"""The verbs, by what they are about; a module is imported when one of its verbs is used.

In reading order: lifecycle and status (the master), queues, entries (looking), change (retry, mv, rm ...), edit, enqueue, config and
samples, maintenance, mailman, run, programs (drop, master, runner).
"""
