"""A wrong argument to an actor's verbs fails the type checker, and a right one does not: mypy is asked."""

import re
from pathlib import Path

import pytest
from mypy import api

from tests.layout.repository import ROOT

HEAD = """
from uuid import UUID
from sqlalchemy.ext.asyncio import AsyncSession
from typing import Annotated
from callboard_workers import Actor, Cron, Depends, Message, actor, current, group, injected, pipeline
from callboard_workers.testing import Workbench, run_now

@actor(queue="email", max_retries=8)
async def send_email(email_id: UUID, times: int = 1, *, loud: bool = False) -> str:
    return str(email_id)

@actor
def plain(x: int) -> int:
    return x

def connect() -> int:
    return 1

@actor(cron=Cron("0 * * * *"), rate="1/s", concurrency=2, unique=True, expires=60)
async def needy(x: int = 0, *, it: Annotated[int, Depends(connect)] = injected) -> int:
    return x + it

async def use(session: AsyncSession, id: UUID, bench: Workbench) -> None:
"""

GOOD = (
    "text: str = await send_email(id)",
    "message: Message = await send_email.send(id, 2, loud=True)",
    "await send_email.options(delay=60, priority='high').send(id)",
    "await send_email.enqueue(session, id, loud=True)",
    "await send_email.options(key='a').enqueue(session, id, 3)",
    "number: int = plain(5)",
    "await (send_email.message(id) | plain).enqueue(session)",
    "await group([plain.message(1), plain.message(2)], then=plain).enqueue(session)",
    "await pipeline([plain.message(1), plain]).enqueue(session)",
    "await needy.enqueue(session)",
    "outcome = await run_now(needy, 1)",
    "bench.assert_sent(send_email, id, loud=True)",
    "current().progress(1)",
    "await current().fence()",
)
BAD = {
    "await send_email.send('no uuid')": "arg-type",
    "await send_email.send()": "call-arg",
    "await send_email.send(id, loud='yes')": "arg-type",
    "await send_email.send(id, lout=True)": "call-arg",
    "await send_email.options(delay=60).send(5)": "arg-type",
    "await send_email.options(delai=60).send(id)": "call-arg",
    "await send_email.enqueue(id)": "arg-type",
    "await send_email.enqueue(session)": "call-arg",
    "await send_email.options(key='a').enqueue(session, id, 'three')": "arg-type",
    "send_email.message(id, times=None)": "arg-type",
    "send_email.delay(1.5)": "arg-type",
    "wrong: int = await send_email(id)": "assignment",
    "plain('x')": "arg-type",
    "await plain.send('x')": "arg-type",
    "group([plain])": "list-item",
    "pipeline([5])": "list-item",
    "actor(max_retries='8')": "call-overload",
    "actor(priority=3)": "call-overload",
    "actor(cron='* * * * *')": "call-overload",
    "actor(on_dead=5)": "call-overload",
    "actor(uncertain=True)": "call-overload",
    "await send_email.options(priority=3).send(id)": "arg-type",
    "await needy.send('x')": "arg-type",
    "await run_now(needy, 'x')": "arg-type",
    "bench.assert_sent(send_email, 'x')": "arg-type",
    "bench.crash('later')": "arg-type",
    "await current().fence(1)": "arg-type",
    "await current().progress('half')": "arg-type",
    "attempt: str = current().attempt": "assignment",
}


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[str]]:
    """What mypy says of each line."""
    path: Path = tmp_path_factory.mktemp("typing") / "calls.py"
    path.write_text(HEAD.lstrip("\n") + "".join(f"    {line}\n" for line in (*GOOD, *BAD)))
    out, err, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--no-pretty", str(path)])
    assert not err, err
    assert "in 1 file (checked 1 source file)" in out, out
    # what mypy has cached of an earlier run bears that run's directory
    faults = re.findall(r"calls\.py:(\d+): error: .*\[([a-z-]+)\]$", out, re.MULTILINE)
    found: dict[int, list[str]] = {}
    for line, code in faults:
        found.setdefault(int(line), []).append(code)
    return found


def line_of(call: str) -> int:
    return HEAD.lstrip("\n").count("\n") + 1 + [*GOOD, *BAD].index(call)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", GOOD)
def test_a_right_call_passes(errors: dict[int, list[str]], call: str) -> None:
    assert errors.get(line_of(call), []) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", BAD)
def test_a_wrong_call_fails(errors: dict[int, list[str]], call: str) -> None:
    assert BAD[call] in errors.get(line_of(call), [])
