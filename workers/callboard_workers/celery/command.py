"""`celery worker` and `celery beat` of one app, without what else Celery's command line loads.

That is a shell to type in, the commands of plug-ins such as Flower, and a third of a worker's idle memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from celery import signals
from celery.bin.base import CLIContext

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(app: Any, verb: str, arguments: Sequence[str], *, quiet: bool = False) -> None:
    """Run the verb, `worker` or `beat`, with Celery's own arguments; `quiet` leaves the banners out. Exits."""
    command = getattr(importlib.import_module(f"celery.bin.{verb}"), verb)
    app.set_current()
    if quiet:
        signals.worker_ready.connect(_stop_without_a_banner)
    context = CLIContext(app=app, no_color=None, workdir=None, quiet=quiet)
    command.main(args=list(arguments), prog_name=f"celery {verb}", obj=context)


def _stop_without_a_banner(sender: Any, **_: Any) -> None:
    """Let SIGTERM be told by a line of the log (`worker_stopping`), not by plain text amid lines of JSON."""
    from celery.apps.worker import install_worker_term_handler  # noqa: PLC0415

    install_worker_term_handler(sender.controller, verbose=False)
