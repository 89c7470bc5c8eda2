"""The service under load: where it is, what it took on, and whether it kept its word. Asked outside the statistics."""

import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import requests

WITHIN = float(os.environ.get("CALLBOARD_SETTLE_SECONDS", "60"))
REMEMBERED = 2_000  # of each kind: what is polled, and waited for at the end
MAIL_ENDS = {"sent", "delivered", "bounced", "complained", "canceled", "expired", "suppressed", "uncertain"}
ENDS = {"emails": MAIL_ENDS, "jobs": {"completed"}, "notifications": {"completed"}}
"""By kind: the states in which nothing is left to do."""


class Target:
    """One service, one key."""

    def __init__(self) -> None:
        self.host = self.key = ""
        self.accepted = {kind: deque[str](maxlen=REMEMBERED) for kind in ENDS}
        self.templates: dict[str, list[str]] = {}

    def find(self, host: str | None) -> None:
        """Take host and key from the command line and the environment, else from the service that runs here."""
        file = Path(os.environ.get("CALLBOARD_DATA", ".callboard")) / "up.json"
        here = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.host = host or here.get("api", "")
        self.key = os.environ.get("CALLBOARD_KEY") or here.get("key", "")
        if not self.host or not self.key:
            sys.exit("No service found: start one with `python3 start up`, or give --host and CALLBOARD_KEY.")

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.key}"}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request and its answer; asked again while the service is away."""
        give_up = time.monotonic() + WITHIN
        while True:
            try:
                answer = requests.request(method, f"{self.host}{path}", json=body, headers=self.headers, timeout=10)
                if answer.status_code != 503 or time.monotonic() > give_up:
                    answer.raise_for_status()
                    return answer.json() if answer.content else None
            except (requests.ConnectionError, requests.Timeout):
                if time.monotonic() > give_up:
                    raise
            gevent.sleep(0.2)

    def settle(self) -> bool:
        """Wait until nothing that was accepted is on its way; whether all of it came to a good end."""
        good = True
        for kind, ends in ENDS.items():
            waiting, states, deadline = set(self.accepted[kind]), Counter[str](), time.monotonic() + WITHIN
            while waiting and time.monotonic() < deadline:
                for id in list(waiting):
                    status = self.call("GET", f"/v1/{kind}/{id}")["status"]
                    if status in ends or status == "failed":
                        waiting.discard(id)
                        states[status] += 1
                gevent.sleep(0.2)
            many = len(self.accepted[kind])
            print(f"{kind} accepted and remembered: {many}; settled: {dict(states)}; not settled: {len(waiting)}")
            good = good and not waiting and not states["failed"]
        return good

    @contextmanager
    def follow(self, user: str, last: int) -> Iterator[Iterator[dict[str, Any]]]:
        """A user's live feed from after `last` on, as a browser has it: with a token, not with the key."""
        token = self.call("POST", f"/v1/users/{user}/stream-token", {"ttl": 300})["token"]
        parameters = {"token": token, "last_event_id": str(last)}
        url = f"{self.host}/v1/users/{user}/stream"
        with requests.get(url, params=parameters, stream=True, timeout=(10, 60)) as answer:
            answer.raise_for_status()
            yield _events(answer.iter_lines(chunk_size=1, decode_unicode=True))


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    event: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name in ("event", "id"):
            event[name] = value
        elif name == "data":
            event[name] = json.loads(value)
        elif not line and event:
            yield event
            event = {}


target = Target()
