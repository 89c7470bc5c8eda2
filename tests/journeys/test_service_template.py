"""A team that had a service template makes its slice here: its tasks are found by themselves, and a mail is queued."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Mailbox
from tests.journeys.house import house
from tests.service.cli.scaffold.tree import Tree
from tests.wire.process import client as stock_client


@pytest.mark.timeout(240)
async def test_a_new_slice_works_at_once_by_the_settings_that_celery_has(
    tmp_path: Path, database: str, redis_url: str, mailbox: Mailbox
) -> None:
    tree = await asyncio.to_thread(Tree.copy, tmp_path / "checkout")
    shutil.rmtree(tree.root / ".mypy_cache", ignore_errors=True)
    made = await asyncio.to_thread(tree.new, "slice", "reports")
    assert made.returncode == 0, made.stderr
    backend = redis_url.replace("/0", "/2")
    where = {"SMTP_HOST": mailbox.host, "SMTP_PORT": str(mailbox.port), "CELERY_RESULT_BACKEND": backend}
    async with house(tmp_path, database, redis_url, **where) as home:
        home.root = tree.root
        home.environ["CELERY_BROKER_URL"] = home.environ.pop("REDIS_URL")
        home.environ["PYTHONPATH"] = str(tree.root)
        home.start("migrate", "service", "migrate")
        assert await asyncio.to_thread(home.processes.pop("migrate").wait, 60) == 0, home.log("migrate")
        key = await home.key()
        await home.start_api()
        await home.start_worker()
        async with httpx.AsyncClient(base_url=home.url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as api:

            async def until_done(path: str) -> Any:
                async def done() -> Any:
                    told = (await api.get(path)).json()
                    return told if told.get("done_at") or told.get("status") == "SUCCESS" else None

                return await home.eventually(done, f"{path} is done", 60)

            report = await api.post("/v1/reports", json={"name": "first"})
            assert report.status_code == 202, report.text
            assert (await until_done(f"/v1/reports/{report.json()['id']}"))["name"] == "first"
            queued = await api.post("/send-test-email", json={"to": "team@template.example"})
            assert (queued.status_code, set(queued.json())) == (202, {"message", "task_id"})
            task = await until_done(f"/v1/tasks/{queued.json()['task_id']}")
        assert task["name"] == "emails.send_email"
        assert [mail.recipients for mail in await mailbox.wait(1, 60)] == [("team@template.example",)]
        stock = stock_client(redis_url, backend=backend)
        told = await asyncio.to_thread(
            lambda: stock.control.inspect(["worker@journey"], timeout=60, limit=1).registered()
        )
        assert {"reports.process", "emails.send_email"} <= set(told["worker@journey"])
        swept = await asyncio.to_thread(lambda: stock.send_task("emails.process_queue").get(timeout=60))
        assert set(swept) == {"rung", "reclaimed", "expired"}
