"""What a person or a program needs to know about a running `up`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from service.dev.postgres import write_private

BODY = '{"to": "ada@example.org", "subject": "Hello", "text": "It works."}'


@dataclass(frozen=True, slots=True)
class Facts:
    """``mailbox`` is None when there is none; ``console`` signs in; ``smtp`` is host:port; ``key`` is the live one."""

    api: str
    console: str
    mailbox: str | None
    smtp: str
    key: str
    test_key: str
    database_url: str
    redis_url: str
    pid: int

    def write(self, data: Path) -> None:
        """``up.json``, which is there as long as everything is, and ``key``, for a shell: ``$(cat .callboard/key)``."""
        write_private(data / "key", self.key)
        write_private(data / "up.json", json.dumps(asdict(self), indent=2))

    def rows(self) -> dict[str, str]:
        """What to show, in order."""
        rows = {"API": self.api, "Docs": f"{self.api}/schema"}
        rows["Console"] = self.console
        rows["Mailbox"] = self.mailbox or f"none: real mail goes out through {self.smtp}"
        return rows | {"Live key": self.key, "Test key": self.test_key}

    def curl(self) -> str:
        """Two lines to paste, which send a mail."""
        return (
            f"curl {self.api}/v1/emails -H 'Authorization: Bearer {self.key}' \\\n"
            f"  -H 'Content-Type: application/json' -d '{BODY}'"
        )
