"""All operations, in the order of a message's life."""

from __future__ import annotations

import tests.faults.operations.entering
import tests.faults.operations.handing
import tests.faults.operations.operating
import tests.faults.operations.parting
import tests.faults.operations.renewing
import tests.faults.operations.repairing
import tests.faults.operations.working  # noqa: F401  each adds its own
from tests.faults.operations.operation import ERRORS, OPERATIONS, Operation

__all__ = ['ERRORS', 'OPERATIONS', 'Operation']
