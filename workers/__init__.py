"""The actor library: async actors with a delivery policy, on Celery, Redis and Postgres."""
