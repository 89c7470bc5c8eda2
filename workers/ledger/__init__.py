"""Durable messages: rows in Postgres, and the verbs claim, fence, settle, renew, release, cancel, requeue, sweep."""
