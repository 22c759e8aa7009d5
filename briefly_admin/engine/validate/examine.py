"""All of a plan's tables against its record schemas and rules, from one snapshot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.findings import Finding
from briefly_admin.domain.ports import StopSignal
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.target import Connection
from briefly_admin.engine.validate.across import declared_rules, in_one_scan, row_rules, set_parts
from briefly_admin.engine.validate.parts import merged
from briefly_admin.engine.validate.reading import reading
from briefly_admin.engine.validate.record import compile_table
from briefly_admin.engine.validate.scan import count_rows, scan_parts
from briefly_admin.plans.base import Plan

TableReport = Callable[[str, int, int], None]
"""(table, rows done, rows in all): called when a table begins (0 of the estimate) and ends."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found, and the exact number of rows of each table."""

    findings: Sequence[Finding]
    rows: Mapping[str, int]


def read_catalog(connection: Connection, plan: Plan) -> dict[str, CatalogTable]:
    """The plan's tables as the catalog knows them. Raises Refused naming those that are not there."""
    found = {table.name: read_table(connection, table.schema, table.name) for table in plan.tables}
    missing = [f"{table.schema}.{table.name}" for table in plan.tables if found[table.name] is None]
    if missing:
        raise Refused(
            f"The target has no table {', '.join(missing)}.",
            remedy="Check that TARGET_DATABASE_URL names the right database and that this is the plan for it.",
        )
    return {name: table for name, table in found.items() if table is not None}


def examine_tables(
    connection: Connection, plan: Plan, *, report: TableReport | None = None, should_stop: StopSignal | None = None,
    exclude: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> Examination:  # fmt: skip
    """As `examine`, with the tables' row counts."""
    findings: list[Finding] = []
    rows: dict[str, int] = {}
    with reading(connection, should_stop) as session:
        catalog = read_catalog(connection, plan)
        for table in plan.tables:
            session.check_stop()
            if report:
                report(table.name, 0, catalog[table.name].estimated_rows)
            compiled = compile_table(connection, plan, table, catalog, (exclude or {}).get(table.name, ()))
            rows[table.name] = count_rows(session, compiled)
            scanned = in_one_scan(table, catalog)
            records, across = scan_parts(session, compiled, row_rules(compiled, catalog, scanned))
            findings.extend(merged(records))
            others = [number for number in range(len(declared_rules(table))) if number not in scanned]
            findings.extend(merged([*across, *set_parts(session, plan, compiled, catalog, others)]))
            if report:
                report(table.name, rows[table.name], rows[table.name])
    return Examination(findings, rows)


def examine(
    connection: Connection, plan: Plan, *, report: TableReport | None = None, should_stop: StopSignal | None = None,
    exclude: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> list[Finding]:  # fmt: skip
    """Everything that validation finds in the plan's tables; counts are exact, samples at most 100 a finding.

    Reads in one REPEATABLE READ READ ONLY transaction (the caller's, if one is open: its statement timeout is then
    off to its end). `exclude`: table → keys, as the texts of their columns, that are left aside.
    Raises Stopped; Refused where a table is missing or a repair does not fit it; Unavailable; RunFailed.
    """
    return list(examine_tables(connection, plan, report=report, should_stop=should_stop, exclude=exclude).findings)
