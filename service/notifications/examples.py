"""What the schema shows of each route about notifications."""

from typing import Any

from service.feeds.examples import DATA, ID

TASK_ID = "0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2"

REQUEST: dict[str, Any] = {
    "type": "prompt.published",
    "recipients": {"topics": ["writing", "teaching"]},
    "exclude": ["ada"],
    "actor": "ada",
    "data": DATA,
    "channels": ["inbox", "email"],
    "dedup_key": "prompt-41",
    "dedup_window": 3600,
    "category": "prompts",
}
COUNTS: dict[str, Any] = {
    "resolved": 0,
    "overlapping": 0,
    "excluded": 0,
    "deduplicated": 0,
    "channels": {
        "inbox": {"delivered": 0, "muted": 0},
        "email": {
            "queued": 0,
            "collected": 0,
            "muted": 0,
            "suppressed": 0,
            "unreachable": 0,
            "disabled": 0,
            "states": {},
        },
    },
}
QUEUED: dict[str, Any] = {
    "id": ID,
    "type": "prompt.published",
    "status": "queued",
    "task_id": TASK_ID,
    "request_id": "prompts-41",
    "attempts": 0,
    "error": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "updated_at": "2026-01-12T08:30:00.123Z",
    "mode": "live",
    "category": "prompts",
    "actor": "ada",
    "data": DATA,
    "channels": ["inbox", "email"],
    "critical": False,
    "dedup_key": "prompt-41",
    "dedup_window": 3600.0,
    "counts": COUNTS,
    "progress": None,
    "finished_at": None,
}
DONE: dict[str, Any] = {
    "resolved": 1204,
    "overlapping": 310,
    "excluded": 1,
    "deduplicated": 3,
    "channels": {
        "inbox": {"delivered": 1190, "muted": 10},
        "email": {
            "queued": 800,
            "collected": 150,
            "muted": 200,
            "suppressed": 5,
            "unreachable": 45,
            "disabled": 0,
            "states": {"queued": 12, "sent": 788},
        },
    },
}
COMPLETED = {
    **QUEUED,
    "status": "completed",
    "updated_at": "2026-01-12T08:30:00.480Z",
    "counts": DONE,
    "progress": {"done": 1204, "total": 1514},
    "finished_at": "2026-01-12T08:30:00.480Z",
}
PAGE = {"items": [QUEUED], "next_cursor": None}
