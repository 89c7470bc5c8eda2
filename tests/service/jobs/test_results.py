"""A job completes with what its type declares, or it fails and says every way in which the result does not fit."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import msgspec
import pytest

from callboard_workers.actors.actor import registry
from callboard_workers.errors import BadResult
from callboard_workers.policy import DeadLetter, Done, word
from service.core.validation import MAX_FAULTS
from service.jobs.types import Input, Result, fitting, job, job_types
from tests.service.jobs.bench import MakeBench
from tests.service.jobs.conftest import Sql
from tests.service.jobs.test_api import ask, quota, read


class Nothing(Input, frozen=True, kw_only=True):
    """What these jobs take."""


class Page(msgspec.Struct, frozen=True):
    """A part of a result."""

    url: str


class Report(Result, frozen=True, kw_only=True):
    """What these jobs give."""

    pages: list[Page]
    made_at: datetime
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5


NOON = datetime(2026, 1, 12, 12, 0, tzinfo=UTC)
GOOD = Report(pages=[Page("https://example.com/1")], made_at=NOON)
PLAIN = {"pages": [{"url": "https://example.com/1"}], "made_at": "2026-01-12T12:00:00Z", "share": 0.5}


class Longer(Report, frozen=True, kw_only=True):
    """A result of a type below the declared one."""

    note: str


@pytest.fixture
async def gives(acme: str) -> AsyncIterator[list[Any]]:
    """A type of job, `tests.report`, that returns what is put here."""
    given: list[Any] = []

    @job("tests.report", input=Nothing, result=Report, plan="team")
    async def report(input: Nothing) -> Any:
        return given[-1]

    yield given
    registry.discard("tests.report")
    del job_types()["tests.report"]


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        (GOOD, PLAIN),
        ({"pages": [Page("https://example.com/1")], "made_at": NOON}, PLAIN),
        (Longer(pages=[], made_at=NOON, note="none"), {**PLAIN, "pages": [], "note": "none"}),
    ],
    ids=["declared", "mapping", "below"],
)
async def test_what_fits_completes_the_job(
    api: httpx.AsyncClient, bench_of: MakeBench, gives: list[Any], made: Any, kept: Any
) -> None:
    gives.append(made)
    asked = await ask(api, type="tests.report", input={})
    async with bench_of() as bench:
        assert isinstance(await bench.work(asked["task_id"]), Done)
    told = await read(api, asked)
    assert (told["status"], told["result"], told["error"]) == ("completed", kept, None)


async def test_what_does_not_fit_fails_the_job_at_once_with_every_fault_and_pays_nothing(
    api: httpx.AsyncClient, bench_of: MakeBench, gives: list[Any], sql: Sql
) -> None:
    gives.append(Report(pages=[Page(7), {"link": "x"}], made_at="soon", share=2))  # type: ignore[arg-type, list-item]
    asked = await ask(api, type="tests.report", input={})
    async with bench_of() as bench:
        outcome = await bench.work(asked["task_id"])
    assert isinstance(outcome, DeadLetter)
    told = await read(api, asked)
    assert (told["status"], told["result"], told["attempts"]) == ("failed", None, 1)
    assert (told["error"]["code"], told["error"]["retryable"]) == ("BadResult", False)
    for pointer in ("/pages/0/url", "/pages/1/url", "/made_at", "/share"):
        assert f"{pointer}: " in told["error"]["detail"], pointer
    assert await quota(api) == (0, 0)
    [row] = await sql("SELECT state, attempts FROM messages WHERE id = :id", id=asked["task_id"])
    assert row == {"state": "dead", "attempts": 1}
    # mended, the same job completes
    gives.append(GOOD)
    assert (await api.post(f"/v1/jobs/{asked['id']}/retry")).status_code == 202
    async with bench_of() as bench:
        assert word(await bench.work(asked["task_id"])) == "done"
    assert (await read(api, asked))["status"] == "completed"


@pytest.mark.parametrize("made", [None, [], "text", object(), {"pages": object()}, float("nan")])
async def test_whatever_is_no_result_is_a_bad_one(gives: list[Any], made: Any) -> None:
    gives.append(made)
    with pytest.raises(BadResult, match="the result is "):
        await registry.get("tests.report").fn(Nothing())


async def test_a_result_that_holds_itself_is_a_bad_one(gives: list[Any]) -> None:
    ring: dict[str, Any] = {"made_at": NOON}
    ring["pages"] = [ring]
    gives.append(ring)
    with pytest.raises(BadResult, match="not JSON"):
        await registry.get("tests.report").fn(Nothing())


class Tally(Result, frozen=True, kw_only=True):
    """A result whose keys are no text."""

    by_day: dict[int, Page] = msgspec.field(default_factory=dict)
    by_time: dict[datetime, float] = msgspec.field(default_factory=dict)
    free: Any = None


def test_keys_that_json_writes_as_text_fit() -> None:
    made = Tally(by_day={7: Page("x")}, by_time={NOON: 0.5})
    assert fitting(made, Tally) is made
    assert fitting(made.__json__(), Tally) == made
    assert fitting({"by_day": {7: {"url": "x"}}, "by_time": {NOON: 0.5}}, Tally) == made
    with pytest.raises(BadResult, match=r"^the result is no Tally: /by_day: Expected 'int', got 'str'\.$"):
        fitting({"by_day": {"seven": {"url": "x"}}, "by_time": {NOON: 0.5}}, Tally)


@pytest.mark.parametrize("made", [{"pages": [], "made_at": "\ud800"}, {"pages": [{"url": "x"}], "made_at": "\udfff"}])
def test_half_a_character_is_a_fault_like_any_other(made: Any) -> None:
    with pytest.raises(BadResult, match=r"/made_at: The text is not valid Unicode\.$"):
        fitting(made, Report)


def test_of_many_faults_the_first_are_named() -> None:
    with pytest.raises(BadResult) as caught:
        fitting({"pages": [7] * 100_000, "made_at": NOON}, Report)
    assert str(caught.value).count("/pages/") == MAX_FAULTS


@pytest.mark.parametrize("endless", [float("inf"), float("-inf"), float("nan")])
def test_a_number_that_json_lacks_is_a_fault(endless: float) -> None:
    with pytest.raises(BadResult, match=r"finite numbers only: /by_time/2026-01-12T12:00:00Z$"):
        fitting(Tally(by_time={NOON: endless}), Tally)
    with pytest.raises(BadResult, match=r"finite numbers only: /free/1/a~1b$"):
        fitting({"free": [1.0, {"a/b": endless}]}, Tally)
    with pytest.raises(BadResult, match=r"finite numbers only: /free/0$"):
        fitting({"free": (endless,)}, Tally)
