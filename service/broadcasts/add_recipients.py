"""Takes recipients into a bulk: each is read and checked against the template, and stored a chunk at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from service.broadcasts import repository
from service.broadcasts.models import Bulk
from service.broadcasts.schemas import MAX_RECIPIENTS, RecipientIn
from service.core.errors import Fault, Invalid
from service.core.validation import LOCALE, pointed
from service.emails.compose import Desk
from service.mail.address_text import spell
from service.mail.addresses import AddressRefused, parse_address
from service.users.lookup import CHUNK as PEOPLE
from service.users.lookup import followers
from service.web.row_format import Read, Row

CHUNK = 1_000
SLICE = 50
"""Rows that are checked in one go, a few milliseconds: other requests have their turn in between."""
TOLD = 100
"""Faults that are told."""


class Taken(msgspec.Struct):
    """What became of rows so far."""

    added: int = 0
    duplicates: int = 0
    refused: int = 0
    last_seq: int = 0
    faults: list[Fault] = []


async def take(connection: AsyncConnection, bulk: Bulk, desk: Desk, rows: AsyncIterator[Read], mode: str) -> Taken:
    """Add the recipients of `rows`; an address that the bulk has already collapses into the first.

    `partial` counts rows that cannot be served, and goes on. Raises Invalid: for the first hundred of them when
    `atomic`, and where a bulk would have more than a million recipients. The caller's transaction is to be undone then.
    """
    taken = Taken(last_seq=bulk.last_seq)
    chunk: list[tuple[Any, ...]] = []
    read = 0
    async for found in rows:
        read += 1
        if read % SLICE == 0:
            await asyncio.sleep(0)
        made = found if isinstance(found, list) else await recipient(bulk, desk, found, taken.last_seq + 1)
        if isinstance(made, tuple):
            taken.last_seq += 1
            chunk.append(made)
        else:
            _refuse(taken, made, mode)
        if len(chunk) >= CHUNK:
            await _store(connection, bulk, taken, chunk)
            chunk = []
    await _store(connection, bulk, taken, chunk)
    if mode == "atomic" and taken.refused:
        detail = f"{taken.refused} of {read} recipients cannot be served, so none was taken; see `errors`."
        raise Invalid(taken.faults, detail)
    return taken


async def recipient(bulk: Bulk, desk: Desk, row: Row, seq: int) -> tuple[Any, ...] | list[Fault]:
    """The row of one recipient, in the order of keeping.RECIPIENTS; or why this one cannot be served."""
    given, faults = row.value, list[Fault]()
    try:
        address = parse_address(given.to)
    except AddressRefused as error:
        return list(pointed(f"{row.place}/to", error.faults))
    if given.locale is not None and not LOCALE.fullmatch(given.locale):
        faults.append(Fault(f"{row.place}/locale", "is not a language tag such as en or de-AT."))
    faults += await variable_faults(bulk, desk, given, row.place)
    if faults:
        return faults
    return seq, bulk.id, bulk.tenant_id, address.key, spell(address), given.locale, given.variables


async def variable_faults(bulk: Bulk, desk: Desk, given: RecipientIn, place: str) -> list[Fault]:
    """Why the template cannot be filled in for one recipient."""
    template = bulk.request.template
    wanted = msgspec.structs.replace(
        template, variables=template.variables | given.variables, locale=given.locale or template.locale
    )
    return [Fault(place + fault.pointer, fault.message) for fault in await desk.variable_faults(wanted)]


async def listed(recipients: list[RecipientIn]) -> AsyncIterator[Read]:
    """The recipients of a request's body."""
    for index, each in enumerate(recipients):
        yield Row(f"/recipients/{index}", each)


async def following(connection: AsyncConnection, bulk: Bulk, topic: str) -> AsyncIterator[Read]:
    """The followers of a topic that have an address; their attributes are variables, their own language is taken."""
    after = 0
    while people := await followers(connection, bulk.tenant_id, bulk.mode, topic, after=after):
        for person in people:
            if person.email is not None:
                yield Row(
                    f"/topic/{person.no}",
                    RecipientIn(to=person.email, variables=person.attributes, locale=person.locale),
                )
        if len(people) < PEOPLE:
            return
        after = people[-1].no


def _refuse(taken: Taken, faults: list[Fault], mode: str) -> None:
    taken.refused += 1
    taken.faults = (taken.faults + faults)[:TOLD]
    if mode == "atomic" and len(taken.faults) >= TOLD:
        raise Invalid(taken.faults, f"The first {TOLD} faults of the recipients; none was taken.")


async def _store(connection: AsyncConnection, bulk: Bulk, taken: Taken, chunk: list[tuple[Any, ...]]) -> None:
    added = await repository.add(connection, chunk)
    taken.added += added
    taken.duplicates += len(chunk) - added
    if bulk.total + taken.added > MAX_RECIPIENTS:
        raise Invalid([Fault("", f"A bulk has at most {MAX_RECIPIENTS:,} recipients.")])
