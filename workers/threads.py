"""Where `def` actors run: a bounded pool of threads beside the loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from workers.context import Context


async def in_thread(
    pool: ThreadPoolExecutor, context: Context, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Run a function in the pool, with the context variables of here.

    A thread cannot be interrupted: a cancelled attempt is told by `current().cancelled`, and ends when the function
    does; what does not end in its grace is written off like any other. One that had not begun never does.
    """
    context.loop = asyncio.get_running_loop()
    here = contextvars.copy_context()
    work = pool.submit(here.run, functools.partial(fn, *args, **kwargs))
    future = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        context.cancel()
        if not work.cancel():
            await asyncio.wait({future})
        raise
    finally:
        del work, future  # both hold the exception, and its traceback holds this frame
