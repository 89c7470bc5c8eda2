"""What the routes of tasks answer, for the schema: a mail that was put off once and then taken."""

from typing import Any

TASK: dict[str, Any] = {
    "id": "019aa3c5-2f7e-7c31-9d52-5a0c7f3e1b44",
    "task_id": "019aa3c5-2f7e-7c31-9d52-5a0c7f3e1b44",
    "name": "emails.send_email",
    "status": "SUCCESS",
    "state": "done",
    "queue": "email",
    "priority": "normal",
    "request_id": "checkout-7f3a",
    "attempts": 1,
    "crashes": 0,
    "snoozes": 0,
    "error": None,
    "outcome": {"code": 250, "text": "2.0.0 Ok: queued as 4Xy2"},
    "result": None,
    "progress": None,
    "worker": None,
    "created_at": "2026-11-22T09:30:00.100000Z",
    "due_at": "2026-11-22T09:30:02.300000Z",
    "expires_at": None,
    "started_at": "2026-11-22T09:30:02.310000Z",
    "finished_at": "2026-11-22T09:30:02.480000Z",
    "updated_at": "2026-11-22T09:30:02.480000Z",
    "history": [
        {
            "number": 1,
            "outcome": "retry",
            "started_at": "2026-11-22T09:30:00.120000Z",
            "ended_at": "2026-11-22T09:30:00.240000Z",
            "worker": "mail-1:4711:9f2c1a",
            "detail": {"code": 451, "text": "4.7.1 Greylisted"},
        }
    ],
}

STORY: dict[str, Any] = {
    "request_id": "checkout-7f3a",
    "started_at": "2026-11-22T09:30:00.095000Z",
    "ended_at": "2026-11-22T09:30:02.480000Z",
    "duration_ms": 2385.0,
    "complete": True,
    "tasks": [TASK],
    "events": [
        {
            "at": "2026-11-22T09:30:00.095000Z",
            "offset_ms": 0.0,
            "what": "request_received",
            "id": "checkout-7f3a",
            "detail": {"route": "POST /v1/emails"},
        },
        {
            "at": "2026-11-22T09:30:02.480000Z",
            "offset_ms": 2385.0,
            "what": "task_done",
            "id": TASK["id"],
            "detail": {"task": "emails.send_email", "ms": 170.0, "outcome": TASK["outcome"]},
        },
    ],
}

QUEUE: dict[str, Any] = {
    "queue": "email",
    "priority": "normal",
    "due": 12,
    "scheduled": 340,
    "running": 48,
    "oldest_age": 0.214,
    "doorbells": 12,
    "arrivals": 91.5,
    "departures": 90.8,
}
