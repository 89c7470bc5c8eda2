"""What the schema shows of each route of the webhooks API."""

from typing import Any

ID = "wh_0199f6d6c3a1712fa0d5f1f0a9c1e7b2"
TASK_ID = "0199f6d6-d1b2-7c3d-8e4f-5a6b7c8d9e0f"

REQUEST: dict[str, Any] = {
    "url": "https://app.example.com/hooks/callboard",
    "events": ["email.bounced", "email.failed", "job.completed"],
    "description": "production",
}
ENDPOINT: dict[str, Any] = {
    "id": ID,
    "url": "https://app.example.com/hooks/callboard",
    "mode": "live",
    "events": ["email.bounced", "email.failed", "job.completed"],
    "description": "production",
    "enabled": True,
    "disabled_reason": None,
    "failing_since": None,
    "previous_secret_until": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "updated_at": "2026-01-12T08:30:00.123Z",
}
WITH_SECRET = {**ENDPOINT, "secret": "whsec_" + "…"}
PAGE = {"items": [ENDPOINT], "next_cursor": None}
DELIVERY: dict[str, Any] = {
    "id": "dl_0199f6d6d1b27c3d8e4f5a6b7c8d9e0f",
    "endpoint_id": ID,
    "event_id": "ev_0199f6d6d1b17c3d8e4f5a6b7c8d9e0f",
    "type": "email.failed",
    "status": "pending",
    "task_id": TASK_ID,
    "request_id": "order-1042",
    "attempts": 1,
    "last_status": 503,
    "error": {"code": "refused-by-endpoint", "detail": "The endpoint answered 503.", "retryable": True},
    "created_at": "2026-01-12T08:30:00.140Z",
    "updated_at": "2026-01-12T08:30:00.420Z",
    "next_attempt_at": "2026-01-12T08:30:05.420Z",
}
DELIVERIES = {"items": [DELIVERY], "next_cursor": None}
ATTEMPT = {
    "at": "2026-01-12T08:30:00.420Z",
    "outcome": "failed",
    "status": 503,
    "ms": 84.2,
    "body": "upstream is restarting",
    "error": "The endpoint answered 503.",
}
PAYLOAD = {
    "id": "ev_0199f6d6d1b17c3d8e4f5a6b7c8d9e0f",
    "type": "email.failed",
    "timestamp": "2026-01-12T08:30:00.140Z",
    "data": {"id": "em_0199f6d6c0a1712fa0d5f1f0a9c1e7b2", "status": "failed", "to": ["ada@example.com"]},
}
DETAIL = {**DELIVERY, "payload": PAYLOAD, "history": [ATTEMPT]}
SINCE = {"since": "2026-01-12T06:00:00Z"}
