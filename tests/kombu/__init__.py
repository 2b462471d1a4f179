"""The kombu transport: our own tests, kombu's and Celery's suites run over it, and Celery at work."""
