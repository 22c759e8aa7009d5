"""Where a row is: a table of the plan, and a key given as texts, compared by PostgreSQL alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from briefly_admin.domain.corrections import told_key
from briefly_admin.domain.errors import InvalidRequest, NotFound, Refused
from briefly_admin.engine.catalog import CatalogTable
from briefly_admin.engine.target import Connection
from briefly_admin.engine.validate.examine import read_catalog
from briefly_admin.plans.base import AggregateRepair, Plan, Table
from briefly_admin.store.texts import storable


@dataclass(frozen=True, slots=True)
class Place:
    """A table of the plan as the database has it."""

    plan: Plan
    table: Table
    catalog: Mapping[str, CatalogTable]

    @property
    def here(self) -> CatalogTable:
        """The table."""
        return self.catalog[self.table.name]

    def key_array(self, alias: str) -> sql.Composable:
        """The key as an array of texts."""
        parts = (sql.SQL("{}::text").format(sql.Identifier(alias, name)) for name in self.table.key)
        return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(parts))

    def is_row(self, alias: str, key: Sequence[str]) -> sql.Composable:
        """Whether it is the row of this key; texts are read by the columns' own types."""
        same = (
            sql.SQL("{} = {}").format(sql.Identifier(alias, name), sql.Literal(text))
            for name, text in zip(self.table.key, key, strict=True)
        )
        return sql.SQL("({})").format(sql.SQL(" AND ").join(same))

    def same_row(self, one: str, other: str) -> sql.Composable:
        """Whether both aliases are one row."""
        same = (
            sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name)) for name in self.table.key
        )
        return sql.SQL("({})").format(sql.SQL(" AND ").join(same))

    def columns(self, alias: str) -> sql.Composable:
        """The key's columns."""
        return sql.SQL(", ").join(sql.Identifier(alias, name) for name in self.table.key)

    def no_row(self, key: Sequence[str]) -> NotFound:
        """There is none of that key."""
        return NotFound(
            f"There is no row {told_key(key)} in {self.table.name}.",
            remedy="Check the key; somebody may have removed the row since.",
        )


def checked_table(plan: Plan, name: str) -> Table:
    """The plan's table. Raises NotFound; Refused where the key itself is secret."""
    table = next((table for table in plan.tables if table.name == name), None)
    if table is None:
        raise NotFound(
            f"The plan {plan.name} has no table of that name.",
            remedy=f"Its tables are: {', '.join(table.name for table in plan.tables)}.",
        )
    if secret := table.secrets & set(table.key):
        raise Refused(
            f"Rows of {name} are told apart by what is secret ({', '.join(sorted(secret))}).",
            remedy="They can only be corrected in the database itself.",
        )
    return table


def checked_key(table: Table, key: Sequence[str]) -> tuple[str, ...]:
    """As texts that PostgreSQL can read. Raises InvalidRequest, or NotFound for what no database can hold."""
    if isinstance(key, str) or len(key) != len(table.key) or not all(isinstance(text, str) for text in key):
        text = f"Must have {len(table.key)} of {', '.join(table.key)}, as texts."
        raise InvalidRequest(f"The key of {table.name} is not complete: {text}", details={"key": [text]})
    if any(storable(text) != text for text in key):
        raise NotFound(f"There is no such row in {table.name}.", remedy="Check the key.")
    return tuple(key)


def find_place(connection: Connection, plan: Plan, name: str) -> Place:
    """The table, with what its rules look at beside it. Raises NotFound, Refused."""
    table = checked_table(plan, name)
    beside = {key.parent for key in table.foreign_keys}
    beside |= {repair.child for repair in table.repairs if isinstance(repair, AggregateRepair)}
    beside |= {other for relation in table.relations for other in relation.tables.values()}
    needed = replace(plan, tables=[each for each in plan.tables if each.name in beside or each is table])
    return Place(plan, table, read_catalog(connection, needed))


def find_key(connection: Connection, place: Place, key: Sequence[str]) -> tuple[str, ...]:
    """The row's key as PostgreSQL writes it. Raises NotFound, InvalidRequest; Refused where several rows have it."""
    key = checked_key(place.table, key)
    query = sql.SQL("SELECT {} FROM {} AS o WHERE {} LIMIT 2").format(
        place.key_array("o"), place.here.identifier, place.is_row("o", key)
    )
    try:
        with connection.transaction():
            rows = connection.execute(query).fetchall()
    except psycopg.DataError:  # no value of the key's type
        raise place.no_row(key) from None
    if not rows:
        raise place.no_row(key)
    if len(rows) > 1:
        raise Refused(
            f"Several rows of {place.table.name} have the key {told_key(key)}.",
            remedy="Correct them in the database itself: its key must name one row.",
        )
    return tuple(rows[0][0])
