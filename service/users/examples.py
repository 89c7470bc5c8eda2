"""What the schema shows of each route about people."""

from typing import Any

from service.users.identifiers import ID_RULE

REQUEST: dict[str, Any] = {
    "email": "Ada <ada@example.com>",
    "locale": "en-GB",
    "timezone": "Europe/London",
    "attributes": {"name": "Ada"},
}
USER: dict[str, Any] = {
    "id": "ada",
    **REQUEST,
    "created_at": "2026-01-02T10:00:00Z",
    "updated_at": "2026-01-12T08:00:00Z",
}
PAGE = {"items": [USER], "next_cursor": None}
MANY = {"users": [{"id": "ada", **REQUEST}, {"id": "grace", "email": "grace@example.com"}]}
MANY_SET = {"users": 2, "made": 1}
IDS = {"users": ["ada", "grace"]}
JOINED = {"users": 2, "changed": 1}
IMPORTED = {
    "rows": 100_000,
    "changed": 99_998,
    "refused": 1,
    "errors": [{"pointer": "/lines/7/id", "message": ID_RULE}],
}
BELONGING = {"items": [{"user_id": "ada", "since": "2026-01-02T10:00:00Z"}], "next_cursor": None}
PREFERENCES = {"categories": {"*": {"email": "daily"}, "comments": {"email": "off", "inbox": "immediate"}}}
