"""Signs what Celery itself publishes, in clients, workers and beat: `sign_tasks(keys)` once, before the first task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kombu.utils.json
from celery import signals

from callboard_workers.redis.signing import HEADER, Signer

if TYPE_CHECKING:
    from collections.abc import Sequence


def sign_tasks(keys: Sequence[str] | Signer) -> None:
    """Have every task that this process sends signed; a client that cannot import this does the same by hand."""
    signer = keys if isinstance(keys, Signer) else Signer(keys)

    def sign(headers: Any = None, body: Any = None, **_: Any) -> None:
        if isinstance(headers, dict) and isinstance(body, list | tuple):  # protocol 2
            headers[HEADER] = signer.sign(headers, kombu.utils.json.dumps(body).encode())

    signals.before_task_publish.connect(sign, weak=False, dispatch_uid="callboard_workers.redis.signing")
