"""Celery's words for what the ledger knows. Pure."""

from typing import Literal, assert_never

from callboard_workers.ledger.schema import State

Status = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]


def status(state: State, attempts: int, crashes: int) -> Status:
    """Tell Celery's word for a message: one that waits after a failed or crashed attempt is in RETRY.

    An expired message is REVOKED, as Celery has it. One whose outcome nobody can know (`uncertain`, `held`) is FAILURE:
    it does not go on by itself, and the `state` beside it says why.
    """
    match state:
        case State.QUEUED:
            return "RETRY" if attempts or crashes else "PENDING"
        case State.RUNNING:
            return "STARTED"
        case State.DONE:
            return "SUCCESS"
        case State.DEAD | State.UNCERTAIN | State.HELD:
            return "FAILURE"
        case State.CANCELED | State.EXPIRED:
            return "REVOKED"
        case _:
            assert_never(state)
