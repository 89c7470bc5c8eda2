"""What one worker process may be told beyond Celery's own settings."""

from __future__ import annotations

from dataclasses import dataclass

from callboard_workers.redis.signing import Signer


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """How a worker process behaves; durations are seconds."""

    grace: float = 25.0
    """After SIGTERM: how long running attempts may go on before they are cancelled and given back."""

    fenced_timeout: float = 120.0
    """After SIGTERM: how long attempts past their fence may wait for their answer before their outcome is unknown."""

    farewell: float = 5.0
    """After a cancel: how long an attempt may take to clean up before it is left behind."""

    lease: float = 30.0
    """A worker that is not heard of for so long is taken for dead, and its messages go to another one."""

    max_crashes: int = 3
    """A direct message whose worker died so often is put with the dead letters, where its actor does not say."""

    own_consumer: bool = True
    """On Redis: fetch by our own consumer (nothing lost, nothing run twice without need) instead of Celery's."""

    signer: Signer | None = None
    """Signs what this process sends; a direct message without a signature of its keys is a dead letter."""

    control_verbs: frozenset[str] | None = None
    """Remote-control commands that are obeyed; None: all."""

    health_port: int | None = None
    """Where `/live`, `/ready` and `/metrics` answer; None: nowhere. Port 0 picks a free one and logs it."""

    health_host: str = "127.0.0.1"
    """The interface of `health_port`."""
