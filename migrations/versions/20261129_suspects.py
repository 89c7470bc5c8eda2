"""A crash counts only against a message that ran alone: suspects, and what is known of each.

`isolation`: set for a suspect, whose last worker died; at most so many of them run together, and nothing beside them.
`begun`: how many suspects began together in a process that runs nothing else; null where other work runs beside it.
`deaths`: workers that died holding the message since it last settled, whatever the cause; `crashes`: while it ran alone.

Revision ID: 20261129_suspects
Revises: 20261129_provider_ids
"""

from alembic import op

revision = "20261129_suspects"
down_revision = "20261129_provider_ids"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE messages
    ADD COLUMN isolation smallint,
    ADD COLUMN begun smallint,
    ADD COLUMN deaths smallint NOT NULL DEFAULT 0
"""


def upgrade() -> None:
    op.execute(COLUMNS)


def downgrade() -> None:
    op.execute("ALTER TABLE messages DROP COLUMN isolation, DROP COLUMN begun, DROP COLUMN deaths")
