"""What the master and its runners say of themselves: the scoreboard, and the log.

In reading order: double_buffer (a record that is always whole), record (the words of `status`), scoreboard
(one slot a slice), log.

It imports the ground, message and routing.
"""
