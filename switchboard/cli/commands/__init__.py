"""The verbs, by what they are about; a module is imported when one of its verbs is used.

In reading order: lifecycle, status and top (the master), queues, ls, show and tail (looking), retry (and mv, rm, restore, hold, release), edit, enqueue, config,
maintenance, programs (run, drop, master, runner), metrics and web.

It imports web, metrics, mailman, master, drop, runner and below.  No room imports it: ``app`` loads each module by name.
"""
