"""The manifest of a sealed backup: what it holds, as dataclasses and as canonical JSON.

Canonical JSON: UTF-8, keys sorted, no white space, integers alone (no fractions), every field present. The text that
`to_bytes` writes is the only one that `from_bytes` reads. Source: docs/backup-format.md, "The manifest".
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self
from uuid import UUID

from briefly_admin.domain.canonical import JsonObject, canonical, damaged
from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupError
from briefly_admin.domain.manifest_schema import (
    ColumnManifest,
    FieldManifest,
    ForeignKeyManifest,
    SchemaChangeRecord,
    SequenceManifest,
    TypeManifest,
    check_types,
    once,
)

__all__ = [
    "FORMAT_VERSION", "READ_VERSIONS", "ColumnManifest", "FieldManifest", "ForeignKeyManifest", "Manifest",
    "SchemaChangeRecord", "SequenceManifest", "StreamManifest", "TableManifest", "TypeManifest", "label", "table_hash",
    "titles",
]  # fmt: skip

FORMAT_VERSION: Final = 1
READ_VERSIONS: Final = (1,)


@dataclass(frozen=True, slots=True)
class StreamManifest:
    """One sealed stream: a ctid range of a table, `ctid_from` ≤ ctid < `ctid_to` ('' = no bound); sizes are bytes.

    `plaintext_…` is the COPY binary before compression, `sealed_…` the object in the store.
    """

    number: int
    ctid_from: str
    ctid_to: str
    rows: int
    plaintext_size: int
    plaintext_sha256: str
    sealed_size: int
    sealed_sha256: str

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        return cls(
            number=read.integer("number", least=1),
            ctid_from=read.place("ctid_from"),
            ctid_to=read.place("ctid_to"),
            rows=read.integer("rows"),
            plaintext_size=read.integer("plaintext_size"),
            plaintext_sha256=read.sha256("plaintext_sha256"),
            sealed_size=read.integer("sealed_size"),
            sealed_sha256=read.sha256("sealed_sha256"),
        )


def titles(tables: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """What people and partitions call tables, (schema, name) each: the name, or schema.name where it is taken.

    Names may hold dots and quotes: where that is taken, too, quotes are added until it is not.
    """
    found: dict[str, tuple[str, str]] = {}
    for schema, name in tables:
        title = f"{schema}.{name}" if name in found else name
        while title in found:
            title = f'"{title}"'
        found[title] = (schema, name)
    return found


def label(schema: str, name: str) -> str:
    """`schema.name`, for messages; what has a dot in it or begins with a quote is quoted: no two tables share one."""
    return ".".join(
        '"' + part.replace('"', '""') + '"' if "." in part or part.startswith('"') else part for part in (schema, name)
    )


def table_hash(streams: Iterable[StreamManifest]) -> str:
    """SHA-256 of the streams' plaintext SHA-256s (32 bytes each) in stream order, in hexadecimal."""
    in_order = sorted(streams, key=lambda stream: stream.number)
    return hashlib.sha256(b"".join(bytes.fromhex(stream.plaintext_sha256) for stream in in_order)).hexdigest()


@dataclass(frozen=True, slots=True)
class TableManifest:
    """One table: its columns in COPY's order, the key's column names, and where its rows are."""

    schema: str
    name: str
    columns: tuple[ColumnManifest, ...]
    key: tuple[str, ...]
    rows: int
    hash: str
    digest: TableDigest
    streams: tuple[StreamManifest, ...]
    foreign_keys: tuple[ForeignKeyManifest, ...] = ()

    @property
    def label(self) -> str:
        """`schema.name`, unlike any other table's; see `label`."""
        return label(self.schema, self.name)

    @property
    def key_positions(self) -> tuple[int, ...]:
        """Where the key's columns stand among the columns, in key order."""
        names = [column.name for column in self.columns]
        return tuple(names.index(name) for name in self.key)

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = JsonObject(data, path, cls)
        try:
            digest = TableDigest.parse(read.text("digest"))
        except ValueError as error:
            raise damaged(f"{path}.digest", "is not a digest") from error
        table = cls(
            schema=read.text("schema"),
            name=read.text("name"),
            columns=tuple(ColumnManifest.from_json(*item) for item in read.items("columns")),
            key=read.texts("key"),
            rows=read.integer("rows"),
            hash=read.sha256("hash"),
            digest=digest,
            streams=tuple(StreamManifest.from_json(*item) for item in read.items("streams")),
            foreign_keys=tuple(ForeignKeyManifest.from_json(*item) for item in read.items("foreign_keys")),
        )
        table._check(path)
        return table

    def _check(self, path: str) -> None:
        names = [column.name for column in self.columns]
        once(names, path, "a column")
        once(self.key, path, "a key column")
        once([key.name for key in self.foreign_keys], path, "a foreign key")
        for columns in (self.key, *(key.columns for key in self.foreign_keys)):
            if not set(columns) <= set(names):
                raise damaged(path, "has a key of columns that it does not have")
        if self.rows != sum(stream.rows for stream in self.streams) or self.rows != self.digest.count:
            raise damaged(f"{path}.rows", "is not the sum of its streams' rows, or not the digest's count")
        if self.hash != table_hash(self.streams):
            raise damaged(f"{path}.hash", "is not that of its streams")


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a backup says of itself; `created_at` is aware, in UTC."""

    backup_id: UUID
    created_at: datetime
    plan: str
    plan_fingerprint: str
    server_version: str
    encoding: str
    database: str
    extensions: Mapping[str, str]
    wal_position: str
    tables: tuple[TableManifest, ...]
    sequences: tuple[SequenceManifest, ...]
    schema_fingerprint: str
    schema_changes: tuple[SchemaChangeRecord, ...]
    types: tuple[TypeManifest, ...] = ()
    """Those outside pg_catalog that the columns use; each stands behind those that it is made of."""
    format_version: int = FORMAT_VERSION

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def streams(self) -> tuple[StreamManifest, ...]:
        """The streams of all tables."""
        return tuple(stream for table in self.tables for stream in table.streams)

    @property
    def sealed_size(self) -> int:
        """Bytes of all streams in the store, the manifest and the slots not counted."""
        return sum(stream.sealed_size for stream in self.streams)

    @property
    def by_title(self) -> dict[str, TableManifest]:
        """The tables by what people call them; see `titles`."""
        return dict(zip(titles((table.schema, table.name) for table in self.tables), self.tables, strict=True))

    def table(self, schema: str, name: str) -> TableManifest | None:
        """The table of that name, or None."""
        return next((table for table in self.tables if (table.schema, table.name) == (schema, name)), None)

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical(self)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The inverse of `to_bytes`. Raises BackupDamaged, and BackupError for a version that is not read."""
        try:
            data = json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise damaged("it", "is not JSON") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is int and version not in READ_VERSIONS:
            raise BackupError(
                f"The backup's format version is {version}; this program reads {', '.join(map(str, READ_VERSIONS))}.",
                remedy="Open it with the version of Briefly Admin that wrote it.",
            )
        manifest = cls._from_json(data)
        if manifest.to_bytes() != raw:
            raise damaged("it", "is not canonical JSON")
        return manifest

    @classmethod
    def _from_json(cls, data: Any) -> Self:
        read = JsonObject(data, "manifest", cls)
        try:
            backup_id = UUID(read.text("backup_id"))
            created_at = datetime.fromisoformat(read.text("created_at")).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise damaged("manifest", "has a malformed id or time") from error
        manifest = cls(
            backup_id=backup_id,
            created_at=created_at,
            plan=read.text("plan"),
            plan_fingerprint=read.text("plan_fingerprint"),
            server_version=read.text("server_version"),
            encoding=read.text("encoding"),
            database=read.text("database"),
            extensions=read.mapping("extensions"),
            wal_position=read.text("wal_position"),
            tables=tuple(TableManifest.from_json(*item) for item in read.items("tables")),
            sequences=tuple(SequenceManifest.from_json(*item) for item in read.items("sequences")),
            schema_fingerprint=read.text("schema_fingerprint"),
            schema_changes=tuple(SchemaChangeRecord.from_json(*item) for item in read.items("schema_changes")),
            types=tuple(TypeManifest.from_json(*item) for item in read.items("types")),
            format_version=read.integer("format_version", least=1),
        )
        manifest._check()
        return manifest

    def _check(self) -> None:
        once([stream.number for stream in self.streams], "manifest", "a stream")
        once([(table.schema, table.name) for table in self.tables], "manifest", "a table")
        once([(sequence.schema, sequence.name) for sequence in self.sequences], "manifest", "a sequence")
        check_types(self.types, [(column.type, table.label) for table in self.tables for column in table.columns])
        for table in self.tables:
            for key in table.foreign_keys:
                parent = self.table(key.schema, key.table)
                if parent and not set(key.references) <= {column.name for column in parent.columns}:
                    raise damaged(table.label, f"has the foreign key {key.name} to columns that are not there")
