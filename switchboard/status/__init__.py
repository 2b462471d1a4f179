"""The state of the master and its runners, and their words: the scoreboard, and the log.

In reading order: double_buffer (a record that is always whole), record (the words of `status`), measurements
(times and errors, as runners measure them), scoreboard (one slot a slice), processes (as the system shows them), alive (does a master hold the spool), snapshot (all of it at one moment),
log_writer (lines for a reader that may be away), log, repeats (trouble that is written once), captured_output (what runners print, as events),
alerts (the operator's command, run when something goes wrong).

It imports store, message and the ground.  Any room above may import it.
"""
