"""What people do to a bulk: pause, resume, cancel, correct. Each under the lock of its row, in one transaction."""

from __future__ import annotations

import asyncio
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from service.broadcasts import repository
from service.broadcasts.add_recipients import CHUNK, TOLD, variable_faults
from service.broadcasts.models import Bulk, BulkStatus
from service.broadcasts.rate import read_rate
from service.broadcasts.schemas import BulkPatch, RecipientIn
from service.core.errors import Conflict, Fault, Invalid, NotFound
from service.emails.compose import Desk

FROM = {
    BulkStatus.RUNNING: (BulkStatus.OPEN, BulkStatus.PAUSED),
    BulkStatus.PAUSED: (BulkStatus.RUNNING,),
    BulkStatus.CANCELED: (BulkStatus.OPEN, BulkStatus.RUNNING, BulkStatus.PAUSED),
}
"""From which states each may be reached."""


async def locked(connection: AsyncConnection, id: UUID, tenant_id: UUID) -> Bulk:
    """Return a tenant's bulk; nobody else changes or expands it until the transaction is over. Raises NotFound."""
    bulk = await repository.find(connection, id, tenant_id, lock=True)
    if bulk is None:
        raise unknown()
    return bulk


async def pause(connection: AsyncConnection, bulk: Bulk) -> None:
    """Put off every mail that has not started; again is harmless."""
    if _move(bulk, BulkStatus.PAUSED):
        await repository.update(connection, bulk.id, status=BulkStatus.PAUSED)
        await repository.park(connection, bulk.id)


async def resume(connection: AsyncConnection, bulk: Bulk) -> None:
    """Make due what was put off; again is harmless."""
    if bulk.status == BulkStatus.OPEN:
        raise Conflict("The bulk is open: start it when all recipients are there.", code="not-resumable")
    if _move(bulk, BulkStatus.RUNNING):
        await repository.update(connection, bulk.id, status=BulkStatus.RUNNING)
        await repository.unpark(connection, bulk.id)


async def cancel(connection: AsyncConnection, bulk: Bulk) -> None:
    """Cancel every mail that has not started, and write no more of them; again is harmless."""
    if _move(bulk, BulkStatus.CANCELED):
        await repository.cancel(connection, bulk.id)
        await repository.update(connection, bulk.id, status=BulkStatus.CANCELED)  # told with the counts of now


async def correct(connection: AsyncConnection, bulk: Bulk, desk: Desk, wanted: BulkPatch) -> None:
    """Change the template of a paused bulk for all whose mail was not sent, or its throttle at any time.

    Raises Invalid naming the first hundred recipients whom the template does not fit, Conflict.
    """
    if bulk.status == BulkStatus.CANCELED:
        raise Conflict("The bulk is canceled.", code="not-changeable")
    if wanted.throttle is not None:
        pace, period = (None, None) if wanted.throttle == "none" else read_rate(wanted.throttle)
        await repository.update(connection, bulk.id, pace=pace, period=period)
        await repository.throttle(connection, bulk.id, pace, period)
    if wanted.version is None and wanted.variables is None:
        return
    if bulk.status not in {BulkStatus.PAUSED, BulkStatus.OPEN}:
        raise Conflict(f"The bulk is {bulk.status}: pause it first.", code="not-paused")
    corrected = _corrected(bulk, wanted)
    await _check(connection, corrected, desk)
    request = msgspec.json.encode(corrected.request).decode()
    await repository.update(connection, bulk.id, request=request)
    await _rewrite(connection, corrected, desk)


def unknown() -> NotFound:
    """Make the 404."""
    return NotFound("There is no such bulk.", code="unknown-bulk")


def _move(bulk: Bulk, to: BulkStatus) -> bool:
    """Whether there is anything to do. Raises Conflict where the bulk cannot become this."""
    if bulk.status == to:
        return False
    if bulk.status not in FROM[to]:
        raise Conflict(f"The bulk is {bulk.status}; it cannot become {to}.", code=f"not-{to}")
    return True


def _corrected(bulk: Bulk, wanted: BulkPatch) -> Bulk:
    old = bulk.request.template
    template = msgspec.structs.replace(
        old,
        version=old.version if wanted.version is None else wanted.version,
        variables=old.variables if wanted.variables is None else wanted.variables,
    )
    return msgspec.structs.replace(bulk, request=msgspec.structs.replace(bulk.request, template=template))


async def _check(connection: AsyncConnection, bulk: Bulk, desk: Desk) -> None:
    """Hold every recipient without a mail against the template."""
    faults, after = list[Fault](), bulk.next_seq
    while rows := await repository.chunk(connection, bulk.id, after, CHUNK):
        for row in rows:
            given = RecipientIn(to=row["to_"], variables=row["variables"], locale=row["locale"])
            faults += await variable_faults(bulk, desk, given, f"/recipients/{row['seq']}")
        if len(faults) >= TOLD:
            break
        after = rows[-1]["seq"]
        await asyncio.sleep(0)
    if faults:
        raise Invalid(faults[:TOLD], "The template does not fit these recipients; nothing was changed.")


async def _rewrite(connection: AsyncConnection, bulk: Bulk, desk: Desk) -> None:
    mails = []
    for row in await repository.waiting(connection, bulk.id):
        common = bulk.request.template
        wanted = msgspec.structs.replace(
            common, variables=common.variables | row["variables"], locale=row["locale"] or common.locale
        )
        pinned = await desk.pin(wanted)
        version = None if pinned is None else pinned.version.version
        mails.append((row["id"], version, wanted.locale if pinned is None else pinned.locale, wanted.variables))
    await repository.correct(connection, mails)
