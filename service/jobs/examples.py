"""What the schema shows of each route of the jobs API."""

from typing import Any

ID = "jb_0199f6d6c3a1712fa0d5f1f0a9c1e7b2"
TASK_ID = "0199f6d6-c3a1-712f-a0d5-f1f0a9c1e7b2"

INPUT: dict[str, Any] = {
    "team_size": 8,
    "topic": "the new billing system",
    "duration_minutes": 60,
    "setting": "remote",
    "goals": ["a shared understanding"],
    "notes": "",
    "team_id": "team-7",
}
REQUEST: dict[str, Any] = {"type": "activities.generate", "input": INPUT, "organization_id": "acme"}
JOB: dict[str, Any] = {
    "id": ID,
    "type": "activities.generate",
    "status": "pending",
    "task_id": TASK_ID,
    "request_id": "activities-1042",
    "attempts": 0,
    "error": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "updated_at": "2026-01-12T08:30:00.123Z",
    "mode": "live",
    "organization_id": "acme",
    "priority": "normal",
    "input": INPUT,
    "progress": None,
    "result": None,
    "scheduled_at": None,
    "started_at": None,
    "finished_at": None,
    "poll_after_ms": 1000,
}
ACTIVITY = {
    "title": "Two maps of one system",
    "description": "Everybody draws the new billing system from memory; the differences show what is not shared yet.",
    "duration_minutes": 60,
    "materials": ["a video call with breakout rooms"],
    "steps": ["Split the 8 of you into 2 groups.", "Each person draws for 15 minutes.", "Compare the drawings."],
}
COMPLETED = {
    **JOB,
    "status": "completed",
    "attempts": 1,
    "updated_at": "2026-01-12T08:30:04.480Z",
    "progress": {"done": 3, "total": 3, "note": "made by gpt-4o-mini"},
    "result": {"provider": "llm", "model": "gpt-4o-mini", "activities": [ACTIVITY, ACTIVITY, ACTIVITY]},
    "started_at": "2026-01-12T08:30:00.140Z",
    "finished_at": "2026-01-12T08:30:04.480Z",
    "poll_after_ms": None,
}
CANCELED = {**JOB, "status": "canceled", "finished_at": "2026-01-12T08:30:02.000Z", "poll_after_ms": None}
PAGE = {"items": [COMPLETED], "next_cursor": None}

ORGANIZATION_REQUEST = {"plan": "team", "trust_score": 80, "job_limit": None}
ORGANIZATION = {
    "id": "acme",
    "plan": "team",
    "trust_score": 80,
    "job_limit": None,
    "created_at": "2026-01-02T10:00:00Z",
    "updated_at": "2026-01-12T08:00:00Z",
}
QUOTA = {
    "organization_id": "acme",
    "plan": "team",
    "period": "2026-01-01",
    "limit": 100,
    "used": 41,
    "reserved": 1,
    "remaining": 58,
    "resets_at": "2026-02-01T00:00:00Z",
}
CUSTOM_REQUEST = {"organization_id": "acme", "requirements": "Focus on collaboration", **INPUT}
CUSTOM_JOB = {"success": True, "job_id": ID, "status": "pending"}
POLLED = {
    "success": True,
    "job_id": ID,
    "status": "completed",
    "activities": [ACTIVITY, ACTIVITY, ACTIVITY],
    "error": None,
    "created_at": "2026-01-12T08:30:00.123Z",
    "updated_at": "2026-01-12T08:30:04.480Z",
}
