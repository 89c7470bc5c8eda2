"""An organization, and a worker's runtime, for the tests of activities."""

from tests.service.jobs.conftest import acme, bench_of, sql

__all__ = ["acme", "bench_of", "sql"]
