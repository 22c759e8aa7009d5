"""One row, shown: its values and what is wrong with each, as it stands or as somebody types it. Nothing is written."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from psycopg import sql

from briefly_admin.domain.corrections import Changes, Input, RowField, ShownRow
from briefly_admin.engine.correcting.answers import reading_row
from briefly_admin.engine.correcting.columns import LONGEST, Asked, asked
from briefly_admin.engine.correcting.place import Place, find_key, find_place
from briefly_admin.engine.correcting.values import require_changeable, typed, value_faults
from briefly_admin.engine.correcting.verdict import Fault, Rows, faults, some_rows
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import GroupedRepair, Plan

VERSION = sql.SQL("o.xmin::text || ':' || o.ctid::text")


def read_row(connection: Connection, plan: Plan, table: str, key: Sequence[str]) -> ShownRow:
    """The row as it stands, with validation's verdict on it alone. `connection`: idle.

    Raises NotFound, InvalidRequest (an incomplete key), Refused, Unavailable.
    """
    with reading_row(connection):
        place = find_place(connection, plan, table)
        return shown(connection, place, find_key(connection, place, key), ())


def check_row(connection: Connection, plan: Plan, table: str, key: Sequence[str], changes: Changes) -> ShownRow:
    """The row as it would be with these values; no statement writes, so no trigger has a say. `connection`: idle.

    A text that is no value of its column is a fault of that field. Raises as `read_row`, and InvalidRequest for columns
    that cannot be changed.
    """
    with reading_row(connection):
        place = find_place(connection, plan, table)
        key = find_key(connection, place, key)
        columns = asked(connection, place.table, place.here)
        require_changeable(columns, changes)
        wrong = value_faults(connection, columns, changes)
        wrong |= too_long(connection, place, key, columns, changes)
        right = {name: text for name, text in changes.items() if name not in wrong}
        judged = list(faults(connection, _as_typed(connection, place, key, right), about=None, changed=right))
        row = _row(connection, place, key, columns, [fault for _, fault in judged])
        fields = tuple(_typed_field(field, changes, wrong) for field in row.fields)
        return replace(row, version="", fields=fields)


def shown(connection: Connection, place: Place, key: Sequence[str], changed: Collection[str]) -> ShownRow:
    """The row as the open transaction sees it; `changed`: columns by which no row may equal it any more."""
    columns = asked(connection, place.table, place.here)
    rows = stored(connection, place, key)
    judged = [fault for _, fault in faults(connection, rows, about=None, changed=changed)]
    repaired = _repaired(connection, rows, columns)
    row = _row(connection, place, key, columns, judged)
    return replace(row, fields=tuple(replace(field, repaired=repaired.get(field.name)) for field in row.fields))


def stored(connection: Connection, place: Place, key: Sequence[str]) -> Rows:
    """The one row as it stands."""
    where = place.is_row("o", key)
    table = place.here.identifier
    return some_rows(
        connection, place, rows=sql.SQL("SELECT o.* FROM {} AS o WHERE {}").format(table, where),
        scope=sql.SQL("SELECT {} FROM {} AS o WHERE {}").format(place.columns("o"), table, where),
    )  # fmt: skip


def too_long(
    connection: Connection, place: Place, key: Sequence[str], columns: Sequence[Asked], changes: Changes
) -> dict[str, str]:
    """Column → why it cannot be changed, of those whose value no form could have shown whole."""
    lengths = [
        sql.SQL("coalesce(length(o.{}::text), 0)").format(sql.Identifier(column.name))
        for column in columns if column.name in changes and not column.secret
    ]  # fmt: skip
    names = [column.name for column in columns if column.name in changes and not column.secret]
    if not lengths:
        return {}
    query = sql.SQL("SELECT {} FROM {} AS o WHERE {}").format(
        sql.SQL(", ").join(lengths), place.here.identifier, place.is_row("o", key)
    )
    found = connection.execute(query).fetchone()
    words = "cannot be changed here, because its value is too long for a form"
    return {name: words for name, length in zip(names, found or (), strict=False) if length > LONGEST}


def _as_typed(connection: Connection, place: Place, key: Sequence[str], changes: Changes) -> Rows:
    listed = [
        sql.SQL("{} AS {}").format(typed(column, changes[column.name]), sql.Identifier(column.name))
        if column.name in changes else sql.Identifier("o", column.name)
        for column in place.here.columns
    ]  # fmt: skip
    table, where = place.here.identifier, place.is_row("o", key)
    row = sql.SQL("SELECT {} FROM {} AS o WHERE {}").format(sql.SQL(", ").join(listed), table, where)
    own: sql.Composable | None = None
    if any(isinstance(repair, GroupedRepair) for repair in place.table.repairs) or place.table.relations:
        every = sql.SQL(", ").join(sql.Identifier("o", column.name) for column in place.here.columns)
        own = sql.SQL("(SELECT {} FROM {} AS o WHERE NOT {} UNION ALL {})").format(every, table, where, row)
    scope = sql.SQL("SELECT {} FROM {} AS o WHERE {}").format(place.columns("o"), table, where)
    return some_rows(connection, place, rows=row, scope=scope, own=own)


def _row(
    connection: Connection, place: Place, key: Sequence[str], columns: Sequence[Asked], found: Sequence[Fault]
) -> ShownRow:
    query = sql.SQL("SELECT {}, {} FROM {} AS o WHERE {}").format(
        VERSION, sql.SQL(", ").join(column.display("o") for column in columns),
        place.here.identifier, place.is_row("o", key),
    )  # fmt: skip
    values = connection.execute(query).fetchone()
    if values is None:
        raise place.no_row(key)
    version, values = values[0], values[1:]
    by_field: dict[str, list[str]] = {column.name: [] for column in columns}
    of_row: list[str] = []
    for fault in found:
        if fault.field in by_field:
            by_field[fault.field].append(fault.words)
        else:
            of_row.append(f"{fault.field} (the column is missing): {fault.words}" if fault.field else fault.text)
    fields = tuple(
        replace(column.shown(values[2 * number], values[2 * number + 1]), faults=tuple(by_field[column.name]))
        for number, column in enumerate(columns)
    )
    return ShownRow(place.table.name, tuple(key), version, fields, tuple(of_row))


def _typed_field(field: RowField, changes: Changes, wrong: Mapping[str, str]) -> RowField:
    """As somebody typed it, who is shown what was typed, but for secrets."""
    if field.name not in changes:
        return field
    value = field.value if field.secret or field.input is Input.FIXED else changes[field.name]
    return replace(field, value=value, faults=(wrong[field.name],) if field.name in wrong else field.faults)


def _repaired(connection: Connection, rows: Rows, columns: Sequence[Asked]) -> dict[str, str | None]:
    """Column → the text of what a migration makes of it, where that is another one; nothing of secrets."""
    shown_names = {column.name for column in columns if not column.secret and not column.why_fixed}
    names = [name for name in rows.compiled.values if name in shown_names]
    if not names:
        return {}
    texts = [
        part
        for name in names
        for part in (
            sql.SQL("({})::text").format(rows.compiled.values[name]),
            sql.SQL("(({})::text IS DISTINCT FROM t.{}::text)").format(
                rows.compiled.values[name], sql.Identifier(name)
            ),
        )
    ]
    query = sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(texts), rows.compiled.source)
    found = connection.execute(query).fetchone() or ()
    return {name: found[2 * at] for at, name in enumerate(names) if found and found[2 * at + 1]}
