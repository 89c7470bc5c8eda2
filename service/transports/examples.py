"""What the schema shows of `/v1/transports`."""

from typing import Any

REQUEST: dict[str, Any] = {
    "name": "our own",
    "host": "smtp.academy.example",
    "port": 587,
    "tls": "starttls",
    "username": "callboard",
    "password": "the password of that server",
    "domains": ["academy.example"],
}
TRANSPORT: dict[str, Any] = {
    "id": "tr_0199f6d6c3a1712fa0d5f1f0a9c1e7b5",
    "name": "our own",
    "host": "smtp.academy.example",
    "port": 587,
    "tls": "starttls",
    "verify": True,
    "username": "callboard",
    "has_password": True,
    "domains": ["academy.example"],
    "pool_size": 5,
    "created_at": "2026-01-12T08:30:00.123Z",
}
LIST = {"items": [TRANSPORT]}
PROBE = {
    "ok": False,
    "steps": [
        {"name": "dns", "ok": True, "seconds": 0.012, "detail": "198.41.0.4", "mend": ""},
        {
            "name": "connect",
            "ok": False,
            "seconds": 5.0,
            "detail": "timeout: no answer in time",
            "mend": "Check host and port, that the server runs, and that no firewall is in between.",
        },
    ],
}
