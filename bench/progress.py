"""What a benchmark says while it runs: one line on stderr for each step, gone before the table is printed."""

from __future__ import annotations

import sys
import time

_begun = time.monotonic()


def say(text: str) -> None:
    """Tell what is being done; on a terminal the line is overwritten by the next."""
    line = f"[{time.monotonic() - _begun:6.1f} s] {text}"
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:118]}", end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)


def hush() -> None:
    """Clear the line."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
