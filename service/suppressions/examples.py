"""What the schema shows of `/v1/suppressions`."""

from typing import Any

SUPPRESSION: dict[str, Any] = {
    "id": "su_0199f6d6c3a1712fa0d5f1f0a9c1e7b3",
    "address": "ada@example.org",
    "category": "newsletter",
    "reason": "manual",
    "note": "asked by phone",
    "email_id": None,
    "created_at": "2026-01-12T08:30:00.123Z",
}
REQUEST = {"address": "ada@example.org", "category": "newsletter", "note": "asked by phone"}
PAGE = {"items": [SUPPRESSION], "next_cursor": None}
BATCH = {"items": [REQUEST]}
BATCH_OUT = {"items": [SUPPRESSION], "created": 1}
