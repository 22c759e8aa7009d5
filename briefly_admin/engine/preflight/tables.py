"""Checks of the plan's tables: there, plain, owned, visible whole, keyed, with the columns that the plan needs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from briefly_admin.domain.checks import Check
from briefly_admin.domain.errors import Refused
from briefly_admin.engine.catalog import CatalogTable, read_table
from briefly_admin.engine.preflight.inputs import amber, green, look, red
from briefly_admin.engine.target import Connection
from briefly_admin.engine.validate.record import compile_table
from briefly_admin.plans.base import Plan, Table

_KINDS: Final = {
    "p": "a partitioned table", "v": "a view", "m": "a materialised view", "f": "a foreign table",
    "S": "a sequence", "c": "a composite type", "i": "an index", "I": "an index",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """The plan's tables that are there, as the catalog knows them."""

    connection: Connection
    plan: Plan
    catalog: Mapping[str, CatalogTable]

    @property
    def pairs(self) -> Iterator[tuple[Table, CatalogTable]]:
        """Each table of the plan that is there, with the catalog's."""
        return ((table, self.catalog[table.name]) for table in self.plan.tables if table.name in self.catalog)


def read_site(connection: Connection, plan: Plan) -> Site:
    """Read the catalog of the plan's tables."""
    found = {table.name: read_table(connection, table.schema, table.name) for table in plan.tables}
    return Site(connection, plan, {name: table for name, table in found.items() if table is not None})


def of_tables(site: Site) -> Iterator[Check]:
    """The checks of the tables that may be red."""
    asks: tuple[tuple[str, str, Callable[[Site, str, str], Check]], ...] = (
        ("tables", "Every table of the plan is there", _there),
        ("plain_tables", "Every one is a plain table", _plain),
        ("ownership", "The role owns them", _owned),
        ("row_security", "Row-level security hides no rows", _visible),
        ("keys", "Every table has its key", _keyed),
        ("columns", "The columns that the plan needs are there", _columns),
        ("column_types", "The columns have usable types", _types),
    )
    for name, title, ask in asks:
        yield look(name, title, lambda ask=ask, name=name, title=title: ask(site, name, title))  # type: ignore[misc]


def remarks(site: Site) -> Iterator[Check]:
    """What an admin should know of the tables; never red."""
    asks: tuple[tuple[str, str, Callable[[Site, str, str], Check]], ...] = (
        ("triggers", "No triggers fire on changed rows", _triggers),
        ("outside_references", "No tables outside the plan refer to it", _references),
        ("invalid_indexes", "All indexes are valid", _indexes),
    )
    for name, title, ask in asks:
        yield look(name, title, lambda ask=ask, name=name, title=title: ask(site, name, title))  # type: ignore[misc]


def _title_of(table: CatalogTable) -> str:
    return f"{table.schema}.{table.name}"


def _there(site: Site, name: str, title: str) -> Check:
    missing = [f"{t.schema}.{t.name}" for t in site.plan.tables if t.name not in site.catalog]
    if missing:
        return red(
            name,
            title,
            f"Missing: {', '.join(missing)}.",
            "Check that TARGET_DATABASE_URL names the right database and MIGRATION_PLAN the right plan.",
        )
    return green(name, title, f"{len(site.catalog)} tables.")


def _plain(site: Site, name: str, title: str) -> Check:
    faults = []
    for _, table in site.pairs:
        if table.kind != "r":
            faults.append(f"{_title_of(table)} is {_KINDS.get(table.kind, 'no table')}")
        elif table.has_children:
            faults.append(f"{_title_of(table)} has inheritance children")
        elif table.has_rules:
            faults.append(f"{_title_of(table)} has rules on writes")
    if faults:
        return red(name, title, f"{'; '.join(faults)}.", "Such relations cannot be backed up and changed in batches.")
    return green(name, title, "They are.")


def _owned(site: Site, name: str, title: str) -> Check:
    faults = [f"{_title_of(table)} belongs to {table.owner}" for _, table in site.pairs if not table.owned]
    if faults:
        return red(name, title, f"{'; '.join(faults)}.", "Connect as the owner, or GRANT the owner's role to this one.")
    return green(name, title, "It is their owner, or a member of it.")


def _visible(site: Site, name: str, title: str) -> Check:
    oids = [table.oid for _, table in site.pairs if table.row_security]
    rows = site.connection.execute(
        "SELECT o FROM unnest(%s::int8[]) AS o WHERE row_security_active(o::oid)", (oids,)
    ).fetchall()
    hidden = {oid for (oid,) in rows}
    faults = [_title_of(table) for _, table in site.pairs if table.oid in hidden]
    if faults:
        return red(
            name,
            title,
            f"Policies would filter {', '.join(faults)} for this role.",
            "Connect as the tables' owner (without FORCE ROW LEVEL SECURITY) or as a role with BYPASSRLS.",
        )
    return green(name, title, "This role sees every row.")


def _keyed(site: Site, name: str, title: str) -> Check:
    faults = []
    for table, found in site.pairs:
        columns = [found.column(column) for column in table.key]
        if set(found.key) == set(table.key):
            continue
        if not found.has_unique_index(table.key) or any(column is None or column.nullable for column in columns):
            faults.append(f"{_title_of(found)} ({', '.join(table.key)})")
    if faults:
        return red(name, title, f"No primary key, nor a unique index without NULLs: {'; '.join(faults)}.",
                   "ALTER TABLE … ADD PRIMARY KEY: without one no row can be named.")  # fmt: skip
    return green(name, title, "They have.")


def _columns(site: Site, name: str, title: str) -> Check:
    missing: list[str] = []
    later: list[str] = []
    for table, found in site.pairs:
        for column in table.columns:
            if found.column(column.name) is None:
                needed = column.required or column.name in table.key
                (missing if needed else later).append(f"{_title_of(found)}.{column.name}")
    if missing:
        return red(name, title, f"Missing: {', '.join(missing)}.", "This is not the layout that the plan is for.")
    if later:
        return green(name, title, f"Not there, and tolerated or added by the run: {', '.join(later)}.")
    return green(name, title, "They are.")


def _types(site: Site, name: str, title: str) -> Check:
    """A repair must fit its column: the server is asked, no row is read."""
    faults: list[str] = []
    if len(site.catalog) < len(site.plan.tables):
        return green(name, title, "Not asked while tables are missing.")
    for table, found in site.pairs:
        faults.extend(_ungiven(table, found))
        try:
            compile_table(site.connection, site.plan, table, site.catalog)
        except Refused as error:
            faults.append(error.message.rstrip("."))
        except psycopg.errors.InsufficientPrivilege:
            if not found.row_security:  # else the check of row-level security has named it
                faults.append(f"The role may not read {_title_of(found)}")
    if faults:
        return red(name, title, f"{'; '.join(faults)}.", "Give the columns the types that the plan names.")
    return green(name, title, "The plan's repairs fit them.")


def _ungiven(table: Table, found: CatalogTable) -> Iterator[str]:
    """Repaired columns whose values the server makes itself."""
    for repair in table.repairs:
        column = found.column(repair.column)
        if column is not None and (column.generated or column.identity == "a"):
            yield f"{_title_of(found)}.{repair.column} is generated by the server"


def _listed(name: str, title: str, found: Sequence[str], none: str, remedy: str) -> Check:
    return amber(name, title, f"{'; '.join(found)}.", remedy) if found else green(name, title, none)


def _triggers(site: Site, name: str, title: str) -> Check:
    found = [f"{_title_of(t)}: {x.name}" for _, t in site.pairs for x in t.triggers if x.enabled != "D"]
    return _listed(name, title, found, "There are none.",
                   "They fire for each row that the run changes; make sure that this is meant.")  # fmt: skip


def _references(site: Site, name: str, title: str) -> Check:
    ours = {(table.schema, table.name) for _, table in site.pairs}
    found = [
        f"{schema}.{table} ({constraint}) → {_title_of(target)}"
        for _, target in site.pairs
        for schema, table, constraint, _ in target.referenced_by
        if (schema, table) not in ours
    ]
    return _listed(
        name,
        title,
        found,
        "There are none.",
        "They are not in the backup; a rollback that would delete rows they refer to says so first.",
    )


def _indexes(site: Site, name: str, title: str) -> Check:
    found = [f"{_title_of(t)}: {i.name}" for _, t in site.pairs for i in t.indexes if not i.valid]
    return _listed(name, title, found, "They are.", "A failed build left them: DROP INDEX, or REINDEX CONCURRENTLY.")
