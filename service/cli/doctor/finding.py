"""What the doctor finds: well, doubtful, or wrong; and how to mend it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

PATIENCE = 10.0  # seconds for one look at a server


class Mark(StrEnum):
    """`well`; `doubtful`: works, but weakens a promise; `wrong`: does not work."""

    WELL = "well"
    DOUBTFUL = "doubtful"
    WRONG = "wrong"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at: what was seen, seconds it took if it was an answer to wait for, how to mend it."""

    what: str
    mark: Mark
    detail: str
    mend: str = ""
    seconds: float | None = None


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found at one server."""

    name: str
    findings: list[Finding]

    @property
    def wrong(self) -> bool:
        """True if anything does not work."""
        return any(finding.mark is Mark.WRONG for finding in self.findings)


def judge(what: str, detail: str, mend: str, *, good: bool, otherwise: Mark = Mark.WRONG) -> Finding:
    """Return a finding that is well or, if not, `otherwise` with how to mend it."""
    return Finding(what=what, mark=Mark.WELL if good else otherwise, detail=detail, mend="" if good else mend)


class Wrong(Exception):
    """What a step found to be wrong, in words that are shown as they are."""


async def look(
    findings: list[Finding], what: str, mend: str, ask: Callable[[], Awaitable[str]], *, patience: float = PATIENCE
) -> bool:
    """Ask a server something, bounded in time; note the answer or the error, and say whether it answered."""
    started = time.perf_counter()
    mark = Mark.WELL
    try:
        async with asyncio.timeout(patience):
            detail = await ask()
    except Exception as error:
        mark, detail = Mark.WRONG, first_line(error)
    seconds = time.perf_counter() - started
    good = mark is Mark.WELL
    findings.append(Finding(what=what, mark=mark, detail=detail, mend="" if good else mend, seconds=seconds))
    return good


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without the address of its documentation."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    if isinstance(error, Wrong):
        return str(error)
    text = str(getattr(error, "orig", None) or error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else type(error).__name__
