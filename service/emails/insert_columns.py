"""How a draft becomes a row of `emails`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from service.emails.prepare import Draft
from service.mail.address_text import spell
from service.mail.attachments import safe_filename

COLUMNS: tuple[tuple[str, str], ...] = (
    ("id", "uuid"),
    ("tenant_id", "uuid"),
    ("mode", "text"),
    ("lane", "text"),
    ("request_id", "text"),
    ("category", "text"),
    ("dedup_key", "text"),
    ("message_id", "text"),
    ("sender", "text"),
    ("to_", "text[]"),
    ("cc", "text[]"),
    ("bcc", "text[]"),
    ("reply_to", "text[]"),
    ("recipients", "text[]"),
    ("subject", "text"),
    ("html", "text"),
    ("text", "text"),
    ("template_key", "text"),
    ("template_locale", "text"),
    ("template_variables", "jsonb"),
    ("headers", "jsonb"),
    ("tags", "text[]"),
    ("metadata", "jsonb"),
    ("attachments", "jsonb"),
    ("scheduled_at", "timestamptz"),
    ("expires_at", "timestamptz"),
    ("created_at", "timestamptz"),
    ("updated_at", "timestamptz"),
    ("template_version", "integer"),
    ("bulk_id", "uuid"),
    ("unsubscribable", "boolean"),
    ("dedup_until", "timestamptz"),
)
"""What is stored of a mail at acceptance, with the Postgres types; `status` begins as `queued`."""


def row(draft: Draft, tenant_id: UUID, mode: str, request_id: str | None) -> tuple[Any, ...]:
    """The values of one mail, in the order of COLUMNS."""
    template = draft.template
    return (
        draft.id,
        tenant_id,
        mode,
        draft.lane.value,
        request_id,
        draft.category,
        draft.dedup_key,
        draft.message_id,
        spell(draft.sender),
        *(list(map(spell, addresses)) for addresses in (draft.to, draft.cc, draft.bcc, draft.reply_to)),
        draft.recipients,
        draft.subject,
        draft.html,
        draft.text,
        template.key if template else None,
        template.locale if template else None,
        template.variables if template else None,
        draft.headers,
        draft.tags,
        draft.metadata,
        files(draft),
        draft.scheduled_at,
        draft.expires_at,
        draft.created_at,
        draft.created_at,
        draft.template_version,
        draft.bulk_id,
        draft.unsubscribable,
        draft.dedup_until,
    )


def files(draft: Draft) -> list[dict[str, Any]]:
    """Describe the attachments as the row stores them; `attachment_store` finds their bytes by digest."""
    return [
        {
            "filename": safe_filename(file.filename),
            "content_type": file.content_type,
            "size": len(file.content),
            "content_id": file.content_id,
            "digest": file.digest.hex(),
        }
        for file in draft.files
    ]
