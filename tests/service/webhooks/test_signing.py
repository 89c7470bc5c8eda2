"""Signatures are those of the specification, and secrets those that it allows."""

import base64
import time

import pytest

from service.webhooks.schedule import PAUSES, Fault, judge, pause
from service.webhooks.signing import headers, new_secret, read_secret, signature
from tests.service.egress.scripted import Seen
from tests.service.webhooks.standard import good


def test_a_signature_is_the_one_that_the_specification_shows() -> None:
    """The example of Standard Webhooks' own libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_call_in_a_rotation_is_good_for_both_secrets_and_no_third() -> None:
    new, old, other = new_secret(), new_secret(), new_secret()
    body = b'{"id":"ev_1","type":"x"}'
    seen = Seen("/", headers([new, old], "ev_1", int(time.time()), body), body)
    assert (good(seen, new), good(seen, old), good(seen, other)) == (True, True, False)
    seen.body += b" "
    assert not good(seen, new)


FINE = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "secret", "whsec_!!!!", "whsec_" + base64.b64encode(b"short").decode(), FINE + "\r\nX: y",
     "whsec_" + base64.b64encode(bytes(65)).decode(), FINE.removeprefix("whsec_")],
)  # fmt: skip
def test_a_secret_that_the_specification_does_not_allow_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        read_secret(secret)


def test_the_attempts_are_spread_over_three_days() -> None:
    fault = Fault("timeout", "")
    waits = [pause(failed, fault, lambda: 0.0) for failed in range(1, 11)]
    assert waits == [*PAUSES, None]
    assert 3 * 86_400 < sum(PAUSES) < 4 * 86_400
    assert pause(1, fault, lambda: 1.0) == pytest.approx(5.5)


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (200, {}, None), (204, {}, None), (299, {}, None), (302, {"location": "/"}, "redirected"), (410, {}, "gone"),
        (404, {}, "refused-by-endpoint"), (500, {}, "refused-by-endpoint"),
    ],
)  # fmt: skip
def test_only_2xx_delivers(status: int, headers: dict[str, str], code: str | None) -> None:
    found = judge(status, headers)
    assert (found and found.code) == code


def test_an_endpoint_may_put_us_off_for_a_day_and_no_longer() -> None:
    asked = judge(503, {"retry-after": "3600"})
    greedy = judge(429, {"retry-after": "99999999"})
    malformed = judge(429, {"retry-after": "soon"})
    assert asked is not None
    assert greedy is not None
    assert malformed is not None
    assert pause(1, asked, lambda: 0.0) == 3600
    assert pause(1, greedy, lambda: 0.0) == 86_400
    assert pause(1, malformed, lambda: 0.0) == 5
