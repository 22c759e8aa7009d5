"""The columns of a row as a form asks for them: what kind of input each takes, and which nobody may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import sql

from briefly_admin.domain.corrections import Input, RowField
from briefly_admin.engine.catalog import CatalogColumn, CatalogTable
from briefly_admin.engine.target import Connection
from briefly_admin.plans.base import Table
from briefly_admin.plans.judging import FieldSpec, describe

LONGEST: Final = 100_000
"""Characters of a value that a form can take; a longer one is shown by its length and cannot be changed by hand."""
UNREAD: Final = "not shown: the plan does not know this column"
_LONG: Final = 120
"""Characters from which a text gets more than one line."""
TEXTS: Final = frozenset({"text", "varchar", "bpchar", "citext", "name"})
WHOLE: Final = frozenset({"int2", "int4", "int8"})
NUMBERS: Final = frozenset({"numeric", "float4", "float8"})
MOMENTS: Final = frozenset({"timestamptz", "timestamp", "date"})
JSON: Final = frozenset({"jsonb", "json"})
_WRITTEN: Final = frozenset({"uuid", "time", "timetz", "interval", "inet", "cidr", "_text", "_varchar", "_uuid"})
"""Other types whose text a person can write."""
_VECTORS: Final = frozenset({"vector", "halfvec", "_float4", "_float8", "_int2", "_int4", "_int8", "_numeric"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One column of a table: what the plan, the record schema and the catalog say of it together."""

    column: CatalogColumn
    known: bool
    """The plan has it; of others nobody knows whether they are secret: their values are not read."""
    secret: bool
    key: bool
    input: Input
    nullable: bool
    choices: tuple[str, ...]
    rules: tuple[str, ...]

    @property
    def name(self) -> str:
        """The column's."""
        return self.column.name

    @property
    def why_fixed(self) -> str:
        """Why it cannot be changed by hand, or ''."""
        if self.key:
            return "it is of the key"
        if not self.known:
            return "the plan does not know it"
        if self.column.generated or self.column.identity == "a":
            return "the database generates it"
        return f"no form can show its type {self.column.type}" if self.input is Input.FIXED else ""

    def shown(self, value: str | None, length: int) -> RowField:
        """As a field: `value` as read, None where it has `length` characters more than a form can take."""
        kind = self.input
        if not self.secret and length > LONGEST:
            kind, value = Input.FIXED, f"{length:,} characters"
        elif kind is Input.TEXT and self.column.base_type in TEXTS and (length > _LONG or "\n" in (value or "")):
            kind = Input.LONG_TEXT
        return RowField(
            self.name, kind, self.column.type, value, secret=self.secret, key=self.key, nullable=self.nullable,
            choices=self.choices, rules=self.rules,
        )  # fmt: skip

    def display(self, alias: str) -> sql.Composable:
        """`value, length`: its text where a form can show it, else a few words; nothing of a secret."""
        if self.secret:
            return sql.SQL("NULL::text, 0")
        if not self.known:
            return sql.SQL("{}::text, 0").format(sql.Literal(UNREAD))
        here = sql.Identifier(alias, self.name)
        if self.input is Input.FIXED and not self.key and not self.column.generated and self.column.identity != "a":
            return sql.SQL("{}, 0").format(_summary(here, self.column.base_type))
        return sql.SQL(
            "CASE WHEN length({v}::text) <= {most} THEN {v}::text END, coalesce(length({v}::text), 0)"
        ).format(v=here, most=sql.Literal(LONGEST))


def _summary(value: sql.Composable, base_type: str) -> sql.Composable:
    """A value that no form can show, in a few words."""
    if base_type == "bytea":
        return sql.SQL("to_char(octet_length({}), 'FM999,999,999,990') || ' bytes'").format(value)
    if base_type in _VECTORS:
        count = sql.SQL("CASE WHEN {v}::text IN ('[]', '{{}}') THEN 0 ELSE "
                        "1 + length({v}::text) - length(replace({v}::text, ',', '')) END").format(v=value)  # fmt: skip
        return sql.SQL("CASE WHEN {} IS NOT NULL THEN to_char({}, 'FM999,999,999,990') || ' numbers' END").format(
            value, count
        )
    return sql.SQL("CASE WHEN {} IS NOT NULL THEN 'a value' END").format(value)


def asked(connection: Connection, table: Table, catalog: CatalogTable) -> tuple[Asked, ...]:
    """The table's columns in its order."""
    specs = {spec.name: spec for spec in describe(table.record).fields}
    labels = _enum_labels(connection, catalog.columns)
    known = {column.name for column in table.columns} | set(specs)
    return tuple(
        _asked(table, column, specs.get(column.name), labels, column.name in known) for column in catalog.columns
    )


def _enum_labels(connection: Connection, columns: Sequence[CatalogColumn]) -> dict[int, tuple[str, ...]]:
    rows = connection.execute(
        "SELECT enumtypid::bigint, array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum"
        " WHERE enumtypid::bigint = ANY(%s) GROUP BY 1",
        ([column.type_oid for column in columns],),
    )
    return {oid: tuple(labels) for oid, labels in rows.fetchall()}


def _asked(
    table: Table, column: CatalogColumn, spec: FieldSpec | None, labels: Mapping[int, tuple[str, ...]], known: bool
) -> Asked:  # fmt: skip
    name = column.name
    key, secret = name in table.key, name in table.secrets
    choices = _choices(spec) if column.base_type in TEXTS else ()
    choices = choices or labels.get(column.type_oid, ())
    changeable = known and not key and not column.generated and column.identity != "a"
    kind = _input(column.base_type, choices, secret=secret) if changeable else Input.FIXED
    repaired = any(repair.column == name for repair in table.repairs)
    allowed = spec is None or spec.allow_none or repaired
    rules = () if kind is Input.FIXED else _rules(table, spec, name)
    return Asked(column, known, secret, key, kind, column.nullable and allowed, choices, rules)


def _choices(spec: FieldSpec | None) -> tuple[str, ...]:
    """The texts that a record schema's OneOf leaves, or an Enum's names or values; () where others may pass as well."""
    rules = [rule for rule in spec.rules if rule.kind == "one_of" and rule.whole] if spec else []
    return tuple(choice for choice in rules[0].choices if isinstance(choice, str)) if rules else ()


def _input(base_type: str, choices: Sequence[str], *, secret: bool) -> Input:
    if choices:
        return Input.CHOICE
    kinds = ((WHOLE | NUMBERS, Input.NUMBER), (MOMENTS, Input.MOMENT), (JSON, Input.JSON), ({"bool"}, Input.TRUTH))
    for types, kind in kinds:
        if base_type in types:
            return kind
    if base_type in TEXTS:
        return Input.LONG_TEXT if secret else Input.TEXT  # the same whatever the length, which is secret, too
    return Input.TEXT if base_type in _WRITTEN else Input.FIXED


def _rules(table: Table, spec: FieldSpec | None, name: str) -> tuple[str, ...]:
    """In words: the schema's, the plan's, and what a migration would repair."""
    found: list[str] = []
    if spec is not None:
        found += [] if spec.kind == "any" else [spec.words]
        found += [rule.words for rule in spec.rules]
    found += [
        f"must be the {key.parent_column} of a row of {key.parent}" for key in table.foreign_keys if key.column == name
    ]
    for unique in table.uniques:
        if name in unique.columns:
            others = [column for column in unique.columns if column != name]
            found.append("no two rows may have the same" + (f" together with {', '.join(others)}" if others else ""))
    found += [repair.words for repair in table.repairs if repair.column == name]
    return tuple(found)
