"""Where `callboard up` runs its servers, for commands on the same machine."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def running(data: Path, *, secret: bool = False) -> dict[str, str]:
    """Read where `callboard up` runs its servers, from `up.json` in its folder `data`; empty where it does not run.

    `secret`: with its SECRET_KEY, for a process that reads or writes what is encrypted.
    """
    try:
        found = json.loads((data / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    names = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL", "api": "PUBLIC_URL"}
    known = {name: str(found[key]) for key, name in names.items() if found.get(key)} | _mail_server(found)
    with contextlib.suppress(OSError):
        known |= {"SECRET_KEY": (data / "secret").read_text().strip()} if secret else {}
    return known


def is_mail(name: str) -> bool:
    """Tell whether an environment variable is about the mail server."""
    return name.startswith("SMTP_") or name == "MAIL_DOMAINS"


def _mail_server(found: Mapping[str, Any]) -> dict[str, str]:
    """Where `up` sends mail: its own mailbox, or the server that its environment named."""
    host, _, port = str(found.get("smtp") or "").rpartition(":")
    if not host:
        return {}
    mailbox = {"SMTP_TLS": "none", "SMTP_MAILBOX": "true", "MAIL_DOMAINS": "*"} if found.get("mailbox") else {}
    return {"SMTP_HOST": host, "SMTP_PORT": port} | mailbox
