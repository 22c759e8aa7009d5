"""What rows should be after a plan's repairs: backed-up rows as the repairs read them, and the values that come out."""

from collections.abc import Sequence

from psycopg import sql

from briefly_admin.engine.catalog import CatalogColumn
from briefly_admin.engine.repairs import CompiledRepairs, as_stored
from briefly_admin.vault.digest import SendColumn


def as_it_was(staged: sql.Identifier, columns: Sequence[CatalogColumn]) -> sql.Composable:
    """What stands behind FROM: arrays that are staged as text are arrays again, as repairs read them; with ctid."""
    if not any(_is_array_as_text(column) for column in columns):
        return staged
    values = sql.SQL(", ").join(
        sql.SQL("{name}::{type} AS {name}").format(name=sql.Identifier(column.name), type=sql.SQL(column.type))
        if _is_array_as_text(column)
        else sql.Identifier(column.name)
        for column in columns
    )
    return sql.SQL("(SELECT staged.ctid, {} FROM {} AS staged)").format(values, staged)


def _is_array_as_text(column: CatalogColumn) -> bool:
    return column.send is None and column.type.endswith("[]")


def expected(repairs: CompiledRepairs, column: CatalogColumn, alias: str = "t") -> sql.Composable:
    """The column's value after the repairs, in its type; `alias` is that of the row before them."""
    value = repairs.values.get(column.name)
    return sql.Identifier(alias, column.name) if value is None else as_stored(value, column)


def image(columns: Sequence[SendColumn], alias: str) -> sql.Composable:
    """The row as a record; a type without a binary form as its text, as it is staged."""
    values = sql.SQL(", ").join(
        sql.SQL("{}" if column.send else "{}::pg_catalog.text").format(sql.Identifier(alias, column.name))
        for column in columns
    )
    return sql.SQL("ROW({})::pg_catalog.record").format(values)
