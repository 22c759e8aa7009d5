"""What the backup's migration made of a table's rows, and what its aggregates come to now: as expressions over them.

Repairs are compiled over the staged tables, as they were before the migration; the aggregates of derived columns also
over the tables as they are now. Of those, only columns that the backup has are read: others go with the rollback.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from psycopg import sql

from briefly_admin.engine.before import read_tables
from briefly_admin.engine.catalog import CatalogColumn, CatalogTable, read_table
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.expected import as_it_was
from briefly_admin.engine.repairs import CompiledRepairs, compile_repairs
from briefly_admin.engine.rollback.selection import Pair
from briefly_admin.engine.staged import StagedTable
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import AggregateRepair, Plan, Table


@dataclass(frozen=True, slots=True)
class Migration:
    """The migration before which the backup was taken."""

    run_id: UUID
    plan: Plan
    then: Mapping[str, CatalogTable]
    """Staged tables by their plan's names, with the columns of the backup."""
    staged: Mapping[str, sql.Composable]
    """The same as what stands behind FROM; with ctid."""
    now: Mapping[str, CatalogTable]
    """The plan's tables that stand now, with no more columns than `then`."""

    def table(self, name: str, columns: Collection[str]) -> Table:
        """The plan's table with those repairs alone that are of these columns."""
        table = self.plan.table(name)
        return replace(table, repairs=[repair for repair in table.repairs if repair.column in columns])

    def repairs(self, table: Table, scope: sql.Composable | None = None) -> CompiledRepairs:
        """The repairs over the staged row, alias t."""
        return compile_repairs(self.plan, table, self.then, relation=lambda name: self.staged[name], scope=scope)

    def aggregates(self, table: Table, scope: sql.Composable | None = None, *, alias: str = "t") -> CompiledRepairs:
        """The aggregates over the children as they are now, for rows `alias`; those whose child is gone are left out.

        The names of its joins do not meet those of `repairs`.
        """
        standing = [r for r in table.repairs if isinstance(r, AggregateRepair) and r.child in self.now]
        catalog = {**self.now, table.name: self.then[table.name]}
        return compile_repairs(
            self.plan, replace(table, repairs=standing), catalog, alias=alias, scope=scope, joined="current",
            relation=lambda name: self.now[name].identifier,
        )  # fmt: skip


def of_backup(
    context: RunContext, connection: Connection, pairs: Sequence[Pair], staged: Sequence[StagedTable]
) -> Migration | None:
    """The migration whose backup it is, or None. `staged`: the tables of `pairs`, and those that aggregates read.

    Made anew once the schema changed: types and columns are as they are now.
    """
    origin = context.options.get("origin")
    if not origin:
        return None
    standing = {**read_tables(connection, context.plan), **{each.name: each.current for each in pairs}}
    then = {each.manifest.name: _as_backed_up(connection, each, standing.get(each.manifest.name)) for each in staged}
    sources = {each.manifest.name: as_it_was(each.identifier, then[each.manifest.name].columns) for each in staged}
    now = {
        name: replace(standing[name], columns=tuple(c for c in standing[name].columns if table.column(c.name)))
        for name, table in then.items()
        if name in standing
    }
    return Migration(UUID(str(origin["run_id"])), context.plan, then, sources, now)


def _as_backed_up(connection: Connection, staged: StagedTable, current: CatalogTable | None) -> CatalogTable:
    """The backup's columns, with the types that they have in the table; where it lacks one now, in the staged table."""
    there = read_table(connection, staged.schema, staged.relation)
    assert there is not None, staged.relation

    def known(column: CatalogColumn) -> CatalogColumn:
        return (current and current.column(column.name)) or column

    return replace(there, columns=tuple(known(column) for column in there.columns))
