"""The foreign keys of a backup, tried on its staged rows: PostgreSQL itself adds each of them, and takes it back."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Final, TypeVar

import psycopg
from psycopg import sql

from briefly_admin.domain.manifest import ForeignKeyManifest, Manifest, TableManifest, label
from briefly_admin.domain.progress import Progress, TableProgress
from briefly_admin.domain.runs import Phase
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.noting import while_noting
from briefly_admin.engine.retry import Verdict, classify, describe, patiently
from briefly_admin.engine.staged import StagedTable, staged_table
from briefly_admin.engine.target import Connection

_TRIED: Final = "foreign keys, tried"
_EQUALS: Final = (
    "SELECT DISTINCT n.nspname FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace WHERE o.oprname = '='"
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TriedKey:
    """A foreign key of `table`, and what became of it."""

    table: str
    name: str
    references: str
    validated: bool
    rows: int
    """Of the table."""
    holds: bool | None = None
    """None where it could not be tried; `remark` says why."""
    orphans: int | None = None
    """Rows without a counterpart; None where nobody counted them."""
    remark: str = ""

    @property
    def damage(self) -> str:
        """What is wrong, or ''. A key that was not validated may be violated, and is remarked on alone."""
        if self.holds is not False or not self.validated:
            return ""
        return f"{self.table}: {self.remark}: the copy is not one instant, or its database had broken its own key"

    def to_json(self) -> dict[str, object]:
        """As plain JSON."""
        return asdict(self)


def try_keys(context: RunContext, manifest: Manifest, schema: str, sound: Collection[str]) -> list[TriedKey]:
    """Every foreign key of the backup; of tables whose titles are not among the `sound`, none is tried.

    The scratch schema is as it was before. Raises Stopped, Unavailable, RunFailed, psycopg.Error.
    """
    keys = [(title, table, key) for title, table in manifest.by_title.items() for key in table.foreign_keys]
    found = []
    for number, (title, table, key) in enumerate(keys):
        shown = TableProgress(_TRIED, total=len(keys), done=number)
        context.report(Progress(Phase.VERIFY, (shown,)))
        found.append(_Trial(context, manifest, schema, title, table, key).run(sound))
    return found


@dataclass(frozen=True, slots=True)
class _Trial:
    context: RunContext
    manifest: Manifest
    schema: str
    title: str
    table: TableManifest
    key: ForeignKeyManifest

    def run(self, sound: Collection[str]) -> TriedKey:
        titles = {table.label: title for title, table in self.manifest.by_title.items()}
        parent = self.manifest.table(self.key.schema, self.key.table)
        referenced = label(self.key.schema, self.key.table)
        if parent is None:
            return self._found(referenced, None, remark=f"{referenced} is not in the backup")
        referenced = titles[parent.label]
        if not {self.title, referenced} <= set(sound):
            return self._found(referenced, None, remark="its rows are damaged")
        what = f"Trying the foreign key {self.key.name} of {self.title}"
        return patiently(self.context, what, self._announce, lambda: self._try(parent, referenced))

    def _found(self, referenced: str, holds: bool | None, orphans: int | None = None, remark: str = "") -> TriedKey:
        return TriedKey(
            self.title, self.key.name, referenced, self.key.validated, self.table.rows, holds, orphans, remark
        )

    def _announce(self, text: str, until: str = "") -> None:
        self.context.report(Progress(Phase.VERIFY, waiting=text, waiting_until=until))

    def _try(self, parent: TableManifest, referenced: str) -> TriedKey:
        with self.context.target.session(bulk=True) as connection:
            child = staged_table(connection, self.manifest, self.table, self.schema)
            staged = staged_table(connection, self.manifest, parent, self.schema)
            try:
                self._watched(connection, lambda: self._add(connection, child, staged))
            except psycopg.errors.ForeignKeyViolation:
                orphans = self._watched(connection, lambda: self._orphans(connection, child, staged))
                count = "some rows have" if orphans is None else f"{orphans:,} rows have"
                return self._found(
                    referenced, False, orphans, f"{count} no counterpart in {referenced} (foreign key {self.key.name})"
                )
            except psycopg.errors.UniqueViolation:
                columns = ", ".join(self.key.references)
                remark = f"{referenced} has several rows of one {columns} (foreign key {self.key.name})"
                return self._found(referenced, False, None, remark)
            except psycopg.Error as error:
                if classify(error) is not Verdict.STOP:
                    raise
                return self._found(referenced, None, None, f"it could not be tried: {describe(error)}")
            return self._found(referenced, True, 0)

    def _watched(self, connection: Connection, work: Callable[[], T]) -> T:
        return while_noting(connection, self.context.check_stop, work)

    def _add(self, connection: Connection, child: StagedTable, parent: StagedTable) -> None:
        """Raises ForeignKeyViolation; UniqueViolation where what it references is no key."""
        with connection.transaction(force_rollback=True):
            if set(self.key.references) != set(parent.manifest.key):
                index = sql.SQL("CREATE UNIQUE INDEX ON {} ({})")
                connection.execute(index.format(parent.identifier, _names(self.key.references)))
            add = sql.SQL("ALTER TABLE {} ADD FOREIGN KEY ({}) REFERENCES {} ({})")
            connection.execute(
                add.format(child.identifier, _names(self.key.columns), parent.identifier, _names(self.key.references))
            )

    def _orphans(self, connection: Connection, child: StagedTable, parent: StagedTable) -> int | None:
        """How many rows have no counterpart; None where PostgreSQL does not find the operators by their name."""
        pairs = list(zip(self.key.columns, self.key.references, strict=True))
        filled = sql.SQL(" AND ").join(sql.SQL("{} IS NOT NULL").format(sql.Identifier("c", name)) for name, _ in pairs)
        equal = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier("p", theirs), sql.Identifier("c", mine)) for mine, theirs in pairs
        )
        query = sql.SQL("SELECT count(*) FROM {} AS c WHERE {} AND NOT EXISTS (SELECT FROM {} AS p WHERE {})").format(
            child.identifier, filled, parent.identifier, equal
        )
        try:
            with _all_operators(connection):
                row = connection.execute(query).fetchone()
        except psycopg.Error as error:
            if classify(error) is not Verdict.STOP:
                raise
            return None
        return int(row[0]) if row else None


@contextmanager
def _all_operators(connection: Connection) -> Iterator[None]:
    """A transaction that finds `=` wherever an extension put it."""
    with connection.transaction():
        schemas = [str(name) for (name,) in connection.execute(_EQUALS.encode()).fetchall()]
        path = sql.SQL(", ").join(map(sql.Identifier, ["pg_catalog", *schemas]))
        connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(path))
        yield


def _names(columns: Collection[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))
