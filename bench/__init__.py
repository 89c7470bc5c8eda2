"""Benchmarks: our worker, publisher and API beside their floors and their peers, in the same run. See README.md."""
