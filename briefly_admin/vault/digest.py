"""Row digests, computed from a COPY stream, or by PostgreSQL with the statements made here: the same figures.

See domain/digest.py for what they are.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg import sql

from briefly_admin.domain.digest import BUCKETS, WORDS, BucketDigests, TableDigest

# Two words of a hash each, with 64 bits of room above for the carries of as many rows as there can be.
_EVEN: Final = (((1 << 64) - 1) << 128) | ((1 << 64) - 1)
_ODD: Final = _EVEN << 64
_LANE: Final = (1 << 128) - 1
_HASH_BITS: Final = 256
_AT_ONCE: Final = 4096
"""Hashes that are added up as one number, by halving; a power of two."""
_EVEN_ALL: Final = int.from_bytes((bytes(8) + b"\xff" * 8) * 2 * _AT_ONCE)
_HALVES: Final = [
    (size, (1 << size) - 1) for size in (_HASH_BITS << step for step in reversed(range(_AT_ONCE.bit_length() - 1)))
]


class RowDigester:
    """Adds up the hashes of one table's rows; with keys, bucket by bucket."""

    def __init__(self, *, keyed: bool) -> None:
        self._keyed = keyed
        self._count = 0
        self._total_even = self._total_odd = 0
        self._counts = [0] * BUCKETS if keyed else []
        self._even = [0] * BUCKETS if keyed else []
        self._odd = [0] * BUCKETS if keyed else []

    def add(self, rows: Sequence[bytes], keys: Sequence[bytes] = ()) -> None:
        """Take rows (bytes without the field count) and, if keyed, the key of each (its fields, joined)."""
        sha256 = hashlib.sha256
        if not self._keyed:
            self._count += len(rows)
            for start in range(0, len(rows), _AT_ONCE):
                self._add_all(b"".join([sha256(row).digest() for row in rows[start : start + _AT_ONCE]]))
            return
        counts, even, odd, from_bytes = self._counts, self._even, self._odd, int.from_bytes
        for row, key in zip(rows, keys, strict=True):
            first, second, *_ = sha256(key).digest()
            bucket = (first << 4) | (second >> 4)
            value = from_bytes(sha256(row).digest())
            counts[bucket] += 1
            even[bucket] += value & _EVEN
            odd[bucket] += value & _ODD

    def _add_all(self, hashes: bytes) -> None:
        """Add so many hashes at once: a halving adds each of the lower half to one of the upper half, lane by lane."""
        value = int.from_bytes(hashes)
        even, odd = value & _EVEN_ALL, (value >> 64) & _EVEN_ALL
        for size, lower in _HALVES:
            even = (even >> size) + (even & lower)
            odd = (odd >> size) + (odd & lower)
        self._total_even += even
        self._total_odd += odd

    def buckets(self) -> BucketDigests | None:
        """The digest of each bucket, or None without keys."""
        if not self._keyed:
            return None
        return BucketDigests({number: self._bucket(number) for number in range(BUCKETS) if self._counts[number]})

    def digest(self) -> TableDigest:
        """The digest of all rows."""
        buckets = self.buckets()
        return buckets.total() if buckets is not None else _of(self._count, self._total_even, self._total_odd)

    def _bucket(self, number: int) -> TableDigest:
        return _of(self._counts[number], self._even[number], self._odd[number] >> 64)


def _of(count: int, even: int, odd: int) -> TableDigest:
    """From the sums of words 1 and 3, and of 0 and 2, each two in lanes of 128 bits."""
    return TableDigest.from_sums(count, (odd >> 128, even >> 128, odd & _LANE, even & _LANE))


@dataclass(frozen=True, slots=True)
class SendColumn:
    """A column and its type's send function, (schema, name) from pg_type.typsend; None where the type has none.

    A column of such a type is digested, and must be copied, as its text.
    """

    name: str
    send: tuple[str, str] | None


_FIXED: Final = {
    "boolsend": 1, "charsend": 1, "int2send": 2, "int4send": 4, "int8send": 8, "oidsend": 4, "float4send": 4,
    "float8send": 8, "uuid_send": 16, "date_send": 4, "time_send": 8, "timetz_send": 12, "timestamp_send": 8,
    "timestamptz_send": 8, "interval_send": 16, "cash_send": 8,
}  # fmt: skip
"""Bytes that pg_catalog's functions always send: their length need not be computed."""
_TEXT_SEND: Final = ("pg_catalog", "textsend")
"""refcursor's, too; and it takes text alone."""
_BYTES_TO_INT8: Final = 180_000
"""server_version_num since which bytes can be cast to bigint: half the time of the way over bits."""


def row_bytes_sql(columns: Sequence[SendColumn], alias: str) -> sql.Composable:
    """An expression, type bytea: the row's columns as COPY binary writes its fields, without the field count."""
    if not columns:
        return sql.SQL("''::pg_catalog.bytea")
    sent = sql.SQL(", ").join(
        sql.SQL("{} AS {}").format(_send_sql(column, alias), sql.Identifier(f"c{place}"))
        for place, column in enumerate(columns)
    )
    fields = sql.SQL(" || ").join(_field_sql(column, place) for place, column in enumerate(columns))
    # OFFSET 0 keeps the planner from calling the send functions once more for the length.
    return sql.SQL("(SELECT {} FROM (SELECT {} OFFSET 0) AS sent)").format(fields, sent)


def _send_sql(column: SendColumn, alias: str) -> sql.Composable:
    name = sql.Identifier(alias, column.name)
    if column.send is None or column.send == _TEXT_SEND:
        return sql.SQL("pg_catalog.textsend({}::pg_catalog.text)").format(name)
    return sql.SQL("{}({})").format(sql.Identifier(*column.send), name)


def _field_sql(column: SendColumn, place: int) -> sql.Composable:
    """Its length and bytes, or −1; send functions give NULL for NULL."""
    name = sql.Identifier("sent", f"c{place}")
    size = _FIXED.get(column.send[1]) if column.send and column.send[0] == "pg_catalog" else None
    length: sql.Composable
    if size is None:
        length = sql.SQL("pg_catalog.int4send(pg_catalog.octet_length({}))").format(name)
    else:
        length = sql.SQL("{}::pg_catalog.bytea").format(sql.Literal(f"\\x{size:08x}"))
    return sql.SQL("COALESCE({} || {}, {}::pg_catalog.bytea)").format(length, name, sql.Literal("\\xffffffff"))


def bucket_number_sql(key: Sequence[SendColumn], alias: str) -> sql.Composable:
    """An expression, type integer: the bucket of a row's key, 0 to 4,095."""
    return sql.SQL(
        "(SELECT (pg_catalog.get_byte(h, 0) << 4) | (pg_catalog.get_byte(h, 1) >> 4)"
        " FROM (SELECT pg_catalog.sha256({}) AS h OFFSET 0) AS hashed)"
    ).format(row_bytes_sql(key, alias))


def digest_sql(
    source: sql.Composable,
    columns: Sequence[SendColumn],
    *,
    where: sql.Composable | None = None,
    only: sql.Composable | None = None,
    alias: str = "t",
    server: int = 0,
) -> sql.Composed:
    """SELECT of one row: count and the four sums (numeric), for `digest_of`, and how many rows there are beside those.

    `source`: what stands behind FROM. `only`: a condition; rows that do not meet it are those beside, and are not
    digested. `server`: its version (180003), where it is known: a newer one is asked in a faster way.
    """
    if server >= _BYTES_TO_INT8:
        sums, rows = _CAST_SUMS, _rows_sql(source, columns, (), where, alias, only=only, hashed="{}")
    else:
        sums, rows = _sums_sql(), _rows_sql(source, columns, (), where, alias, only=only)
    query = "SELECT pg_catalog.count(h), {sums}, pg_catalog.count(*) - pg_catalog.count(h) FROM ({rows}) AS digested"
    return sql.SQL(query).format(sums=sums, rows=rows)


def bucket_sql(
    source: sql.Composable,
    columns: Sequence[SendColumn],
    key: Sequence[SendColumn],
    *,
    where: sql.Composable | None = None,
    alias: str = "t",
) -> sql.Composed:
    """SELECT of one row a bucket: its number, count and the four sums (numeric), for `buckets_of`."""
    return sql.SQL("SELECT bucket, pg_catalog.count(*), {sums} FROM ({rows}) AS digested GROUP BY bucket").format(
        sums=_sums_sql(), rows=_rows_sql(source, columns, key, where, alias)
    )


def digest_of(row: Sequence[Any]) -> TableDigest:
    """The row that `digest_sql` gives."""
    count, *sums = row[: 1 + WORDS]
    return TableDigest.from_sums(int(count), [int(total or 0) for total in sums])


def buckets_of(rows: Sequence[Sequence[Any]]) -> BucketDigests:
    """The rows that `bucket_sql` gives."""
    return BucketDigests({int(bucket): digest_of(row) for bucket, *row in rows})


def _sums_sql() -> sql.Composable:
    """Signed words, summed exactly as numeric: the same modulo 2⁶⁴ as the unsigned ones."""
    return sql.SQL(", ").join(
        sql.SQL("pg_catalog.sum(('x' || pg_catalog.substr(h, {}, 16))::pg_catalog.bit(64)::pg_catalog.int8)").format(
            sql.Literal(1 + 16 * word)
        )
        for word in range(WORDS)
    )


_CAST_SUMS: Final[sql.Composable] = sql.SQL(", ").join(
    sql.SQL("pg_catalog.sum(pg_catalog.substr(h, {}, 8)::pg_catalog.int8)").format(sql.Literal(1 + 8 * word))
    for word in range(WORDS)
)


def _rows_sql(
    source: sql.Composable,
    columns: Sequence[SendColumn],
    key: Sequence[SendColumn],
    where: sql.Composable | None,
    alias: str,
    *,
    only: sql.Composable | None = None,
    hashed: LiteralString = "pg_catalog.encode({}, 'hex')",
) -> sql.Composable:
    bucket = sql.SQL("{} AS bucket, ").format(bucket_number_sql(key, alias)) if key else sql.SQL("")
    condition = sql.SQL(" WHERE {}").format(where) if where else sql.SQL("")
    hash_: sql.Composable = sql.SQL("pg_catalog.sha256({})").format(row_bytes_sql(columns, alias))
    hash_ = sql.SQL(hashed).format(hash_)
    if only is not None:
        hash_ = sql.SQL("CASE WHEN {} THEN {} END").format(only, hash_)
    return sql.SQL("SELECT {bucket}{hash} AS h FROM {source} AS {alias}{where} OFFSET 0").format(
        bucket=bucket, hash=hash_, source=source, alias=sql.Identifier(alias), where=condition
    )
