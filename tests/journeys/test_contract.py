"""The API keeps its OpenAPI document: schemathesis sends what it allows and what it forbids, and judges each answer."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.journeys.house import house

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
)
RUN = "from schemathesis.cli import schemathesis; schemathesis()"


def examine(url: str, key: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run schemathesis over the whole document, but for the streams, which do not end; the same cases every time."""
    return subprocess.run(
        [
            *(sys.executable, "-c", RUN, "run", f"{url}/schema/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--phases", "examples,fuzzing", "--checks", ",".join(CHECKS), "--exclude-path-regex", "/(stream|ws)$"),
            *("--max-examples", "6", "--seed", "1", "--generation-database", "none", "--continue-on-failure"),
            *("--request-timeout", "20", "--warnings", "off", "--no-color"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def test_no_request_of_the_document_or_beside_it_is_answered_wrongly(
    tmp_path: Path, database: str, redis_url: str
) -> None:
    async with house(tmp_path, database, redis_url) as home:
        await home.start_api()
        done = await asyncio.to_thread(examine, home.url, await home.key(), tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
