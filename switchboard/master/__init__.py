"""One process that forks the runners and keeps them running.

In reading order: master (the loop), slices and supervision (one process of a runner), policy (restart or
not), rollout (new for old), requests and control (the socket for them), child (from the fork to the exit)
with loading, signals, orphans (what becomes of a process's work and programs), directory (its own files),
service_manager (systemd), housekeeping, programs (the ways to start it).

It imports runner and below.  Only web and cli import it.
"""
