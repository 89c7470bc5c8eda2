"""Reads a throttle: so many mails in a period, held by the gate of the bulk for all workers together."""

from callboard_workers.errors import DeclarationError
from callboard_workers.limits import Rate
from service.core.errors import Fault, Invalid


def read_rate(text: str) -> tuple[int, float]:
    """Return mails and seconds of `10/s`, `600/m`, `100/15m`, `1000/h`, `5000/d`. Raises Invalid."""
    try:
        rate = Rate(text)
    except DeclarationError:
        message = (
            "is no throttle; write mails per period, such as 10/s, 600/m or 100/15m: 10,000 at most, a day at most."
        )
        raise Invalid([Fault("/throttle", message)]) from None
    return rate.pace, rate.period
