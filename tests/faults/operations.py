"""All operations, in the order of a message's life."""

from __future__ import annotations

import tests.faults.entering
import tests.faults.handing
import tests.faults.operating
import tests.faults.parting
import tests.faults.renewing
import tests.faults.repairing
import tests.faults.working  # noqa: F401  each adds its own
from tests.faults.operation import ERRORS, OPERATIONS, Operation

__all__ = ['ERRORS', 'OPERATIONS', 'Operation']
