"""A backup's types and columns as SQL declares them, from its manifest alone."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from psycopg import sql

from briefly_admin.domain.manifest import ColumnManifest, Manifest, TableManifest, TypeManifest
from briefly_admin.vault.decoding.types import last_name

_SCHEMA: Final = re.compile(r'(?:([^".]+)|"((?:[^"]|"")*)")\.')
_NO_TYPMOD: Final = {"character": "bpchar", "bit": '"bit"'}
"""Names that mean a length of 1 where nothing is said."""
_HEADER: Final = 4
"""What is added to lengths in a typmod."""
_ALL_FIELDS, _ANY_PRECISION = 0x7FFF, 0xFFFF
_FIELDS: Final = {
    1 << 2: "year", 1 << 1: "month", 1 << 3: "day", 1 << 10: "hour", 1 << 11: "minute", 1 << 12: "second",
}  # fmt: skip


def one_line(name: str) -> str:
    """A name in a comment, which ends with the line."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


def split_name(qualified: str) -> tuple[str, str]:
    """Schema and name, without their quotes."""
    schema = _SCHEMA.match(qualified)
    return (schema[1] if schema[2] is None else schema[2].replace('""', '"')) if schema else "", last_name(qualified)


def quoted(*names: str) -> str:
    """An identifier, qualified by those before it."""
    return sql.Identifier(*names).as_string(None)


def literal(text: str) -> str:
    """A string constant."""
    return sql.Literal(text).as_string(None).strip()


def declared(name: str, typmod: int = -1) -> str:
    """A type as a column's declaration names it: `character varying(20)`, `numeric(10,2)[]`, `public.vector(3)`.

    Source: the typmodout functions of PostgreSQL and pgvector.
    """
    if name.endswith("[]"):
        return declared(name.removesuffix("[]"), typmod) + "[]"
    if typmod < 0:
        return _NO_TYPMOD.get(name, name)
    text = name
    if name in {"character", "character varying"}:
        text = f"{name}({typmod - _HEADER})"
    elif name in {"bit", "bit varying"} or last_name(name) in {"vector", "halfvec", "sparsevec"}:
        text = f"{name}({typmod})"
    elif name == "numeric":
        rest = typmod - _HEADER
        text = f"numeric({rest >> 16 & 0xFFFF},{((rest & 0x7FF) ^ 1024) - 1024})"
    elif name.startswith(("time ", "timestamp ")):
        word, _, zone = name.partition(" ")
        text = f"{word}({typmod}) {zone}"
    elif name == "interval":
        text = _interval(typmod)
    return text


def _interval(typmod: int) -> str:
    mask, precision = typmod >> 16 & _ALL_FIELDS, typmod & _ANY_PRECISION
    fields = [word for bit, word in _FIELDS.items() if mask & bit] if mask != _ALL_FIELDS else []
    text = f" {fields[0]}" + (f" to {fields[-1]}" if len(fields) > 1 else "") if fields else ""
    return f"interval{text}" + (f"({precision})" if precision != _ANY_PRECISION else "")


class Declarations:
    """CREATE statements of some tables and of the types that they need, each behind what it is made of."""

    def __init__(self, manifest: Manifest, tables: Iterable[TableManifest]) -> None:
        self.statements: list[str] = []
        self._types: Mapping[str, TypeManifest] = {each.name: each for each in manifest.types}
        self._tables = {(table.schema, table.name): table for table in tables}
        self._done: set[tuple[str, ...]] = set()
        for table in self._tables.values():
            self._table(table)

    def type(self, name: str, typmod: int = -1) -> str:
        """A type as a declaration names it; arrays by their element's."""
        described = self._types.get(name)
        if described and described.kind == "array":
            return self.type(described.element, typmod) + "[]"
        return declared(name, typmod)

    def _column(self, each: ColumnManifest) -> str:
        """A generated column is an ordinary one: the manifest has not its expression."""
        parts = [quoted(each.name), self.type(each.type, each.typmod)]
        parts += [f"COLLATE {each.collation}"] if each.collation else []
        if each.identity:
            parts.append(f"GENERATED {'ALWAYS' if each.identity == 'a' else 'BY DEFAULT'} AS IDENTITY")
        return " ".join(parts if each.nullable else [*parts, "NOT NULL"])

    def _first(self, *name: str) -> bool:
        """Whether it was not declared yet; from now on it is."""
        new = name not in self._done
        self._done.add(name)
        return new

    def _table(self, table: TableManifest) -> None:
        if not self._first(table.schema, table.name):
            return
        for each in table.columns:
            self._type(each.type)
        columns = ",\n  ".join(map(self._column, table.columns))
        generated = [one_line(each.name) for each in table.columns if each.generated]
        note = f" -- columns that were generated: {', '.join(generated)}" if generated else ""
        self.statements.append(f"CREATE TABLE {quoted(table.schema, table.name)} (\n  {columns}\n);{note}")

    def _type(self, name: str) -> None:
        described = self._types.get(name)
        if described is None:
            return
        for part in described.made_of:
            self._type(part)
        schema, last = split_name(name)
        row_of = self._tables.get((schema, last)) if described.kind == "composite" else None
        if row_of:
            self._table(row_of)
        elif described.extension:
            if self._first("extension", "", described.extension):
                within = f" WITH SCHEMA {quoted(schema)}" if described.kind != "array" else ""
                self.statements.append(f"CREATE EXTENSION IF NOT EXISTS {quoted(described.extension)}{within};")
        elif described.kind in _MADE and self._first(schema, last):
            self.statements.append(_MADE[described.kind](self, described))
        elif described.kind == "base" and self._first(schema, last):
            self.statements.append(f"-- The type {one_line(name)} must be there.")

    def enum(self, described: TypeManifest) -> str:
        """CREATE TYPE … AS ENUM."""
        return f"CREATE TYPE {described.name} AS ENUM ({', '.join(map(literal, described.labels))});"

    def domain(self, described: TypeManifest) -> str:
        """CREATE DOMAIN, without its constraints."""
        return f"CREATE DOMAIN {described.name} AS {self.type(described.base, described.typmod)};"

    def composite(self, described: TypeManifest) -> str:
        """CREATE TYPE … AS."""
        fields = ", ".join(f"{quoted(each.name)} {self.type(each.type, each.typmod)}" for each in described.fields)
        return f"CREATE TYPE {described.name} AS ({fields});"

    def range(self, described: TypeManifest) -> str:
        """CREATE TYPE … AS RANGE, which makes the multirange, too."""
        options = [f"subtype = {self.type(described.element)}"]
        options += [f"subtype_opclass = {described.opclass}"] if described.opclass else []
        options += [f"collation = {described.collation}"] if described.collation else []
        options += [
            f"multirange_type_name = {each.name}"
            for each in self._types.values()
            if each.kind == "multirange" and each.element == described.name
        ]
        return f"CREATE TYPE {described.name} AS RANGE ({', '.join(options)});"


_MADE: Final[Mapping[str, Callable[[Declarations, TypeManifest], str]]] = {
    "enum": Declarations.enum,
    "domain": Declarations.domain,
    "composite": Declarations.composite,
    "range": Declarations.range,
}
"""Kind of a type → its CREATE statement."""
