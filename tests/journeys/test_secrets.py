"""What a run logs, in both formats and with its tracebacks, holds no secret, no address and nothing that was mailed."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests.journeys.house import SECRET, House, house

WORDS = (
    *("ada.lovelace", "refused.person", "a-word-in-the-subject", "a-word-in-the-body", "a-word-in-the-variables"),
    *("grace.hopper", "a-word-in-a-notification", "a-word-in-a-job", "a-token-in-an-address"),
)
NOBODY = "http://127.0.0.1:9"  # where nobody listens: calls fail, and say so
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


async def ask(client: httpx.AsyncClient, key: str) -> str:
    """Have a job, a notification, a webhook and the console do what they do; the webhook's secret."""

    async def send(method: str, path: str, body: Any) -> dict[str, Any]:
        answer = await client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})
        assert answer.is_success, answer.text
        return answer.json() if answer.content else {}

    hook = await send("POST", "/v1/webhooks", {"url": f"{NOBODY}/{WORDS[8]}", "events": ["email.sent"]})
    await send("PUT", "/v1/organizations/acme", {"plan": "team", "trust_score": 80})
    wish = {"team_size": 8, "topic": WORDS[7], "setting": "remote"}
    await send("POST", "/v1/jobs", {"type": "activities.generate", "organization_id": "acme", "input": wish})
    await send("PUT", "/v1/users/grace", {"email": f"{WORDS[5]}@example.org"})
    who = {"recipients": {"users": ["grace"]}, "channels": ["inbox", "email"]}
    await send("POST", "/v1/notifications", {"type": "note", "data": {"title": WORDS[6]}, **who})
    for given in (key, key[:-1]):
        await client.post("/console/sign-in", data={"key": given})
    await client.get(f"/console/find?q={WORDS[0]}@example.org")
    return str(hook["secret"])


async def test_a_run_logs_no_secret_no_address_and_nothing_of_a_mail(
    tmp_path: Path, database: str, redis_url: str, mailbox: Any
) -> None:
    smtp = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "TASK_SIGNING_KEYS": SIGNING, **KEYS}
    smtp |= {"LLM_BASE_URL": f"{NOBODY}/v1", "OUTBOUND_PRIVATE": "true"}
    postgres = await asyncpg.connect(database)
    async with (
        house(tmp_path, database, redis_url, **smtp) as home,
        httpx.AsyncClient(base_url=home.url, timeout=60) as client,
    ):
        key = await home.key()
        await home.start_api()
        home.environ["LOG_FORMAT"] = "pretty"
        await home.start_worker()
        assert await post(home, client, key) == [202, 202, 422, 401, 404, 401]
        hook = await ask(client, key)
        assert (await client.post("/v1/emails", json=MAILS[0], headers={"Authorization": f"Bearer {key}"})).is_success
        await mailbox.wait(4, timeout=60)
        await home.eventually(lambda: logged(home, "worker", "the model cannot be reached"), "the job trips")
        await home.eventually(lambda: logged(home, "worker", "webhooks.deliver"), "the webhook trips")
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
    secrets = *WORDS, *KEYS.values(), SIGNING, SECRET, password, key[8:], hook.removeprefix("whsec_")
    found = [word for word in secrets if word in everything]
    assert not found, [line for line in everything.splitlines() if any(word in line for word in found)][:5]


async def logged(home: House, name: str, *words: str) -> bool:
    await asyncio.sleep(0.2)
    return any(word in home.log(name) for word in words)
