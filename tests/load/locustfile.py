"""Load as apps make it: people sign up, reset passwords, take courses, look on live.

    python3 start run locust -f tests/load/locustfile.py --headless -u 20 -r 10 -t 15s

drives the service that `callboard up` runs here. For another one give `--host` and put a key into CALLBOARD_KEY. Of the
users one publishes to fifty followers, three look on live, the others send: welcome mails, password resets on the
critical lane, requests sent twice with one idempotency key, jobs, polling, lists. What is not taken is asked for again
with the same key, as an app does. After the load everything accepted must be settled, and each reader told of each
publication once; the run ends with 1 where not.
"""

import random
import time
import uuid
from typing import Any

import gevent
from classroom import Editor, Reader, classroom
from locust import FastHttpUser, between, events, task
from locust.env import Environment
from target import WITHIN, target

__all__ = ["App", "Editor", "Reader"]

ORGANIZATION = "load"
WISH = {"team_size": 8, "topic": "our launch", "duration_minutes": 30, "setting": "remote", "goals": ["trust"]}
AGAIN = {0, 409, 429, 500, 502, 503, 504}  # 0: the connection was lost
JOBS = 1_000_000  # of the organization, a month


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Find the service and its templates; have an organization that may ask for jobs, and a course with followers."""
    target.find(environment.host)
    environment.host = target.host
    for template in target.call("GET", "/v1/templates")["items"]:
        target.templates[template["key"]] = template["required"]
    plan = {"plan": "business", "trust_score": 80, "job_limit": JOBS}
    target.call("PUT", f"/v1/organizations/{ORGANIZATION}", plan)
    classroom.open()


@events.test_stop.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Everything that was accepted has come to an end, and the readers have seen it."""
    before, environment.process_exit_code = environment.process_exit_code, 1  # also where judging itself fails
    settled = target.settle()
    told = classroom.check()
    if settled and told:
        environment.process_exit_code = before


def mail(template: str, **fields: Any) -> dict[str, Any]:
    """The body of `POST /v1/emails` for a new person."""
    person = uuid.uuid4().hex[:12]
    variables = {
        name: f"https://example.com/{person}" if "url" in name or "link" in name else person
        for name in target.templates[template]
    }
    return {"to": f"{person}@example.com", "template": {"key": template, "variables": variables}, **fields}


class App(FastHttpUser):
    """An app with users of its own; it waits a moment between two of them."""

    wait_time = between(0.05, 0.2)

    def post(self, kind: str, body: dict[str, Any], name: str, idempotency_key: str | None = None) -> dict[str, Any]:
        """POST until it is accepted, always with one idempotency key; each refusal is a failure in the statistics."""
        headers = {**target.headers, "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        give_up = time.monotonic() + WITHIN
        while True:
            with self.client.post(f"/v1/{kind}", json=body, headers=headers, name=name, catch_response=True) as answer:
                if answer.status_code == 202:
                    made: dict[str, Any] = answer.json()
                    target.accepted[kind].append(made["id"])
                    return made
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
                if answer.status_code not in AGAIN or time.monotonic() > give_up:
                    return {}
            gevent.sleep(0.3)

    def look(self, kind: str) -> None:
        """Ask what became of something."""
        if target.accepted[kind]:
            id = random.choice(target.accepted[kind])
            self.client.get(f"/v1/{kind}/{id}", headers=target.headers, name=f"GET /v1/{kind}/{{id}}")

    @task(5)
    def sign_up(self) -> None:
        """Somebody signs up and gets a welcome mail."""
        self.post("emails", mail("welcome"), "POST /v1/emails welcome")

    @task(3)
    def reset_password(self) -> None:
        """Somebody waits for a password reset: the critical lane."""
        self.post("emails", mail("password_reset", lane="critical"), "POST /v1/emails password_reset")

    @task(2)
    def retry(self) -> None:
        """The app did not get the answer and asks again: the same mail, never a second one."""
        body, idempotency_key = mail("welcome"), uuid.uuid4().hex
        first = self.post("emails", body, "POST /v1/emails first try", idempotency_key)
        headers = {**target.headers, "Idempotency-Key": idempotency_key}
        name = "POST /v1/emails again"
        with self.client.post("/v1/emails", json=body, headers=headers, name=name, catch_response=True) as again:
            if first and again.status_code == 202 and again.json()["id"] != first["id"]:
                again.failure("a repeated request made a second mail")

    @task(1)
    def ask_for_activities(self) -> None:
        """A team lead wants something made: a job."""
        body = {"type": "activities.generate", "input": WISH, "organization_id": ORGANIZATION}
        self.post("jobs", body, "POST /v1/jobs")

    @task(6)
    def poll(self) -> None:
        """The app asks what became of a mail or a job."""
        self.look(random.choice(["emails", "emails", "jobs"]))

    @task(1)
    def look_around(self) -> None:
        """Somebody looks at the newest mails."""
        self.client.get("/v1/emails?limit=20", headers=target.headers, name="GET /v1/emails")
