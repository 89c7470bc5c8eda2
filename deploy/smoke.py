"""Smoke test of the composed stack: `docker compose up --build --wait`, then `python3 deploy/smoke.py`.

Sends a mail and finds it in Mailpit and in Flower; then kills the worker's container and Valkey's while mail is being
accepted, starts them again, and counts that every accepted mail arrived once. Needs Python 3.11 and docker.
`DOCKER` names another docker command; API_PORT, MAILPIT_PORT, FLOWER_PORT and FLOWER_PASSWORD are compose.yaml's.
"""

import base64
import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]
DOCKER = shlex.split(os.environ.get("DOCKER", "docker"))
API = f"http://127.0.0.1:{os.environ.get('API_PORT', '8000')}"
MAILPIT = f"http://127.0.0.1:{os.environ.get('MAILPIT_PORT', '8025')}"
FLOWER = f"http://127.0.0.1:{os.environ.get('FLOWER_PORT', '5555')}"
OPERATOR = f"callboard:{os.environ.get('FLOWER_PASSWORD', 'development-only')}"
MAILS = 200
PATIENCE = 120.0  # seconds for what was killed to be back and to have caught up


def main() -> int:
    """Run every step; 1 at the first that fails, with what to look at."""
    try:
        key = new_key()
        first = seen_everywhere(key)
        once_each(key, first)
    except (AssertionError, OSError, subprocess.CalledProcessError) as error:
        print(f"✗ {error}\n  Look at `docker compose ps` and `docker compose logs api worker`.", file=sys.stderr)
        return 1
    print("✓ the stack keeps its promise")
    return 0


def new_key() -> str:
    """A key of a tenant of this run's own."""
    out = compose("exec", "-T", "api", "callboard", "keys", "create", "--tenant", f"smoke-{time.time_ns()}")
    key = next(word for word in out.split() if word.startswith("cb_live_"))
    print("✓ made a key")
    return key


def seen_everywhere(key: str) -> str:
    """Send one mail and find it at the API, in Mailpit and in Flower; its address."""
    login = {"Authorization": f"Basic {base64.b64encode(OPERATOR.encode()).decode()}"}
    until(lambda: bool(get(f"{FLOWER}/api/workers?refresh=1", login)), "Flower knows the worker")
    address = f"first-{time.time_ns()}@example.com"
    sent = post(key, address)
    until(lambda: get(f"{API}/v1/emails/{sent['id']}", bearer(key))["status"] == "sent", "the mail is sent")
    until(lambda: arrived()[address] == 1, "the mail is in Mailpit")
    print("✓ sent a mail, Mailpit has it")
    until(
        lambda: get(f"{FLOWER}/api/task/info/{sent['task_id']}", login)["state"] == "SUCCESS", "Flower shows the task"
    )
    print("✓ Flower shows its task")
    return address


def once_each(key: str, first: str) -> None:
    """Kill the worker and Valkey while mail is accepted; every accepted mail arrives once."""
    addresses = [f"mail-{number}-{time.time_ns()}@example.com" for number in range(MAILS)]
    for number, address in enumerate(addresses):
        if number == MAILS // 4:
            compose("kill", "worker")
        if number == MAILS // 2:
            compose("kill", "valkey")
        post(key, address)
        show(f"accepted {number + 1} of {MAILS}")
    print("✓ accepted all of them without a worker and without Valkey")
    compose("up", "-d", "--wait", "valkey", "worker")
    until(lambda: set(addresses) <= arrived().keys(), "every mail has arrived", progress=True)
    twice = [address for address, count in arrived().items() if count > 1 and address in {first, *addresses}]
    assert not twice, f"these came twice: {twice}"
    print(f"✓ all {MAILS} arrived, each once")


def post(key: str, address: str) -> dict[str, Any]:
    """Send a mail; 202 or an error."""
    body = json.dumps({"to": address, "subject": "Smoke", "text": "Is it there?"}).encode()
    headers = {**bearer(key), "Content-Type": "application/json", "Idempotency-Key": address}
    with urllib.request.urlopen(urllib.request.Request(f"{API}/v1/emails", body, headers), timeout=30) as answer:
        assert answer.status == 202, answer.status
        accepted: dict[str, Any] = json.load(answer)
    return accepted


def arrived() -> Counter[str]:
    """How often Mailpit has a mail to each address."""
    found = get(f"{MAILPIT}/api/v1/messages?limit=10000", {})["messages"]
    recipients = [to for message in found for to in message["To"]]
    return Counter(to["Address"] if isinstance(to, dict) else to for to in recipients)


def get(url: str, headers: dict[str, str]) -> Any:
    """The JSON at an address."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return json.load(answer)


def bearer(key: str) -> dict[str, str]:
    """The header that bears a key."""
    return {"Authorization": f"Bearer {key}"}


def until(condition: Callable[[], bool], what: str, *, progress: bool = False) -> None:
    """Wait until something holds. Raises AssertionError when it does not in time."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if condition():
                return
        except (urllib.error.URLError, ConnectionError):
            pass  # not there yet, or not again
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        if progress:
            show(f"{len(arrived())} mails in Mailpit")
        time.sleep(0.5)


def show(progress: str) -> None:
    """How far it is, where somebody looks on: the next line takes its place."""
    if sys.stdout.isatty():
        print(f"  {progress}\r", end="", flush=True)


def compose(*arguments: str) -> str:
    """Run `docker compose`; what it printed."""
    done = subprocess.run(
        [*DOCKER, "compose", *arguments], cwd=FOLDER, check=True, capture_output=True, text=True, timeout=300
    )
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main())
