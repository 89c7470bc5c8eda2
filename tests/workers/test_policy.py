"""What becomes of a message is decided by its policy and its error, and by nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_workers.errors import (
    BadArguments,
    BadResult,
    Dead,
    LeaseLost,
    Retry,
    Snooze,
    TimeLimitExceeded,
    Uncertain,
)
from callboard_workers.policy import (
    Backoff,
    DeadLetter,
    Ignored,
    Policy,
    RetryAt,
    Snoozed,
    Unknown,
    decide,
    failure,
    word,
)


class Refused(Exception):
    pass


class Flaky(Exception):
    pass


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 100), st.floats(100, 10_000))
def test_a_backoff_is_never_above_its_ceiling_and_never_negative(
    retry: int, chance: float, least: float, most: float
) -> None:
    backoff = Backoff(min=least, max=most)
    assert 0 <= backoff.delay(retry, lambda: chance) <= backoff.ceiling(retry) <= most


def test_a_backoff_doubles_until_its_maximum() -> None:
    assert [Backoff(min=1, max=60).ceiling(retry) for retry in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_any_error_is_retried_as_often_as_the_policy_says_and_not_once_more() -> None:
    policy = Policy(max_retries=3)
    outcomes = [decide(policy, Flaky("x"), attempts=attempts) for attempts in range(5)]
    assert [type(outcome) for outcome in outcomes] == [RetryAt] * 3 + [DeadLetter] * 2
    assert outcomes[3].reason == "gave up after 4 attempts"
    assert outcomes[0].error == {"type": "Flaky", "message": "x"}


def test_no_retries_means_one_attempt() -> None:
    assert isinstance(decide(Policy(max_retries=0), Flaky()), DeadLetter)


def test_what_an_actor_throws_is_final_and_expected() -> None:
    outcome = decide(Policy(throws=(Refused,)), Refused("no"))
    assert isinstance(outcome, DeadLetter)
    assert outcome.expected


def test_retry_when_decides_alone() -> None:
    policy = Policy(max_retries=0, retry_when=lambda retries, error: retries < 2 and isinstance(error, Flaky))
    assert isinstance(decide(policy, Flaky(), attempts=1), RetryAt)
    assert isinstance(decide(policy, Flaky(), attempts=2), DeadLetter)
    assert isinstance(decide(policy, Refused(), attempts=0), DeadLetter)


@pytest.mark.parametrize("error", [BadArguments("x"), BadResult("x")])
def test_arguments_and_results_that_do_not_fit_are_never_retried(error: Exception) -> None:
    assert isinstance(decide(Policy(retry_when=lambda retries, error: True), error), DeadLetter)


def test_a_verdict_is_carried_out() -> None:
    policy = Policy(max_retries=1, max_snoozes=1)
    assert decide(policy, Retry(7, "busy", {"code": 421})) == RetryAt(
        delay=7, reason="busy", detail={"code": 421}, error={"type": "Retry", "message": "busy"}, definite=True
    )
    assert isinstance(decide(policy, Retry(7), attempts=1), DeadLetter)
    assert decide(policy, Snooze(9, "quota")) == Snoozed(delay=9, reason="quota", definite=True)
    assert isinstance(decide(policy, Snooze(9), snoozes=1), DeadLetter)
    assert isinstance(decide(policy, Dead("gone")), DeadLetter)
    assert isinstance(decide(policy, Uncertain("cut off")), Unknown)
    assert isinstance(decide(policy, LeaseLost("x"), fenced=True), Ignored)


def test_a_negative_delay_is_none() -> None:
    assert decide(Policy(), Retry(-5)) == decide(Policy(), Retry(0))


@pytest.mark.parametrize("error", [Flaky(), Refused(), TimeLimitExceeded(3), BadArguments(), BadResult(), OSError()])
def test_past_the_fence_whatever_was_not_said_outright_is_a_doubt(error: Exception) -> None:
    assert isinstance(decide(Policy(throws=(Refused,), max_retries=0), error, fenced=True), Unknown)


@pytest.mark.parametrize("error", [Retry(1), Snooze(1), Dead("x")])
def test_past_the_fence_an_explicit_answer_is_definite(error: Exception) -> None:
    assert decide(Policy(), error, fenced=True).definite


@given(st.booleans(), st.integers(0, 20), st.sampled_from([Flaky(), Refused(), Uncertain("x"), TimeLimitExceeded(1)]))
def test_a_doubt_is_never_called_definite(fenced: bool, attempts: int, error: Exception) -> None:
    outcome = decide(Policy(throws=(Refused,)), error, attempts=attempts, fenced=fenced)
    assert outcome.definite is not isinstance(outcome, Unknown)


def test_an_error_is_stored_short_and_storable() -> None:
    stored = failure(ValueError("a\x00b\ud800" + "x" * 10_000))
    assert stored["type"] == "ValueError"
    assert stored["message"].startswith("a\ufffdb?")
    assert len(stored["message"]) == 2_000
    stored["message"].encode()


def test_every_outcome_has_a_word() -> None:
    assert [word(outcome) for outcome in (RetryAt(delay=1), Snoozed(delay=1), DeadLetter(), Unknown(), Ignored())] == [
        "retry",
        "snooze",
        "dead",
        "uncertain",
        "ignored",
    ]
