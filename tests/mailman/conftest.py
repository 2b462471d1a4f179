"""What is in ``inside`` runs in Mailman's environment, see `test_mailman`."""

collect_ignore = ['inside']
