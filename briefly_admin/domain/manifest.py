"""The manifest of a sealed backup: what it holds, as dataclasses and as canonical JSON.

Canonical JSON: UTF-8, keys sorted, no white space, integers alone (no fractions), every field present. The text that
`to_bytes` writes is the only one that `from_bytes` reads. Source: docs/backup-format.md, "The manifest".
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar
from uuid import UUID

from briefly_admin.domain.digest import TableDigest
from briefly_admin.domain.errors import BackupDamaged, BackupError

FORMAT_VERSION: Final = 1
READ_VERSIONS: Final = (1,)

_MIN_INTEGER: Final = -(1 << 63)
_MAX_INTEGER: Final = (1 << 63) - 1
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_T = TypeVar("_T")


def _damaged(path: str, what: str) -> BackupDamaged:
    return BackupDamaged(f"The backup's manifest is damaged: {path} {what}.", remedy="Use another backup.")


class _Object:
    """One JSON object, read field by field; every surprise is BackupDamaged with the path to it."""

    def __init__(self, data: Any, path: str, kind: type) -> None:
        self.path = path
        if not isinstance(data, dict):
            raise _damaged(path, "is not an object")
        self._data: dict[str, Any] = data
        surprises = sorted({each.name for each in fields(kind)} ^ data.keys())
        if surprises:
            raise _damaged(path, f"has missing or unknown fields ({', '.join(surprises)})")

    def _get(self, name: str, kind: type[_T]) -> _T:
        value = self._data[name]
        if type(value) is not kind:  # bool is an int, and must not pass for one
            raise _damaged(f"{self.path}.{name}", f"is not {kind.__name__}")
        return value

    def text(self, name: str) -> str:
        return self._get(name, str)

    def flag(self, name: str) -> bool:
        return self._get(name, bool)

    def integer(self, name: str, *, least: int = 0) -> int:
        value = self._get(name, int)
        if not least <= value <= _MAX_INTEGER:
            raise _damaged(f"{self.path}.{name}", "is out of range")
        return value

    def sha256(self, name: str) -> str:
        value = self._get(name, str)
        if not _HEX.fullmatch(value):
            raise _damaged(f"{self.path}.{name}", "is not a SHA-256 in hexadecimal")
        return value

    def items(self, name: str) -> list[tuple[Any, str]]:
        return [(item, f"{self.path}.{name}[{i}]") for i, item in enumerate(self._get(name, list))]

    def texts(self, name: str) -> tuple[str, ...]:
        for item, path in self.items(name):
            if type(item) is not str:
                raise _damaged(path, "is not str")
        return tuple(self._get(name, list))

    def mapping(self, name: str) -> dict[str, str]:
        found = self._get(name, dict)
        for key, value in found.items():
            if type(value) is not str:
                raise _damaged(f"{self.path}.{name}.{key}", "is not str")
        return found


@dataclass(frozen=True, slots=True)
class ColumnManifest:
    """A column as the catalog had it; `type` is the type's qualified name, `typmod` that of pg_attribute.

    `generated` is '' or 's' or 'v', `identity` '' or 'a' or 'd', `collation` a qualified name or ''; `binary` False
    means that its type has no binary form, and that the streams hold it as text.
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
        read = _Object(data, path, cls)
        return cls(
            name=read.text("name"),
            type=read.text("type"),
            typmod=read.integer("typmod", least=-1),
            nullable=read.flag("nullable"),
            generated=read.text("generated"),
            identity=read.text("identity"),
            collation=read.text("collation"),
            binary=read.flag("binary"),
        )


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
        read = _Object(data, path, cls)
        return cls(
            number=read.integer("number", least=1),
            ctid_from=read.text("ctid_from"),
            ctid_to=read.text("ctid_to"),
            rows=read.integer("rows"),
            plaintext_size=read.integer("plaintext_size"),
            plaintext_sha256=read.sha256("plaintext_sha256"),
            sealed_size=read.integer("sealed_size"),
            sealed_sha256=read.sha256("sealed_sha256"),
        )


def titles(tables: Iterable[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """What people and partitions call tables, (schema, name) each: the name, or schema.name where it is taken."""
    found: dict[str, tuple[str, str]] = {}
    for schema, name in tables:
        found[f"{schema}.{name}" if name in found else name] = (schema, name)
    return found


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

    @property
    def label(self) -> str:
        """`schema.name`, for messages."""
        return f"{self.schema}.{self.name}"

    @property
    def key_positions(self) -> tuple[int, ...]:
        """Where the key's columns stand among the columns, in key order."""
        names = [column.name for column in self.columns]
        return tuple(names.index(name) for name in self.key)

    @classmethod
    def from_json(cls, data: Any, path: str) -> Self:
        """Raises BackupDamaged."""
        read = _Object(data, path, cls)
        try:
            digest = TableDigest.parse(read.text("digest"))
        except ValueError as error:
            raise _damaged(f"{path}.digest", "is not a digest") from error
        table = cls(
            schema=read.text("schema"),
            name=read.text("name"),
            columns=tuple(ColumnManifest.from_json(*item) for item in read.items("columns")),
            key=read.texts("key"),
            rows=read.integer("rows"),
            hash=read.sha256("hash"),
            digest=digest,
            streams=tuple(StreamManifest.from_json(*item) for item in read.items("streams")),
        )
        table._check(path)
        return table

    def _check(self, path: str) -> None:
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names) or not set(self.key) <= set(names):
            raise _damaged(path, "names a column twice, or a key column that it does not have")
        if self.rows != sum(stream.rows for stream in self.streams) or self.rows != self.digest.count:
            raise _damaged(f"{path}.rows", "is not the sum of its streams' rows, or not the digest's count")
        if self.hash != table_hash(self.streams):
            raise _damaged(f"{path}.hash", "is not that of its streams")


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
        read = _Object(data, path, cls)
        return cls(
            schema=read.text("schema"),
            name=read.text("name"),
            last_value=read.integer("last_value", least=_MIN_INTEGER),
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
        read = _Object(data, path, cls)
        return cls(table=read.text("table"), what=read.text("what"), sql=read.text("sql"), inverse=read.text("inverse"))


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
        return json.dumps(
            _plain(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The inverse of `to_bytes`. Raises BackupDamaged, and BackupError for a version that is not read."""
        try:
            data = json.loads(raw.decode())
        except (ValueError, RecursionError) as error:
            raise _damaged("it", "is not JSON") from error
        version = data.get("format_version") if isinstance(data, dict) else None
        if type(version) is int and version not in READ_VERSIONS:
            raise BackupError(
                f"The backup's format version is {version}; this program reads {', '.join(map(str, READ_VERSIONS))}.",
                remedy="Open it with the version of Briefly Admin that wrote it.",
            )
        manifest = cls._from_json(data)
        if manifest.to_bytes() != raw:
            raise _damaged("it", "is not canonical JSON")
        return manifest

    @classmethod
    def _from_json(cls, data: Any) -> Self:
        read = _Object(data, "manifest", cls)
        try:
            backup_id = UUID(read.text("backup_id"))
            created_at = datetime.fromisoformat(read.text("created_at"))
        except ValueError as error:
            raise _damaged("manifest", "has a malformed id or time") from error
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
            format_version=read.integer("format_version", least=1),
        )
        numbers = [stream.number for stream in manifest.streams]
        if len(set(numbers)) != len(numbers):
            raise _damaged("manifest", "names a stream twice")
        return manifest


def _plain(value: Any) -> Any:
    """A dataclass, and what it holds, as plain JSON values."""
    if isinstance(value, UUID | TableDigest):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return value
