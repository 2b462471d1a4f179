"""Tests that import Mailman: they run in an environment of its own, see `tests.mailman.test_mailman`."""
