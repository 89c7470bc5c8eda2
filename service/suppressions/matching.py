"""Which mail a suppression keeps back: by the canonical address of each recipient, and by what the mail is about."""

from typing import Any

BULK = "bulk"
"""What a mail of the bulk lane is about that names no category."""

TOPIC = f"coalesce(e.category, CASE e.lane WHEN 'bulk' THEN '{BULK}' END)"
"""The topic of a mail `e`, as SQL."""

# The second COLLATE is the index's own: by another collation an address could not be looked up in it.
SUPPRESSED = f"""
SELECT jsonb_object_agg(s.address, s.reason) FROM suppressions s
WHERE s.tenant_id = e.tenant_id AND s.mode = e.mode
    AND s.address = ANY (ARRAY(SELECT lower(r COLLATE "C") COLLATE "default" FROM unnest(e.recipients) AS r))
    AND (s.category IS NULL OR s.category = {TOPIC})
"""  # noqa: S608 (our own SQL)
"""The recipients of a mail `e` that get none of its kind, each with the reason: an object, or null. SQL."""


def topic(category: str | None, lane: Any) -> str | None:
    """Return what a mail is about: its category; `bulk` in the bulk lane without one; else nothing."""
    return category or (BULK if str(lane) == BULK else None)
