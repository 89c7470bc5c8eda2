"""The learning platform announces a course to all its students, writes its own words, and sends a batch."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.journeys.house import House, house

STUDENTS = 2_000
TEMPLATE = {"key": "course_enrollment", "variables": {"course_name": "Tides", "course_url": "https://a.example/tides"}}

# What the passing of thirty seconds does to a worker that is dead.
LAPSE = text("UPDATE messages SET lease_until = clock_timestamp() - interval '1 s' WHERE state = 'running'")

# Each chunk of a bulk takes a third of a second more, so that there is a middle to be killed in.
SLOW = (
    "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END'",
    "CREATE TRIGGER slowly BEFORE UPDATE OF next_seq ON bulks FOR EACH ROW EXECUTE FUNCTION slowly()",
)

Look = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture
async def home(tmp_path: Path, database: str, redis_url: str, mailbox: Any) -> AsyncIterator[House]:
    mail = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port)}
    async with house(tmp_path, database, redis_url, **mail) as made:
        await made.start_api()
        yield made


@pytest.fixture
async def client(home: House) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {await home.key()}"}
    async with httpx.AsyncClient(base_url=home.url, headers=headers, timeout=60) as made:
        yield made


def students(count: int = STUDENTS) -> str:
    """The file that the platform exports: one student is there twice, one has no address."""
    file = io.StringIO()
    rows = csv.writer(file)
    rows.writerow(["to", "name", "locale"])
    rows.writerows([f"student{n}@example.org", f"Student {n}", "de" if n % 2 else ""] for n in range(count))
    rows.writerow(["STUDENT7@example.org", "the same", ""])
    rows.writerow(["nobody", "no address", ""])
    return file.getvalue()


async def posted(client: httpx.AsyncClient, path: str, body: Any = None) -> dict[str, Any]:
    answer = await client.post(path, json=body if body is not None else {})
    assert answer.status_code < 300, answer.text
    told: dict[str, Any] = answer.json()
    return told


def looking(client: httpx.AsyncClient, bulk: dict[str, Any]) -> Look:
    async def look() -> dict[str, Any]:
        told: dict[str, Any] = (await client.get(f"/v1/bulk/{bulk['id']}")).json()
        return told

    return look


async def announce(client: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    bulk = await posted(client, "/v1/emails/bulk", {"template": TEMPLATE, **more})
    answer = await client.put(
        f"/v1/bulk/{bulk['id']}/recipients", content=students(), headers={"Content-Type": "text/csv"}
    )
    told = answer.json()
    assert (told["added"], told["duplicates"], told["refused"]) == (STUDENTS, 1, 1), told
    assert told["errors"][0]["pointer"] == f"/lines/{STUDENTS + 3}/to"
    return await posted(client, f"/v1/bulk/{bulk['id']}/start")


def each_once(mailbox: Any, count: int = STUDENTS) -> None:
    recipients = [recipient for mail in mailbox.mails for recipient in mail.recipients]
    assert (len(recipients), len(set(recipients))) == (count, count)


async def test_a_course_is_announced_paused_corrected_and_resumed_with_live_counts(
    home: House, client: httpx.AsyncClient, mailbox: Any
) -> None:
    await home.start_worker()
    bulk = await announce(client, name="Tides begins", throttle="300/d")
    look = looking(client, bulk)

    async def some() -> Any:
        return (told := await look())["counts"].get("sent", 0) >= 300 and told

    told = await home.eventually(some, "the first three hundred are sent", 90)
    assert (told["status"], told["total"], sum(told["counts"].values())) == ("running", STUDENTS, STUDENTS)
    paused = await posted(client, f"/v1/bulk/{bulk['id']}/pause")
    assert paused["status"] == "paused"
    right = {"course_name": "Tides and Currents", "course_url": "https://a.example/tides"}
    corrected = await client.patch(f"/v1/bulk/{bulk['id']}", json={"variables": right, "throttle": "none"})
    assert corrected.status_code == 200, corrected.text
    assert (await look())["counts"]["sent"] == 300, "nothing goes while it is paused"
    await posted(client, f"/v1/bulk/{bulk['id']}/resume")

    async def done() -> Any:
        return (await look())["status"] == "completed"

    await home.eventually(done, "all are sent", 120)
    assert (await look())["counts"] == {"sent": STUDENTS}
    each_once(mailbox)
    corrected_mails = [mail for mail in mailbox.messages if "Tides and Currents" in mail["Subject"]]
    assert len(corrected_mails) == STUDENTS - 300


async def test_a_worker_killed_while_it_writes_the_mails_of_a_bulk_leaves_none_out_and_none_twice(
    home: House, client: httpx.AsyncClient, mailbox: Any, engine: AsyncEngine
) -> None:
    async with engine.begin() as connection:
        for statement in SLOW:
            await connection.execute(text(statement))
    await home.start_worker("doomed")
    bulk = await announce(client)
    look = looking(client, bulk)

    async def in_the_middle() -> Any:
        pending = (await look())["counts"].get("pending", 0)
        return 0 < pending < STUDENTS

    await home.eventually(in_the_middle, "the worker is in the middle of it", 60)
    home.kill("doomed")
    left = (await look())["counts"].get("pending", 0)
    async with engine.begin() as connection:
        await connection.execute(LAPSE)
    await home.start_worker("heir")

    async def quiet() -> Any:
        counts = (await look())["counts"]
        return counts if not {"pending", "queued", "sending"} & counts.keys() else None

    counts = await home.eventually(quiet, f"the heir does the rest ({left} were left)", 120)
    assert sum(counts.values()) == STUDENTS
    assert counts.keys() <= {"sent", "uncertain"}, "what was past its final dot is told, not guessed"
    recipients = [recipient for mail in mailbox.mails for recipient in mail.recipients]
    assert len(recipients) == len(set(recipients))
    assert len(recipients) >= counts["sent"]


async def test_a_teacher_publishes_a_german_welcome_and_a_batch_sends_what_can_be_sent(
    home: House, client: httpx.AsyncClient, mailbox: Any
) -> None:
    words = {"subject": "Willkommen, {{ name }}", "html": "<h1>Hallo {{ name }}</h1>", "text": "Hallo {{ name }}"}
    draft = await client.put("/v1/templates/welcome", json={"contents": {"de": words}, "note": "auf Deutsch"})
    assert draft.status_code == 200, draft.text
    seen = await client.post(
        "/v1/templates/welcome/preview",
        json={"version": 1, "locale": "de-AT", "variables": {"name": "<Ada>"}},
        headers={"Accept": "text/html"},
    )
    assert "Hallo &lt;Ada&gt;" in seen.text
    await posted(client, "/v1/templates/welcome/publish")
    await asyncio.sleep(1.1)  # what a process knows of a tenant's templates is at most a second old
    await home.start_worker()

    def letter(to: str, locale: str | None, **variables: str) -> dict[str, Any]:
        return {"to": to, "template": {"key": "welcome", "locale": locale, "variables": variables}}

    mails = [
        letter("ada@example.org", "de-AT", name="Ada"),
        letter("bob@example.org", "fr", name="Bob"),
        letter("nameless@example.org", "de"),
    ]
    told = await posted(client, "/v1/emails/batch", {"mode": "partial", "emails": mails})
    assert (told["accepted"], told["refused"]) == (2, 1)
    assert told["items"][2]["error"]["errors"][0]["pointer"] == "/emails/2/template/variables/name"
    await mailbox.wait(2, 60)
    assert {mail["Subject"] for mail in mailbox.messages} == {"Willkommen, Ada", "Welcome, Bob"}
