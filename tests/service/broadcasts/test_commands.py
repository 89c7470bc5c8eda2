"""A bulk that is canceled: what waits goes, what is past its point of no return stays where it ends."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from callboard_workers.ledger import State
from callboard_workers.policy import RetryAt
from callboard_workers.runtime import Runtime
from tests.service.broadcasts.test_api import ask, command, expand, people, send_admitted
from tests.service.conftest import working
from tests.service.emails.posting import execute_sql

DOUBTFUL = "UPDATE messages SET state = 'uncertain', finished_at = :then WHERE id = :id"
STATES = "SELECT state FROM messages WHERE id = :id"


async def test_a_canceled_bulk_writes_and_sends_no_more(
    api: httpx.AsyncClient, mailbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.broadcasts.dispatch.CHUNK", 5)
    monkeypatch.setattr("service.broadcasts.dispatch.WINDOW", 5)
    bulk = await ask(api, recipients=people(12))
    await expand(bulk)
    await send_admitted(bulk, most=2)
    for _ in range(2):
        canceled = await command(api, bulk, "cancel")
        assert (canceled.status_code, canceled.json()["counts"]) == (200, {"sent": 2, "canceled": 10})
    await expand(bulk)
    assert await send_admitted(bulk) == 0
    assert len(mailbox.mails) == 2
    assert (await command(api, bulk, "resume")).status_code == 409


async def test_what_was_past_its_point_of_no_return_is_not_sent_again_once_its_bulk_is_canceled(
    api: httpx.AsyncClient,
) -> None:
    bulk = await ask(api, recipients=people(3), uncertain="resend")
    await expand(bulk)
    async with working(Runtime.of_loop()) as worker:
        await worker.ledger.admit([f"bulk:{UUID(bulk['task_id'])}"])
        rows = await execute_sql("SELECT id FROM messages WHERE actor = 'emails.send_email' ORDER BY id")
        claims = [claim for row in rows if (claim := await worker.ledger.claim(row["id"], "w"))]
        for claim in claims:
            await worker.ledger.fence(claim)
    doubted, doubtful, refused = claims
    then = datetime.now(UTC) - timedelta(days=1)
    await execute_sql(DOUBTFUL, id=doubted.id, then=then)
    canceled = await command(api, bulk, "cancel")
    assert (canceled.status_code, canceled.json()["counts"]) == (200, {"uncertain": 1, "sending": 2})
    (row,) = await execute_sql("SELECT finished_at FROM messages WHERE id = :id", id=doubted.id)
    assert row["finished_at"] == then
    await execute_sql(DOUBTFUL, id=doubtful.id, then=then)
    async with working(Runtime.of_loop()) as worker:
        later = RetryAt(delay=0, reason="451 try again later", definite=True)
        assert await worker.ledger.settle(refused, later, fenced=True) is State.CANCELED
        assert not (await worker.ledger.sweep(lambda messages: None)).resent
    states = [(await execute_sql(STATES, id=claim.id))[0]["state"] for claim in claims]
    assert states == ["uncertain", "uncertain", "canceled"]
