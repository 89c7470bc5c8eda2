"""Webhooks: an app is told of what became of its mails and jobs, by signed calls that are retried for days."""
