"""Side by side with what people would use instead: ``bin/bench`` runs this package and writes the page about it.

Nothing here is a test: pytest collects none of it, and no figure is asserted.  The rules:

- A figure is a ratio.  Two contenders take turns, A B A B, in one run on one machine; each pair of turns gives a ratio, and
  the median of the ratios counts.  An absolute time says more about the machine, and about its neighbours.
- A contender is a process that lives through the whole comparison: starting, importing and the first turn are not measured.
- Before each turn, and outside of its time, the file system is synced, so that nobody pays for what the other left dirty.
- Everybody does the same: the same messages, as many, in the same order, and a message counts when it has gone out again.

``contenders/``: ``contender`` says what a contender is and lists them; ``ours``, ``files``, ``databases`` and ``brokers`` hold them; ``floor.c``
is the least that the same work can cost.  ``workloads`` is what they do, ``pairs`` the taking of turns, ``cases`` who meets
whom.  ``measures/``: ``transports`` and ``tasks`` measure kombu and Celery over us and over others; ``syscalls``, ``wakeup``, ``footprint``,
``aftermath`` (after a burst, and just started), ``crowd`` (idle slices), ``large`` (a large body) and the others us alone.  ``results/``:
``targets`` says what was to be reached, ``page`` and ``charts`` tell.

Processor time is measured beside the time: where nobody waits for the disk it says the same, and other work on the machine hardly changes it.
"""
