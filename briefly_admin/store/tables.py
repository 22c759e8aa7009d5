"""The app database's own tables, in schema `briefly_admin`. Alembic's revisions make them; times are UTC."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

SCHEMA: Final = "briefly_admin"
metadata: Final = MetaData(schema=SCHEMA)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


admin: Final = Table(
    "admin", metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("email", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("disabled_at", DateTime(timezone=True)),
    _now("created_at"),
    _time("last_seen_at"),
    Index("admin_email_key", text("lower(email)"), unique=True),
)  # fmt: skip

session: Final = Table(
    "session", metadata,
    # SHA-256 of the cookie's random id: a dump of this table signs nobody in.
    Column("id_hash", String(64), primary_key=True),
    Column("admin_id", UUID(as_uuid=True), ForeignKey(admin.c.id, ondelete="CASCADE"), nullable=False, index=True),
    _now("created_at"),
    _now("seen_at"),
    _time("revoked_at"),
    Column("address", Text, nullable=False, server_default=""),
    Column("agent", Text, nullable=False, server_default=""),
)  # fmt: skip

token: Final = Table(
    "token", metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("admin_id", UUID(as_uuid=True), ForeignKey(admin.c.id, ondelete="CASCADE"), index=True),
    _now("created_at"),
    _time("expires_at"),
    _time("last_used_at"),
    _time("revoked_at"),
)  # fmt: skip

throttle: Final = Table(
    "throttle", metadata,
    # Failed sign-ins by account and by address, shared by all processes.
    Column("key", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    _now("since"),
    _time("blocked_until"),
)  # fmt: skip

run: Final = Table(
    "run", metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(24), nullable=False),
    Column("plan", Text, nullable=False),
    Column("plan_fingerprint", String(64), nullable=False),
    # SHA-256 of the target's system identifier and database name: one exclusive run per target.
    Column("target_id", String(64), nullable=False),
    Column("target_title", Text, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("options", JSONB, nullable=False, server_default="{}"),
    # rollback: backup_id, mode, tables, reason, preview_id, expected counts; validation: none.
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("phase", String(16)),
    Column("progress", JSONB),
    Column("error", Text),
    Column("error_code", Text),
    Column("remedy", Text),
    Column("records_processed", BigInteger, nullable=False, server_default="0"),
    Column("records_total", BigInteger, nullable=False, server_default="0"),
    Column("report", JSONB),
    Column("backup_id", UUID(as_uuid=True)),
    Column("created_by", Text, nullable=False),
    Column("idempotency_key", Text, unique=True),
    _now("created_at"),
    _time("enqueued_at"),
    _time("started_at"),
    _time("completed_at"),
    _time("heartbeat_at"),
    Column("leader", Text),
    # host:pid of the process that leads
    _now("state_at"),
    Column("state_by", Text, nullable=False, server_default=""),
    # Since when it is in its state, and who put it there.
    Column("breaker_state", String(16), nullable=False, server_default="closed"),
    # closed, open, half_open; see engine.md, "Failures by SQLSTATE"
    Column("breaker_failures", Integer, nullable=False, server_default="0"),
    # in a row, of all workers
    Column("breaker_why", Text, nullable=False, server_default=""),
    _time("breaker_until"),
    # open: when one batch may probe; half_open: until when that probe counts
    Column("breaker_worker", Text, nullable=False, server_default=""),
    # half_open: whose batch probes
)  # fmt: skip
Index("run_created", run.c.created_at.desc())
Index(
    "run_one_exclusive_per_target", run.c.target_id, unique=True,
    postgresql_where=text(
        "kind IN ('migration', 'rollback', 'replay') AND state IN ('awaiting_approval', 'pending', 'running', "
        "'pausing', 'paused', 'interrupted', 'cancelling')"
    ),
)  # fmt: skip

run_phase: Final = Table(
    "run_phase", metadata,
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    # pending, running, done, failed, skipped
    _time("started_at"),
    _time("finished_at"),
    Column("result", JSONB, nullable=False, server_default="{}"),
    PrimaryKeyConstraint("run_id", "phase"),
)  # fmt: skip

run_step: Final = Table(
    "run_step", metadata,
    # What a leader laid out: a step of a phase, shared among the run's workers.
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("step", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    # rises with every layout, so that a claim of an earlier one counts for nothing
    Column("shared", JSONB, nullable=False, server_default="{}"),
    PrimaryKeyConstraint("run_id", "step"),
)  # fmt: skip

run_partition: Final = Table(
    "run_partition", metadata,
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("step", String(16), nullable=False),
    Column("table", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    Column("range", JSONB, nullable=False, server_default="{}"),
    Column("state", String(16), nullable=False, server_default="waiting"),
    # waiting, working, done, failed
    Column("generation", Integer, nullable=False),
    Column("claim", Integer, nullable=False, server_default="0"),
    Column("worker", Text, nullable=False, server_default=""),
    _time("lease_until"),
    Column("progress", JSONB, nullable=False, server_default="{}"),
    # {"done", "changed", "skipped"} in rows
    Column("result", JSONB, nullable=False, server_default="{}"),
    Column("error", JSONB, nullable=False, server_default="{}"),
    # {"code", "message", "remedy"}
    PrimaryKeyConstraint("run_id", "step", "table", "partition"),
)  # fmt: skip

run_helper: Final = Table(
    "run_helper", metadata,
    # Who helps a leader: at most `workers` - 1 at once.
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("lease_until", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("run_id", "slot"),
)  # fmt: skip

run_log: Final = Table(
    "run_log", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False, index=True),
    _now("at"),
    Column("level", String(8), nullable=False),
    Column("phase", String(16)),
    Column("message", Text, nullable=False),
)  # fmt: skip

throughput: Final = Table(
    "throughput", metadata,
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    _now("at"),
    Column("phase", String(16), nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("rate", Float, nullable=False),
    PrimaryKeyConstraint("run_id", "at"),
)  # fmt: skip

finding: Final = Table(
    "finding", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("phase", String(16), nullable=False),
    # validate, or verify
    Column("table", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("class", String(16), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("message", Text, nullable=False),
    Column("samples", JSONB, nullable=False, server_default="[]"),
    UniqueConstraint("run_id", "phase", "table", "field", "rule", "class"),
)  # fmt: skip

quarantine: Final = Table(
    "quarantine", metadata,
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("table", Text, nullable=False),
    Column("key", Text, nullable=False),
    # the key columns as a JSON array of texts
    Column("cause", Text, nullable=False),
    Column("sqlstate", String(5)),
    Column("constraint", Text),
    Column("message", Text, nullable=False),
    Column("closed_by", UUID(as_uuid=True)),
    # the rollback that undid the migration, the replay that cured the row, or the migration that came after
    Column("field", Text, nullable=False, server_default=""),
    # the column that the cause is about
    Column("corrected_at", DateTime(timezone=True)),
    # somebody changed the row by hand since: a replay may take it
    PrimaryKeyConstraint("run_id", "table", "key"),
    Index("ix_briefly_admin_quarantine_cause", "run_id", "table", "field", "cause", "key"),
)  # fmt: skip

skip: Final = Table(
    "skip", metadata,
    # Rows that somebody decided to leave alone.
    Column("target_id", String(64), nullable=False),
    Column("plan", Text, nullable=False),
    Column("table", Text, nullable=False),
    Column("key", Text, nullable=False),
    # as in quarantine
    Column("reason", Text, nullable=False),
    Column("by_whom", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("target_id", "plan", "table", "key"),
)  # fmt: skip

correction: Final = Table(
    "correction", metadata,
    # What was changed by hand, once it is surely in the target; the audit trail names the deed.
    Column("deed", UUID(as_uuid=True), nullable=False),
    Column("target_id", String(64), nullable=False),
    Column("table", Text, nullable=False),
    Column("key", Text, nullable=False),
    # as in quarantine
    Column("at", DateTime(timezone=True), nullable=False),
    Column("by_whom", Text, nullable=False),
    Column("changes", JSONB, nullable=False),
    # {column: {"before": text or null, "after": text or null}}, {column: {"secret": true}}
    PrimaryKeyConstraint("deed", "table", "key"),
    Index("ix_briefly_admin_correction_row", "target_id", "table", "key"),
)  # fmt: skip

backup: Final = Table(
    "backup", metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="SET NULL"), index=True),
    Column("state", String(16), nullable=False),
    # writing, proven, damaged, expired, failed
    Column("plan", Text, nullable=False),
    Column("target_id", String(64), nullable=False),
    Column("target_title", Text, nullable=False),
    Column("shred_key", LargeBinary),
    # 32 bytes; set to NULL first when the backup expires
    Column("manifest_sha256", String(64)),
    Column("tables", JSONB, nullable=False, server_default="[]"),
    # [{"table", "rows", "bytes"}]
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("pinned", Boolean, nullable=False, server_default=text("false")),
    _now("created_at"),
    _time("completed_at"),
    _time("expires_at"),
    _time("proven_at"),
    Column("proven_level", String(2)),
    Column("damage", JSONB, nullable=False, server_default="[]"),
    _time("purged_at"),
    # Since when nothing of it is in the store any more.
    _time("escrowed_at"),
    Column("objects", JSONB, nullable=False, server_default="[]"),
    # [{"key", "size", "sha256", "table", "stream"}]: what a look without keys compares
)  # fmt: skip

backup_proof: Final = Table(
    "backup_proof", metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("backup_id", UUID(as_uuid=True), ForeignKey(backup.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="SET NULL")),
    Column("level", String(2), nullable=False),
    _now("at"),
    Column("whole", Boolean, nullable=False),
    Column("damages", Integer, nullable=False, server_default="0"),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Float, nullable=False, server_default="0"),
    Column("by_whom", Text, nullable=False, server_default=""),
    Column("place", Text, nullable=False, server_default=""),
)  # fmt: skip

baseline: Final = Table(
    "baseline", metadata,
    # Digests of 4,096 key-hash buckets of a table before a run changed it.
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("table", Text, nullable=False),
    Column("digests", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "table"),
)  # fmt: skip

schema_change: Final = Table(
    "schema_change", metadata,
    # Recorded, with its inverse, before it is made.
    Column("run_id", UUID(as_uuid=True), ForeignKey(run.c.id, ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("table", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", Text, nullable=False),
    Column("sql", Text, nullable=False),
    Column("inverse", Text, nullable=False),
    Column("state", String(16), nullable=False),
    # planned, made, waiting, reverted
    Column("note", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("run_id", "position"),
)  # fmt: skip

audit: Final = Table(
    "audit", metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("via", String(8), nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False, index=True),
    Column("object", Text, nullable=False),
    Column("details", JSONB, nullable=False),
    Column("key_id", String(8), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("link", String(64), nullable=False, unique=True),
)  # fmt: skip
"""UPDATE, DELETE and TRUNCATE are refused by triggers (made in the first revision)."""

audit_head: Final = Table(
    "audit_head", metadata,
    # One row: the newest event's number and link, signed, so that a cut tail is noticed.
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("number", BigInteger, nullable=False),
    Column("link", String(64), nullable=False),
    Column("key_id", String(8), nullable=False),
    Column("signature", String(64), nullable=False),
    CheckConstraint("single", name="audit_head_single"),
)  # fmt: skip

checklist: Final = Table(
    "checklist", metadata,
    # The newest preflight of a target, for all processes.
    Column("target_id", String(64), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("checks", JSONB, nullable=False),
)  # fmt: skip
