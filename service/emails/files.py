"""The bytes of attachments: a file is stored once for a tenant, however many mails carry it.

A mail names its files by their digests. What no mail names any more goes once nobody has asked for it for as long as
mails are kept; whoever asks again marks it, so that it does not go between that and the storing of the mail.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from service.emails.attachments import Attachment

YOUNG = "1 hour"
"""How long after its last use a file is not marked anew."""
LEAST = 86_400.0
"""Seconds for which a file stays that nobody names, whatever RECORD_RETENTION says."""

FRESH = text(f"""
SELECT digest FROM attachment_files WHERE tenant_id = :tenant_id AND digest = ANY(CAST(:digests AS bytea[]))
    AND used_at > clock_timestamp() - interval '{YOUNG}'
""")  # noqa: S608 (our own constant)
KEEP = text("""
INSERT INTO attachment_files (tenant_id, digest, data)
SELECT :tenant_id, f.digest, f.data
FROM unnest(CAST(:digests AS bytea[]), CAST(:contents AS bytea[])) AS f(digest, data) ORDER BY f.digest
ON CONFLICT (tenant_id, digest) DO UPDATE SET used_at = clock_timestamp()
""")
FORGET = text("""
DELETE FROM attachment_files WHERE ctid = ANY (ARRAY(
    SELECT f.ctid FROM attachment_files f
    WHERE f.used_at < clock_timestamp() - make_interval(secs => :seconds) AND NOT EXISTS (
        SELECT FROM emails e
        WHERE e.attachments <> '[]' AND e.tenant_id = f.tenant_id
            AND e.attachments @> jsonb_build_array(jsonb_build_object('digest', encode(f.digest, 'hex')))
    ) LIMIT :batch))
""")

CONTENTS = """
SELECT array_agg(f.data ORDER BY a.place)
FROM jsonb_array_elements(e.attachments) WITH ORDINALITY AS a(file, place)
LEFT JOIN attachment_files f ON f.tenant_id = e.tenant_id AND f.digest = decode(a.file ->> 'digest', 'hex')
"""
"""The bytes of the attachments of a mail `e`, in their order; null for a file that is gone. SQL."""


async def keep(where: AsyncConnection | AsyncSession, tenant_id: UUID, files: Sequence[Attachment]) -> None:
    """Store the files that are not there yet, in the caller's transaction; before the mails that name them."""
    if not files:
        return
    wanted = {file.digest: file.content for file in files}
    found = await where.execute(FRESH, {"tenant_id": tenant_id, "digests": list(wanted)})
    lacking = {digest: wanted[digest] for digest in wanted.keys() - set(found.scalars())}
    if lacking:
        values = {"tenant_id": tenant_id, "digests": list(lacking), "contents": list(lacking.values())}
        await where.execute(KEEP, values)
