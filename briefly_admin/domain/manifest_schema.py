"""What a backup's manifest says of the schema that its rows had: columns, foreign keys, types, sequences, changes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from briefly_admin.domain.canonical import MIN_INTEGER, JsonObject, damaged

TYPE_KINDS: Final = ("enum", "domain", "composite", "range", "multirange", "array", "base")
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class ColumnManifest:
    """A column as the catalog had it; `type` is the type's qualified name, `typmod` that of pg_attribute.

    `generated` is '' or 's' or 'v', `identity` '' or 'a' or 'd', `collation` a qualified name or ''; `binary` False
    means that its type has no binary form that another database reads alike, and that the streams hold it as text.
    """

    name: str
    type: str
    typmod: int = -1
    nullable: bool = True
    generated: str = ""
    identity: str = ""
    collation: str = ""
    binary: bool = True

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        return cls(
            name=read.text("name"),
            type=read.text("type"),
            typmod=read.integer("typmod", least=-1),
            nullable=read.flag("nullable"),
            generated=read.one_of("generated", ("", "s", "v")),
            identity=read.one_of("identity", ("", "a", "d")),
            collation=read.text("collation"),
            binary=read.flag("binary"),
        )


@dataclass(frozen=True, slots=True)
class ForeignKeyManifest:
    """A foreign key of a table: its `columns`, in order, are those that `schema`.`table` calls `references`.

    Keys over periods (WITHOUT OVERLAPS) are none of these: they do not compare for equality.
    """

    name: str
    columns: tuple[str, ...]
    schema: str
    table: str
    references: tuple[str, ...]
    validated: bool

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        key = cls(
            name=read.text("name"),
            columns=read.texts("columns"),
            schema=read.text("schema"),
            table=read.text("table"),
            references=read.texts("references"),
            validated=read.flag("validated"),
        )
        if not key.columns or len(key.columns) != len(key.references):
            raise damaged(path, "does not have as many columns as it references, or has none")
        return key


@dataclass(frozen=True, slots=True)
class FieldManifest:
    """A field of a composite type; `type` and `typmod` as a column's."""

    name: str
    type: str
    typmod: int = -1

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        return cls(name=read.text("name"), type=read.text("type"), typmod=read.integer("typmod", least=-1))


@dataclass(frozen=True, slots=True)
class TypeManifest:
    """A type outside pg_catalog that a column has, or that such a type is made of; `name` as a column's `type`.

    `kind` is one of TYPE_KINDS. An enum has `labels`, in order; a domain its `base` type with that one's `typmod`; an
    array, a range and a multirange their `element` (the range's subtype, the multirange's range); a composite its
    `fields`. A range's `collation` and `opclass` (qualified names) say how its bounds are ordered; '' where that is
    as the subtype's defaults are, or where there is nothing to order. `extension` brings the type, or is ''.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    base: str = ""
    typmod: int = -1
    element: str = ""
    fields: tuple[FieldManifest, ...] = ()
    collation: str = ""
    opclass: str = ""
    extension: str = ""

    @property
    def made_of(self) -> tuple[str, ...]:
        """The types that it needs, by name."""
        return tuple(name for name in (self.base, self.element, *(each.type for each in self.fields)) if name)

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        described = cls(
            name=read.text("name"),
            kind=read.one_of("kind", TYPE_KINDS),
            labels=read.texts("labels"),
            base=read.text("base"),
            typmod=read.integer("typmod", least=-1),
            element=read.text("element"),
            fields=tuple(FieldManifest.from_json(*item) for item in read.items("fields")),
            collation=read.text("collation"),
            opclass=read.text("opclass"),
            extension=read.text("extension"),
        )
        described._check(path)
        return described

    def _check(self, path: str) -> None:
        wanted = {
            "base": self.kind == "domain",
            "element": self.kind in {"array", "range", "multirange"},
        }
        if any(bool(getattr(self, name)) is not there for name, there in wanted.items()):
            raise damaged(path, f"is not made of what its kind, {self.kind}, is made of")
        if (self.labels and self.kind != "enum") or (self.fields and self.kind != "composite"):
            raise damaged(path, f"has labels or fields, which its kind, {self.kind}, has not")
        if (self.collation or self.opclass) and self.kind != "range":
            raise damaged(path, f"has an order, which its kind, {self.kind}, has not")
        if self.typmod != -1 and self.kind != "domain":
            raise damaged(f"{path}.typmod", "is not -1")
        once([*self.labels], path, "a label")
        once([field.name for field in self.fields], path, "a field")


def is_built_in(name: str) -> bool:
    """Whether a type's name is one of pg_catalog, which every database has: not qualified by another schema."""
    return name.startswith("pg_catalog.") or "." not in _QUOTED.sub("", name)


def once(names: Sequence[Any], path: str, what: str) -> None:
    """Raises BackupDamaged where one of them occurs again."""
    if len(set(names)) != len(names):
        raise damaged(path, f"names {what} twice")


def check_types(types: Sequence[TypeManifest], used: Iterable[tuple[str, str]]) -> None:
    """`used` are (type, path) of the columns. Each type that is not built in is described once, behind those that it is
    made of, and so none is made of itself. Raises BackupDamaged.
    """
    known: set[str] = set()
    for described in types:
        path = f"manifest.types {described.name}"
        if is_built_in(described.name) or described.name in known:
            raise damaged(path, "is described twice, or built in")
        for name in described.made_of:
            if not is_built_in(name) and name not in known:
                raise damaged(path, f"is made of {name}, which is not described before it")
        known.add(described.name)
    for name, path in used:
        if not is_built_in(name) and name not in known:
            raise damaged(path, f"has the type {name}, which is not described")


@dataclass(frozen=True, slots=True)
class SequenceManifest:
    """Where a sequence stood."""

    schema: str
    name: str
    last_value: int
    is_called: bool

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        return cls(
            schema=read.text("schema"),
            name=read.text("name"),
            last_value=read.integer("last_value", least=MIN_INTEGER),
            is_called=read.flag("is_called"),
        )


@dataclass(frozen=True, slots=True)
class SchemaChangeRecord:
    """A schema change that the plan makes, and the statement that takes it back."""

    table: str
    what: str
    sql: str
    inverse: str

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        return cls(table=read.text("table"), what=read.text("what"), sql=read.text("sql"), inverse=read.text("inverse"))
