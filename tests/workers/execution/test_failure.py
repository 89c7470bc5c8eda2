"""The exception that stands for an outcome where Celery shows or stores one."""

import pytest

from callboard_workers.celery.actor_task import failure
from callboard_workers.errors import Dead, Uncertain, WorkersError
from callboard_workers.policy import DeadLetter, Unknown


@pytest.mark.parametrize(
    ("reason", "message", "said"),
    [
        ("there is no such job", "there is no such job", "there is no such job"),
        ("gave up after 3 attempts", "550 no", "gave up after 3 attempts: 550 no"),
        ("gave up after 3 attempts", "", "gave up after 3 attempts"),
    ],
)
def test_it_says_the_reason_and_the_error_each_once(reason: str, message: str, said: str) -> None:
    told: WorkersError = Dead(said)
    assert repr(failure(DeadLetter(reason=reason, error={"message": message}, definite=True))) == repr(told)
    assert isinstance(failure(Unknown(reason=reason, error={"message": message})), Uncertain)
