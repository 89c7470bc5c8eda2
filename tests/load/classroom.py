"""A course with followers: an editor publishes to all of them, and some of them look on live."""

import time
import uuid
from collections import Counter
from typing import Any

import gevent
import requests
from locust import FastHttpUser, User, between, constant, events, task
from target import WITHIN, target

FOLLOWERS = 50
READERS = 3
LINE = 1 << 62  # nothing that is yet to come is older


class Classroom:
    """The followers of one topic, and what each reader was told."""

    def __init__(self) -> None:
        self.topic = f"course-{uuid.uuid4().hex[:12]}"
        self.followers = [f"{self.topic}.{number}" for number in range(FOLLOWERS)]
        self.told: dict[str, Counter[str]] = {}
        self.last: dict[str, int] = {}
        self._free = self.followers[:READERS]

    def open(self) -> None:
        """Have everybody follow the topic, with an address for mail."""
        users = [{"id": id, "email": f"{id}@example.com"} for id in self.followers]
        target.call("POST", "/v1/users", {"users": users})
        target.call("POST", f"/v1/topics/{self.topic}/followers", {"users": self.followers})

    def seat(self) -> str | None:
        """A follower who is not looking on yet; None when all do."""
        return self._free.pop() if self._free else None

    def read(self, user: str, until: float) -> None:
        """Follow a user's feed live until the clock says so, from where the last line broke off."""
        told = self.told.setdefault(user, Counter())
        with target.follow(user, self.last.get(user, 0)) as stream:
            for event in stream:
                if event["event"] == "notification":
                    self.last[user] = int(event["id"])
                    told[event["data"]["id"]] += 1
                    _record(event["data"]["data"]["published_at"])
                if time.time() > until:
                    return

    def check(self) -> bool:
        """Whether every reader was told of everything that was published, once: what is missing comes at a new look."""
        published, good = set(target.accepted["notifications"]), True
        for user, told in self.told.items():
            deadline = time.monotonic() + WITHIN
            while published - told.keys() and time.monotonic() < deadline:
                with gevent.Timeout(2, False):
                    self.read(user, until=time.time() + 1)
            missing, twice = len(published - told.keys()), sum(many > 1 for many in told.values())
            print(f"reader told of {len(told)} of {len(published)}; missing: {missing}; twice: {twice}")
            good = good and not missing and not twice
        return good


classroom = Classroom()


def _record(published_at: float) -> None:
    events.request.fire(
        request_type="SSE",
        name="published → told live",
        response_time=(time.time() - published_at) * 1e3,
        response_length=0,
        exception=None,
        context={},
    )


class Editor(FastHttpUser):
    """Publishes to the topic: one request, an item in each feed, a mail to each follower."""

    fixed_count = 1
    wait_time = between(1, 2)

    @task
    def publish(self) -> None:
        """Tell all followers of something new."""
        body: dict[str, Any] = {
            "type": "lesson.published",
            "recipients": {"topics": [classroom.topic]},
            "channels": ["inbox", "email"],
            "data": {"title": "A new lesson", "body": "It is there.", "published_at": time.time()},
        }
        headers = {**target.headers, "Idempotency-Key": uuid.uuid4().hex}
        name = f"POST /v1/notifications to {FOLLOWERS}"
        for _ in range(100):
            with self.client.post(
                "/v1/notifications", json=body, headers=headers, name=name, catch_response=True
            ) as answer:
                if answer.status_code == 202:
                    target.accepted["notifications"].append(answer.json()["id"])
                    return
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
            gevent.sleep(0.3)


class Reader(User):
    """Looks on live, and comes back where the line breaks."""

    fixed_count = READERS
    wait_time = constant(0.5)

    def on_start(self) -> None:
        """Take a follower's place."""
        self.name = classroom.seat()

    @task
    def look_on(self) -> None:
        """Read until the line ends."""
        if self.name is None:
            gevent.sleep(1)
            return
        try:
            classroom.read(self.name, until=float("inf"))
        except (requests.RequestException, OSError):
            return  # the next look goes on from there
