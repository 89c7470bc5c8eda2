"""Every request of docs/notifications.md is made, in order."""

import json
import re

from tests.layout.repository import ROOT
from tests.service.notifications.conftest import Desk

BLOCK = re.compile(r"^```http\n([A-Z]+) (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


async def test_the_requests_of_the_page_are_answered(desk: Desk) -> None:
    found = BLOCK.findall((ROOT / "docs" / "notifications.md").read_text(encoding="utf-8"))
    assert len(found) > 8
    told = None
    for method, path, body in found:
        content = json.loads(body) if body.strip() else None
        answer = await desk.api.request(method, path, json=content)
        assert answer.status_code < 300, (method, path, answer.text)
        if path == "/v1/notifications":
            told = answer.json()
            await desk.work(told)
    assert told is not None
    counts = (await desk.read(told))["counts"]
    assert (counts["resolved"], counts["overlapping"]) == (3, 1)
