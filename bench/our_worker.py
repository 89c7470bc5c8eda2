"""Our worker, started as `callboard worker` starts it: `python -m bench.our_worker` and Celery's own arguments."""

from __future__ import annotations

import sys


def main() -> None:
    from service import lean  # noqa: PLC0415 - before anything imports what it keeps out

    lean.load()
    from bench.ours import app  # noqa: PLC0415
    from callboard_workers.celery.command import run  # noqa: PLC0415

    run(app, "worker", sys.argv[1:], quiet=True)


if __name__ == "__main__":
    main()
