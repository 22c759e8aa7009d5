"""Steps, partitions and helpers of a run; its circuit breaker."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SCHEMA = "briefly_admin"


def upgrade() -> None:
    _add_breaker()
    # Nothing has used the first form of run_partition.
    op.drop_table("run_partition", schema=_SCHEMA)
    _create_steps()


def _run_id() -> sa.Column[object]:
    return sa.Column("run_id", sa.UUID(), sa.ForeignKey("briefly_admin.run.id", ondelete="CASCADE"), nullable=False)


def _add_breaker() -> None:
    for column in (
        sa.Column("breaker_state", sa.String(16), nullable=False, server_default="closed"),
        sa.Column("breaker_failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("breaker_why", sa.Text, nullable=False, server_default=""),
        sa.Column("breaker_until", sa.DateTime(timezone=True)),
        sa.Column("breaker_worker", sa.Text, nullable=False, server_default=""),
    ):
        op.add_column("run", column, schema=_SCHEMA)


def _create_steps() -> None:
    op.create_table(
        "run_step",
        _run_id(),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("shared", JSONB, nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("run_id", "step"),
        schema=_SCHEMA,
    )
    op.create_table(
        "run_partition",
        _run_id(),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("table", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("range", JSONB, nullable=False, server_default="{}"),
        sa.Column("state", sa.String(16), nullable=False, server_default="waiting"),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("claim", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.Text, nullable=False, server_default=""),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("progress", JSONB, nullable=False, server_default="{}"),
        sa.Column("result", JSONB, nullable=False, server_default="{}"),
        sa.Column("error", JSONB, nullable=False, server_default="{}"),
        sa.PrimaryKeyConstraint("run_id", "step", "table", "partition"),
        schema=_SCHEMA,
    )
    op.create_table(
        "run_helper",
        _run_id(),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "slot"),
        schema=_SCHEMA,
    )
