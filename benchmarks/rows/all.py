"""The speed table of the promises, line by line; lines without a trial are not measured yet."""

from benchmarks.rows import backup, migrate, rollback, scale
from benchmarks.rows.row import Row

TABLE: tuple[Row, ...] = (
    Row("validate", "validate, tables without sound rules", "marshmallow row by row on a sample, per row", "≥ 200×"),
    Row("validate_email", "validate, tables with an e-mail rule", "the same", "≥ 30×"),
    Row("validate_count", "validate, rules and foreign keys", "SELECT count(*) of the same tables", "≤ 12× its time"),
    backup.PROVEN_EMBEDDED,
    backup.PROVEN_NARROW,
    backup.SEALED_NARROW,
    backup.SEALED_EMBEDDED,
    backup.MEMORY_ROW,
    migrate.BATCH_100,
    migrate.AUTO,
    migrate.ROW_BY_ROW,
    rollback.ROW,
    scale.MEMORY_ROW,
    scale.COST_ROW,
    Row("progress", "progress partial, 50 pollers", "one web process", "p99 ≤ 50 ms"),
)
ROWS: dict[str, Row] = {row.name: row for row in TABLE if row.measured_now}
