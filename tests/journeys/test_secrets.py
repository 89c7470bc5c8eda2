"""What a run logs, in both formats and with its tracebacks, holds no secret, no address and nothing that was mailed."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests.journeys.house import SECRET, House, house

WORDS = ("ada.lovelace", "refused.person", "a-word-in-the-subject", "a-word-in-the-body", "a-word-in-the-variables")
KEYS = {"SMTP_PASSWORD": "the-password-to-the-mail-server", "LLM_API_KEY": "the-key-to-the-model"}
SIGNING = "the-key-that-signs-tasks"
MAILS: list[dict[str, Any]] = [
    {"to": "Ada <ada.lovelace@example.org>", "subject": WORDS[2], "text": WORDS[3], "headers": {"X-Note": WORDS[3]}},
    {"to": "refused.person@example.org", "template": {"key": "welcome", "variables": {"name": WORDS[4]}}},
    {"to": "not an address of ada.lovelace@example.org, at all", "subject": WORDS[2], "text": WORDS[3]},
]


async def post(home: House, client: httpx.AsyncClient, key: str) -> list[int]:
    headers = {"Authorization": f"Bearer {key}"}
    answers = [await client.post("/v1/emails", json=mail, headers=headers) for mail in MAILS]
    refused = [await client.get(f"/v1/emails?key={key}"), await client.get(f"/v1/{key}", headers=headers)]
    unknown = await client.get("/v1/emails", headers={"Authorization": f"Bearer {key[:-1]}"})
    return [answer.status_code for answer in (*answers, *refused, unknown)]


async def test_a_run_logs_no_secret_no_address_and_nothing_of_a_mail(
    tmp_path: Path, database: str, redis_url: str, mailbox: Any
) -> None:
    smtp = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "TASK_SIGNING_KEYS": SIGNING, **KEYS}
    postgres = await asyncpg.connect(database)
    async with house(tmp_path, database, redis_url, **smtp) as home, httpx.AsyncClient(base_url=home.url) as client:
        key = await home.key()
        await home.start_api()
        home.environ["LOG_FORMAT"] = "pretty"
        await home.start_worker()
        assert await post(home, client, key) == [202, 202, 422, 401, 404, 401]
        await mailbox.wait(2, timeout=60)
        # Tracebacks: nobody finds the table that mails are in, neither who stores them nor who would send them.
        await post(home, client, key)
        await postgres.execute("ALTER TABLE emails RENAME TO elsewhere")
        assert (await post(home, client, key))[0] >= 500
        await home.eventually(lambda: logged(home, "worker", "Traceback", "UndefinedTable"), "the worker trips")
        await home.eventually(lambda: logged(home, "api", "UndefinedTable"), "the API trips")
        password = urlsplit(database).password or ""
        everything = home.log("api") + home.log("worker")
    await postgres.close()
    assert len(everything) > 1000
    found = [word for word in (*WORDS, *KEYS.values(), SIGNING, SECRET, password, key[8:]) if word in everything]
    assert not found, [line for line in everything.splitlines() if any(word in line for word in found)][:5]


async def logged(home: House, name: str, *words: str) -> bool:
    await asyncio.sleep(0.2)
    return any(word in home.log(name) for word in words)
