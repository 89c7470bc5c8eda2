"""The demo app with a receiver on each of Celery's task signals, which notes what it hears."""

from __future__ import annotations

from typing import Any

from celery import signals

from tests.wire.demo import app, note

__all__ = ["app"]


def tag_of(args: Any) -> str:
    return str(args[0]) if args else "?"


@signals.task_prerun.connect
def prerun(task_id: str, args: Any, **_: Any) -> None:
    note(f"prerun:{task_id}", tag_of(args))


@signals.task_postrun.connect
def postrun(task_id: str, args: Any, state: str, **_: Any) -> None:
    note(f"postrun:{task_id}:{state}", tag_of(args))


@signals.task_success.connect
def success(sender: Any, result: Any, **_: Any) -> None:
    note(f"success:{sender.name}", str(result))


@signals.task_failure.connect
def failure(sender: Any, task_id: str, exception: BaseException, einfo: Any, **_: Any) -> None:
    note(f"failure:{task_id}:{type(exception).__name__}:{bool(einfo)}", sender.name)


@signals.task_retry.connect
def retry(sender: Any, request: Any, reason: BaseException, **_: Any) -> None:
    note(f"retry:{request.id}:{type(reason).__name__}", sender.name)


@signals.task_revoked.connect
def revoked(request: Any, terminated: bool, expired: bool, **_: Any) -> None:
    note(f"revoked:{request.id}:{bool(terminated)}:{bool(expired)}", request.task)
