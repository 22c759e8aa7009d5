"""Rows that are cured by hand or left alone: corrections, skips, and what the quarantine says of them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SCHEMA = "briefly_admin"


def upgrade() -> None:
    op.add_column("quarantine", sa.Column("field", sa.Text, nullable=False, server_default=""), schema=_SCHEMA)
    op.add_column("quarantine", sa.Column("corrected_at", sa.DateTime(timezone=True)), schema=_SCHEMA)
    op.create_index(
        "ix_briefly_admin_quarantine_cause",
        "quarantine",
        ["run_id", "table", "field", "cause", "key"],
        schema=_SCHEMA,
    )
    op.create_table(
        "skip",
        sa.Column("target_id", sa.String(64), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("table", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by_whom", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("target_id", "plan", "table", "key"),
        schema=_SCHEMA,
    )
    op.create_table(
        "correction",
        sa.Column("deed", sa.UUID(), nullable=False),
        sa.Column("target_id", sa.String(64), nullable=False),
        sa.Column("table", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by_whom", sa.Text, nullable=False),
        sa.Column("changes", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("deed", "table", "key"),
        schema=_SCHEMA,
    )
    op.create_index("ix_briefly_admin_correction_row", "correction", ["target_id", "table", "key"], schema=_SCHEMA)
