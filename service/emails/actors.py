"""What the emails slice does: `send_email`, the one way a stored mail leaves.

A mail costs its worker four statements, each shared with the mails that run beside it: claim, load, fence, settle.
"""

import random
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, assert_never
from uuid import UUID

import msgspec
from sqlalchemy import text
from uuid_utils.compat import uuid7

from callboard_workers.actors.actor import actor
from callboard_workers.context import current
from callboard_workers.cron import Cron
from callboard_workers.errors import Dead, Retry, Snooze, Uncertain
from callboard_workers.message import Message
from callboard_workers.policy import Backoff
from callboard_workers.runtime import Runtime
from service.db.retention import forget, forget_records, oldest
from service.emails import attachment_store
from service.emails.deferred_recipients import fence_detail
from service.emails.delivery import SendingDisabled, Sent
from service.emails.hard_bounces import suppress_dead
from service.emails.load import Stored
from service.emails.models import ACTOR, Lane, Status
from service.emails.prepare import Draft
from service.emails.reports.simulate import take_in
from service.emails.resources import Office
from service.emails.simulator import is_simulated, reports
from service.mail.faults import Refused
from service.smtp import Backoff as Pause
from service.smtp import Kind, ServerReply, SmtpError
from service.templates import render
from service.templates.tenant.sandbox_pool import Busy

GIVE_UP = timedelta(days=5)  # RFC 5321, 4.5.4.1: "at least 4-5 days"
CROWDED = 5.0  # seconds until a template is filled in that found no process to do it
AWAY = 600.0  # seconds: the longest wait while the mail server cannot be reached

PAUSED_SECONDS = 300.0
"""How long an email of a paused broadcast waits; resuming makes it due at once."""

OLD = text("""
DELETE FROM emails WHERE id = ANY (ARRAY(
    SELECT id FROM emails WHERE id < :before AND status NOT IN ('queued', 'sending', 'uncertain')
    ORDER BY id LIMIT :batch))
""")


@actor(
    name=ACTOR,
    queue="email",
    max_retries=500,
    backoff=Backoff(min=2, max=3600),
    time_limit=1800,
    uncertain="hold",
    max_snoozes=32_767,
    on_stop="release",
)
async def send_email(email_id: UUID) -> None:
    """Send one stored mail; its row says to whom, and its message what becomes of it.

    `time_limit` covers an SMTP conversation at its slowest (smtp.Timeouts): 900 s to the final dot and 600 s after it.
    """
    office, context = Office.of_loop(), current()
    stored = await office.loader.load(email_id)
    if stored is None:
        raise Dead("there is no such mail", {"reason": "no_such_mail"})
    if stored.bulk_status == "paused":
        raise Snooze(PAUSED_SECONDS, "its bulk is paused")
    if not stored.wanted:
        context.report(status=Status.SUPPRESSED, suppressed=stored.suppressed)
        return

    async def before_dot(refused: Mapping[str, ServerReply]) -> None:
        later = simulated_reports(stored, refused) if is_simulated(stored.mode, stored.wanted) else None
        await context.fence(fence_detail(refused, partial(continuation, stored), later))

    try:
        sent = await office.mailer.send(
            await office.compose(stored, rendered=lambda subject: context.report(subject=subject)),
            stored.wanted,
            mode=stored.mode,
            attempt=context.attempt,
            before_dot=before_dot,
            way=stored.way,
        )
    except SmtpError as error:
        await suppress_dead(stored, error.refused)
        raise verdict(error, context.attempt, age(stored)) from error
    except Refused as error:
        raise Dead(f"no mail can be made of it: {error}", {"reason": "content_refused"}) from error
    except Busy as error:
        raise Retry(CROWDED, f"no renderer: {error}") from error
    except SendingDisabled as error:
        raise Dead("MAIL_SEND is false", {"reason": "sending_disabled"}) from error
    context.report(**told(sent), **({"suppressed": stored.suppressed} if stored.suppressed else {}))
    await suppress_dead(stored, sent.reply.refused)


@actor(name="emails.report_simulated", queue="email", max_retries=50, time_limit=300)
async def report_simulated(email_id: UUID, recipients: list[str]) -> None:
    """Take in what simulated recipients report of an email; its message is put by the settling of that of the email."""
    stored = await Office.of_loop().loader.load(email_id)
    if stored is not None:
        await take_in(stored, reports(recipients))


@actor(name="emails.forget", cron=Cron("2-59/10 * * * *"), time_limit=3600)
async def forget_emails() -> None:
    """Delete mails older than RECORD_RETENTION with all they contain; those that wait for something stay."""
    await forget_records(OLD)


@actor(name="emails.forget_files", cron=Cron("17 * * * *"), time_limit=3600)
async def forget_files() -> None:
    """Delete files that no mail names and that nobody asked for within RECORD_RETENTION."""
    retention: float = Runtime.of_loop().state["settings"].record_retention
    if retention:
        kept = max(retention, attachment_store.DAY)
        await forget(attachment_store.FORGET, seconds=kept + attachment_store.DAY, before=await oldest(kept))


def message(made: Draft, tenant_id: UUID) -> Message:
    """The message that sends a draft once it is stored: same id, its lane's priority, its times, its policy."""
    start = made.scheduled_at or made.created_at
    expires = None if made.expires_at is None else (made.expires_at - made.created_at).total_seconds()
    how = send_email.options(
        id=made.id,
        at=made.scheduled_at if start > made.created_at else None,
        priority=made.lane.priority,
        expires=expires,
        tenant_id=tenant_id,
    )
    found = how.message(made.id)
    return found if found.uncertain == made.uncertain else msgspec.structs.replace(found, uncertain=made.uncertain)


def continuation(stored: Stored, delay: float) -> Message:
    """The message that sends an email to its deferred recipients after `delay` seconds, if it is not to expire before.

    Its policy `uncertain` is that of the first email's message; the database copies it.
    """
    id, left = uuid7(), None
    if stored.expires_in is not None:
        left = max(0.001, stored.expires_in)
    how = send_email.options(
        id=id,
        delay=delay if left is None else min(delay, left / 2),
        expires=left,
        priority=Lane(stored.lane).priority,
        tenant_id=stored.tenant_id,
    )
    return how.message(id)


def simulated_reports(stored: Stored, refused: Mapping[str, ServerReply]) -> Message | None:
    """The message that takes in what simulated recipients report once the email is sent; None where none reports."""
    reporting = [str(each.recipient) for each in reports(stored.wanted) if each.recipient not in refused]
    if not reporting:
        return None
    how = report_simulated.options(priority=Lane(stored.lane).priority, tenant_id=stored.tenant_id)
    return how.message(stored.id, reporting)


def verdict(error: SmtpError, attempt: int, age: timedelta) -> Retry | Dead | Uncertain:
    """What a failure of SMTP means for a message of this age; five days are the end of trying."""
    detail: dict[str, Any] = {**error.detail(), "refused": _refused(error.refused)}
    reason = f"{error.reason} at {error.phase}"  # without the server's words: they may name an address, and are logged
    match error.kind:
        case Kind.TEMPORARY:
            if age > GIVE_UP:
                return Dead(f"gave up after {age.days} days: {reason}", detail)
            return Retry(wait(error, attempt), reason, detail)
        case Kind.PERMANENT:
            return Dead(reason, detail)
        case Kind.AMBIGUOUS:
            return Uncertain(reason, detail)
        case _:
            assert_never(error.kind)


def age(stored: Stored) -> timedelta:
    """How long an email has been due, by Postgres' clock."""
    return timedelta(seconds=stored.age)


def wait(error: SmtpError, attempt: int) -> float | None:
    """Seconds until the next attempt, by the class of the error (service.smtp.reply_rules); None for the actor's
    own backoff.

    While the server cannot be reached there is nothing to be polite to: the email is tried soon after it is back.
    """
    if error.retry_after is not None:
        return error.retry_after
    if error.phase.about_us and error.backoff in (Pause.SHORT, Pause.NORMAL):
        return random.uniform(0.5, 1.0) * min(AWAY, 2.0 ** min(attempt, 20))  # noqa: S311 - jitter
    return error.backoff.delay(attempt)


def told(sent: Sent) -> dict[str, Any]:
    """What is kept of a mail that was taken."""
    detail: dict[str, Any] = dict(sent.reply.detail())
    if sent.reply.refused:
        detail["refused"] = _refused(sent.reply.refused)
    if sent.simulated:
        detail["simulated"] = True
    return detail


def _refused(replies: Any) -> dict[str, str]:
    return {recipient: f"{reply.code} {reply.text}" for recipient, reply in replies.items()}


def warm() -> None:
    """Compile the templates before the first mail needs one."""
    render.warm()
