"""What the ledger promises, as a plain state machine: one row of the model for each row of the table."""

from __future__ import annotations

from dataclasses import dataclass, field

from callboard_workers.ledger import State

Q, R, DONE, DEAD = State.QUEUED, State.RUNNING, State.DONE, State.DEAD
CANCELED, EXPIRED, UNCERTAIN, HELD = State.CANCELED, State.EXPIRED, State.UNCERTAIN, State.HELD
UNFINISHED = {Q, R, UNCERTAIN, HELD}

FRESH, LAPSED, LONG_LAPSED = 0, 1, 2


@dataclass
class Row:
    """A message; time is a few flags, which the test moves."""

    max_crashes: int = 3
    resends: bool = False
    key: str | None = None
    due: bool = True
    state: State = Q
    intent: bool = False
    epoch: int = 0
    attempts: int = 0
    crashes: int = 0
    snoozes: int = 0
    cancel: bool = False
    late: bool = False
    lease: int = FRESH
    old: bool = False
    resent: int = 0
    definite: bool = False
    worker: str = ""
    isolation: int | None = None
    begun: int | None = None
    deaths: int = 0

    def seen(self) -> tuple[object, ...]:
        """What can be read in the table."""
        return (
            self.state,
            self.intent,
            self.epoch,
            self.attempts,
            self.crashes,
            self.snoozes,
            self.cancel,
            self.state is R,
            self.definite,
            self.isolation,
            self.begun,
            self.deaths,
        )

    def waits_for_the_sweeper(self) -> bool:
        lapsed = self.state is R and self.lease != FRESH
        return lapsed or (self.state is Q and self.late) or (self.state is UNCERTAIN and self.old)

    def startable(self) -> bool:
        return self.state is Q and self.due and not self.cancel and not self.late

    def doubted(self, epoch: int) -> bool:
        return self.state is UNCERTAIN and self.epoch == epoch

    def claim(self, worker: str) -> bool:
        if not self.startable():
            return False
        self.worker = worker
        self.state, self.intent, self.lease, self.definite = R, False, FRESH, False
        self.epoch += 1
        return True

    def owned(self, epoch: int) -> bool:
        return self.state is R and self.epoch == epoch

    def may_pass(self, epoch: int) -> bool:
        """Whether this claim may pass its fence."""
        return self.owned(epoch) and not self.cancel and self.lease == FRESH

    def fence(self, epoch: int) -> bool:
        if not self.may_pass(epoch):
            return False
        self.intent = True
        return True

    def renew(self, epoch: int) -> tuple[bool, bool]:
        if not self.owned(epoch):
            return False, False
        self.lease = FRESH
        return True, self.cancel and not self.intent

    def begin(self, epoch: int, together: int | None) -> None:
        if self.owned(epoch):
            self.begun = together

    def lose_worker(self, together: int) -> None:
        """Its worker died, which held this many messages in this state."""
        self.crashes += self.begun == 1
        if self.begun is not None:
            self.isolation = (self.begun + 1) // 2
        elif self.isolation is None:
            self.isolation = (together + 1) // 2
        self.deaths += 1
        self.begun = None

    def release(self, epoch: int, *, only_canceled: bool = False) -> bool:
        if not self.owned(epoch) or (only_canceled and not self.cancel):
            return False
        self.definite = self.definite or self.intent
        self.begun = None
        self.state, self.intent = CANCELED if self.cancel else Q, False
        return True

    def settle(self, epoch: int, to: State, *, definite: bool, counts: tuple[int, int], later: bool) -> State | None:
        """`counts`: attempts and snoozes that it adds."""
        if self.epoch != epoch:
            return None
        running = self.state is R and (not self.intent or definite or to in {DONE, UNCERTAIN})
        doubted = self.doubted(epoch) and (to is DONE or (definite and to in {Q, DEAD}))
        if not running and not doubted:
            return None
        if to is Q:
            self.due = not later
        if to is Q and self.cancel:
            to = CANCELED if running else DEAD
        self.definite = definite and to is not DONE
        self.state, self.intent = to, self.intent and to in {DONE, UNCERTAIN}
        self.attempts += counts[0]
        self.snoozes += counts[1]
        self.crashes, self.deaths, self.isolation, self.begun = 0, 0, None, None
        self.old = False
        return to

    def ask_to_cancel(self) -> str:
        if self.state is Q:
            self.state, self.cancel = CANCELED, True
        elif self.state is R and not self.intent:
            self.cancel = True
            return "requested"
        return "canceled" if self.state is CANCELED else "refused"

    def requeue(self) -> None:
        self.state, self.intent, self.crashes, self.due = Q, False, 0, True
        self.cancel, self.late = False, False
        self.epoch += 1

    def resolve(self, to: State) -> bool:
        allowed = {DONE: {UNCERTAIN, HELD, DEAD}, HELD: {UNCERTAIN}, DEAD: {UNCERTAIN, HELD}}[to]
        if self.state not in allowed:
            return False
        self.state = to
        self.epoch += 1
        if to is DONE:
            self.definite = False
        return True


@dataclass
class Ledger:
    """All rows, and what the sweeper does to them."""

    rows: list[Row] = field(default_factory=list)

    def taken(self, key: str | None, but: Row | None = None) -> bool:
        return key is not None and any(
            row.key == key and row.state in UNFINISHED for row in self.rows if row is not but
        )

    def sweep(self) -> dict[str, set[int]]:
        """The numbers of the rows that each duty moves; the duties come one after the other."""
        return {name: self.do(name) for name in DUTIES}

    def do(self, duty: str) -> set[int]:
        """The numbers of the rows that one duty moves."""
        found = [at for at, row in enumerate(self.rows) if DUE[duty](row)]
        workers = [self.rows[at].worker for at in found]
        for at in found:
            DUTIES[duty](self.rows[at], workers.count(self.rows[at].worker))
        return set(found)


def _expire(row: Row, _: int) -> None:
    row.state = EXPIRED


def _reclaim(row: Row, together: int) -> None:
    alone = row.begun == 1
    row.lose_worker(together)
    row.state = CANCELED if row.cancel else DEAD if alone and row.crashes >= row.max_crashes else Q
    row.definite = row.definite and row.state is not DEAD


def _doubt(row: Row, together: int) -> None:
    row.lose_worker(together)
    row.state, row.old, row.definite = UNCERTAIN, False, False


def _resend(row: Row, _: int) -> None:
    row.state, row.intent, row.due = Q, False, True
    row.epoch += 1
    row.resent += 1


DUTIES = {"expired": _expire, "reclaimed": _reclaim, "doubtful": _doubt, "resent": _resend}
DUE = {
    "expired": lambda row: row.state is Q and row.late,
    "reclaimed": lambda row: row.state is R and not row.intent and row.lease != FRESH,
    "doubtful": lambda row: row.state is R and row.intent and row.lease == LONG_LAPSED,
    "resent": lambda row: (
        row.state is UNCERTAIN and row.resends and row.old and row.resent < row.max_crashes and not row.cancel
    ),
}
