"""Endpoints over HTTP: made, changed, rotated, tried out; and nothing of another tenant's."""

import asyncio
import dataclasses
from typing import Any

import httpx
import pytest

from service.settings import Settings
from tests.service.conftest import MakeKey, client_of
from tests.service.egress.scripted import reply
from tests.service.webhooks.conftest import OpenDesk, Sql
from tests.service.webhooks.standard import good, verified

PUBLIC = {"url": "https://1.1.1.1/hook"}


async def test_an_endpoint_is_made_with_a_secret_that_is_told_once(api: httpx.AsyncClient, sql: Sql) -> None:
    headers = {"Idempotency-Key": "first"}
    made = await api.post("/v1/webhooks", json=PUBLIC | {"events": ["email.sent"]}, headers=headers)
    assert made.status_code == 201, made.text
    told = made.json()
    assert made.headers["location"] == f"/v1/webhooks/{told['id']}"
    assert made.headers["cache-control"] == "no-store"
    assert (told["url"], told["events"], told["enabled"]) == ("https://1.1.1.1/hook", ["email.sent"], True)
    again = await api.post("/v1/webhooks", json=PUBLIC | {"events": ["email.sent"]}, headers=headers)
    assert (again.status_code, again.json()["id"], again.json()["secret"]) == (201, told["id"], None)
    seen = (await api.get(f"/v1/webhooks/{told['id']}")).json()
    assert "secret" not in seen
    assert seen == {name: value for name, value in told.items() if name != "secret"}
    for table in ("webhook_endpoints", "idempotency_keys"):
        rows = await sql(f"SELECT t::text AS row FROM {table} t")
        assert rows, "there is something to look into"
        assert all(told["secret"] not in row["row"] and told["secret"][6:20] not in row["row"] for row in rows)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"url": "http://169.254.169.254/"}, ["/url"]),
        ({"url": "gopher://example.com/"}, ["/url"]),
        ({"url": "https://u:p@example.com/"}, ["/url"]),
        ({"url": "", "events": ["email.exploded"], "secret": "short"}, ["/url", "/events/0", "/secret"]),
        (PUBLIC | {"events": ["email.sent", "email.sent"]}, ["/events"]),
        (PUBLIC | {"secret": ""}, ["/secret"]),
        (PUBLIC | {"description": "a\nb"}, ["/description"]),
        (PUBLIC | {"headers": {"Host": "evil"}}, ["/headers"]),
        ({}, ["/url"]),
    ],
)
async def test_every_fault_is_named_at_once(api: httpx.AsyncClient, body: dict[str, Any], pointers: list[str]) -> None:
    answer = await api.post("/v1/webhooks", json=body)
    assert answer.status_code == 422, answer.text
    assert [fault["pointer"] for fault in answer.json()["errors"]] == pointers


async def test_outside_of_development_nothing_inside_is_an_endpoint(settings: Settings, make_key: MakeKey) -> None:
    async with client_of(dataclasses.replace(settings, outbound_private=False)) as api:
        api.headers["Authorization"] = f"Bearer {await make_key()}"
        for url in (
            "http://127.0.0.1/",
            "http://localhost/",
            "http://2130706433/",
            "http://①②⑦.⓪.⓪.①/",
            "http://[::1]/",
        ):
            answer = await api.post("/v1/webhooks", json={"url": url})
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/url"), url


async def test_one_url_is_one_endpoint_and_of_each_mode_its_own(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    first = (await api.post("/v1/webhooks", json=PUBLIC)).json()
    second = await api.post("/v1/webhooks", json={"url": "https://1.1.1.1:443/hook"})
    assert (second.status_code, second.json()["code"]) == (409, "webhook-exists")
    assert first["id"] in second.json()["detail"]
    test = {"Authorization": f"Bearer {await make_key(mode='test')}"}
    assert (await api.post("/v1/webhooks", json=PUBLIC, headers=test)).json()["mode"] == "test"


async def test_what_is_left_out_of_a_change_stays(api: httpx.AsyncClient) -> None:
    made = (await api.post("/v1/webhooks", json=PUBLIC | {"description": "one"})).json()
    place = f"/v1/webhooks/{made['id']}"
    changed = await api.patch(place, json={"events": [], "url": "https://1.0.0.1/x"})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["events"], changed.json()["url"], changed.json()["description"]) == (
        [], "https://1.0.0.1/x", "one",
    )  # fmt: skip
    off = (await api.patch(place, json={"enabled": False})).json()
    assert (off["enabled"], off["disabled_reason"]) == (False, "It was disabled by hand.")
    on = (await api.patch(place, json={"enabled": True})).json()
    assert (on["enabled"], on["disabled_reason"]) == (True, None)
    assert (await api.delete(place)).status_code == 204
    assert (await api.get(place)).json()["code"] == "unknown-webhook"


async def test_an_endpoint_of_another_tenant_is_not_there(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    made = (await api.post("/v1/webhooks", json=PUBLIC)).json()
    place = f"/v1/webhooks/{made['id']}"
    api.headers["Authorization"] = f"Bearer {await make_key(tenant='others')}"
    answers = [
        await api.get(place),
        await api.patch(place, json={"enabled": False}),
        await api.delete(place),
        await api.post(f"{place}/rotate", json={}),
        await api.post(f"{place}/test"),
        await api.get(f"{place}/deliveries"),
        await api.post(f"{place}/redeliver", json={"since": "2026-01-01T00:00:00Z"}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7
    assert (await api.get("/v1/webhooks")).json()["items"] == []


async def test_a_secret_is_rotated_without_a_body(open_desk: OpenDesk) -> None:
    async with open_desk(reply(200)) as desk:
        made = await desk.endpoint()
        rotated = await desk.api.post(f"/v1/webhooks/{made['id']}/rotate")
        assert rotated.status_code == 200, rotated.text
        assert rotated.json()["secret"] != made["secret"]
        assert rotated.json()["previous_secret_until"] is not None
        wrong = await desk.api.post(f"/v1/webhooks/{made['id']}/rotate", json={"overlap": -1})
        assert wrong.status_code == 422


async def test_a_rotated_secret_overlaps_the_one_before(open_desk: OpenDesk, sql: Sql) -> None:
    async with open_desk(reply(200)) as desk:
        made = await desk.endpoint()
        rotated = await desk.api.post(f"/v1/webhooks/{made['id']}/rotate", json={"overlap": 600})
        assert rotated.status_code == 200, rotated.text
        assert rotated.json()["previous_secret_until"] is not None
        await desk.happen("sent")
        await desk.work()
        await sql("UPDATE webhook_endpoints SET previous_until = clock_timestamp() - interval '1 s'")
        await desk.happen("sent")
        await desk.work()
    during, after = desk.server.seen
    new, old = rotated.json()["secret"], made["secret"]
    assert (good(during, new), good(during, old)) == (True, True)
    assert (good(after, new), good(after, old)) == (True, False)


async def test_a_test_event_goes_to_its_endpoint_alone_and_is_told_when_it_arrived(open_desk: OpenDesk) -> None:
    async with open_desk(reply(204)) as desk:
        quiet, other = await desk.endpoint("/quiet", events=[]), await desk.endpoint("/other")
        accepted = await desk.api.post(f"/v1/webhooks/{quiet['id']}/test")
        assert (accepted.status_code, accepted.json()["status"]) == (202, "pending")
        await desk.work()
        [seen] = desk.server.seen
        assert seen.path == "/quiet"
        assert verified(seen, quiet["secret"])["type"] == "webhook.test"
        assert await desk.deliveries(other) == []
        told = (await desk.api.get(accepted.headers["location"])).json()
    assert (told["status"], told["last_status"], told["history"][0]["status"]) == ("delivered", 204, 204)
    assert told["payload"]["data"]["endpoint_id"] == quiet["id"]


async def test_of_many_that_ask_for_one_url_at_once_one_has_it(api: httpx.AsyncClient, sql: Sql) -> None:
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(api.post("/v1/webhooks", json=PUBLIC) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]
    made = [(await api.post("/v1/webhooks", json={"url": f"https://1.1.1.1/{n}"})).json()["id"] for n in range(6)]
    wanted = {"url": "https://1.1.1.1/all"}
    answers = await asyncio.gather(*(api.patch(f"/v1/webhooks/{id}", json=wanted) for id in made))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"webhook-exists"}
