"""What access stores: tenants, API keys (hashes only), and the answers of Idempotency-Keys."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSON
from sqlalchemy.orm import Mapped, mapped_column

from service.db.engine import Base

Moment = sa.TIMESTAMP(timezone=True)
NOW = sa.text("clock_timestamp()")


class Tenant(Base):
    """The app that calls; what its test keys store has `test_id` as its tenant."""

    __tablename__ = "tenants"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Text, unique=True)
    test_id: Mapped[UUID] = mapped_column(sa.Computed("app_test_id(id)"), unique=True)
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=NOW)


class ApiKey(Base):
    """A tenant's credential; its text is shown once and stored as a SHA-256."""

    __tablename__ = "api_keys"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column(sa.ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(sa.Text, server_default="")
    prefix: Mapped[str] = mapped_column(sa.Text)
    hash: Mapped[bytes] = mapped_column(BYTEA, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(sa.Text))
    mode: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=NOW)
    expires_at: Mapped[datetime | None] = mapped_column(Moment)
    revoked_at: Mapped[datetime | None] = mapped_column(Moment)
    last_used_at: Mapped[datetime | None] = mapped_column(Moment)


class ConsoleSession(Base):
    """A session of the console; signing out deletes it."""

    __tablename__ = "console_sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[UUID] = mapped_column()
    key_id: Mapped[UUID] = mapped_column(sa.ForeignKey("api_keys.id", ondelete="CASCADE"))
    until: Mapped[datetime] = mapped_column(Moment)
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=NOW)


class IdempotencyKey(Base):
    """The first answer to a request that came with an Idempotency-Key, until `expires_at`."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(BYTEA)
    status: Mapped[int] = mapped_column(sa.SmallInteger)
    response: Mapped[Any] = mapped_column(JSON)
    headers: Mapped[dict[str, str]] = mapped_column(JSON, server_default="{}")
    created_at: Mapped[datetime] = mapped_column(Moment, server_default=NOW)
    expires_at: Mapped[datetime] = mapped_column(Moment, index=True)
