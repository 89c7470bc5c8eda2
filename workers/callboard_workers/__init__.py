"""The actor library: async actors with a delivery policy, on Celery, Redis and Postgres.

@actor(queue="email", max_retries=8, backoff=Backoff(min=1, max=3600), throws=(Rejected,))
async def send_email(email_id: UUID) -> None: ...

await send_email.enqueue(session, email.id)                # durable: a row in your transaction, rung after commit
await send_email.options(delay=60).enqueue(session, email.id)
await send_email.send(email.id)                            # the broker alone: at least once, no row
await send_email(email.id)                                 # just the function
"""

from callboard_workers.actors.actor import Actor, Registry, actor, registry
from callboard_workers.actors.dependencies import Depends, injected
from callboard_workers.actors.workflow import Group, Pipeline, group, pipeline
from callboard_workers.context import Context, Correlation, attempt_ids, correlation, current
from callboard_workers.cron import Cron
from callboard_workers.errors import (
    BadArguments,
    BadResult,
    BrokerUnavailable,
    Dead,
    DeclarationError,
    Duplicate,
    DurableOnly,
    LeaseLost,
    NoRuntime,
    Overloaded,
    Retry,
    Snooze,
    TimeLimitExceeded,
    Uncertain,
    UnknownActor,
    WorkersError,
)
from callboard_workers.execution.attempt import execute
from callboard_workers.ledger import Canceling, Ledger, State
from callboard_workers.limits import Concurrency, Debounce, Rate, Unique
from callboard_workers.message import Delivery, Message, Priority
from callboard_workers.middleware import Middleware
from callboard_workers.policy import (
    Backoff,
    Canceled,
    DeadLetter,
    Done,
    Expired,
    Ignored,
    Outcome,
    Policy,
    RetryAt,
    Snoozed,
    Unknown,
)
from callboard_workers.runtime import Runtime

__all__ = [
    "Actor",
    "Backoff",
    "BadArguments",
    "BadResult",
    "BrokerUnavailable",
    "Canceled",
    "Canceling",
    "Concurrency",
    "Context",
    "Correlation",
    "Cron",
    "Dead",
    "DeadLetter",
    "Debounce",
    "DeclarationError",
    "Delivery",
    "Depends",
    "Done",
    "Duplicate",
    "DurableOnly",
    "Expired",
    "Group",
    "Ignored",
    "LeaseLost",
    "Ledger",
    "Message",
    "Middleware",
    "NoRuntime",
    "Outcome",
    "Overloaded",
    "Pipeline",
    "Policy",
    "Priority",
    "Rate",
    "Registry",
    "Retry",
    "RetryAt",
    "Runtime",
    "Snooze",
    "Snoozed",
    "State",
    "TimeLimitExceeded",
    "Uncertain",
    "Unique",
    "Unknown",
    "UnknownActor",
    "WorkersError",
    "actor",
    "attempt_ids",
    "correlation",
    "current",
    "execute",
    "group",
    "injected",
    "pipeline",
    "registry",
]
