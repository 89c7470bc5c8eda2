"""Workers that die where a test says so, as by kill -9: nothing they would have done after that is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn, get_args

import msgspec

from callboard_workers.context import Context, Marks
from callboard_workers.middleware.base import Execute, Middleware
from callboard_workers.policy import Ended, Outcome

Point = Literal["before claim", "after claim", "before fence", "after fence", "before settle", "after settle"]

POINTS: tuple[str, ...] = get_args(Point)


class Died(BaseException):
    """The worker is no more; passes through everything that an actor might catch."""


class Crashed(Ended, frozen=True, kw_only=True, tag="crashed"):
    """What a test sees of an attempt whose worker died: nothing was settled. `at`: where."""

    at: str


def die() -> NoReturn:
    """End the worker here and now, inside an actor under test."""
    raise Died("in the actor")


class _Plan(msgspec.Struct):
    at: str
    actor: str | None
    left: int


class Deaths(Middleware):
    """The outermost layer of a workbench: lets attempts die at the points that were planned."""

    def __init__(self) -> None:
        self._plans: list[_Plan] = []

    def plan(self, at: str, *, actor: str | None, times: int) -> None:
        """The next `times` attempts (of `actor`) that come to this point die there."""
        if at not in POINTS:
            raise ValueError(f"{at!r} is none of {', '.join(POINTS)}")
        self._plans.append(_Plan(at, actor, times))

    def reach(self, at: Point, actor: str) -> None:
        """An attempt comes to a point: raises Died if it is to die there."""
        for plan in self._plans:
            if plan.left > 0 and plan.at == at and plan.actor in {None, actor}:
                plan.left -= 1
                raise Died(at)

    @property
    def outstanding(self) -> list[str]:
        """The points at which something is still to die."""
        return [plan.at for plan in self._plans if plan.left > 0]

    async def execute(self, context: Context, next: Execute) -> Outcome:
        name = context.actor.name
        self.reach("after claim", name)
        context.marks = mortal = Mortal(context.marks, self, name)
        outcome = await next(context)
        if mortal.died is not None:  # the actor caught it: nobody lives on by that
            raise mortal.died
        self.reach("before settle", name)
        return outcome


class Mortal:
    """The marks of an attempt that may die at its fence."""

    def __init__(self, marks: Marks, deaths: Deaths, actor: str) -> None:
        self._marks, self._deaths, self._actor = marks, deaths, actor
        self.died: Died | None = None

    async def fence(self, detail: Mapping[str, Any] | None = None) -> None:
        self._reach("before fence")
        await self._marks.fence(detail)
        self._reach("after fence")

    async def progress(self, done: int, total: int | None, note: str) -> None:
        await self._marks.progress(done, total, note)

    def _reach(self, at: Any) -> None:
        try:
            self._deaths.reach(at, self._actor)
        except Died as died:
            self.died = died
            raise
