"""An actor is declared in one place, checked where it is declared, and still is its function."""

import datetime as dt
import inspect
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from callboard_workers import (
    Actor,
    Backoff,
    Correlation,
    DeclarationError,
    Depends,
    Message,
    Middleware,
    NoRuntime,
    Priority,
    UnknownActor,
    actor,
    correlation,
    injected,
    registry,
)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Leave the registry as it was found."""
    before = {each.name for each in registry}
    yield
    for each in list(registry):
        if each.name not in before:
            registry.discard(each.name)


async def say(id: UUID, times: int = 1, *, loud: bool = False) -> str:
    """Say it."""
    return f"{id}{times}{loud}"


def test_a_name_is_the_slice_and_the_function() -> None:
    def send_email() -> None: ...

    names = {}
    for module in ("service.emails.actors", "app.tasks", "mailer", "__main__"):
        send_email.__module__ = module
        names[module] = Actor(send_email).name
    assert names == {
        "service.emails.actors": "emails.send_email",
        "app.tasks": "app.send_email",
        "mailer": "mailer.send_email",
        "__main__": "main.send_email",
    }


def test_it_is_found_by_its_name_and_its_aliases() -> None:
    made = actor(name="emails.say", aliases=("old.say",))(say)
    assert registry.get("emails.say") is registry.get("old.say") is made
    assert "old.say" in registry
    with pytest.raises(UnknownActor, match=r"'nobody\.here'"):
        registry.get("nobody.here")


def test_two_functions_cannot_share_a_name() -> None:
    def other() -> None: ...

    actor(name="t.same")(say)
    with pytest.raises(DeclarationError, match="declared twice"):
        actor(name="t.same")(other)
    with pytest.raises(DeclarationError, match="declared twice"):
        actor(name="t.other", aliases=("t.same",))(other)
    actor(name="t.same")(say)  # the same function once more, as when a module is reloaded


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"min_backoff": 15_000}, "use `backoff=Backoff(min=…)`, in seconds"),
        ({"max_age": 60_000}, "use `expires`, in seconds"),
        ({"queue_name": "x"}, "use `queue`"),
        ({"autoretry_for": ()}, "name the final ones in `throws`"),
        ({"soft_time_limit": 3}, "use `time_limit`"),
        ({"bind": True}, "current()"),
        ({"max_retry": 3}, "did you mean `max_retries`"),
        ({"colour": "red"}, "no middleware declares it"),
        ({"time_limit": 600_000}, "durations are seconds"),
        ({"time_limit": 0}, "not a positive number of seconds"),
        ({"time_limit": "60"}, "not a positive number of seconds"),
        ({"grace": None}, "may not be None"),
        ({"expires": dt.timedelta(seconds=-1)}, "not a positive number"),
        ({"backoff": 5}, "is not a Backoff"),
        ({"backoff": Backoff(min=10, max=5)}, "0 <= min <= max"),
        ({"backoff": Backoff(min=1, max=3_600_000)}, "durations are seconds"),
        ({"max_retries": -1}, "whole number"),
        ({"max_retries": True}, "whole number"),
        ({"max_crashes": 0}, "before its first attempt"),
        ({"priority": 9}, "a number is not taken"),
        ({"priority": "urgent"}, "critical, high, normal, low"),
        ({"throws": "Refused"}, "not an exception class"),
        ({"retry_when": 3}, "not a function"),
        ({"uncertain": "maybe"}, "neither 'hold' nor 'resend'"),
        ({"name": "has space"}, "letters, digits"),
        ({"queue": ""}, "letters, digits"),
    ],
)
def test_a_wrong_option_fails_where_it_is_written_and_says_what_was_meant(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        actor(**options)(say)
    assert hint in str(caught.value)
    assert "say" in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(DeclarationError) as caught:
        actor(min_backoff=1, time_limit=0, priority=3, colour="red")(say)
    assert all(option in str(caught.value) for option in ("min_backoff", "time_limit", "priority", "colour"))


def test_middleware_declares_options_of_its_own() -> None:
    class Tracing(Middleware):
        options: ClassVar = {"sampled": bool}

    assert actor(name="t.sampled", sampled=True)(say).extra == {"sampled": True}
    with pytest.raises(DeclarationError, match="not a bool"):
        actor(name="t.not_sampled", sampled="yes")(say)
    with pytest.raises(DeclarationError, match="declared elsewhere"):
        type("Other", (Middleware,), {"options": {"sampled": str}})


def test_durations_are_seconds_or_timedeltas() -> None:
    made = actor(name="t.timed", time_limit=dt.timedelta(minutes=2), expires=90)(say)
    assert (made.policy.time_limit, made.policy.expires) == (120.0, 90.0)
    assert actor(name="t.endless", time_limit=None)(say).policy.time_limit is None


def test_a_generator_or_a_value_is_no_actor() -> None:
    async def stream() -> Any:
        yield 1

    with pytest.raises(DeclarationError, match="generator"):
        actor(stream)
    with pytest.raises(DeclarationError, match="takes a function"):
        actor()(3)  # type: ignore[type-var]


async def test_calling_it_is_calling_the_function() -> None:
    made = actor(name="t.say")(say)
    id = uuid7()
    assert await made(id, 2, loud=True) == f"{id}2True"
    assert made.__doc__ == "Say it."
    assert inspect.signature(made) == inspect.signature(say)


async def test_dependencies_are_hidden_and_opened_also_for_a_direct_call() -> None:
    trail: list[str] = []

    async def base() -> str:
        return "base"

    def session(base: Annotated[str, Depends(base)]) -> Iterator[str]:
        trail.append("open")
        yield f"session on {base}"
        trail.append("close")

    @actor(name="t.needs")
    async def needs(x: int, *, session: Annotated[str, Depends(session)] = injected) -> str:
        trail.append("run")
        return f"{x} with {session}"

    assert list(inspect.signature(needs).parameters) == ["x"]
    assert await needs(1) == "1 with session on base"
    assert trail == ["open", "run", "close"]
    assert await needs(1, session="mine") == "1 with mine"
    with pytest.raises(TypeError):
        needs.message(1, session="mine")


def test_dependencies_in_a_circle_are_refused() -> None:
    def one(x: Any) -> None: ...

    one.__annotations__["x"] = Annotated[Any, Depends(one)]
    with pytest.raises(DeclarationError, match="circle"):
        actor(name="t.circle")(one)


def test_an_annotation_for_the_type_checker_alone_is_refused_with_advice() -> None:
    def unknown(x: "NotHere") -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(DeclarationError, match="TYPE_CHECKING"):
        actor(name="t.unknown")(unknown)


def test_a_message_is_a_frozen_plain_value_with_the_actors_defaults() -> None:
    made = actor(name="t.say", queue="email", priority="high", max_crashes=7, uncertain="resend", expires=60)(say)
    id = uuid7()
    message = made.message(id, loud=True)
    assert (message.actor, message.queue, message.priority) == ("t.say", "email", Priority.HIGH)
    assert (message.args, message.kwargs) == ((str(id),), {"loud": True})
    assert (message.max_crashes, message.uncertain, message.expires) == (7, "resend", 60)
    assert message.task_id == str(message.id)
    assert message.id.version == 7
    with pytest.raises(AttributeError):
        message.queue = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"nope": 1}), ((object(),), {}), ((float("nan"),), {})]
)
def test_a_call_that_cannot_travel_fails_at_the_caller(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        actor(name="t.say")(say).message(*args, **kwargs)


def test_options_change_one_message_and_leave_the_actor_alone() -> None:
    made = actor(name="t.say")(say)
    id, tenant, at = uuid7(), uuid7(), dt.datetime.now(dt.UTC) + dt.timedelta(days=30)
    message = made.options(id=id, at=at, priority="low", queue="bulk", key="k", tenant_id=tenant).message(id)
    assert (message.id, message.due_at, message.priority, message.queue) == (id, at, Priority.LOW, "bulk")
    assert (message.key, message.tenant_id, message.headers["tenant_id"]) == ("k", tenant, str(tenant))
    assert made.options(delay=dt.timedelta(minutes=1)).options(queue="q").message(id).queue == "q"
    assert made.message(id).queue == "default"


@pytest.mark.parametrize(
    "options",
    [
        {"delay": 1, "at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
        {"delay": -1},
        {"delay": float("inf")},
        {"delay": 1e12},
        {"at": dt.datetime(2030, 1, 1)},  # noqa: DTZ001
        {"expires": 0},
        {"expires": 5, "delay": 10},
        {"priority": "urgent"},
        {"key": ""},
        {"key": "a\nb"},
        {"queue": "x" * 201},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"t\.say|urgent"):
        actor(name="t.say")(say).options(**options)


def test_a_message_inherits_where_it_comes_from() -> None:
    made = actor(name="t.say")(say)
    tenant = uuid7()
    token = correlation.set(Correlation(request_id="r", tenant_id=tenant, traceparent="00-a", parent_id="p"))
    try:
        message = made.message(uuid7())
    finally:
        correlation.reset(token)
    assert message.tenant_id == tenant
    assert message.headers == {"request_id": "r", "tenant_id": str(tenant), "traceparent": "00-a", "parent_id": "p"}
    assert Correlation.of(message.headers).request_id == "r"
    assert made.message(uuid7()).headers == {}


def test_malformed_headers_are_left_out() -> None:
    assert Correlation.of({"request_id": 3, "tenant_id": "no", "baggage": None}) == Correlation()


async def test_sending_without_a_runtime_says_what_is_missing() -> None:
    with pytest.raises(NoRuntime, match="Runtime"):
        await actor(name="t.say")(say).send(uuid7())


def test_celerys_words_need_a_celery_app() -> None:
    with pytest.raises(RuntimeError, match="no Celery app"):
        actor(name="t.say")(say).delay(uuid7())


@pytest.mark.parametrize("priority", list(Priority))
def test_a_priority_and_its_number_are_one(priority: Priority) -> None:
    assert Priority.of(priority.number) is priority
    assert [Priority.CRITICAL.number, Priority.LOW.number] == [0, 9], "on Redis 0 comes first"


def test_a_number_between_two_priorities_is_never_less_urgent() -> None:
    assert [Priority.of(number).value for number in range(10)] == (
        ["critical"] * 3 + ["high"] * 3 + ["normal"] * 3 + ["low"]
    )
    assert isinstance(Message(actor="a").id, UUID)
