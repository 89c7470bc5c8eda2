"""The servers a developer, the tests and the benchmarks need, run from wheels: PostgreSQL, Valkey, a mailbox."""
