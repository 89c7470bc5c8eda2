"""The API keeps its OpenAPI document: schemathesis sends what it allows and what it forbids, and judges each answer."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.journeys.house import house

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
LINKED = ("use_after_free", "ensure_resource_availability")
"""What is judged where one call goes on from another's answer, along the document's links."""
ALONE = ("--phases", "examples,fuzzing", "--max-examples", "6")
AFTER_ONE_ANOTHER = ("--phases", "stateful", "--mode", "positive", "--max-examples", "40")
RUN = "from schemathesis.cli import schemathesis; schemathesis()"


def examine(url: str, key: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis over the whole document, but for the streams, which do not end; the same cases every time."""
    return subprocess.run(
        [
            *(sys.executable, "-c", RUN, "run", f"{url}/schema/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--checks", ",".join((*CHECKS, *LINKED)), "--exclude-path-regex", "/(stream|ws)$", "--seed", "1", *more),
            *("--generation-database", "none", "--continue-on-failure", "--no-shrink"),
            *("--request-timeout", "20", "--warnings", "off", "--no-color"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.timeout(520)  # two runs of 240 seconds at most
async def test_no_request_of_the_document_or_beside_it_is_answered_wrongly(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with house(tmp_path, database, redis_url) as home:
        await home.start_api()
        key = await home.key()
        for options in (ALONE, AFTER_ONE_ANOTHER):
            done = await asyncio.to_thread(examine, home.url, key, tmp_path, *options)
            assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
            assert " passed" in done.stdout
