"""Reads mails back for sending: many mails of one worker in one statement, each as the Mail that `mime` builds."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from callboard_workers.common.batcher import Batcher
from callboard_workers.ledger.database import fetch
from service.domains.dkim_signer import SIGNER
from service.emails.attachment_store import CONTENTS
from service.emails.insert_columns import COLUMNS, row
from service.emails.prepare import Draft
from service.emails.route import Way
from service.mail.address_text import canonical, read_back
from service.mail.attachments import Attachment
from service.mail.faults import Fault, Refused
from service.mail.message import Mail
from service.suppressions.matching import BULK, SUPPRESSED, topic
from service.suppressions.unsubscribe.links import Reader
from service.templates.render import render, text_of
from service.templates.schemas import Content
from service.templates.source import UNSUBSCRIBE
from service.templates.tenant.lookup import Library, Pinned
from service.transports.pools import RELAY

LONG = 20_000  # characters of HTML from which its text takes more than some milliseconds

LIGHT = 128 * 1024
"""Bytes of bodies and attachments up to which an email is loaded with others, and held while it waits for its turn."""

WHOLE = f"""
SELECT e.id, e.tenant_id, e.mode, e.lane, e.category, e.unsubscribable, e.message_id, e.sender, e.to_, e.cc, e.reply_to,
       e.recipients, e.subject, e.html, e.text, s.size, e.template_key, e.template_locale, e.template_version,
       e.template_variables::text, e.headers::text, e.attachments::text, e.scheduled_at, e.expires_at, e.created_at,
       extract(epoch FROM clock_timestamp() - coalesce(e.scheduled_at, e.created_at))::float8 AS age,
       extract(epoch FROM e.expires_at - clock_timestamp())::float8 AS expires_in,
       (SELECT b.status FROM bulks b WHERE b.id = e.bulk_id) AS bulk_status,
       ARRAY(SELECT jsonb_object_keys(e.recipient_replies)) AS answered,
       coalesce(({SUPPRESSED})::text, '{{}}') AS suppressed, ({SIGNER}) AS signer, ({RELAY}) AS relay
FROM emails e, LATERAL (
    SELECT coalesce(octet_length(e.html), 0) + coalesce(octet_length(e.text), 0) + CASE WHEN e.attachments <> '[]' THEN
        (SELECT sum((a.file ->> 'size')::bigint)::bigint FROM jsonb_array_elements(e.attachments) AS a(file)) ELSE 0 END
) AS s(size)
WHERE e.id = ANY($1)
"""  # noqa: S608 (our own SQL)
_PARTS = {
    "html": "e.html",
    "text": "e.text",
    "attachment_data": "e.attachment_data",
    "contents": f"CASE WHEN e.attachments <> '[]' THEN ({CONTENTS}) END",
}
LOAD = WHOLE.replace(
    "e.html, e.text,",
    "".join(f"CASE WHEN s.size <= {LIGHT} THEN {part} END AS {name},\n" for name, part in _PARTS.items()),
)
"""Light emails with all they contain, large ones without their bodies and attachments."""
REST = f"SELECT {', '.join(f'{part} AS {name}' for name, part in _PARTS.items())} FROM emails e WHERE e.id = $1"  # noqa: S608
"""What LOAD leaves out of a large email."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What is needed to send a mail; the fields are those of the table."""

    id: UUID
    tenant_id: UUID
    mode: str
    lane: str
    category: str | None
    unsubscribable: bool
    message_id: str
    sender: str
    to_: list[str]
    cc: list[str]
    reply_to: list[str]
    recipients: list[str]
    subject: str | None
    html: str | None
    text: str | None
    size: int = 0
    """Bytes of its bodies and attachments, as they are stored."""
    template_key: str | None
    template_locale: str | None
    template_version: int | None
    template_variables: dict[str, Any] | None
    headers: dict[str, str]
    attachments: list[dict[str, Any]]
    attachment_data: bytes | None = None
    contents: list[bytes | None] | None = None
    scheduled_at: datetime | None
    expires_at: datetime | None
    created_at: datetime
    age: float = 0.0
    """Seconds since it was due first, by Postgres' clock."""
    expires_in: float | None = None
    """Seconds until it expires, by Postgres' clock."""
    bulk_status: str | None = None
    suppressed: dict[str, str] = {}
    """Recipients that get no mail, by their canonical address, each with the reason."""
    answered: list[str] = []
    """Recipients that this email serves no more: refused for good, or deferred and served by one that follows it."""
    signer: UUID | None = None
    relay: UUID | None = None

    @classmethod
    def of(cls, draft: Draft, mode: str, tenant_id: UUID | None = None) -> "Stored":
        """A draft as it would be read back, for sending without storing."""
        values = dict(zip((name for name, _ in COLUMNS), row(draft, tenant_id or draft.id, mode, None), strict=True))
        contents: list[bytes | None] = [file.content for file in draft.files]
        return cls(**{name: values[name] for name in cls.__struct_fields__ if name in values}, contents=contents)

    @property
    def way(self) -> Way:
        """How it leaves."""
        return Way(id=self.id, tenant_id=self.tenant_id, signer=self.signer, relay=self.relay)

    @property
    def reader(self) -> Reader | None:
        """Who may unsubscribe from what by this email's link; None for an email without one."""
        if not self.unsubscribable:
            return None
        about = topic(self.category, self.lane) or BULK
        return Reader(self.tenant_id, self.mode, canonical(self.recipients[0]), about, self.id)

    @property
    def wanted(self) -> list[str]:
        """The envelope without those that get no email, and those that it serves no more."""
        return [
            recipient
            for recipient in self.recipients
            if recipient not in self.answered and canonical(recipient) not in self.suppressed
        ]

    def content(self, link: str = "") -> Content:
        """The subject and bodies: the mail's own, or a built-in template filled. Raises what `render` raises."""
        if self.template_key is None:
            text = text_of(self.html) if self.text is None and self.html is not None else self.text
            return Content(subject=self.subject or "", html=self.html, text=text)
        filled = render(self.template_key, self.variables(link), self.template_locale)
        return Content(subject=filled.subject, html=filled.html, text=filled.text)

    def variables(self, link: str) -> dict[str, Any]:
        """What its template is filled with; `link` is its reader's to unsubscribe, unless the caller gave one."""
        return {UNSUBSCRIBE: link, **(self.template_variables or {})}

    def mail(self, content: Content, headers: Mapping[str, str] | None = None) -> Mail:
        """The mail for the wire, with `headers` beside its own: the same bytes whenever it is built again."""
        return Mail(
            message_id=self.message_id,
            date=self.created_at,
            sender=read_back(self.sender),
            subject=content.subject,
            to=list(map(read_back, self.to_)),
            cc=list(map(read_back, self.cc)),
            reply_to=list(map(read_back, self.reply_to)),
            html=content.html,
            text=content.text,
            headers={**self.headers, **(headers or {})},
            attachments=self.files(),
        )

    def files(self) -> list[Attachment]:
        """The attachments with their bytes. Raises Refused for one that is gone."""
        found = []
        for place, (file, content) in enumerate(zip(self.attachments, self._bytes(), strict=True)):
            if content is None:
                raise Refused([Fault(f"attachments/{place}", "gone", "its bytes are gone")])
            found.append(Attachment(file["filename"], content, file["content_type"], file["content_id"]))
        return found

    def _bytes(self) -> list[bytes | None]:
        if self.attachment_data is None:
            return self.contents or []
        ends = list(accumulate((file["size"] for file in self.attachments), initial=0))
        return [self.attachment_data[begin:end] for begin, end in pairwise(ends)]


async def compose(
    stored: Stored, library: Library, headers: Mapping[str, str] | None = None, *, link: str = ""
) -> Mail:
    """The mail for the wire. Raises what `content` and `mime` raise."""
    return stored.mail(await content(stored, library, link), headers)


async def content(stored: Stored, library: Library, link: str = "") -> Content:
    """The subject and bodies; a long HTML body is read for its text in a thread, a tenant's template runs elsewhere.

    `link`: where its reader unsubscribes; empty for a mail that nobody unsubscribes from.
    Raises Refused where there is no mail to be made, Busy where it may be asked for again.
    """
    if stored.template_version is not None:
        return await _filled(stored, library, link)
    if stored.text is None and len(stored.html or "") > LONG:
        return await asyncio.to_thread(stored.content)
    return stored.content(link)


async def _filled(stored: Stored, library: Library, link: str) -> Content:
    key, number, locale = stored.template_key or "", stored.template_version, stored.template_locale
    version = None if number is None else await library.shelf.version(stored.tenant_id, key, number)
    if version is None or locale not in version.locales:
        raise Refused([Fault("template", "gone", f"version {number} of {key} is gone")])
    filled = await library.fill(Pinned(version, locale), stored.variables(link))
    return Content(subject=filled.subject, html=filled.html, text=filled.text)


class Loader:
    """Loads mails by id; what concurrent attempts ask for goes to Postgres together."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._batcher: Batcher[UUID, Stored | None] = Batcher(self._load)

    async def load(self, id: UUID) -> Stored | None:
        """Return an email, a large one without its bodies and attachments, or None where there is none."""
        return await self._batcher.submit(id)

    async def complete(self, stored: Stored) -> Stored:
        """Return an email with all that `load` left out, by a statement of its own. Raises Refused where it is gone."""
        rows = await fetch(self._engine, REST, stored.id)
        if not rows:
            raise Refused([Fault("", "gone", "the email was deleted")])
        return msgspec.structs.replace(stored, **dict(rows[0]))

    async def read(self, id: UUID) -> Stored | None:
        """Return an email with its bodies, without attachments, for a caller who sees its own tenant's rows only."""
        return (await self._load([id], WHOLE))[0]

    async def close(self) -> None:
        """Wait for what is under way; take nothing more."""
        await self._batcher.close()

    async def _load(self, ids: list[UUID], sql: str = LOAD) -> Sequence[Stored | None]:
        found = {row["id"]: _read(row) for row in await fetch(self._engine, sql, ids)}
        return [found.get(id) for id in ids]


def _read(row: Any) -> Stored:
    values = dict(row)
    for name in ("template_variables", "headers", "attachments", "suppressed"):
        values[name] = None if values[name] is None else msgspec.json.decode(values[name])
    return Stored(**values)
