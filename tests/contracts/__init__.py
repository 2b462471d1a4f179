"""What every queue has to do, whatever it is kept in: a directory, memory, a broker.

In reading order: queue (messages in and out, order, delays), queue_life (claims, release, history, recovery), queue_runner (slices, changes,
waking up).  A test module imports the classes of all three and gives a fixture ``backend``; `test_queue` does it for directories and memory.
"""

import pytest

pytest.register_assert_rewrite(
    'tests.contracts.queue', 'tests.contracts.queue_life', 'tests.contracts.queue_runner'
)
