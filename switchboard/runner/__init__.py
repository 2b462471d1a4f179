"""The loop that works one slice of one queue, and the hooks that a program fills in.

In reading order: runner (the hooks, and what they may call), loop (taking, sleeping, recovering), settling (judging,
carrying out, committing), verdict (what becomes of a message that failed: pure), asyncrunner (many at once in one
process), hooks (what a class must look like), settings (keys of a runner's own), template (routing keys with places to be
filled in), retirement, control_group (the processes of a message, held together), tracing (a span for each message, where that is wanted),
unix_socket (where a runner listens); api is what runners of the user's, and the shipped ones, may import.

It imports handoff and below.  Any room above may import it.
"""

from __future__ import annotations

from switchboard.lazy import lazy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from switchboard.runner.asyncrunner import AsyncRunner
    from switchboard.runner.runner import Runner

__all__ = ['AsyncRunner', 'Runner']

__getattr__ = lazy(
    __name__, {'switchboard.runner.runner': 'Runner', 'switchboard.runner.asyncrunner': 'AsyncRunner'}
)
