"""Real rows out of PostgreSQL, through a sealed backup, and back."""

from uuid import uuid4

import psycopg
from psycopg import sql

from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault.digest import SendColumn, bucket_sql, buckets_of, digest_of, digest_sql
from briefly_admin.vault.vault import Vault
from tests.vault.sample_backups import COLUMNS, KEYS, manifest_of, table_of

SENDS = ("uuid_send", "textsend", "int4send")
SEND_COLUMNS = [SendColumn(column.name, ("pg_catalog", send)) for column, send in zip(COLUMNS, SENDS, strict=True)]


def test_rows_come_back_with_the_same_digest(target_database: str, store: BlobStore) -> None:
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in COLUMNS)
    vault = Vault(store, KEYS)
    with psycopg.connect(target_database, autocommit=True) as connection:
        for table in ("before", "after"):
            statement = sql.SQL("CREATE TABLE {} (id uuid PRIMARY KEY, title text, {} int)")
            connection.execute(statement.format(sql.Identifier(table), sql.Identifier("n%")))
        connection.execute(
            "INSERT INTO before SELECT gen_random_uuid(), repeat(md5(g::text), CASE g WHEN 7 THEN 500000 ELSE g % 40 END),"
            " nullif(g % 9, 0) FROM generate_series(1, 20000) g"
        )
        connection.execute(  # incompressible: more than a bucket's store puts by one request
            "UPDATE before SET title = (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400000))"
            " WHERE id = (SELECT id FROM before WHERE ctid >= '(50,0)' AND title <> '' LIMIT 1)"
        )
        writer = vault.begin(backup_id := uuid4())
        results = []
        for number, condition in enumerate(("ctid < '(50,0)'", "ctid >= '(50,0)'"), start=1):
            statement = sql.SQL("COPY (SELECT {} FROM ONLY before WHERE {}) TO STDOUT (FORMAT binary)")
            with connection.cursor().copy(statement.format(names, sql.SQL(condition))) as copy:
                results.append(writer.write_table_stream(number, map(bytes, copy), columns=3, key=[0]))
        table_manifest = table_of("before", results)
        sha256 = writer.finish(manifest_of([table_manifest], backup_id))
        reader = vault.open(backup_id, writer.shred_key, sha256)
        assert reader.verify() == []
        assert table_manifest.rows == 20_000
        for stream in reversed(reader.manifest.streams):
            with connection.cursor().copy(
                sql.SQL("COPY after ({}) FROM STDIN (FORMAT binary)").format(names)
            ) as copy_in:
                for piece in reader.read_table_stream(stream):
                    copy_in.write(piece)
        found = connection.execute(digest_sql(sql.SQL("ONLY after"), SEND_COLUMNS)).fetchone()
        assert digest_of(found or ()) == table_manifest.digest
        rows = connection.execute(bucket_sql(sql.SQL("ONLY after"), SEND_COLUMNS, SEND_COLUMNS[:1])).fetchall()
        first, second = results[0].buckets, results[1].buckets
        assert first is not None
        assert second is not None
        assert buckets_of(rows) == first + second
