"""The first tables of the app database."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_EXCLUSIVE = (
    "kind IN ('migration', 'rollback', 'replay') AND state IN "
    "('awaiting_approval', 'pending', 'running', 'pausing', 'paused', 'interrupted', 'cancelling')"
)
_REFUSE = """
CREATE FUNCTION briefly_admin.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is only ever appended to' USING ERRCODE = 'insufficient_privilege';
END $$
"""
_TRIGGERS = """
CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON briefly_admin.audit
  FOR EACH ROW EXECUTE FUNCTION briefly_admin.refuse_audit_change();
CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON briefly_admin.audit
  FOR EACH STATEMENT EXECUTE FUNCTION briefly_admin.refuse_audit_change();
"""


def upgrade() -> None:
    _create_people()
    _create_audit()
    _create_runs()
    _create_steps()
    _create_outcomes()
    _create_backups()
    op.execute(_REFUSE)
    op.execute(_TRIGGERS)


def _create_people() -> None:
    op.create_table(
        "admin",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema="briefly_admin",
    )
    op.create_index(
        "admin_email_key", "admin", [sa.literal_column("lower(email)")], unique=True, schema="briefly_admin"
    )
    op.create_table(
        "session",
        sa.Column("id_hash", sa.String(length=64), nullable=False),
        sa.Column("admin_id", sa.UUID(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.Column("agent", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["briefly_admin.admin.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id_hash"),
        schema="briefly_admin",
    )
    op.create_index(
        op.f("ix_briefly_admin_session_admin_id"), "session", ["admin_id"], unique=False, schema="briefly_admin"
    )
    op.create_table(
        "token",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("admin_id", sa.UUID(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["admin_id"], ["briefly_admin.admin.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
        schema="briefly_admin",
    )
    op.create_index(
        op.f("ix_briefly_admin_token_admin_id"), "token", ["admin_id"], unique=False, schema="briefly_admin"
    )
    op.create_table(
        "throttle",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("blocked_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key"),
        schema="briefly_admin",
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("via", sa.String(length=8), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("details", JSONB(), nullable=False),
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("link", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("link"),
        schema="briefly_admin",
    )
    op.create_index(op.f("ix_briefly_admin_audit_action"), "audit", ["action"], unique=False, schema="briefly_admin")
    op.create_table(
        "audit_head",
        sa.Column("single", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("link", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=8), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.CheckConstraint("single", name="audit_head_single"),
        sa.PrimaryKeyConstraint("single"),
        schema="briefly_admin",
    )
    op.create_table(
        "checklist",
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("checks", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("target_id"),
        schema="briefly_admin",
    )


def _create_runs() -> None:
    op.create_table(
        "run",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=24), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("plan_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("target_title", sa.Text(), nullable=False),
        sa.Column("config", JSONB(), nullable=False),
        sa.Column("options", JSONB(), server_default="{}", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=True),
        sa.Column("progress", JSONB(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("remedy", sa.Text(), nullable=True),
        sa.Column("records_processed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("records_total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("report", JSONB(), nullable=True),
        sa.Column("backup_id", sa.UUID(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("leader", sa.Text(), nullable=True),
        sa.Column("state_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state_by", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("idempotency_key"),
        sa.UniqueConstraint("number"),
        schema="briefly_admin",
    )
    op.create_index("run_created", "run", [sa.literal_column("created_at DESC")], unique=False, schema="briefly_admin")
    op.create_index(
        "run_one_exclusive_per_target",
        "run",
        ["target_id"],
        unique=True,
        schema="briefly_admin",
        postgresql_where=sa.text(_EXCLUSIVE),
    )


def _create_steps() -> None:
    op.create_table(
        "run_phase",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", JSONB(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "phase"),
        schema="briefly_admin",
    )
    op.create_table(
        "run_partition",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("table", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("range", JSONB(), server_default="{}", nullable=False),
        sa.Column("state", sa.String(length=16), server_default="waiting", nullable=False),
        sa.Column("claim", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "phase", "table", "partition"),
        schema="briefly_admin",
    )
    op.create_table(
        "run_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("level", sa.String(length=8), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        schema="briefly_admin",
    )
    op.create_index(
        op.f("ix_briefly_admin_run_log_run_id"), "run_log", ["run_id"], unique=False, schema="briefly_admin"
    )
    op.create_table(
        "throughput",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "at"),
        schema="briefly_admin",
    )


def _create_outcomes() -> None:
    op.create_table(
        "finding",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("table", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("class", sa.String(length=16), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("samples", JSONB(), server_default="[]", nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("run_id", "phase", "table", "field", "rule", "class"),
        schema="briefly_admin",
    )
    op.create_table(
        "quarantine",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("table", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("sqlstate", sa.String(length=5), nullable=True),
        sa.Column("constraint", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("closed_by", sa.UUID(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "table", "key"),
        schema="briefly_admin",
    )
    op.create_table(
        "baseline",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("table", sa.Text(), nullable=False),
        sa.Column("digests", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "table"),
        schema="briefly_admin",
    )
    op.create_table(
        "schema_change",
        sa.Column("run_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("table", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sql", sa.Text(), nullable=False),
        sa.Column("inverse", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "position"),
        schema="briefly_admin",
    )


def _create_backups() -> None:
    op.create_table(
        "backup",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("run_id", sa.UUID(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("target_id", sa.String(length=64), nullable=False),
        sa.Column("target_title", sa.Text(), nullable=False),
        sa.Column("shred_key", sa.LargeBinary(), nullable=True),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=True),
        sa.Column("tables", JSONB(), server_default="[]", nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("proven_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("proven_level", sa.String(length=2), nullable=True),
        sa.Column("damage", JSONB(), server_default="[]", nullable=False),
        sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["briefly_admin.run.id"], ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
        schema="briefly_admin",
    )
    op.create_index(op.f("ix_briefly_admin_backup_run_id"), "backup", ["run_id"], unique=False, schema="briefly_admin")
