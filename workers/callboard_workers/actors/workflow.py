"""Messages that belong together: one after the other, or many and then one.

await (fetch.message(url) | parse | store.step("reports")).enqueue(session)       # each is given the last one's result
await group([fetch.message(url) for url in urls], then=merge).enqueue(session)    # merge is given the list of results

They are durable: a step's row is written by the statement that settles the one before it, so neither is lost and
neither comes twice. A dead step stops the pipeline where it is, and requeueing it goes on; a canceled or expired one
cancels the steps after it, whose rows say why. Results travel as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from uuid_utils.compat import uuid7

from callboard_workers.actors.actor import Actor, registry
from callboard_workers.errors import DurableOnly
from callboard_workers.ledger.rows import spec
from callboard_workers.message import Message, piped
from callboard_workers.runtime import Runtime

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

Step = Message | Actor[Any, Any]


class Pipeline:
    """Steps that run one after the other; `pipeline | step` is a longer one. TypeError for what cannot be a step.

    `fed`: something before the first step gives it a result.
    """

    def __init__(self, steps: Iterable[Step], *, fed: bool = False) -> None:
        self.steps: tuple[Message, ...] = tuple(_message(step) for step in steps)
        if not self.steps:
            raise ValueError("a pipeline of nothing: give it steps")
        self._fed = fed
        for number, step in enumerate(self.steps):
            _check_step(step, first=number == 0 and not fed)

    def __or__(self, following: Step | Pipeline) -> Pipeline:
        more = following.steps if isinstance(following, Pipeline) else (following,)
        return Pipeline((*self.steps, *more), fed=self._fed)

    @property
    def last(self) -> Message:
        """The step whose result is the pipeline's."""
        return self.steps[-1]

    def head(self, follow: dict[str, Any] | None = None) -> Message:
        """The first step, which carries the others; `follow` is what follows the last."""
        head = _followed(self.last, follow)
        for step in reversed(self.steps[:-1]):
            head = _followed(step, {"success": [spec(head, takes=_takes(head), step=True)]})
        return head

    async def enqueue(self, where: AsyncSession | AsyncConnection) -> list[Message]:
        """Write the first step in the transaction of `where`; the messages of all steps, whose ids are theirs."""
        await Runtime.enqueue_from_loop(where, self.head())
        return list(self.steps)

    async def send(self) -> NoReturn:
        """Always DurableOnly: only rows can hold the steps to come."""
        raise DurableOnly("a pipeline needs the ledger to hold its steps to come: use enqueue(session)")


class Group:
    """Messages or pipelines that run side by side; `then` is put when all are done, in the order they were given."""

    def __init__(self, members: Iterable[Message | Pipeline], then: Step | Pipeline | None = None) -> None:
        self.members = tuple(member if isinstance(member, Pipeline) else Pipeline([member]) for member in members)
        if not self.members:
            raise ValueError("a group of nothing is never done: give it members")
        self.then = None if then is None else then if isinstance(then, Pipeline) else Pipeline([then], fed=True)

    def __or__(self, then: Step) -> Group:
        return Group(self.members, then if self.then is None else self.then | then)

    async def enqueue(self, where: AsyncSession | AsyncConnection) -> list[Message]:
        """Write the members' rows in the transaction of `where`; the members (last steps), and the callback if any."""
        if self.then is None:
            await Runtime.enqueue_from_loop(where, *(member.head() for member in self.members))
            return [member.last for member in self.members]
        id, callback = uuid7(), self.then.head()
        heads = [member.head({"group": str(id)}) for member in self.members]
        encoded = spec(callback, takes=_takes(callback), step=True)
        from callboard_workers.ledger.inserts import insert_group  # noqa: PLC0415 - loads SQLAlchemy

        await insert_group(where, id, [member.last.id for member in self.members], encoded)
        await Runtime.enqueue_from_loop(where, *heads)
        return [*(member.last for member in self.members), *self.then.steps]

    async def send(self) -> list[Message]:
        """Send the members through the broker alone; DurableOnly if there is a callback or a pipeline among them."""
        if self.then is not None or any(len(member.steps) > 1 for member in self.members):
            raise DurableOnly("only the ledger can tell when the last member is done: use enqueue(session)")
        for member in self.members:
            if (extras := registry.get(member.last.actor).extras) is not None:
                extras.direct(member.last.actor)
        return [await Runtime.of_loop().send(member.last) for member in self.members]


def pipeline(steps: Iterable[Step]) -> Pipeline:
    """Steps that run one after the other: `pipeline([a.message(1), b])` is `a.message(1) | b`."""
    return Pipeline(steps)


def group(members: Sequence[Message | Pipeline], then: Step | Pipeline | None = None) -> Group:
    """Messages that run side by side, and `then`, which is given the list of their results when all are done."""
    return Group(members, then)


def _message(step: Step) -> Message:
    if isinstance(step, Message):
        return step
    if isinstance(step, Actor):
        return step.step()
    raise TypeError(f"{step!r} is no step: give a message, as in actor.message(…) or actor.step(…), or an actor")


def _check_step(step: Message, *, first: bool) -> None:
    if step.key is not None:
        raise TypeError(f"{step.actor}: a step that bears a key could be skipped, and nothing would follow")
    actor = registry.get(step.actor)
    if first and not actor.parameters.takes(*step.args, **step.kwargs):
        raise TypeError(f"{step.actor}: the first step is given no result, so it needs all of its arguments")
    if not first and actor.extras is not None and actor.extras.limits.variable() and _takes(step):
        raise TypeError(f"{step.actor}: its key is made of its arguments, which are not known before the result is")


def _takes(step: Message) -> bool:
    """Whether there is room for the result after the step's own arguments."""
    return registry.get(step.actor).parameters.takes(*step.args, None, **step.kwargs)


def _followed(step: Message, follow: dict[str, Any] | None) -> Message:
    """The step, with more to follow it than its actor declares."""
    if follow is None:
        return step
    own = step.follow or {}
    success = [*own.get("success", ()), *follow.get("success", ())]
    return msgspec.structs.replace(step, follow={**own, **follow, **({"success": success} if success else {})})


def _piped(first: Message, following: Any) -> Pipeline:
    made: Pipeline = Pipeline([first]) | following
    return made


piped[:] = [_piped]
