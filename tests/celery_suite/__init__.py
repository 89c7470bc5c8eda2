"""Celery's own integration tests, run against our worker."""
