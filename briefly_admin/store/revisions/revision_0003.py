"""Every look at a backup, its objects for a look without keys, and its escrow file."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SCHEMA = "briefly_admin"


def upgrade() -> None:
    op.add_column("backup", sa.Column("escrowed_at", sa.DateTime(timezone=True)), schema=_SCHEMA)
    op.add_column("backup", sa.Column("objects", JSONB, nullable=False, server_default="[]"), schema=_SCHEMA)
    op.create_table(
        "backup_proof",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("backup_id", sa.UUID(), sa.ForeignKey("briefly_admin.backup.id", ondelete="CASCADE"), nullable=False),
        sa.Column("run_id", sa.UUID(), sa.ForeignKey("briefly_admin.run.id", ondelete="SET NULL")),
        sa.Column("level", sa.String(2), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("damages", sa.Integer, nullable=False, server_default="0"),
        sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("seconds", sa.Float, nullable=False, server_default="0"),
        sa.Column("by_whom", sa.Text, nullable=False, server_default=""),
        sa.Column("place", sa.Text, nullable=False, server_default=""),
        schema=_SCHEMA,
    )
    op.create_index("ix_briefly_admin_backup_proof_backup_id", "backup_proof", ["backup_id"], schema=_SCHEMA)
