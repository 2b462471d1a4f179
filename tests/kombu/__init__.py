"""The kombu transport: kombu's and Celery's suites run over it, and Celery at work."""
