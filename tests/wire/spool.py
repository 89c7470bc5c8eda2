"""The demo's app over a broker that is not Redis: folders of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.wire.demo import app

SPOOL = Path(os.environ.get("SPOOL", os.devnull))


def options(spool: Path) -> dict[str, Any]:
    """Where kombu's filesystem transport keeps messages; a client's folders and a worker's are the same."""
    for name in ("messages", "control"):
        (spool / name).mkdir(parents=True, exist_ok=True)
    folder = str(spool / "messages")
    return {"data_folder_in": folder, "data_folder_out": folder, "control_folder": str(spool / "control")}


if "SPOOL" in os.environ:
    app.conf.update(broker_url="filesystem://", broker_transport_options=options(SPOOL))
