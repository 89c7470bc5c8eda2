"""The ledger's tables, as the rest of the code sees them; the migrations make them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from callboard_workers.ledger.states import MOVES, TERMINAL, State

__all__ = [
    "MOVES",
    "TERMINAL",
    "State",
    "attempts",
    "crons",
    "groups",
    "keys",
    "messages",
    "metadata",
    "starts",
]

metadata = sa.MetaData()

_clock = sa.text("clock_timestamp()")
_moment = sa.TIMESTAMP(timezone=True)
_states = ", ".join(f"'{state}'" for state in State)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("tenant_id", sa.Uuid),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("args", pg.JSONB, nullable=False),
    sa.Column("headers", pg.JSONB, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("request_id", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("state", sa.Text, nullable=False, server_default="queued"),
    sa.Column("intent", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("snoozes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("max_crashes", sa.SmallInteger, nullable=False, server_default="3"),
    sa.Column("uncertain_policy", sa.Text, nullable=False, server_default="hold"),
    sa.Column("due_at", _moment, nullable=False, server_default=_clock),
    sa.Column("ring_at", _moment, nullable=False, server_default=_clock),
    sa.Column("rings", sa.Integer, nullable=False, server_default="0"),
    sa.Column("expires_at", _moment),
    sa.Column("lease_until", _moment),
    sa.Column("worker", sa.Text),
    sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("error", pg.JSONB),
    sa.Column("outcome", pg.JSONB),
    sa.Column("result", pg.JSONB),
    sa.Column("progress", pg.JSONB),
    sa.Column("created_at", _moment, nullable=False, server_default=_clock),
    sa.Column("started_at", _moment),
    sa.Column("finished_at", _moment),
    sa.Column("follow", pg.JSONB),
    sa.Column("result_until", _moment),
    sa.Column("frees_key", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("gate", sa.Text),
    sa.Column("admitted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("slots", sa.Integer),
    sa.Column("pace", sa.Integer),
    sa.Column("period", sa.Double),
    sa.Column("fence_detail", pg.JSONB, comment="what the attempt that last passed its fence stored with it"),
    # A suspect's last worker died: at most `isolation` of them run together, `begun` of them did, and nothing beside
    # them. `deaths` and `crashes` count workers that died since it last settled: all, and those it was alone with.
    sa.Column("isolation", sa.SmallInteger),
    sa.Column("begun", sa.SmallInteger),
    sa.Column("deaths", sa.SmallInteger, nullable=False, server_default="0"),
    sa.CheckConstraint(f"state IN ({_states})", name="messages_state"),
    sa.CheckConstraint("uncertain_policy IN ('hold', 'resend')", name="messages_uncertain_policy"),
    sa.CheckConstraint("state <> 'running' OR (lease_until IS NOT NULL AND worker IS NOT NULL)", name="messages_lease"),
    sa.Index("messages_ring", "ring_at", postgresql_where=sa.text("state = 'queued'")),
    sa.Index("messages_running", "id", postgresql_where=sa.text("state = 'running'")),
    sa.Index(
        "messages_expiry",
        "expires_at",
        postgresql_where=sa.text("state = 'queued' AND expires_at IS NOT NULL"),
    ),
    sa.Index(
        "messages_resend",
        "finished_at",
        postgresql_where=sa.text("state = 'uncertain' AND uncertain_policy = 'resend'"),
    ),
    sa.Index(
        "messages_letters",
        "tenant_id",
        "state",
        "id",
        postgresql_where=sa.text("state IN ('dead', 'uncertain', 'held')"),
    ),
    sa.Index("messages_request", "request_id", postgresql_where=sa.text("request_id IS NOT NULL")),
    sa.Index(
        "messages_key",
        "tenant_id",
        "actor",
        "key",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("key IS NOT NULL AND state IN ('queued', 'running', 'uncertain', 'held')"),
    ),
    sa.Index(
        "messages_waiting",
        "gate",
        "id",
        postgresql_where=sa.text("gate IS NOT NULL AND NOT admitted AND state = 'queued'"),
    ),
    sa.Index(
        "messages_admitted",
        "gate",
        postgresql_where=sa.text("gate IS NOT NULL AND admitted AND state IN ('queued', 'running')"),
    ),
    sa.Index("messages_results", "result_until", postgresql_where=sa.text("result_until IS NOT NULL")),
    postgresql_with={"fillfactor": 70},
)

attempts = sa.Table(
    "message_attempts",
    metadata,
    sa.Column("message_id", sa.Uuid, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("started_at", _moment),
    sa.Column("ended_at", _moment, nullable=False, server_default=_clock),
    sa.Column("worker", sa.Text),
    sa.Column("detail", pg.JSONB),
)
"""One row for every attempt that ended other than as a plain success with nothing to report, and for every requeue."""

crons = sa.Table(
    "message_crons",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("tick", _moment, nullable=False),
)
"""The last tick of each actor that runs by the calendar; before its first, the moment it was first seen."""

groups = sa.Table(
    "message_groups",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("members", pg.ARRAY(sa.Uuid), nullable=False),
    sa.Column("pending", sa.Integer, nullable=False),
    sa.Column("callback", pg.JSONB),
    sa.Column("created_at", _moment, nullable=False, server_default=_clock),
)
"""What a group still waits for, and the message that follows when nothing is pending; -1: it never will."""

keys = sa.Table(
    "message_keys",
    metadata,
    sa.Column("tenant_id", sa.Uuid),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("until", _moment, nullable=False),
    sa.Column("message_id", sa.Uuid, nullable=False),
    sa.Index("message_keys_key", "tenant_id", "actor", "key", unique=True, postgresql_nulls_not_distinct=True),
    sa.Index("message_keys_until", "until"),
)
"""Keys that are taken for a time, whatever becomes of their messages."""

starts = sa.Table(
    "message_starts",
    metadata,
    sa.Column("gate", sa.Text, nullable=False),
    sa.Column("until", _moment, nullable=False),
    sa.Index("message_starts_gate", "gate", "until"),
)
"""The starts of messages whose actors have a rate, each until it no longer counts."""
