"""What takes many steps in one order and is rare where steps are chosen at random, told as one step."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from callboard_workers.ledger import Claim, State
from callboard_workers.ledger import Ledger as Real
from service.db.engine import create_engine
from service.settings import Settings
from tests.workers.ledger.model import LONG_LAPSED
from tests.workers.ledger.rows import PAST, change
from tests.workers.ledger.steps import NUMBER, OUTCOMES, SQL, Steps

BEFORE = st.sampled_from(["nothing", "fence", "fence", "cancel"])
AGAIN = st.sampled_from(["keep", "give back", "give back what is canceled"])
END = st.sampled_from(list(OUTCOMES))
LONG_AGO = sa.text("clock_timestamp() - interval '2 hours'")


class Machine(Steps):
    """Steps and stories, in any order."""

    def attempt(self, at: int, before: str, name: str) -> tuple[int, Claim, list[bool]]:
        """One attempt, from its claim to its end."""
        _, claim, fenced = held = self.start(at)
        row = self.model.rows[at]
        if before == "fence":
            self.run(self.real.fence(claim))
            assert row.fence(claim.epoch)
            fenced[0] = True
        elif before == "cancel":
            assert self.run(self.real.cancel(self.ids[at])) == row.ask_to_cancel()
        self.end(*held, name)
        return held

    def grow_late(self, at: int) -> None:
        self.model.rows[at].late = True
        self.run(change(self.engine, self.ids[at], expires_at=PAST))

    @precondition(lambda self: any(row.startable() for row in self.model.rows))
    @rule(number=NUMBER, before=BEFORE, name=END)
    def an_attempt_begins_and_ends(self, number: int, before: str, name: str) -> None:
        self.attempt(self.some_start(number), before, name)

    @precondition(lambda self: any(row.startable() for row in self.model.rows))
    @rule(number=NUMBER, before=BEFORE, name=END)
    def a_doubt_hears_a_late_word(self, number: int, before: str, name: str) -> None:
        held = self.attempt(self.some_start(number), before, "unknown")
        self.end(*held, name)
        self.note(f"late {name}")

    @precondition(lambda self: any(row.startable() and row.resends for row in self.model.rows))
    @rule(number=NUMBER, before=BEFORE)
    def a_doubt_is_resent_until_it_is_no_more(self, number: int, before: str) -> None:
        at = self.among(number, lambda row: row.startable() and row.resends)
        for _ in range(self.model.rows[at].max_crashes + 1):
            self.attempt(at, before, "unknown")
            self.duty("resent")  # not before its grace is over
            if self.model.rows[at].state is not State.UNCERTAIN:
                break
            self.model.rows[at].old = True
            self.run(change(self.engine, self.ids[at], finished_at=PAST))
            self.duty("resent")
            if not self.model.rows[at].startable():
                break
        self.note("resent to the end")

    @precondition(lambda self: any(row.startable() for row in self.model.rows))
    @rule(number=NUMBER, fenced=st.booleans(), late=st.booleans(), name=st.sampled_from(list(SQL)))
    def a_worker_dies_and_one_duty_is_done(self, number: int, name: str, *, fenced: bool, late: bool) -> None:
        at = self.some_start(number)
        _, claim, held = self.start(at)
        row = self.model.rows[at]
        if fenced:
            self.run(self.real.fence(claim))
            assert row.fence(claim.epoch)
            held[0] = True
        if late:
            self.grow_late(at)
        row.lease = LONG_LAPSED
        self.run(change(self.engine, self.ids[at], lease_until=LONG_AGO))
        self.duty(name)

    @precondition(lambda self: any(row.startable() for row in self.model.rows))
    @rule(number=NUMBER, together=st.sampled_from([1, 1, 2]), fenced=st.booleans())
    def its_workers_die_until_it_runs_no_more(self, number: int, together: int, *, fenced: bool) -> None:
        """Alone in each, it is quarantined; in company it never is."""
        at = self.some_start(number)
        row = self.model.rows[at]
        for _ in range(row.max_crashes + 1):
            if not row.startable():
                break
            _, claim, held = self.start(at)
            self.run(self.real.begin([claim], together))
            row.begin(claim.epoch, together)
            if fenced:
                self.run(self.real.fence(claim))
                assert row.fence(claim.epoch)
                held[0] = True
            row.lease = LONG_LAPSED
            self.run(change(self.engine, self.ids[at], lease_until=LONG_AGO))
            self.duty("doubtful" if fenced else "reclaimed")
        self.note(f"died until {row.state}")

    @precondition(lambda self: sum(row.startable() for row in self.model.rows) > 1)
    @rule(same=st.booleans())
    def two_messages_lose_their_workers_at_once(self, *, same: bool) -> None:
        for worker in ("w6", "w6" if same else "w7"):
            at = self.some_start(0)
            self.start(at, worker)
            self.model.rows[at].lease = LONG_LAPSED
            self.run(change(self.engine, self.ids[at], lease_until=LONG_AGO))
        self.duty("reclaimed")

    @precondition(lambda self: any(row.startable() and row.crashes + 1 < row.max_crashes for row in self.model.rows))
    @rule(number=NUMBER, cancel=st.booleans(), again=AGAIN)
    def who_lost_a_message_to_another_asks_about_it(self, number: int, again: str, *, cancel: bool) -> None:
        at = self.among(number, lambda row: row.startable() and row.crashes + 1 < row.max_crashes)
        _, lost, _ = self.start(at)
        self.model.rows[at].lease = LONG_LAPSED
        self.run(change(self.engine, self.ids[at], lease_until=LONG_AGO))
        self.duty("reclaimed")
        _, held, _ = self.start(at)
        if cancel:
            assert self.run(self.real.cancel(self.ids[at])) == self.model.rows[at].ask_to_cancel()
        for claim in (lost, held):
            if again == "keep":
                self.keep(at, claim)
            else:
                self.give_back(at, claim, only_canceled=again != "give back")

    @precondition(lambda self: not self.model.taken("b"))
    @rule(number=NUMBER, late=st.booleans(), successor=st.booleans())
    def a_dead_message_is_queued_again(self, number: int, *, late: bool, successor: bool) -> None:
        """Unless another bears its key by then; whenever it was too late to start, it may now."""
        self.insert(3, resends=False, key="b", due=True)
        at = len(self.ids) - 1
        held = self.start(at)
        if late:
            self.grow_late(at)
        self.end(*held, "dead")
        if successor:
            self.insert(3, resends=False, key="b", due=True)
        self.queue_again(at)
        if not successor:
            self.start(at)


@contextmanager
def opened(database: str) -> Iterator[None]:
    """Inside, the machine works on this database, with a loop of its own."""
    with asyncio.Runner() as loop:

        async def open_all() -> None:
            Machine.engine = create_engine(Settings.from_env({"DATABASE_URL": database}), role=None)
            Machine.real = Real(Machine.engine)

        async def close_all() -> None:
            await Machine.real.close()
            await Machine.engine.dispose()

        Machine.loop, Machine.steps = loop, {}
        loop.run(open_all())
        try:
            yield
        finally:
            loop.run(close_all())
