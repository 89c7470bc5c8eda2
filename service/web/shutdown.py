"""Hear at once that this process is to stop.

The server waits for its connections before it ends the application's lifespan, and a stream does not end by itself:
who holds one must hear of the signal when it comes.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def when_stopping(call: Callable[[], None]) -> None:
    """Have `call` called on the running loop when the server is told to stop; the server hears of it as before.

    Without a server that handles SIGTERM (a test) nothing is done: then the end of the lifespan has to tell.
    """
    if threading.current_thread() is not threading.main_thread() or not callable(signal.getsignal(signal.SIGTERM)):
        return
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        _listen(number, loop, call)


def _listen(number: signal.Signals, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    before = signal.getsignal(number)

    def heard(signum: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(call)
        if callable(before):
            before(signum, frame)

    # The loop's own handlers hear of a signal through the wake-up descriptor, which is written whoever handles it here.
    signal.signal(number, heard)
    signal.siginterrupt(number, False)
