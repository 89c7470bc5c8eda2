"""Celery's own verbs send an actor's messages to its queue and at its priority."""

from typing import Any

import pytest

from callboard_workers import actor, registry
from callboard_workers.celery import create_celery


def test_celerys_verbs_take_the_actors_queue_and_priority_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @actor(name="routes.ship", queue="shipping", priority="high")
    async def ship(order: str) -> None: ...

    try:
        app = create_celery("memory://", None, None, [ship])
        sent: list[tuple[int, str | None]] = []

        def note(_producer: Any, _name: str, _message: Any, priority: int, queue: Any = None, **_: Any) -> None:
            sent.append((priority, getattr(queue, "name", queue)))

        monkeypatch.setattr(app.amqp, "send_task_message", note)
        ship.delay("a")
        ship.s("a").apply_async()
        app.send_task("routes.ship", args=["a"])
        assert sent == [(3, "shipping")] * 3
        sent.clear()
        ship.apply_async(("a",), priority="low", countdown=60)
        ship.apply_async(("a",), priority=0, queue="slow")
        app.send_task("somebody.elses")
        assert sent == [(9, "shipping"), (0, "slow"), (6, None)]
        with pytest.raises(TypeError):
            ship.delay()  # type: ignore[call-arg]
    finally:
        registry.discard("routes.ship")
