"""The actor library: async actors with a delivery policy, on Celery, Redis and Postgres.

@actor(queue="email", max_retries=8, backoff=Backoff(min=1, max=3600), throws=(Rejected,))
async def send_email(email_id: UUID) -> None: ...

await send_email.enqueue(session, email.id)                # durable: a row in your transaction, rung after commit
await send_email.options(delay=60).enqueue(session, email.id)
await send_email.send(email.id)                            # the broker alone: at least once, no row
await send_email(email.id)                                 # just the function
"""

from workers.actor import Actor, Registry, actor, registry
from workers.compose import Group, Pipeline, group, pipeline
from workers.context import Context, Correlation, attempt_ids, correlation, current
from workers.cron import Cron
from workers.dependencies import Depends, injected
from workers.errors import (
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
from workers.execution import Delivery, execute
from workers.ledger import Canceling, Ledger, State
from workers.limits import Concurrency, Debounce, Rate, Unique
from workers.message import Message, Priority
from workers.middleware import Middleware
from workers.policy import (
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
from workers.runtime import Runtime

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
