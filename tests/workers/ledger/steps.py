"""What may happen to a ledger, one step at a time, each done to the table and to its model, which then agree.

Late words of attempts that lost their message are part of it: no claim is ever forgotten.
"""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers import Canceled, DeadLetter, Done, Expired, LeaseLost, Outcome, RetryAt, Snoozed, Unknown
from callboard_workers.ledger import Claim, State, sweeper
from callboard_workers.ledger import Ledger as Real
from callboard_workers.ledger.claims import Suspect
from callboard_workers.ledger.database import fetch
from callboard_workers.message import Message
from tests.workers.ledger import model
from tests.workers.ledger.model import FRESH, LAPSED, LONG_LAPSED, UNFINISHED
from tests.workers.ledger.rows import FUTURE, PAST, change, look

TRUNCATE = "TRUNCATE messages, message_attempts"
READ = """
SELECT state, intent, epoch, attempts, crashes, snoozes, cancel_requested, lease_until IS NOT NULL,
    coalesce(error ->> 'definite' = 'true', false), isolation, begun, deaths
FROM messages ORDER BY array_position($1::uuid[], id)
"""

OUTCOMES: dict[str, tuple[Outcome, State, tuple[int, int], bool]] = {
    "done": (Done(result=1), State.DONE, (0, 0), False),
    "retry": (RetryAt(delay=0, error={"type": "E", "message": ""}, definite=True), State.QUEUED, (1, 0), False),
    "retry later": (RetryAt(delay=3600, reason="busy", definite=True), State.QUEUED, (1, 0), True),
    "snooze": (Snoozed(delay=3600, reason="not yet", definite=True), State.QUEUED, (0, 1), True),
    "dead": (DeadLetter(reason="no"), State.DEAD, (1, 0), False),
    "surely dead": (DeadLetter(reason="no", definite=True), State.DEAD, (1, 0), False),
    "unknown": (Unknown(reason="who knows"), State.UNCERTAIN, (1, 0), False),
    "canceled": (Canceled(reason="asked"), State.CANCELED, (0, 0), False),
    "expired": (Expired(reason="late"), State.EXPIRED, (0, 0), False),
}
SQL: dict[str, tuple[Any, ...]] = {
    "expired": ("EXPIRE",),
    "reclaimed": ("RECLAIM",),
    "doubtful": ("DOUBTFUL", sweeper.DOUBT),
    "resent": ("RESEND", sweeper.DOUBT),
}
"""The duties of the sweeper: a statement, and what it takes beside a limit."""
STARTS = {State.QUEUED, State.RUNNING}
NUMBER = st.integers(0, 59)
IN_A_MOMENT = sa.text("clock_timestamp() + interval '1 second'")


class Steps(RuleBasedStateMachine):
    """Does each step to the table and to the model."""

    loop: ClassVar[asyncio.Runner]
    engine: ClassVar[AsyncEngine]
    real: ClassVar[Real]
    steps: ClassVar[dict[str, int]]

    def __init__(self) -> None:
        super().__init__()
        self.model = model.Ledger()
        self.ids: list[Any] = []
        self.claims: list[tuple[int, Claim, list[bool]]] = []
        self.run(self._sql(TRUNCATE))

    def run(self, work: Any) -> Any:
        return self.loop.run(work)

    async def _sql(self, text: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(sa.text(text))

    def note(self, step: str) -> None:
        self.steps[step] = self.steps.get(step, 0) + 1

    def among(self, number: int, wanted: Callable[[model.Row], bool]) -> int:
        found = [at for at, row in enumerate(self.model.rows) if wanted(row)]
        return found[number % len(found)]

    def any_row(self, number: int) -> int:
        """Any row, mostly one that can still move."""
        alive = [at for at, row in enumerate(self.model.rows) if row.state in UNFINISHED]
        return alive[number % len(alive)] if alive and number % 5 != 1 else number % len(self.ids)

    def any_claim(self, number: int) -> tuple[int, Claim, list[bool]]:
        """Mostly one that still holds, else a late word."""
        held = [each for each in self.claims if self.model.rows[each[0]].owned(each[1].epoch)]
        return held[number % len(held)] if held and number % 3 != 1 else self.claims[number % len(self.claims)]

    def some_start(self, number: int) -> int:
        return self.among(number, lambda row: row.startable())

    def start(self, at: int, worker: str = "w6") -> tuple[int, Claim, list[bool]]:
        """A worker takes a message that waits."""
        claim = self.run(self.real.claim(self.ids[at], worker))
        assert self.model.rows[at].claim(worker)
        self.claims.append((at, claim, [False]))
        return self.claims[-1]

    def claim_before_its_fence(self, number: int) -> tuple[int, Claim, list[bool]]:
        """Return a claim whose fence is open, from a new start if there is none; every other time, any claim."""
        before = [each for each in self.claims if self.model.rows[each[0]].may_pass(each[1].epoch)]
        waits = any(row.startable() for row in self.model.rows)
        if self.claims and (number % 2 or not (before or waits)):
            return self.any_claim(number)
        return before[number % len(before)] if before else self.start(self.some_start(number))

    @initialize()
    def begin(self) -> None:
        for resends in (False, True, True):
            self.insert(3, resends=resends, key=None, due=True)

    @precondition(lambda self: sum(row.state in UNFINISHED for row in self.model.rows) < 4)
    @rule(max_crashes=st.integers(1, 3), resends=st.booleans(), key=st.sampled_from([None, "a"]), due=st.booleans())
    def insert(self, max_crashes: int, *, resends: bool, key: str | None, due: bool) -> None:
        message = Message(
            actor="t.model",
            max_crashes=max_crashes,
            uncertain="resend" if resends else "hold",
            key=key,
            delay=None if due else 3600,
        )

        async def work() -> set[Any]:
            async with self.engine.begin() as connection:
                return await self.real.insert(connection, [message])

        new = bool(self.run(work()))
        assert new is not self.model.taken(key)
        self.note("insert" if new else "insert taken")
        if new:
            self.ids.append(message.id)
            self.model.rows.append(model.Row(max_crashes, resends, key, due))

    @rule(number=NUMBER, worker=st.sampled_from(["w1", "w2", "w3"]))
    def claim(self, number: int, worker: str) -> None:
        ready = any(row.state is State.QUEUED for row in self.model.rows) and number % 4 != 1
        at = self.among(number, lambda row: row.state is State.QUEUED) if ready else self.any_row(number)
        row = self.model.rows[at]
        if row.isolation is not None:  # else it would be claimed
            found = self.run(self.real.claim_unless_suspect(self.ids[at], worker))
            assert found == (Suspect(self.ids[at], row.isolation, row.deaths) if row.startable() else None)
        claim = self.run(self.real.claim(self.ids[at], worker))
        assert (claim is not None) is row.claim(worker)
        self.note("claim" if claim else "claim refused")
        if claim is not None:
            assert claim.epoch == self.model.rows[at].epoch
            self.claims.append((at, claim, [False]))

    @precondition(lambda self: any(row.state is State.QUEUED and row.due for row in self.model.rows))
    @rule(number=NUMBER)
    def claim_all_at_once(self, number: int) -> None:
        at = self.among(number, lambda row: row.state is State.QUEUED and row.due)

        async def work() -> list[Claim]:
            got = await asyncio.gather(*(self.real.claim(self.ids[at], f"w{each}") for each in range(5)))
            return [claim for claim in got if claim is not None]

        claims = self.run(work())
        assert len(claims) == int(self.model.rows[at].claim(""))
        self.model.rows[at].worker = self.run(self.worker_of(at))
        self.note("claim race")
        self.claims += [(at, claim, [False]) for claim in claims]

    @precondition(lambda self: self.claims or any(row.startable() for row in self.model.rows))
    @rule(number=NUMBER, at_its_end=st.sampled_from([True, False, False, False]), heard=st.booleans())
    def fence(self, number: int, *, at_its_end: bool, heard: bool) -> None:
        """`heard`: the answer reaches the worker; who does not hear it has not passed its fence."""
        at, claim, fenced = self.claim_before_its_fence(number)
        row = self.model.rows[at]
        ending = at_its_end and row.state is State.RUNNING and row.lease == FRESH
        if ending:
            row.lease = LAPSED
            self.run(change(self.engine, self.ids[at], lease_until=IN_A_MOMENT))

        async def work() -> bool:
            try:
                await self.real.fence(claim)
            except LeaseLost:
                return False
            return True

        passed = self.run(work())
        assert passed is row.fence(claim.epoch)
        fenced[0] = fenced[0] or (passed and heard)
        self.note("fence at the end" if ending else "fence" if passed else "fence refused")
        if ending:
            row.lease = FRESH
            self.run(change(self.engine, self.ids[at], lease_until=FUTURE))

    @precondition(lambda self: self.claims)
    @rule(number=NUMBER, name=st.sampled_from(list(OUTCOMES)))
    def settle(self, number: int, name: str) -> None:
        self.end(*self.any_claim(number), name)

    def end(self, at: int, claim: Claim, fenced: list[bool], name: str) -> None:
        """An attempt says how it ended."""
        outcome, to, counts, later = OUTCOMES[name]
        now = self.run(self.real.settle(claim, outcome, fenced=fenced[0]))
        definite = outcome.definite or not fenced[0]
        assert now == self.model.rows[at].settle(claim.epoch, to, definite=definite, counts=counts, later=later)
        self.note(f"settle {now}")

    async def worker_of(self, at: int) -> str:
        return str((await look(self.engine, self.ids[at])).worker)

    @precondition(lambda self: self.claims)
    @rule(number=NUMBER, together=st.sampled_from([1, 1, 1, 2, 5, None]))
    def begin_alone(self, number: int, together: int | None) -> None:
        at, claim, _ = self.any_claim(number)
        self.run(self.real.begin([claim], together))
        self.model.rows[at].begin(claim.epoch, together)
        self.note("begin" if self.model.rows[at].owned(claim.epoch) else "begin refused")

    @precondition(lambda self: self.claims)
    @rule(number=NUMBER)
    def renew(self, number: int) -> None:
        at, claim, _ = self.any_claim(number)
        self.keep(at, claim)

    def keep(self, at: int, claim: Claim) -> None:
        row = self.model.rows[at]
        wished = row.owned(claim.epoch) and row.cancel and not row.intent
        assert bool(self.run(self.real.canceled([claim]))) is wished
        renewal = self.run(self.real.renew([claim]))[claim.id]
        assert (renewal.held, renewal.cancel) == row.renew(claim.epoch)
        self.note("renew" if renewal.held else "renew refused")

    @precondition(lambda self: any(not fenced[0] for _, _, fenced in self.claims))
    @rule(number=NUMBER, only_canceled=st.booleans())
    def release(self, number: int, *, only_canceled: bool) -> None:
        at, claim, fenced = self.any_claim(number)
        if fenced[0]:  # who has passed its fence never gives back
            at, claim, fenced = next(each for each in self.claims if not each[2][0])
        self.give_back(at, claim, only_canceled=only_canceled)

    def give_back(self, at: int, claim: Claim, *, only_canceled: bool) -> None:
        given = bool(self.run(self.real.release([claim], only_canceled=only_canceled)))
        assert given is self.model.rows[at].release(claim.epoch, only_canceled=only_canceled)
        self.note("release" if given else "release refused")

    @precondition(lambda self: any(row.state is State.RUNNING or row.startable() for row in self.model.rows))
    @rule(number=NUMBER)
    def cancel(self, number: int) -> None:
        running = any(row.state is State.RUNNING and not row.cancel for row in self.model.rows)
        if not running and any(row.startable() for row in self.model.rows):
            self.start(self.some_start(number))
        running = number % 4 != 1
        at = self.among(number, lambda row: row.state is State.RUNNING) if running else self.any_row(number)
        answer = self.run(self.real.cancel(self.ids[at]))
        assert answer == self.model.rows[at].ask_to_cancel()
        self.note(f"cancel {answer}")

    @precondition(lambda self: any(row.state is State.RUNNING and row.intent for row in self.model.rows))
    @rule(number=NUMBER)
    def a_wish_to_cancel_is_left_past_a_fence(self, number: int) -> None:
        """No verb leaves one there, but a hand may: then it is not heard of."""
        at = self.among(number, lambda row: row.state is State.RUNNING and row.intent)
        row = self.model.rows[at]
        [claim] = [claim for place, claim, _ in self.claims if place == at and row.owned(claim.epoch)]
        self.run(change(self.engine, self.ids[at], cancel_requested=True))
        assert self.run(self.real.canceled([claim])) == set()
        assert not self.run(self.real.renew([claim]))[claim.id].cancel
        self.run(change(self.engine, self.ids[at], cancel_requested=row.cancel))
        row.lease = FRESH
        self.note("wish left past a fence")

    @precondition(lambda self: sum(row.state is State.QUEUED and not row.cancel for row in self.model.rows) > 1)
    @rule(number=NUMBER)
    def a_wish_to_cancel_is_left_on_a_row(self, number: int) -> None:
        """No verb leaves one on a message that waits, but a hand may: then it is not claimed."""
        at = self.among(number, lambda row: row.state is State.QUEUED and not row.cancel)
        self.model.rows[at].cancel = True
        self.run(change(self.engine, self.ids[at], cancel_requested=True))
        assert self.run(self.real.claim(self.ids[at], "w5")) is None
        self.note("wish left")
        if number % 2:
            assert self.run(self.real.cancel(self.ids[at])) == self.model.rows[at].ask_to_cancel()
        else:
            self.model.rows[at].cancel = False
            self.run(change(self.engine, self.ids[at], cancel_requested=False))

    @precondition(lambda self: any(row.state in {"dead", "held", "uncertain"} for row in self.model.rows))
    @rule(number=NUMBER)
    def requeue(self, number: int) -> None:
        self.queue_again(self.among(number, lambda row: row.state in {"dead", "held", "uncertain"}))

    def queue_again(self, at: int) -> None:
        row = self.model.rows[at]
        queued = bool(self.run(self.real.requeue([self.ids[at]], by="me")))
        assert queued is not self.model.taken(row.key, but=row)
        self.note("requeue" if queued else "requeue taken")
        if queued:
            row.requeue()

    @precondition(lambda self: any(row.state in {"dead", "held", "uncertain"} for row in self.model.rows))
    @rule(number=NUMBER, to=st.sampled_from([State.DONE, State.HELD, State.DEAD]))
    def resolve(self, number: int, to: State) -> None:
        at = self.among(number, lambda row: row.state in {"dead", "held", "uncertain"})

        async def work() -> bool:
            async with self.engine.begin() as connection:
                return bool(await self.real.resolve(connection, [self.ids[at]], to, by="me"))

        assert self.run(work()) is self.model.rows[at].resolve(to)
        self.note(f"resolve {to}")

    @precondition(lambda self: any(row.state is State.RUNNING and row.lease != LONG_LAPSED for row in self.model.rows))
    @rule(number=NUMBER, long=st.booleans())
    def a_worker_is_not_heard_of(self, number: int, *, long: bool) -> None:
        at = self.among(number, lambda row: row.state is State.RUNNING and row.lease != LONG_LAPSED)
        self.model.rows[at].lease = LONG_LAPSED if long else LAPSED
        ago = sa.text(f"clock_timestamp() - interval '{'2 hours' if long else '1 second'}'")
        self.run(change(self.engine, self.ids[at], lease_until=ago))
        self.note("lapse")

    @precondition(lambda self: any(row.state is State.RUNNING and not row.intent for row in self.model.rows))
    @rule(number=NUMBER)
    def a_worker_dies_and_another_takes_its_message(self, number: int) -> None:
        at = self.among(number, lambda row: row.state is State.RUNNING and not row.intent)
        self.model.rows[at].lease = LAPSED
        self.run(change(self.engine, self.ids[at], lease_until=PAST))
        self.sweep()
        claim = self.run(self.real.claim(self.ids[at], "w4"))
        assert (claim is not None) is self.model.rows[at].claim("w4")
        self.note("taken over" if claim else "not taken over")
        if claim is not None:
            self.claims.append((at, claim, [False]))

    @precondition(lambda self: any(row.state is State.QUEUED and not row.due for row in self.model.rows))
    @rule(number=NUMBER)
    def its_time_comes(self, number: int) -> None:
        at = self.among(number, lambda row: row.state is State.QUEUED and not row.due)
        self.model.rows[at].due = True
        self.run(change(self.engine, self.ids[at], due_at=PAST, ring_at=PAST))
        self.note("due")

    @precondition(lambda self: sum(row.state in STARTS and not row.late for row in self.model.rows) > 1)
    @rule(number=NUMBER)
    def its_time_is_over(self, number: int) -> None:
        """It is too late to start: what runs goes on."""
        at = self.among(number, lambda row: row.state in STARTS and not row.late)
        self.model.rows[at].late = True
        self.run(change(self.engine, self.ids[at], expires_at=PAST))
        self.note("late")

    @precondition(lambda self: any(row.state is State.UNCERTAIN and not row.old for row in self.model.rows))
    @rule(number=NUMBER)
    def a_doubt_grows_old(self, number: int) -> None:
        at = self.among(number, lambda row: row.state is State.UNCERTAIN and not row.old)
        self.model.rows[at].old = True
        self.run(change(self.engine, self.ids[at], finished_at=PAST))
        self.note("old")

    @precondition(lambda self: any(row.waits_for_the_sweeper() for row in self.model.rows))
    @rule(silent=st.booleans())
    def sweep(self, *, silent: bool = False) -> None:
        """`silent`: every doorbell was lost, long ago."""
        if silent:
            self.run(self._sql("UPDATE messages SET ring_at = due_at WHERE state = 'queued'"))
        rung: list[Message] = []
        swept = self.run(self.real.sweep(rung.extend))
        expected = self.model.sweep()
        for duty, numbers in expected.items():
            assert {message.id for message in getattr(swept, duty)} == {self.ids[at] for at in numbers}, duty
            self.note(f"sweep {duty}" if numbers else "sweep")
        due = {self.ids[at] for at, row in enumerate(self.model.rows) if row.state is State.QUEUED and row.due}
        heard = {message.id for message in rung}
        assert heard == due if silent else heard <= due

    @precondition(lambda self: any(row.waits_for_the_sweeper() for row in self.model.rows))
    @rule(name=st.sampled_from(list(SQL)))
    def a_sweep_dies_after_one_duty(self, name: str) -> None:
        """Each is a transaction of its own, and relies on no other that came before."""
        self.duty(name)

    def duty(self, name: str) -> None:
        statement, *arguments = SQL[name]
        moved = self.run(fetch(self.engine, getattr(sweeper, statement), sweeper.LIMIT, *arguments))
        assert {row["id"] for row in moved} == {self.ids[at] for at in self.model.do(name)}
        self.note(f"{name} alone" if moved else "duty")

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        async def read() -> list[Any]:
            async with self.engine.connect() as connection:
                return list((await connection.exec_driver_sql(READ, (self.ids,))).all())

        table = [tuple(row) for row in self.run(read())]
        assert table == [(str(row.seen()[0]), *row.seen()[1:]) for row in self.model.rows]
