"""Declare a type of job beside the actor that does it.

@job("activities.generate", input=ActivitiesInput, result=Activities, plan="team", trust=20)
async def generate(input: ActivitiesInput) -> Activities: ...

That is an actor of the same name on the queue `jobs`, and a type that `POST /v1/jobs` takes.
"""

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any, TypeVar

import msgspec

from callboard_workers.actors.actor import Actor, actor
from callboard_workers.errors import BadResult, DeclarationError
from service.core.validation import MAX_FAULTS, faults, step
from service.jobs.models import QUEUE

I = TypeVar("I", bound=msgspec.Struct)  # noqa: E741
R = TypeVar("R", bound="Result")

KEPT = 86_400.0  # seconds that the message, and Celery's result backend, keep a result; the job keeps it


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what a type of job takes: unknown fields are refused."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The base of what a type of job gives; what does not fit is not given, the job fails (`BadResult`)."""

    def __json__(self) -> Any:
        """The result as plain JSON values."""
        return msgspec.to_builtins(self, str_keys=True)


class JobType(msgspec.Struct, frozen=True, kw_only=True):
    """A type of job: what it takes and gives, what it costs, and what an organization needs for it.

    `plan`: the least plan, None for any, and then for callers without an organization too. `trust`: the least trust
    score, 0 to 100. `cost`: what it takes of the month's quota when it completes.
    """

    name: str
    input: type[Input]
    result: type[Result]
    actor: Actor[..., Any]
    plan: str | None = None
    trust: int = 0
    cost: int = 1

    @property
    def needs_organization(self) -> bool:
        """Whether somebody must pay for it."""
        return self.plan is not None or self.trust > 0


_types: dict[str, JobType] = {}


def job_types() -> dict[str, JobType]:
    """The declared types by name."""
    return _types


def job(
    name: str,
    *,
    input: type[I],
    result: type[R],
    plan: str | None = None,
    trust: int = 0,
    cost: int = 1,
    **options: Any,
) -> Callable[[Callable[[I], Awaitable[R]]], Actor[[I], Any]]:
    """Make a type of job, and its actor, of an async function from `input` to `result`; `options` are an actor's.

    Raises DeclarationError where the function does not fit.
    """

    def declare(fn: Callable[[I], Awaitable[R]]) -> Actor[[I], Any]:
        _check(f"job {name}", fn, (input, result), trust=trust, cost=cost)
        made = actor(name=name, queue=QUEUE, result=KEPT, **options)(_held_to(result, fn))
        _types[name] = JobType(
            name=name,
            input=input,  # type: ignore[arg-type]  # _check has looked
            result=result,
            actor=made,
            plan=plan,
            trust=trust,
            cost=cost,
        )
        return made

    return declare


def fitting(made: Any, result: type[R]) -> R:
    """What an actor returned, if it is a `result` or a mapping that makes one. Raises BadResult with every fault."""
    try:
        plain = msgspec.to_builtins(made, str_keys=True)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise BadResult(f"the result is not JSON: {error}") from None
    try:
        found = msgspec.convert(plain, result, strict=True, str_keys=True)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        first = islice(faults(plain, result), MAX_FAULTS)
        named = [f"{fault.pointer or 'all of it'}: {fault.message}" for fault in first]
        raise BadResult(f"the result is no {result.__name__}: {' '.join(named) or error}") from None
    if endless := list(islice(_endless(plain), MAX_FAULTS)):
        raise BadResult(f"the result is not JSON, which has finite numbers only: {', '.join(endless)}")
    return made if isinstance(made, result) else found


def _endless(plain: Any) -> Iterator[str]:
    """The pointers of numbers that are infinite or none; JSON would have them as null."""
    below = [("", plain)]
    while below:
        pointer, holder = below.pop()
        for name, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, float):
                if not math.isfinite(value):
                    yield step(pointer, str(name))
            elif isinstance(value, dict | list | tuple):
                below.append((step(pointer, str(name)), value))


def _held_to(result: type[R], fn: Callable[[I], Awaitable[Any]]) -> Callable[[I], Awaitable[R]]:
    @functools.wraps(fn)
    async def run(*args: Any, **kwargs: Any) -> R:
        return fitting(await fn(*args, **kwargs), result)

    return run


def _check(subject: str, fn: Callable[..., Any], shapes: tuple[type, type], *, trust: int, cost: int) -> None:
    wrong: list[str] = []
    input, result = shapes
    if not inspect.iscoroutinefunction(fn):
        wrong.append("the function must be `async def`")
    if len(inspect.signature(fn).parameters) != 1:
        wrong.append("the function takes its input and nothing else; what it needs besides, it asks `current()` for")
    if not issubclass(input, Input):
        wrong.append("input: derive it from service.jobs.types.Input")
    if not issubclass(result, Result):
        wrong.append("result: derive it from service.jobs.types.Result")
    if not 0 <= trust <= 100:
        wrong.append(f"trust: {trust} is not from 0 to 100")
    if not 0 <= cost <= 1000:
        wrong.append(f"cost: {cost} is not from 0 to 1000")
    if wrong:
        raise DeclarationError(f"{subject}: {'; '.join(wrong)}")
