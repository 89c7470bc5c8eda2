"""When a delivery is tried again, and what an answer means. Pure.

The pauses are those that Standard Webhooks recommends: ten attempts over a little more than three days.
"""

import random
from collections.abc import Callable, Mapping

import msgspec

PAUSES = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""Seconds after the first attempt that failed, the second, …; each up to a tenth longer."""
LONGEST = 24 * 3600.0
"""Seconds that an endpoint may put us off by Retry-After."""
GONE = 410
PATIENT = {429, 503}


class Fault(msgspec.Struct, frozen=True):
    """Why a call did not deliver: a stable `code`, a sentence, and the seconds that the endpoint asked for."""

    code: str
    detail: str
    retry_after: float | None = None

    @property
    def gone(self) -> bool:
        """Whether the endpoint says that it does not exist any more."""
        return self.code == "gone"


def judge(status: int, headers: Mapping[str, str]) -> Fault | None:
    """Read an answer: None for 2xx, which delivers. A redirect is not followed, so it does not deliver."""
    if 200 <= status < 300:
        return None
    if status == GONE:
        return Fault("gone", "The endpoint answered 410: it wants nothing more.")
    if 300 <= status < 400:
        return Fault("redirected", f"The endpoint answered {status}; redirects are not followed: PATCH its url.")
    after = headers.get("retry-after", "").strip() if status in PATIENT else ""
    return Fault("refused-by-endpoint", f"The endpoint answered {status}.", _seconds(after))


def pause(failed: int, fault: Fault, uniform: Callable[[], float] = random.random) -> float | None:
    """Seconds until the next attempt after `failed` ones (this one counted), or None where it was the last."""
    if failed > len(PAUSES):
        return None
    wait = PAUSES[failed - 1] * (1 + uniform() / 10)
    return max(wait, min(fault.retry_after or 0.0, LONGEST))


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
