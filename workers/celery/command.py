"""`celery worker` and `celery beat` of one app, without what else Celery's command line loads.

That is a shell to type in, the commands of plug-ins such as Flower, and a third of a worker's idle memory.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from celery.bin.base import CLIContext

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(app: Any, verb: str, arguments: Sequence[str], *, quiet: bool = False) -> None:
    """Run the verb, `worker` or `beat`, with Celery's own arguments; `quiet` leaves the banner out. Exits."""
    command = getattr(importlib.import_module(f"celery.bin.{verb}"), verb)
    app.set_current()
    context = CLIContext(app=app, no_color=None, workdir=None, quiet=quiet)
    command.main(args=list(arguments), prog_name=f"celery {verb}", obj=context)
