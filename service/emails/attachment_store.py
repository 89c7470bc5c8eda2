"""The bytes of attachments: a file is stored once for a tenant, however many mails carry it.

A mail names its files by their digests. A file is marked as used by whatever stores a mail that names it, at most
STALE ago: so a mail is never older than the mark of its file and STALE together, and a file that was last marked a day
before the oldest mail that is kept can only be named by one that is kept because it waits. Those are few; no index on
what mails name is needed to find the files that go.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.core.errors import Unavailable
from service.db.engine import cause
from service.mail.attachments import Attachment

YOUNG = "1 hour"
"""How long after its last use a file is not marked anew."""
STALE = "12 hours"
"""From then on a mail waits until its file is marked; before, it passes by a file that another transaction marks."""
DAY = 86_400.0
"""Seconds for which a file stays that nobody names, whatever RECORD_RETENTION says, and beyond it."""

INLINE_BYTES = 1024 * 1024
"""Of files that are hashed on the event loop; more are hashed in a thread."""
STATEMENT_BYTES = 4 * 1024 * 1024
"""Of files that one statement stores, and one file more."""
PATIENCE = 1.0
"""Seconds for which a request waits for a transaction that is just storing the same file."""
BUSY = (
    "Another transaction is just storing one of these attachments for the first time and has not ended;"
    " nothing was accepted. Try again."
)

WAIT = text("SELECT set_config('lock_timeout', :milliseconds, true)")
WAIT_AS_BEFORE = text("SET LOCAL lock_timeout TO DEFAULT")
KNOWN = text(f"""
SELECT digest, used_at > clock_timestamp() - interval '{YOUNG}' AS young FROM attachment_files
WHERE tenant_id = :tenant_id AND digest = ANY(CAST(:digests AS bytea[]))
    AND used_at > clock_timestamp() - interval '{STALE}'
""")  # noqa: S608 (our own constant)
MARK = text("""
UPDATE attachment_files SET used_at = clock_timestamp() WHERE tenant_id = :tenant_id AND digest = ANY (ARRAY(
    SELECT digest FROM attachment_files WHERE tenant_id = :tenant_id AND digest = ANY(CAST(:digests AS bytea[]))
    FOR NO KEY UPDATE SKIP LOCKED))
""")
KEEP = text("""
INSERT INTO attachment_files (tenant_id, digest, data)
SELECT :tenant_id, f.digest, f.data
FROM unnest(CAST(:digests AS bytea[]), CAST(:contents AS bytea[])) AS f(digest, data) ORDER BY f.digest
ON CONFLICT (tenant_id, digest) DO UPDATE SET used_at = clock_timestamp()
""")
AGAIN = text(f"""
WITH named AS MATERIALIZED (
    SELECT f.tenant_id, f.digest FROM attachment_files f
    WHERE f.used_at <= clock_timestamp() - interval '{STALE}'
        AND f.tenant_id = (SELECT e.tenant_id FROM emails e WHERE e.id = :email_id)
        AND f.digest = ANY (ARRAY(
            SELECT decode(a.file ->> 'digest', 'hex')
            FROM emails e, jsonb_array_elements(e.attachments) AS a(file) WHERE e.id = :email_id))
    ORDER BY f.digest FOR NO KEY UPDATE
)
UPDATE attachment_files f SET used_at = clock_timestamp() FROM named n
WHERE f.tenant_id = n.tenant_id AND f.digest = n.digest
""")  # noqa: S608 (our own constant)
FORGET = text("""
DELETE FROM attachment_files WHERE ctid = ANY (ARRAY(
    SELECT f.ctid FROM attachment_files f
    WHERE f.used_at < clock_timestamp() - make_interval(secs => :seconds) AND NOT EXISTS (
        SELECT FROM emails e, jsonb_array_elements(e.attachments) AS a(file)
        WHERE e.id < :before AND e.attachments <> '[]' AND e.tenant_id = f.tenant_id
            AND decode(a.file ->> 'digest', 'hex') = f.digest
    ) LIMIT :batch FOR UPDATE OF f SKIP LOCKED))
""")
"""`before`: the lowest id of a mail that is not old yet; `seconds`: a day more than that."""

CONTENTS = """
SELECT array_agg(f.data ORDER BY a.place)
FROM jsonb_array_elements(e.attachments) WITH ORDINALITY AS a(file, place)
LEFT JOIN attachment_files f ON f.tenant_id = e.tenant_id AND f.digest = decode(a.file ->> 'digest', 'hex')
"""
"""The bytes of the attachments of a mail `e`, in their order; null for a file that is gone. SQL."""


async def keep(
    where: AsyncConnection | AsyncSession, tenant_id: UUID, files: Sequence[Attachment], patience: float | None = None
) -> None:
    """Store the files that are not there yet, in the caller's transaction; before the mails that name them.

    For a file in use it waits for nobody; for one that another transaction is just storing it waits until that ends, or
    for `patience` seconds. Raises Unavailable then: the caller's transaction is to be undone.
    """
    if not files:
        return
    wanted = await asyncio.to_thread(_by_digest, files) if _size(files) > INLINE_BYTES else _by_digest(files)
    values: dict[str, Any] = {"tenant_id": tenant_id, "digests": sorted(wanted)}
    known = {row.digest: row.young for row in await where.execute(KNOWN, values)}
    if old := sorted(digest for digest, young in known.items() if not young):
        await where.execute(MARK, {**values, "digests": old})
    if lacking := sorted(wanted.keys() - known.keys()):
        files_lacking = {digest: wanted[digest] for digest in lacking}
        await (
            _keep(where, tenant_id, files_lacking)
            if patience is None
            else _keep_soon(where, tenant_id, files_lacking, patience)
        )


def _by_digest(files: Sequence[Attachment]) -> dict[bytes, bytes]:
    return {file.digest: file.content for file in files}


def _size(files: Sequence[Attachment]) -> int:
    return sum(len(file.content) for file in files)


async def _keep(where: AsyncConnection | AsyncSession, tenant_id: UUID, lacking: dict[bytes, bytes]) -> None:
    """Store files in the order of their digests, a few megabytes to a statement: its values are encoded in one go."""
    some, size = dict[bytes, bytes](), 0
    for digest, content in lacking.items():
        some[digest] = content
        size += len(content)
        if size >= STATEMENT_BYTES:
            await _insert(where, tenant_id, some)
            some, size = {}, 0
    if some:
        await _insert(where, tenant_id, some)


async def _insert(where: AsyncConnection | AsyncSession, tenant_id: UUID, some: dict[bytes, bytes]) -> None:
    await where.execute(KEEP, {"tenant_id": tenant_id, "digests": list(some), "contents": list(some.values())})


async def _keep_soon(
    where: AsyncConnection | AsyncSession, tenant_id: UUID, lacking: dict[bytes, bytes], patience: float
) -> None:
    await where.execute(WAIT, {"milliseconds": str(int(patience * 1000))})
    try:
        await _keep(where, tenant_id, lacking)
    except DBAPIError as error:
        if isinstance(cause(error), asyncpg.LockNotAvailableError):
            raise Unavailable(BUSY, code="attachment-busy") from error
        raise
    await where.execute(WAIT_AS_BEFORE)


async def keep_again(where: AsyncConnection | AsyncSession, email_id: UUID) -> None:
    """Mark the files of a mail of which a copy is stored, in the caller's transaction; before the copy."""
    await where.execute(AGAIN, {"email_id": email_id})
