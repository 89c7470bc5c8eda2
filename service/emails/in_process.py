"""Mail from inside the process, by the same rules and the same code as through the API.

await enqueue(session, letters.welcome("ada@example.org", name="Ada"))     # leaves if the transaction commits
await send(letters.welcome("ada@example.org", name="Ada"))                 # leaves now; raises if it cannot
"""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from callboard_workers.context import correlation
from callboard_workers.errors import WorkersError
from callboard_workers.runtime import Runtime
from service.core.errors import Conflict
from service.db.tenancy import mode_of
from service.emails.actors import message
from service.emails.attachment_store import keep
from service.emails.dedup_window import release
from service.emails.delivery import Sent
from service.emails.insert_columns import COLUMNS, row
from service.emails.load import Stored, compose
from service.emails.models import emails
from service.emails.resources import Office
from service.emails.schemas import EmailRequest
from service.smtp import ServerReply

TRIES = 3
"""How often a mail is stored whose key is somebody's in one moment and nobody's in the next."""


async def enqueue(
    session: AsyncSession | AsyncConnection, request: EmailRequest, *, tenant_id: UUID | None = None
) -> UUID:
    """Store a mail and its message in the caller's transaction; return its id, which is also the task's.

    The tenant is the one this code acts for, unless it is named; a tenant's `test_id` stands for its test mode. With a
    `dedup_key` that an earlier mail bears, nothing is stored and the id is the earlier one's, until that one's window
    is over.
    Raises Invalid naming every fault, Forbidden, or Conflict where others take and let go of the key all the while.
    """
    tenant_id = tenant_id or correlation.get().tenant_id
    if tenant_id is None:
        raise WorkersError("a mail belongs to a tenant: name it, or call this from a request or an actor of one")
    made = await Office.of_loop().desk(tenant_id).draft(request)
    names = [name for name, _ in COLUMNS]
    values = dict(zip(names, row(made, tenant_id, mode_of(tenant_id), correlation.get().request_id), strict=True))
    await keep(session, tenant_id, made.files)
    store = insert(emails).values(values).on_conflict_do_nothing().returning(emails.c.id)
    same = select(emails.c.id).where(emails.c.tenant_id == tenant_id, emails.c.dedup_key == made.dedup_key)
    for _ in range(TRIES):
        if (await session.execute(store)).one_or_none() is not None:
            await Runtime.enqueue_from_loop(session, message(made, tenant_id))
            return made.id
        if await release(session, tenant_id, [made.dedup_key or ""]):
            continue
        earlier: UUID | None = (await session.execute(same)).scalar_one_or_none()
        if earlier is not None:
            return earlier
    raise Conflict("Another mail is just taking this dedup_key; try again.")


async def send(request: EmailRequest) -> Sent:
    """Send a mail now, with no row and no second try; return the server's reply.

    Raises Invalid or Forbidden like `enqueue`, SmtpError when the server does not take it, SendingDisabled.
    """
    office = Office.of_loop()
    tenant_id = correlation.get().tenant_id
    mode = mode_of(tenant_id)
    stored = Stored.of(await office.desk(tenant_id).draft(request), mode, tenant_id)
    return await office.mailer.send(
        await compose(stored, office.library), stored.recipients, mode=mode, attempt=1, before_dot=_unfenced
    )


async def _unfenced(_: Mapping[str, ServerReply]) -> None:
    return
