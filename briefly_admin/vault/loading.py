"""tables.sql: what makes the tables of a backup again and loads its files, by psql, in the files' directory.

The manifest knows columns, types, keys and foreign keys; it has not defaults, checks, indexes and generation
expressions. Those come with the application's own schema.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from briefly_admin.domain.manifest import ForeignKeyManifest, Manifest, TableManifest
from briefly_admin.vault.declaring import Declarations, literal, quoted, split_name

_HEAD: Final = """\
-- What is in this directory, into an empty database:  psql -X -f tables.sql postgresql://…   (called from here)
-- Columns, types, keys and sequences are made as the backup had them. Defaults, checks, indexes and generation
-- expressions are not in a backup: they come with your application's own schema. To load into tables that are there
-- already, use the \\copy lines alone.
\\set ON_ERROR_STOP on
BEGIN;
SET client_encoding TO {encoding};
SET standard_conforming_strings TO on;
SET search_path TO pg_catalog, public;
SET DateStyle TO 'ISO, YMD';
SET IntervalStyle TO 'postgres';
SET TimeZone TO 'UTC';
SET lc_monetary TO 'C';
SET xmloption TO content;
SET client_min_messages TO warning;
"""
_LOSSY: Final = """\
-- JSON does not keep all: a JSON value null comes back as NULL, arrays begin at 1, and hstore cannot be loaded this
-- way. CSV and COPY binary are exact.
"""
_OPTIONS: Final = {
    "binary": "FORMAT binary",
    "csv": "FORMAT csv, HEADER",
    "ndjson": r"FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02'",
}
"""Form → how COPY reads it; a line of JSON is one value, because JSON escapes both of these bytes."""


def script(manifest: Manifest, files: Sequence[tuple[TableManifest, str]], form: str) -> str:
    """The text of tables.sql for these tables, each with its file's name, in one of the forms of `export`."""
    tables = [table for table, _ in files]
    declarations = Declarations(manifest, tables)
    encoding = "'SQL_ASCII'" if manifest.encoding == "SQL_ASCII" else "'UTF8'"
    head = _HEAD.format(encoding=encoding) + (_LOSSY if form == "ndjson" else "")
    lines = [head, *_schemas(manifest, tables), *declarations.statements, ""]
    for number, (table, file) in enumerate(files, start=1):
        lines += _load(declarations, table, file, form, f"load_{number}")
    lines += ["COMMIT;", "", *_keys(tables)]
    for each in manifest.sequences:
        name = quoted(each.schema, each.name)
        lines.append(f"CREATE SEQUENCE IF NOT EXISTS {name};")
        lines.append(f"SELECT setval({literal(name)}, {each.last_value}, {str(each.is_called).lower()});")
    return "\n".join(lines) + "\n"


def _schemas(manifest: Manifest, tables: Iterable[TableManifest]) -> list[str]:
    named = {table.schema for table in tables} | {each.schema for each in manifest.sequences}
    named |= {split_name(each.name)[0] for each in manifest.types}
    return [f"CREATE SCHEMA IF NOT EXISTS {quoted(name)};" for name in sorted(named - {"public", ""})]


def _load(declarations: Declarations, table: TableManifest, file: str, form: str, staging: str) -> list[str]:
    """The lines that load one file: at once, or by way of a temporary table where COPY cannot."""
    name, options = quoted(table.schema, table.name), _OPTIONS[form]
    texts = form == "binary" and not all(column.binary for column in table.columns)
    if form != "ndjson" and not texts and name.isprintable():
        return [f"\\copy {name} FROM '{file}' WITH ({options})"]
    places = [f"c{number}" for number in range(1, len(table.columns) + 1)]
    types = [declarations.type(each.type, each.typmod) for each in table.columns]
    into = f"INSERT INTO {name} OVERRIDING SYSTEM VALUE"
    if form == "ndjson":
        columns = "line json"
        moved = f"{into} SELECT r.* FROM {staging} CROSS JOIN LATERAL json_populate_record(NULL::{name}, line) AS r;"
    else:
        held = [type_ if each.binary or not texts else "text" for type_, each in zip(types, table.columns, strict=True)]
        columns = ", ".join(map(" ".join, zip(places, held, strict=True)))
        cast = ", ".join(f"{place}::{type_}" for place, type_ in zip(places, types, strict=True))
        moved = f"{into} SELECT {cast} FROM {staging};"
    return [
        f"CREATE TEMPORARY TABLE {staging} ({columns});",
        f"\\copy {staging} FROM '{file}' WITH ({options})",
        moved,
        f"DROP TABLE {staging};",
    ]


def _keys(tables: Sequence[TableManifest]) -> list[str]:
    """Primary keys, and the foreign keys between them."""
    made = {(table.schema, table.name): table.key for table in tables if _has_primary_key(table)}
    lines = [
        f"ALTER TABLE {quoted(*name)} ADD PRIMARY KEY ({', '.join(map(quoted, key))});" for name, key in made.items()
    ]
    return lines + [
        _foreign_key(table, each)
        for table in tables
        for each in table.foreign_keys
        if set(made.get((each.schema, each.table), ())) == set(each.references)
    ]


def _has_primary_key(table: TableManifest) -> bool:
    nullable = {column.name for column in table.columns if column.nullable}
    return bool(table.key) and nullable.isdisjoint(table.key)


def _foreign_key(table: TableManifest, key: ForeignKeyManifest) -> str:
    columns, references = (", ".join(map(quoted, names)) for names in (key.columns, key.references))
    return (
        f"ALTER TABLE {quoted(table.schema, table.name)} ADD CONSTRAINT {quoted(key.name)} FOREIGN KEY ({columns}) "
        f"REFERENCES {quoted(key.schema, key.table)} ({references}){'' if key.validated else ' NOT VALID'};"
    )
