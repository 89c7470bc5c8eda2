"""Load from an app that signs people up: welcome mails, password resets, retried requests, polling, lists.

    python3 start run locust -f tests/load/locustfile.py --headless -u 20 -r 10 -t 15s

drives the service that `callboard up` runs here. For another one give `--host` and put a key into CALLBOARD_KEY; it
needs the scopes to send and read mail. After the load it waits until every accepted mail is settled and ends with 1 if
one is not.
"""

import json
import os
import random
import sys
import time
import uuid
from collections import Counter, deque
from pathlib import Path
from typing import Any

import gevent
import requests
from locust import FastHttpUser, between, events, task
from locust.env import Environment

SETTLED = {"sent", "delivered", "bounced", "complained", "failed", "canceled", "expired", "suppressed", "uncertain"}
SETTLE_WITHIN = float(os.environ.get("CALLBOARD_SETTLE_SECONDS", "60"))
REMEMBERED = 2_000  # mails whose status is polled and waited for

accepted: deque[str] = deque(maxlen=REMEMBERED)
required: dict[str, list[str]] = {}
key = ""


def running_service() -> dict[str, str]:
    """What `callboard up` wrote about itself; empty when it does not run here."""
    file = Path(os.environ.get("CALLBOARD_DATA", ".callboard")) / "up.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


@events.init.add_listener
def find_service(environment: Environment, **_: Any) -> None:
    """Take host and key from the command line and the environment, else from the service that runs here."""
    global key  # noqa: PLW0603 - a locust file is one process with one target
    here = running_service()
    environment.host = environment.host or here.get("api")
    key = os.environ.get("CALLBOARD_KEY") or here.get("key", "")
    if not environment.host or not key:
        sys.exit("No service found: start one with `python3 start up`, or give --host and CALLBOARD_KEY.")


@events.test_start.add_listener
def learn_templates(environment: Environment, **_: Any) -> None:
    """Ask the service which variables its templates need."""
    for template in call(environment, "/v1/templates")["items"]:
        required[template["key"]] = template["required"]


@events.test_stop.add_listener
def wait_until_settled(environment: Environment, **_: Any) -> None:
    """Count the states of the remembered mails once none is on its way any more."""
    waiting, states, deadline = set(accepted), Counter[str](), time.monotonic() + SETTLE_WITHIN
    while waiting and time.monotonic() < deadline:
        for email_id in list(waiting):
            status = call(environment, f"/v1/emails/{email_id}")["status"]
            if status in SETTLED:
                waiting.discard(email_id)
                states[status] += 1
        gevent.sleep(0.2)
    print(f"accepted and remembered: {len(accepted)}; settled: {dict(states)}; not settled: {len(waiting)}")
    if waiting or states["failed"]:
        environment.process_exit_code = 1


def call(environment: Environment, path: str) -> Any:
    """GET `path` outside the statistics."""
    answer = requests.get(f"{environment.host}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=10)
    answer.raise_for_status()
    return answer.json()


def email_from(template: str, **fields: Any) -> dict[str, Any]:
    """The body of `POST /v1/emails` for a new person."""
    person = uuid.uuid4().hex[:12]
    variables = {
        name: f"https://example.com/{person}" if "url" in name or "link" in name else person
        for name in required[template]
    }
    return {"to": f"{person}@example.com", "template": {"key": template, "variables": variables}, **fields}


class App(FastHttpUser):
    """An app with users of its own; it waits a moment between two of them."""

    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        """Every request carries the key."""
        self.headers = {"Authorization": f"Bearer {key}"}

    def post(self, body: dict[str, Any], idempotency_key: str, name: str) -> dict[str, Any]:
        """POST one mail; anything but 202 is a failure."""
        headers = {**self.headers, "Idempotency-Key": idempotency_key}
        with self.client.post("/v1/emails", json=body, headers=headers, name=name, catch_response=True) as answer:
            if answer.status_code != 202:
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
                return {}
            email: dict[str, Any] = answer.json()
            accepted.append(email["id"])
            return email

    @task(5)
    def sign_up(self) -> None:
        """Somebody signs up and gets a welcome mail."""
        self.post(email_from("welcome"), uuid.uuid4().hex, "POST /v1/emails welcome")

    @task(3)
    def reset_password(self) -> None:
        """Somebody waits for a password reset: the critical lane."""
        self.post(email_from("password_reset", lane="critical"), uuid.uuid4().hex, "POST /v1/emails password_reset")

    @task(2)
    def retry(self) -> None:
        """The app did not get the answer and asks again: the same mail, never a second one."""
        body, idempotency_key = email_from("welcome"), uuid.uuid4().hex
        first = self.post(body, idempotency_key, "POST /v1/emails first try")
        headers = {**self.headers, "Idempotency-Key": idempotency_key}
        name = "POST /v1/emails again"
        with self.client.post("/v1/emails", json=body, headers=headers, name=name, catch_response=True) as again:
            if first and again.status_code == 202 and again.json()["id"] != first["id"]:
                again.failure("a repeated request made a second mail")

    @task(6)
    def poll(self) -> None:
        """The app asks what became of a mail."""
        if accepted:
            self.client.get(f"/v1/emails/{random.choice(accepted)}", headers=self.headers, name="GET /v1/emails/{id}")

    @task(1)
    def look_around(self) -> None:
        """Somebody looks at the newest mails."""
        self.client.get("/v1/emails?limit=20", headers=self.headers, name="GET /v1/emails")
