"""What the schema shows of each route about feeds."""

from typing import Any

ID = "no_0199f6d6c3a1712fa0d5f1f0a9c1e7b2"
DATA = {
    "title": "A new prompt: Explain it simply",
    "body": "Ada shared it in Writing.",
    "url": "https://prompts.example/41",
}

ITEM: dict[str, Any] = {
    "id": ID,
    "seq": 17,
    "type": "prompt.published",
    "category": "prompts",
    "actor": "ada",
    "data": DATA,
    "critical": False,
    "created_at": "2026-01-12T08:30:00.480Z",
    "seen_at": None,
    "read_at": None,
    "archived_at": None,
}
COUNTS = {"unread": 3, "unseen": 1}
PAGE = {"items": [ITEM], "next_cursor": None, "counts": COUNTS, "last_seq": 17}
MARK = {"ids": [ID]}
MARKED = {"changed": 1, "counts": {"unread": 2, "unseen": 0}}
TOKEN_REQUEST = {"ttl": 300}
TOKEN = {"token": "st_q2VtYmVkZGVkLWluLWEtcGFnZQ", "expires_at": "2026-01-12T08:35:00Z"}
