"""`Prefer: wait=20` (RFC 7240): hold the answer until the object is terminal, or the wait is over."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.web.auth import plain_header
from service.web.request import Request

T = TypeVar("T")

MAX_WAIT = 60.0  # seconds
WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])", re.IGNORECASE)


def preferred_wait(request: Request) -> float:
    """Read how long the caller would wait, in seconds, at most 60; 0 without the header or with a malformed one."""
    found = WAIT.search(plain_header(request, b"prefer"))
    return min(float(found[1]), MAX_WAIT) if found else 0.0


async def wait_for(
    look: Callable[[], Awaitable[T]], is_terminal: Callable[[T], bool], seconds: float, every: float = 0.05
) -> tuple[T, bool]:
    """Look again and again, more slowly as time goes by, until `is_terminal` or `seconds` are over.

    Returns what was seen last and whether it is terminal. No connection is held between two looks.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        seen = await look()
        done = is_terminal(seen)
        left = end - loop.time()
        if done or left <= 0:
            return seen, done
        await asyncio.sleep(min(every, left))
        every = min(every * 1.5, 1.0)
