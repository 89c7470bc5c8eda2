"""The breaker: closed, open, half-open, for longer each time."""

from service.smtp.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(threshold=2, cooldown=1, max_cooldown=3, clock=clock)
    breaker.failed()
    breaker.failed()
    return breaker


def test_failures_that_are_not_in_a_row_do_not_open_it() -> None:
    breaker = Breaker(threshold=2)
    for _ in range(10):
        breaker.failed()
        breaker.succeeded()
    assert breaker.wait() == 0


def test_it_tells_how_long_to_wait() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = 0.25
    assert breaker.wait() == 0.75


def test_failures_of_callers_already_under_way_do_not_prolong_it() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = 0.5
    for _ in range(10):
        breaker.failed()
    assert breaker.wait() == 0.5


def test_each_failed_scout_doubles_the_wait_up_to_the_maximum() -> None:
    clock = Clock()
    breaker = opened(clock)
    waits = []
    for _ in range(4):
        clock.now += breaker.wait()
        assert breaker.wait() == 0, "one scout passes"
        assert breaker.wait() > 0, "and only one"
        breaker.failed()
        waits.append(breaker.wait())
    assert waits == [2, 3, 3, 3]


def test_a_scout_that_comes_back_closes_it_and_the_wait_starts_anew() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = 1
    assert breaker.wait() == 0
    breaker.succeeded()
    assert not breaker.open
    breaker.failed()
    breaker.failed()
    assert breaker.wait() == 1


def test_a_scout_that_gives_up_lets_another_go() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = 1
    assert breaker.wait() == 0
    breaker.abandoned()
    assert breaker.wait() == 0
