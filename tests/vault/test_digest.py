import hashlib
import random
import struct
from collections.abc import Iterator, Sequence

import psycopg
import pytest
from psycopg import sql

from briefly_admin.domain.digest import BucketDigests, TableDigest
from briefly_admin.vault.copybinary import CopyParser, blocks
from briefly_admin.vault.digest import (
    RowDigester,
    SendColumn,
    bucket_number_sql,
    bucket_sql,
    buckets_of,
    digest_of,
    digest_sql,
)
from tests.vault.sample_backups import copy_row, field, some_rows


def by_the_page(rows: Sequence[Sequence[bytes | None]]) -> TableDigest:
    """Written from docs/backup-format.md alone."""
    sums = [0] * 4
    for row in rows:
        for place, word in enumerate(struct.unpack(">4Q", hashlib.sha256(copy_row(row)[2:]).digest())):
            sums[place] = (sums[place] + word) % 2**64
    return TableDigest(len(rows), (sums[0], sums[1], sums[2], sums[3]))


ROWS = some_rows(3, 5000)
RAW = [copy_row(row)[2:] for row in ROWS]
KEYS = [field(row[0]) for row in ROWS]


def digester(rows: Sequence[bytes], keys: Sequence[bytes]) -> RowDigester:
    made = RowDigester(keyed=bool(keys))
    for start in range(0, len(rows), 700):
        made.add(rows[start : start + 700], keys[start : start + 700])
    return made


def test_the_digest_is_the_one_of_the_format_page() -> None:
    assert digester(RAW, []).digest() == digester(RAW, KEYS).digest() == by_the_page(ROWS)


def test_order_and_partition_do_not_matter() -> None:
    shuffled = list(zip(RAW, KEYS, strict=True))
    random.Random(1).shuffle(shuffled)
    rows, keys = [row for row, _ in shuffled], [key for _, key in shuffled]
    whole, parts = digester(RAW, KEYS), [digester(rows[:1234], keys[:1234]), digester(rows[1234:], keys[1234:])]
    assert sum((part.digest() for part in parts), TableDigest()) == whole.digest()
    first, second, buckets = parts[0].buckets(), parts[1].buckets(), whole.buckets()
    assert first
    assert second
    assert buckets
    assert first + second == buckets
    assert buckets.total() == whole.digest()


def test_a_changed_row_changes_its_bucket_alone() -> None:
    changed = [*RAW[:17], RAW[17] + b"x", *RAW[18:]]
    before, after = digester(RAW, KEYS).buckets(), digester(changed, KEYS).buckets()
    assert before
    assert after
    number = int.from_bytes(hashlib.sha256(KEYS[17]).digest()[:2], "big") >> 4
    assert before.differing(after) == [number]
    assert before.differing(before) == []


def test_digests_have_a_text_form() -> None:
    digest = by_the_page(ROWS[:3])
    assert TableDigest.parse(str(digest)) == digest
    assert str(TableDigest()) == "0:" + "0" * 64
    for text in ("", "1", "01:" + "0" * 64, "-1:" + "0" * 64, "1:" + "0" * 63, "1:" + "G" * 64):
        with pytest.raises(ValueError, match="digest"):
            TableDigest.parse(text)


def test_bucket_digests_have_a_compact_form() -> None:
    for count in (0, 1, 10, 5000):
        buckets = digester(RAW[:count], KEYS[:count] or [b""][:0]).buckets() or BucketDigests()
        data = buckets.to_bytes()
        assert BucketDigests.from_bytes(data) == buckets
        assert len(data) == 512 + 40 * len(buckets)
        for broken in (data[:-1], data + b"\0", b"", b"\xff" + data[1:]):
            with pytest.raises(ValueError, match="bucket digests"):
                BucketDigests.from_bytes(broken)


@pytest.fixture
def connection(target_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(target_database, autocommit=True) as opened:
        yield opened


SETUP = """
CREATE SCHEMA "odd %s";
CREATE TYPE "odd %s"."mood%" AS ENUM ('sad', 'glad');
CREATE TYPE "odd %s".pair AS (a int, b text);
CREATE DOMAIN "odd %s".short AS varchar(20) CHECK (length(VALUE) < 19);
CREATE TABLE "odd %s"."every ""type" (
    "id%" uuid, k2 bigint, t text, vc varchar(9), bc char(5), i2 smallint, i4 int, i8 bigint, n numeric, n2 numeric(12,3),
    f4 real, f8 double precision, b boolean, by bytea, j json, jb jsonb, ts timestamp, tz timestamptz, d date,
    tm time, tmz timetz, iv interval, ta text[], ia int[], ba bytea[], ip inet, ci cidr, mac macaddr, bits bit(3), vb varbit,
    ir int4range, im int4multirange, pt point, m money, o oid, nm name, c "char", tv tsvector, e vector(3), mo "odd %s"."mood%",
    pa "odd %s".pair, sh "odd %s".short, u tsquery, acl aclitem
);
INSERT INTO "odd %s"."every ""type"
SELECT md5(g::text)::uuid, g, 'Grüße ✓ ' || g, 'v' || g, 'b', g, -g, g::bigint << 40, g / 7.0, g * 1000.125, g / 3.0, 'NaN',
    g % 2 = 0, decode(md5(g::text), 'hex'), '{"a" :  1}', jsonb_build_object('a', g, 'b', null), timestamp '2024-01-01' + g * interval '1h',
    CASE g WHEN 1 THEN 'infinity' WHEN 2 THEN '-infinity' WHEN 3 THEN '4713-01-01 BC' ELSE timestamptz '2024-01-01Z' + g * interval '1s' END,
    date '2024-01-01' + g, time '10:00', timetz '10:00+02', interval '1 month 2 days 3 us', ARRAY['a', NULL, g::text], ARRAY[[1,2],[3,g]],
    ARRAY[]::bytea[], '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', B'101', B'1', int4range(1, g + 2), '{[1,2),[5,9)}', point(g, 1), g::money,
    g, 'name' || g, 'c', to_tsvector('simple', 'a b ' || g), ('[1,2,' || g || ']')::vector,
    (ARRAY['sad', 'glad'])[1 + g % 2]::"odd %s"."mood%", ROW(g, NULL)::"odd %s".pair, 's' || g, 'a & b', NULL
FROM generate_series(1, 300) g;
INSERT INTO "odd %s"."every ""type" ("id%", k2) VALUES (gen_random_uuid(), 0), (NULL, NULL);
INSERT INTO "odd %s"."every ""type" ("id%", k2, t, by) VALUES
    (gen_random_uuid(), -1, '', ''), (gen_random_uuid(), -2, repeat(md5('x'), 90000), decode(repeat('00ff', 500000), 'hex'));
"""
TABLE = sql.Identifier("odd %s", 'every "type')


def columns_of(connection: psycopg.Connection) -> list[SendColumn]:
    found = connection.execute(
        "SELECT attname, n.nspname, p.proname FROM pg_attribute a JOIN pg_type t ON t.oid = atttypid"
        " LEFT JOIN pg_proc p ON p.oid = typsend LEFT JOIN pg_namespace n ON n.oid = pronamespace"
        " WHERE attrelid = %s::text::regclass AND attnum > 0 ORDER BY attnum",
        [TABLE.as_string(connection)],
    ).fetchall()
    return [SendColumn(name, (schema, send) if send else None) for name, schema, send in found]


def streamed(connection: psycopg.Connection, columns: Sequence[SendColumn], key: tuple[int, ...]) -> RowDigester:
    selected = sql.SQL(", ").join(
        sql.SQL("{}" if column.send else "{}::text").format(sql.Identifier(column.name)) for column in columns
    )
    statement = sql.SQL("COPY (SELECT {} FROM ONLY {}) TO STDOUT (FORMAT binary)").format(selected, TABLE)
    made = RowDigester(keyed=bool(key))
    with connection.cursor().copy(statement) as copy:
        for _, found in blocks(CopyParser(len(columns), key), map(bytes, copy)):
            made.add(found.rows, found.keys)
    return made


@pytest.mark.parametrize("key", [(0,), (1, 0)])
def test_postgresql_computes_the_same(connection: psycopg.Connection, key: tuple[int, ...]) -> None:
    connection.execute(SETUP.encode())
    columns = columns_of(connection)
    assert [column.name for column in columns if column.send is None] == ["acl"]
    made = streamed(connection, columns, key)
    source = sql.SQL("ONLY {}").format(TABLE)
    assert made.digest().count == 304
    for server in (0, connection.info.server_version):
        query = digest_sql(source, columns, server=server)
        assert digest_of(connection.execute(query).fetchone() or ()) == made.digest()
    rows = connection.execute(bucket_sql(source, columns, [columns[place] for place in key])).fetchall()
    assert buckets_of(rows) == made.buckets()


def test_each_type_alone_is_the_same(connection: psycopg.Connection) -> None:
    connection.execute(SETUP.encode())
    source = sql.SQL("ONLY {}").format(TABLE)
    for column in columns_of(connection):
        there = digest_of(connection.execute(digest_sql(source, [column])).fetchone() or ())
        assert there == streamed(connection, [column], ()).digest(), column


def test_a_condition_selects_a_bucket(connection: psycopg.Connection) -> None:
    connection.execute(SETUP.encode())
    columns = columns_of(connection)
    buckets = streamed(connection, columns, (0,)).buckets()
    assert buckets
    number = next(iter(buckets))
    where = sql.SQL("{} = {}").format(bucket_number_sql(columns[:1], "t"), sql.Literal(number))
    found = connection.execute(digest_sql(sql.SQL("ONLY {}").format(TABLE), columns, where=where)).fetchone()
    assert digest_of(found or ()) == buckets[number]


def test_an_empty_table_has_the_empty_digest(connection: psycopg.Connection) -> None:
    connection.execute(SETUP.encode())
    for server in (0, connection.info.server_version):
        query = digest_sql(TABLE, columns_of(connection), where=sql.SQL("false"), server=server)
        assert digest_of(connection.execute(query).fetchone() or ()) == TableDigest()
