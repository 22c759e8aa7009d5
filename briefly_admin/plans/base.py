"""What a plan is made of. A plan is code: it declares, the engine compiles.

SQL texts of a plan are templates: `{name}` stands for the column `name` of the row at hand, `{{` and `}}` for braces.
The engine fills them with quoted, qualified identifiers, so that any name survives.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from marshmallow import Schema, validate

FindingClassName = Literal["blocking", "notice"]


class SqlValidator(validate.Validator):
    """A validator of ours that says the same in SQL: `condition` holds for exactly the values that a call accepts."""

    condition: ClassVar[str]
    """SQL over a text value that is not NULL; `{value}` stands for it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that the plan knows. `type` is what the table gets where it is ours to make (SQL)."""

    name: str
    type: str
    required: bool = True
    """A database that lacks it is not this layout; false: tolerated when missing."""
    secret: bool = False
    """Its values never appear in a finding, a log or a page."""
    expand: bool = False
    """The expand phase adds it (nullable, no default) where it is missing."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A row repair: `expression` gives the right value from the row's columns alone; equal to the old where right.

    `words` says it for people: "an empty tier becomes 'free'".
    """

    column: str
    expression: str
    words: str
    variants: Sequence[tuple[str, str]] = ()
    """(pg_type.typname of the column, expression) where a type needs another text."""
    only_wrong: bool = False
    """It never changes a value that the record schema takes: validation need not compute it for right values."""

    def expression_for(self, type_name: str) -> str:
        """The expression for a column of that pg_type.typname."""
        return dict(self.variants).get(type_name, self.expression)


@dataclass(frozen=True, slots=True)
class AggregateRepair:
    """A value aggregated over children: `aggregate` is an SQL aggregate over the child's columns.

    Compiled to one join with `SELECT child_key, aggregate FROM child GROUP BY child_key`; a row without children
    gets `empty`. `only_missing`: only where the column is NULL (or JSON null); else wherever it differs.
    """

    column: str
    child: str
    child_key: str
    """The child's column that refers to this table's key."""
    aggregate: str
    empty: str
    words: str
    only_missing: bool = True


@dataclass(frozen=True, slots=True)
class GroupedRepair:
    """Numbers the rows of a group that lack a number: the group's highest number + 1, + 2 … in `order` (from 0).

    The first batch that meets such a row repairs its whole group in that transaction.
    """

    column: str
    group_by: str
    order: Sequence[str]
    words: str


AnyRepair = Repair | AggregateRepair | GroupedRepair


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`column` refers to `parent`'s key `parent_column`; rows without a parent are blocking."""

    column: str
    parent: str
    parent_column: str = "id"


@dataclass(frozen=True, slots=True)
class Unique:
    """Columns that must be unique over *repaired* rows."""

    columns: Sequence[str]


@dataclass(frozen=True, slots=True)
class Relation:
    """A rule across tables, as a query for the rows that break it.

    `query` is SQL with `{table}`, `{other}` for the tables named in `tables` (by their keys) and selects the broken
    rows' key as `key`. Columns are written bare after aliases chosen in the query itself.
    """

    name: str
    field: str
    finding_class: FindingClassName
    words: str
    tables: Mapping[str, str]
    query: str
    needs: Sequence[tuple[str, Sequence[str]]] = ()
    """(column of the relation's table, pg_type.typnames or none for any): not asked where one is missing or other."""
    test: str = ""
    """The same said of one row, where that can be: SQL over its `{column}` and, of the row that its foreign key on
    `through` names, `{parent.column}`; TRUE where it is broken. One scan then answers it with the record rules."""
    through: str = ""
    settled: Sequence[tuple[str, int]] = ()
    """(column, type modifier): no row can break it where a column's type has that modifier."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a plan, in the schema `schema`."""

    name: str
    record: type[Schema]
    columns: Sequence[Column]
    key: Sequence[str] = ("id",)
    repairs: Sequence[AnyRepair] = ()
    foreign_keys: Sequence[ForeignKey] = ()
    uniques: Sequence[Unique] = ()
    relations: Sequence[Relation] = ()
    schema: str = "public"

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        return {column.name: column for column in self.columns}[name]

    @property
    def secrets(self) -> frozenset[str]:
        """Names of the secret columns."""
        return frozenset(column.name for column in self.columns if column.secret)


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A change of the schema, with what undoes it. The engine knows how each kind is applied without stalls.

    index / unique_index: CREATE [UNIQUE] INDEX CONCURRENTLY on `columns`; not_null, check, foreign_key: NOT VALID,
    then VALIDATE; default: SET DEFAULT `expression`.
    """

    kind: Literal["default", "not_null", "check", "foreign_key", "unique_index", "index"]
    table: str
    columns: Sequence[str]
    name: str
    """Of the index or constraint; existing ones are recognised by definition, not by this."""
    expression: str = ""
    """check: the condition, as a template; default: the SQL default."""
    references: tuple[str, str] | None = None
    """foreign_key: (parent table, parent column)."""
    variants: Sequence[tuple[str, str]] = ()
    """(pg_type.typname of the column, expression) where a type needs another text."""

    def expression_for(self, type_name: str) -> str:
        """The expression for a column of that pg_type.typname."""
        return dict(self.variants).get(type_name, self.expression)


@dataclass(frozen=True, slots=True)
class RepresentativeQuery:
    """A query that the product asks, timed before and after; `sql` uses `{table}` names of the plan as identifiers.

    `pick` is a query that gives one row of parameters, put into `sql` by `%(name)s`.
    """

    name: str
    sql: str
    pick: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A declared data migration; `tables` in foreign-key order, parents first."""

    name: str
    title: str
    summary: str
    tables: Sequence[Table]
    changes: Sequence[SchemaChange] = ()
    queries: Sequence[RepresentativeQuery] = field(default_factory=tuple)

    def table(self, name: str) -> Table:
        """The table of that name. Raises KeyError."""
        return {table.name: table for table in self.tables}[name]

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over everything declared: a run resumes only under the plan that it began with."""
        parts = [self.name, repr(tuple(self.changes)), repr(tuple(self.queries))]
        for table in self.tables:
            fields = table.record._declared_fields  # noqa: SLF001 - marshmallow has no public name for it
            record = {name: _describe(fields[name]) for name in sorted(fields)}
            parts.append(repr((table.name, table.schema, tuple(table.columns), tuple(table.key), tuple(table.repairs))))
            parts.append(repr((tuple(table.foreign_keys), tuple(table.uniques), tuple(table.relations), record)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_FIELD_FLAGS = ("required", "allow_none", "strict", "format", "metadata")


def _describe(field_object: Any) -> str:
    """A stable text of a marshmallow field: its class, flags, validators, inner field, without addresses in memory."""
    validators = [
        f"{type(v).__name__}({sorted(vars(v).items(), key=str)}{getattr(v, 'condition', '')})"
        for v in field_object.validators
    ]
    flags = [getattr(field_object, flag, None) for flag in _FIELD_FLAGS]
    inner = getattr(field_object, "inner", None)
    return f"{type(field_object).__name__}{flags}{validators}{_describe(inner) if inner else ''}"
