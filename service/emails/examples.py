"""What the schema shows of each route of the emails API."""

from typing import Any

ID = "em_0199f6d6c3a1712fa0d5f1f0a9c1e7b2"
TASK_ID = "0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2"

REQUEST: dict[str, Any] = {
    "to": "Ada <ada@example.org>",
    "template": {
        "key": "course_enrollment",
        "variables": {"name": "Ada", "course_name": "Tides", "course_url": "https://academy.example/tides"},
    },
    "tags": ["enrollment"],
    "metadata": {"course": 41},
}
EMAIL: dict[str, Any] = {
    "id": ID,
    "status": "queued",
    "task_id": TASK_ID,
    "request_id": "enroll-1042",
    "attempts": 0,
    "error": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "updated_at": "2026-01-12T08:30:00.123Z",
    "mode": "live",
    "lane": "default",
    "message_id": f"<{TASK_ID}@academy.example>",
    "from": "Academy <hello@academy.example>",
    "to": ["Ada <ada@example.org>"],
    "cc": [],
    "bcc": [],
    "recipients": [{"address": "ada@example.org", "status": "queued", "reply": None, "continued_by": None}],
    "reply_to": [],
    "subject": None,
    "template": {"key": "course_enrollment", "version": None, "locale": None},
    "category": None,
    "unsubscribe": False,
    "tags": ["enrollment"],
    "metadata": {"course": 41},
    "dedup_key": None,
    "dedup_until": None,
    "follows": None,
    "resend_of": None,
    "bulk": None,
    "attachments": [],
    "scheduled_at": None,
    "expires_at": None,
    "next_attempt_at": "2026-01-12T08:30:00.123Z",
    "sent_at": None,
}
SENT = {
    **EMAIL,
    "status": "sent",
    "recipients": [
        {
            "address": "ada@example.org",
            "status": "sent",
            "reply": "250 2.0.0 Ok: queued as 4c1F2z",
            "continued_by": None,
        }
    ],
    "attempts": 1,
    "updated_at": "2026-01-12T08:30:00.480Z",
    "next_attempt_at": None,
    "sent_at": "2026-01-12T08:30:00.480Z",
}
CANCELED = {**EMAIL, "status": "canceled", "next_attempt_at": None}
RESCHEDULE = {"scheduled_at": "2026-01-13T08:00:00Z"}
RESENT = {**EMAIL, "resend_of": ID}
PAGE = {"items": [SENT], "next_cursor": None}
EVENTS = {
    "items": [
        {"at": "2026-01-12T08:30:00.123Z", "event": "accepted", "detail": {"recipients": 1, "mode": "live"}},
        {
            "at": "2026-01-12T08:30:00.480Z",
            "event": "sent",
            "detail": {
                "attempt": 1,
                "worker": "mail1:4711:9f3a2c",
                "phase": "dot",
                "code": 250,
                "enhanced": "2.0.0",
                "text": "2.0.0 Ok: queued as 4XyZ",
                "host": "smtp.example.org",
                "queue_id": "4XyZ",
                "duration_ms": 212,
            },
        },
    ]
}
BATCH: dict[str, Any] = {
    "mode": "partial",
    "emails": [
        {"to": "ada@example.org", "subject": "Your marks", "text": "You passed.", "dedup_key": "marks:ada"},
        {"to": "nobody", "subject": "Your marks", "text": "You passed."},
    ],
}
BATCH_ACCEPTED: dict[str, Any] = {
    "mode": "partial",
    "accepted": 1,
    "deduplicated": 0,
    "refused": 1,
    "items": [
        {"index": 0, "id": ID, "task_id": TASK_ID, "status": "queued", "deduplicated": False, "error": None},
        {
            "index": 1,
            "id": None,
            "task_id": None,
            "status": None,
            "deduplicated": False,
            "error": {
                "code": "invalid",
                "detail": "1 fault",
                "errors": [
                    {"pointer": "/emails/1/to", "message": "has no `@`; give an address such as ada@example.org."}
                ],
            },
        },
    ],
}
BULK_ID = "bk_0199f6d6c3a1712fa0d5f1f0a9c1e7b2"
BULK: dict[str, Any] = {
    "template": {
        "key": "course_enrollment",
        "variables": {"course_name": "Tides", "course_url": "https://a.example/t"},
    },
    "recipients": [
        {"to": "ada@example.org", "variables": {"name": "Ada"}},
        {"to": "grace@example.org", "variables": {"name": "Grace"}, "locale": "de"},
    ],
    "name": "Tides begins",
    "throttle": "600/m",
    "category": "courses",
}
BULK_ACCEPTED: dict[str, Any] = {
    "id": BULK_ID,
    "status": "running",
    "task_id": TASK_ID,
    "request_id": "announce-41",
    "attempts": 0,
    "error": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "updated_at": "2026-01-12T08:30:00.123Z",
    "mode": "live",
    "name": "Tides begins",
    "template": {"key": "course_enrollment", "version": None, "locale": None},
    "throttle": "600/m",
    "uncertain": "hold",
    "scheduled_at": None,
    "total": 2,
    "duplicates": 0,
    "refused": 0,
    "counts": {"pending": 2},
    "errors": [],
}
BULK_SENT = {**BULK_ACCEPTED, "status": "completed", "attempts": 1, "counts": {"sent": 2}}
BULK_PATCH = {"variables": {"course_name": "Tides", "course_url": "https://a.example/tides"}}
BULKS = {"items": [BULK_SENT], "next_cursor": None}
ROWS = {
    "added": 1998,
    "duplicates": 1,
    "refused": 1,
    "total": 1998,
    "errors": [{"pointer": "/lines/17/to", "message": "has no `@`; give an address such as ada@example.org."}],
}
TRIAL = {"message": "Test email queued", "task_id": TASK_ID}
