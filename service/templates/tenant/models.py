"""The tables `templates` and `template_versions`: a version is never changed once it is stored (a trigger).

`published` is the version that an email gets which names none; null while there are drafts only.
"""

from sqlalchemy import Column, DateTime, ForeignKeyConstraint, Integer, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from service.db.engine import Base

_NOW = func.clock_timestamp()

templates = Table(
    "templates",
    Base.metadata,
    Column("tenant_id", PgUUID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("published", Integer),
    Column("newest", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

template_versions = Table(
    "template_versions",
    Base.metadata,
    Column("tenant_id", PgUUID, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("default_locale", Text, nullable=False),
    Column("contents", JSONB, nullable=False),
    Column("variables", JSONB),
    Column("needs", JSONB, nullable=False),
    Column("note", Text),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    ForeignKeyConstraint(
        ["tenant_id", "key"],
        ["templates.tenant_id", "templates.key"],
        name="fk_template_versions_key_templates",
        ondelete="CASCADE",
    ),
)
