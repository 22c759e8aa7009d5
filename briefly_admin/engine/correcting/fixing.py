"""One correction for all rows of a cause: a set of keys, one UPDATE, one verdict, and all of it or nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final

import psycopg
from psycopg import errors, sql

from briefly_admin.domain.corrections import MOST_AT_ONCE, Cause, Changes, Deed, Fixed
from briefly_admin.domain.errors import Refused, Unavailable
from briefly_admin.domain.findings import FindingClass
from briefly_admin.engine.correcting import outbox
from briefly_admin.engine.correcting.answers import answering, invalid, reason, settle_session, told
from briefly_admin.engine.correcting.causes import Keys, same_key, search, typed_keys
from briefly_admin.engine.correcting.columns import Asked, asked
from briefly_admin.engine.correcting.place import Place, checked_key, find_place
from briefly_admin.engine.correcting.values import require_changeable, typed, value_faults
from briefly_admin.engine.correcting.verdict import faults, some_rows
from briefly_admin.engine.correcting.writing import alone, deed_of, recorded, sets, texts
from briefly_admin.engine.retry import Verdict, classify
from briefly_admin.engine.target import Connection, Target
from briefly_admin.plans.base import Plan

_SAMPLES: Final = 20
_SECONDS: Final = 60
"""For each statement."""
_FEW: Final = 100
"""Rows up to which one may be looked up after the other; above, whole tables are read once, as validation does.

The planner knows it, too, but for a table that nobody has analysed since it grew: there its nested loop is quadratic.
"""
_NOTHING: Final = "Nothing was changed."
_BLOCKING: Final = frozenset({FindingClass.BLOCKING})
_KEYS: Final = sql.SQL("pg_temp.briefly_fix_key")
_ROWS: Final = sql.SQL("pg_temp.briefly_fix")
_TRIGGERS: Final = """
SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 16 <> 0
  AND (tgrelid = to_regclass(%(name)s) OR tgrelid IN (SELECT relid FROM pg_partition_tree(to_regclass(%(name)s)))))
"""
"""Whether any fires on an UPDATE (bit 16 of its type), of the table or of its partitions."""


@dataclass(frozen=True, slots=True)
class _Fix:
    place: Place
    cause: Cause
    changes: Changes
    secrets: frozenset[str]
    beside: Sequence[Asked] = ()
    """Other columns that triggers may change; their changes are recorded, too."""

    @property
    def told(self) -> list[str]:
        """The changed columns whose values may be told."""
        return [name for name in self.changes if name not in self.secrets]

    @property
    def joined(self) -> sql.Composable:
        """The fix's rows `f` beside the table's `o`."""
        return sql.SQL("{} AS f JOIN {} AS o ON {}").format(
            _ROWS, self.place.here.identifier, same_key(self.place, "f", "o")
        )


def fix(
    target: Target, plan: Plan, cause: Cause, changes: Changes, *, deed: Deed, expected: int | None = None,
    keys: Keys | None = None, excluded: Keys = (), most: int = MOST_AT_ONCE,
) -> Fixed:  # fmt: skip
    """Give all rows of a cause these values; without `expected` tell what would come of it.

    A preview makes the change and rolls it back: triggers fire, and what they do in the database is undone with it.
    `keys`: the rows of a cause of the quarantine; else those with the blocking finding now, but for `excluded`. At most
    `most` of them are changed. Raises NotFound, InvalidRequest (details: column → texts), Busy beside a run, Refused
    where `expected` is not their number, where any of them would not be right, or where somebody changes one just then;
    Unavailable.
    """
    keep = expected is not None
    with target.session() as connection:
        with answering():
            outbox.ensure(connection)
            place = find_place(connection, plan, cause.table)
        with (
            alone(connection, place, changes if keep else {}),
            deed_of(target, connection, deed.id, isolation="REPEATABLE READ", keep=keep),
            _in_time(cause),
        ):
            settle_session(connection, _SECONDS)
            columns = asked(connection, place.table, place.here)
            require_changeable(columns, changes)
            wrong = value_faults(connection, columns, changes)
            if wrong:
                raise invalid({name: [words] for name, words in wrong.items()})
            work = _Fix(place, cause, changes, place.table.secrets, _beside(connection, place, columns, changes))
            rows, more = _collect(connection, work, keys, excluded, most)
            if keep and rows != expected:
                raise _moved(rows)
            fixed = _apply(connection, work, rows, more)
            if keep:
                _require_clean(fixed)
                _record(connection, work, deed)
            return fixed


def _beside(connection: Connection, place: Place, columns: Sequence[Asked], changes: Changes) -> Sequence[Asked]:
    """Where the table has no trigger nothing else can change, and no other text has to be kept."""
    name = place.here.identifier.as_string(connection)
    row = connection.execute(_TRIGGERS, {"name": name}).fetchone()
    return [column for column in recorded(columns) if column.name not in changes] if row and row[0] else ()


@contextmanager
def _in_time(cause: Cause) -> Iterator[None]:
    """Raises Unavailable where a statement ran into its limit."""
    try:
        yield
    except errors.QueryCanceled:
        raise Unavailable(
            f"The database needed more than {_SECONDS} s for one step of the fix of {cause.table}.",
            remedy=f"{_NOTHING} ANALYZE the table if it grew lately, and try again when the database has less to do.",
        ) from None


def _collect(connection: Connection, work: _Fix, keys: Keys | None, excluded: Keys, most: int) -> tuple[int, int]:
    """Puts keys and texts before the change into a table of the transaction's own; their number, and how many more."""
    place = work.place
    connection.execute("SET LOCAL enable_nestloop = off")
    if keys is None:
        more = _find_keys(connection, work, excluded, most)
    else:
        more = 0
        _put_keys(connection, [checked_key(place.table, key) for key in keys])
    before = [
        sql.SQL("o.{}::text AS {}").format(sql.Identifier(name), sql.Identifier(f"b{at}"))
        for at, name in enumerate(work.told)
    ]
    before += [sql.SQL("{} AS {}").format(text, sql.Identifier(f"t{at}")) for at, text in enumerate(texts(work.beside))]
    listed = sql.SQL(", ").join([sql.SQL("x.*"), *before])
    joined = sql.SQL("FROM {} AS o JOIN ({}) AS x ON {}").format(
        place.here.identifier, typed_keys(place, sql.SQL("SELECT key FROM {}").format(_KEYS)),
        same_key(place, "x", "o"),
    )  # fmt: skip
    first: sql.Composable = sql.SQL("")
    if keys is not None and len(keys) > most:  # of those that are still there: rows that are gone take no place
        row = connection.execute(sql.SQL("SELECT count(*) {}").format(joined)).fetchone()
        more = max(int(row[0]) - most, 0) if row else 0
        order = sql.SQL(", ").join(sql.Identifier("x", f"k{at}") for at in range(len(place.table.key)))
        first = sql.SQL("ORDER BY {} LIMIT {}").format(order, sql.Literal(most))
    query = sql.SQL("CREATE TEMP TABLE briefly_fix ON COMMIT DROP AS SELECT {} {} {}").format(listed, joined, first)
    rows = connection.execute(query).rowcount
    connection.execute(sql.SQL("ANALYZE {}").format(_ROWS))
    if rows <= _FEW:
        connection.execute("SET LOCAL enable_nestloop = on")
    return rows, more


def _find_keys(connection: Connection, work: _Fix, excluded: Keys, most: int) -> int:
    """Where SQL alone decides, no key leaves the database."""
    found = search(connection, work.place, work.cause, _BLOCKING, excluded)
    if found.judged is None:
        query = sql.SQL("CREATE TEMP TABLE briefly_fix_key ON COMMIT DROP AS SELECT s.key FROM ({}) AS s LIMIT {}")
        more = 0
        if connection.execute(query.format(found.query, sql.Literal(most))).rowcount == most:
            row = connection.execute(sql.SQL("SELECT count(*) FROM ({}) AS s").format(found.query)).fetchone()
            more = int(row[0]) - most if row else 0
    else:
        rows = found.rows(connection)
        chosen = [row.key for row in islice(rows, most)]
        more = sum(1 for _ in rows)
        _put_keys(connection, chosen)
    return more


def _put_keys(connection: Connection, keys: Keys) -> None:
    connection.execute(sql.SQL("CREATE TEMP TABLE briefly_fix_key (key text[]) ON COMMIT DROP"))
    with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(_KEYS)) as copy:
        for key in keys:
            copy.write_row([list(key)])


def _apply(connection: Connection, work: _Fix, rows: int, more: int) -> Fixed:
    """Changes the rows and judges them."""
    if not rows:
        return Fixed(0, 0, more=more)
    place = work.place
    query = sql.SQL("UPDATE {} AS o SET {} FROM {} AS f WHERE {}").format(
        place.here.identifier, sets(work.changes), _ROWS, same_key(place, "f", "o")
    )
    try:
        with connection.transaction():
            count = connection.execute(query).rowcount
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        if classify(error) is not Verdict.ROWS:
            raise
        words = reason(error)
        return Fixed(rows, 0, {words or told(error).message.rstrip("."): rows}, more=more)
    refused = _faulty(connection, work, many=rows > _FEW) | _undone(connection, work)
    counts = Counter(refused.values())
    if not refused and count != rows:
        counts["the database did not take the change: a trigger or a rule keeps the row as it is"] = rows - count
    return Fixed(rows, rows - counts.total(), dict(counts), _samples(connection, work), more)


def _faulty(connection: Connection, work: _Fix, *, many: bool) -> dict[tuple[str, ...], str]:
    """Key → why it would not be right: by the changed columns, or by what the cause is about."""
    place = work.place
    of_rows = sql.SQL("SELECT o.* FROM {} AS o JOIN {} AS f ON {}").format(
        place.here.identifier, _ROWS, same_key(place, "f", "o")
    )
    names = (sql.Identifier("f", f"k{at}") for at in range(len(place.table.key)))
    scope = sql.SQL("SELECT {} FROM {} AS f").format(sql.SQL(", ").join(names), _ROWS)
    rows = some_rows(connection, place, rows=of_rows, scope=scope, many=many)
    about = {*work.changes, *_cause_columns(work)}
    found: dict[tuple[str, ...], str] = {}
    for key, fault in faults(connection, rows, about=about, changed=work.changes):
        where = fault.field or ", ".join(sorted(fault.touches))
        found.setdefault(key, f"{where}: {fault.words}")
    return found


def _cause_columns(work: _Fix) -> set[str]:
    """The columns that the cause is about."""
    for unique in work.place.table.uniques:
        if ", ".join(unique.columns) == work.cause.field:
            return set(unique.columns)
    return {work.cause.field}


def _undone(connection: Connection, work: _Fix) -> dict[tuple[str, ...], str]:
    """Rows that triggers left as they were, or took away."""
    place = work.place
    here = {column.name: column for column in place.here.columns}
    same = [
        sql.SQL("(o.{c}::text IS NOT DISTINCT FROM f.{b} AND f.{b} IS DISTINCT FROM ({v})::text)").format(
            c=sql.Identifier(name), b=sql.Identifier(f"b{at}"), v=typed(here[name], work.changes[name])
        )
        for at, name in enumerate(work.told)
    ]
    gone = sql.SQL("o.{} IS NULL").format(sql.Identifier(place.table.key[0]))
    query = sql.SQL("SELECT {} FROM {} AS f LEFT JOIN {} AS o ON {} WHERE {}").format(
        _key_of_fix(place), _ROWS, place.here.identifier, same_key(place, "f", "o"),
        sql.SQL(" OR ").join([gone, *same]),
    )  # fmt: skip
    return {tuple(key): "a trigger of the table undoes the change" for (key,) in connection.execute(query)}


def _key_of_fix(place: Place) -> sql.Composable:
    texts = (sql.SQL("f.{}::text").format(sql.Identifier(f"k{at}")) for at in range(len(place.table.key)))
    return sql.SQL("ARRAY[{}]").format(sql.SQL(", ").join(texts))


def _samples(
    connection: Connection, work: _Fix
) -> Sequence[tuple[tuple[str, ...], Mapping[str, tuple[str | None, str | None]]]]:
    pairs = [
        sql.SQL("left(f.{}, 500), left(o.{}::text, 500)").format(sql.Identifier(f"b{at}"), sql.Identifier(name))
        for at, name in enumerate(work.told)
    ]
    order = sql.SQL(", ").join(sql.Identifier(f"k{at}") for at in range(len(work.place.table.key)))
    query = sql.SQL(
        "SELECT {} FROM (SELECT * FROM {} ORDER BY {order} LIMIT {}) AS f JOIN {} AS o ON {} ORDER BY {order}"
    ).format(
        sql.SQL(", ").join([_key_of_fix(work.place), *pairs]), _ROWS, sql.Literal(_SAMPLES),
        work.place.here.identifier, same_key(work.place, "f", "o"), order=order,
    )  # fmt: skip
    return tuple(
        (tuple(key), {name: (values[2 * at], values[2 * at + 1]) for at, name in enumerate(work.told)})
        for key, *values in connection.execute(query).fetchall()
    )


def _moved(rows: int) -> Refused:
    if not rows:
        return Refused("No row has this any more.", remedy=f"{_NOTHING} Validate again to see what is left.")
    return Refused(
        f"There are {rows:,} rows of this now, which is another number than the preview's.",
        remedy=f"{_NOTHING} Look at the preview again.",
    )


def _require_clean(fixed: Fixed) -> None:
    if not fixed.rows:
        raise _moved(0)
    if fixed.refused:
        told_ = "; ".join(f"{words} ({count:,})" for words, count in fixed.refused.items())
        raise Refused(
            f"Of {fixed.rows:,} rows {fixed.rows - fixed.cured:,} would not be right: {told_}.",
            remedy=f"{_NOTHING} Correct those first, one by one, or choose another value.",
        )


def _record(connection: Connection, work: _Fix, deed: Deed) -> None:
    told_ = {name: at for at, name in enumerate(work.told)}
    parts = [
        outbox.change(
            name, sql.Identifier("f", f"b{told_.get(name, 0)}"), sql.SQL("o.{}::text").format(sql.Identifier(name)),
            secret=name in work.secrets,
        )
        for name in work.changes
    ]  # fmt: skip
    beside = [
        sql.SQL(" || CASE WHEN {b} IS DISTINCT FROM {after} THEN jsonb_build_object({}) ELSE '{{}}' END").format(
            outbox.change(column.name, before, after, secret=column.secret), b=before, after=after
        )
        for column, before, after in zip(
            work.beside, (sql.Identifier("f", f"t{at}") for at in range(len(work.beside))), texts(work.beside),
            strict=True,
        )
    ]  # fmt: skip
    outbox.write(
        connection, deed, work.place.table.name, keys=_key_of_fix(work.place),
        changes=sql.SQL("jsonb_build_object({}){}").format(sql.SQL(", ").join(parts), sql.SQL("").join(beside)),
        source=work.joined,
    )  # fmt: skip
