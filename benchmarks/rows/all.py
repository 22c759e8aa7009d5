"""The speed table of the promises, line by line; lines without a trial are not measured yet."""

from benchmarks.rows import backup, migrate, rollback, scale, validate
from benchmarks.rows.row import Row

TABLE: tuple[Row, ...] = (
    validate.PLAIN,
    validate.EMAIL,
    validate.COUNT,
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
