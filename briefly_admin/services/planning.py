"""The plan over the target, for the page on which a run is begun."""

from collections.abc import Iterator, Mapping
from string import Formatter
from typing import Any

from briefly_admin.domain.runs import RunKind, RunState
from briefly_admin.engine.column_types import column_types
from briefly_admin.engine.compiler.coverage import coverage
from briefly_admin.engine.sizes import TableSize, sizes
from briefly_admin.engine.validate.record import WHOLE_ROW
from briefly_admin.plans.base import SchemaChange, Table
from briefly_admin.services.config import Servers, ServiceConfig
from briefly_admin.services.views import PlanChange, PlanCheck, PlanTable, PlanView
from briefly_admin.store import backups, runs
from briefly_admin.store.database import Row

_LOOK_BACK = 50


def plan_view(servers: Servers, config: ServiceConfig) -> PlanView:
    """Tables with estimated rows, repairs and checks in words, changes with their SQL, an estimate.

    Raises Unavailable.
    """
    plan = servers.plan
    with servers.target.session() as connection:
        measured = {size.name: size for size in sizes(connection, plan)}
        types = column_types(connection, plan)
    rows = sum(size.rows or 0 for size in measured.values())
    rate, backup_share = _experience(servers)
    size = sum(table.bytes for table in measured.values())
    return PlanView(
        name=plan.name,
        title=plan.title,
        summary=plan.summary,
        target_title=servers.target.title,
        tables=tuple(_table(table, measured[table.name], types.get(table.name, {})) for table in plan.tables),
        changes=tuple(PlanChange(c.kind, c.table, c.name, sql_of(c)) for c in plan.changes),
        rows=rows,
        bytes=size,
        estimate_seconds=rows / rate if rate else None,
        backup_bytes=round(rows * backup_share) if backup_share else None,
        config=config.defaults.to_json(),
    )


def _table(table: Table, size: TableSize, types: Mapping[str, str]) -> PlanTable:
    repairs = tuple(repair.words for repair in table.repairs)
    return PlanTable(table.name, size.rows, size.bytes, repairs, tuple(_checks(table, types)) if types else ())


def _checks(table: Table, types: Mapping[str, str]) -> Iterator[PlanCheck]:
    """The record's rules in the columns' order, then those across rows."""
    for rule in coverage(table.record, types):
        yield PlanCheck("" if rule.field == WHOLE_ROW else rule.field, rule.rule, rule.words, rule.how, rule.why)
    for key in table.foreign_keys:
        yield PlanCheck(key.column, "foreign_key", f"must be the {key.parent_column} of a row of {key.parent}", "exact")
    for unique in table.uniques:
        words = "must not be that of another row, once both are repaired"
        yield PlanCheck(", ".join(unique.columns), "unique", words, "exact")
    for relation in table.relations:
        if all(types.get(name) in allowed if allowed else name in types for name, allowed in relation.needs):
            yield PlanCheck(relation.field, relation.name, f"reported: {relation.words}", "exact")


def sql_of(change: SchemaChange) -> str:
    """A schema change in SQL, for reading; the engine composes its own from the catalog."""
    columns = ", ".join(change.columns)
    condition = _filled(change.expression)
    alter = f"ALTER TABLE {change.table}"
    match change.kind:
        case "index" | "unique_index":
            unique = "UNIQUE " if change.kind == "unique_index" else ""
            return f"CREATE {unique}INDEX CONCURRENTLY {change.name} ON {change.table} ({columns})"
        case "not_null":
            return f"{alter} ALTER COLUMN {columns} SET NOT NULL"
        case "default":
            return f"{alter} ALTER COLUMN {columns} SET DEFAULT {condition}"
        case "check":
            return f"{alter} ADD CONSTRAINT {change.name} CHECK ({condition})"
        case "foreign_key":
            parent, key = change.references or ("", "")
            return f"{alter} ADD CONSTRAINT {change.name} FOREIGN KEY ({columns}) REFERENCES {parent} ({key})"


def _filled(template: str) -> str:
    return "".join(literal + (name or "") for literal, name, _, _ in Formatter().parse(template))


def _experience(servers: Servers) -> tuple[float | None, float | None]:
    """Rows a second of the newest whole migration of this plan, and sealed bytes a row of the newest backup."""
    with servers.database.begin() as connection:
        done = runs.newest(connection, limit=_LOOK_BACK, kind=RunKind.MIGRATION)
        kept = backups.newest(connection, limit=_LOOK_BACK)
    rates = [rate for row in done if row.plan == servers.plan.name and (rate := _rate(row))]
    shares = [row.bytes / row.rows for row in kept if row.plan == servers.plan.name and row.rows]
    return (rates[0] if rates else None), (shares[0] if shares else None)


def _rate(row: Row[Any]) -> float | None:
    whole = row.state in {RunState.COMPLETED, RunState.COMPLETED_WITH_SKIPS, RunState.ROLLED_BACK}
    if not whole or row.config.get("dryRun") or not row.completed_at or not row.started_at:
        return None
    seconds = (row.completed_at - row.started_at).total_seconds()
    return float(row.records_processed / seconds) if seconds > 0 and row.records_processed else None
