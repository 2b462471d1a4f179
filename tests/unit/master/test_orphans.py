"""What a process holds when it ends, and who may still hold it."""

from __future__ import annotations

from switchboard import Spool
from switchboard.master.orphans import has_claims_open
from tests.helpers.processes import held_elsewhere


def test_who_has_a_claimed_entry_open_is_told_from_who_has_not(spool: Spool) -> None:
    queue = spool['in']
    filebase = queue.enqueue('x')
    with held_elsewhere(queue, filebase) as holder:
        assert has_claims_open(holder.pid)
    assert not has_claims_open(holder.pid)  # it has ended
