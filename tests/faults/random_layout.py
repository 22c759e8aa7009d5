"""Random rows in the tables of the plan `unified`, and what validation must find in them.

What repairs mean and what rules across rows say is computed here in plain Python, from the design's page of the tables;
whether a repaired row is right is marshmallow's word.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from briefly_admin.domain.findings import Finding
from briefly_admin.engine import validate as validation
from briefly_admin.plans.base import Column, Table
from briefly_admin.plans.unified import UNIFIED
from tests.engine import generated_borders as borders
from tests.engine.generated_schemas import mixed
from tests.engine.generated_values import COLUMN_TYPES
from tests.engine.verdicts import Case, Difference, compare, load, parsed, unlike
from tests.faults import oracle

Session = psycopg.Connection[Any]
_ACROSS = {"foreign_key", "unique", "owner", "hole", "dimension", "case_alone"}
_NOTICES = {"hole", "dimension", "case_alone"}
_PARENTS = {"user_id": 1, "file_id": 2, "conversation_id": 4}
_WORDS: Mapping[str, Sequence[Any]] = {
    "subscription_tier": ("free", "pro", "pro_byok", "Free"), "subscription_status": ("active", "canceled", "past_due", "trialing", ""),
    "processing_status": ("pending", "processing", "completed", "failed", "done"), "role": ("user", "assistant", "system"),
    "provider": ("google", "microsoft", "google_drive", "google-drive", "azure-ad", "azure", "onedrive", "microsoft-graph", "dropbox"),
    "storage_path": ("uploads/a", "", "/", "//a", "\\a\\b", "a/../b", "..", "a//b", "/..", "\\..\\x", "a..b", " /"),
    "settings": ({}, {"a": 1}, [], None), "metadata": ({}, {"a": None}, "null", None), "sources": (["a"], [], ["a", 1], [None], {}, None),
    "value": ({}, 0, "", None, [None], False), "key": ("theme", "language", "Theme"),
    "email": ("a@b.co", "A@b.co", "b@c.de", "B@C.DE", "a@b.CO", *borders.EMAILS),
}  # fmt: skip
_MOMENT = ("2024-02-29T12:30:00", "2024-03-01T00:00:00", "1999-12-31T23:59:59.5")


@dataclass(frozen=True)
class _Loaded:
    """The tables as they stand, each row as PostgreSQL's texts and as JSON."""

    cases: Mapping[str, Case]
    texts: oracle.Rows
    json: Mapping[str, Mapping[str, Mapping[str, Any]]]
    order: Mapping[str, int]
    """Chunks by created_at and id: the chunk's id → its place."""


def uuid_of(table: int, number: int) -> str:
    """The same id for the same table and row."""
    return f"{table:08x}-0000-4000-8000-{number:012x}"


def _value(dice: Random, column: Column, type_: str, count: int) -> str | None:
    """Right more often than not: whole rows shall pass, too."""
    if column.name in _PARENTS:
        chance = dice.random()
        return None if chance < 0.02 else uuid_of(_PARENTS[column.name], dice.randrange(count + (count // 20)))
    kind = COLUMN_TYPES[type_]
    if column.name == "email" and dice.random() < 0.7:
        return f"user{dice.randrange(count * 3)}@example.com"
    if dice.random() < 0.6:
        usual = _WORDS.get(
            column.name, {"timestamptz": _MOMENT, "integer": range(5), "bigint": range(9)}.get(type_, ("a", "é"))
        )
        with suppress(IndexError):
            return kind.fit(dice.choice(usual[:3])) if type_ != "public.vector" else "[1,2,3]"
    return kind.value(dice, mixed(lambda dice: dice.choice(_WORDS.get(column.name, ("a", 1, 0, -1))), ()))


def _case(dice: Random, number: int, table: Table, count: int) -> Case:
    """A table with its rows; now and then it lacks a column that it may lack."""
    columns = [c for c in table.columns if c.required or c.name == "id" or dice.random() < 0.93]
    types = {c.name: "public.vector" if c.type.startswith("vector") else c.type for c in columns}
    rows: list[dict[str, str | None]] = [
        {"id": uuid_of(number, n), **{c.name: _value(dice, c, types[c.name], count) for c in columns if c.name != "id"}}
        for n in range(count)
    ]
    return Case(table, types, rows, {c.name: f"{table.name}.{c.name}" for c in columns})


def try_layout(connection: Session, dice: Random, count: int) -> tuple[int, list[Difference]]:
    """So many rows in each of the eight tables: their number, and what validation finds otherwise than it should."""
    with connection.transaction(force_rollback=True):
        cases = {table.name: _case(dice, n, table, count) for n, table in enumerate(UNIFIED.tables, 1)}
        for case in cases.values():
            load(connection, case)
        loaded = _read(connection, cases)
        findings, blocked = validation.examine(connection, UNIFIED), list(validation.blocked_rows(connection, UNIFIED))
    repaired = _repaired(loaded)
    found: list[Difference] = []
    for name, case in cases.items():
        mine = [finding for finding in findings if finding.table == name]
        across = dict(_across(loaded, repaired, case.table))
        others = {key for (_, rule), keys in across.items() if rule not in _NOTICES for key in keys}
        rows = {
            key: (row, *_as_json(case, row, loaded.texts[name][key], repaired[name][key]))
            for key, row in loaded.json[name].items()
        }
        keys = [row.key[0] for row in blocked if row.table == name]
        found += compare(case, rows, [f for f in mine if f.rule not in _ACROSS], keys, others)
        found += _unlike_across(name, across, [_settled(f, loaded.texts) for f in mine if f.rule in _ACROSS])
    return count * len(cases), found


def _settled(finding: Finding, texts: oracle.Rows) -> Finding:
    if finding.rule != "hole":
        return finding
    chunks = texts["document_chunks"]
    rows = [chunks[str(sample["key"])] for sample in finding.samples]
    return replace(finding, samples=[{"key": _first_of(chunks, row["file_id"], row["chunk_index"])} for row in rows])


def _unlike_across(
    table: str, across: Mapping[tuple[str, str], Collection[str]], findings: Sequence[Finding]
) -> Iterator[Difference]:
    rules = set(across) | {(finding.field, finding.rule) for finding in findings}
    for field, rule in sorted(rules):
        mine = [finding for finding in findings if (finding.field, finding.rule) == (field, rule)]
        for words in unlike(rule, across.get((field, rule), ()), mine, str):
            yield Difference(table, field, words)
        if any((finding.finding_class == "notice") != (rule in _NOTICES) for finding in mine):
            yield Difference(table, field, f"{rule} has the wrong class")


def _read(connection: Session, cases: Mapping[str, Case]) -> _Loaded:
    texts: oracle.Rows = {}
    json: dict[str, dict[str, Any]] = {}
    for name, case in cases.items():
        shown = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in case.types)
        query = sql.SQL("SELECT to_jsonb(r)::text, ARRAY[{}] FROM {} AS r").format(
            shown, sql.Identifier("public", name)
        )
        empty = dict.fromkeys((column.name for column in case.table.columns), None)
        texts[name], json[name] = {}, {}
        for row, values in connection.execute(query).fetchall():
            mine = parsed(row)
            json[name][mine["id"]] = empty | mine
            texts[name][mine["id"]] = empty | dict(zip(case.types, values, strict=True))
    order = connection.execute(
        "SELECT id::text, row_number() OVER (ORDER BY created_at, id) FROM public.document_chunks"
    )
    return _Loaded(cases, texts, json, dict(order.fetchall()))


def _repaired(loaded: _Loaded) -> oracle.Rows:
    """Each row as the design says that its repairs leave it."""
    before = loaded.texts
    found = {
        name: {key: oracle._repaired(name, row, before) for key, row in rows.items()} for name, rows in before.items()
    }
    for key, row in found["file_metadata"].items():
        if row["user_id"] is None and row["storage_path"] == f"uploads/None/{key}":
            row["storage_path"] = None  # there is no path without an owner
    files: dict[str, list[str]] = defaultdict(list)
    for key, row in before["document_chunks"].items():
        if row["file_id"] is not None:
            files[row["file_id"]].append(key)
    for keys in files.values():
        indexes = {key: before["document_chunks"][key]["chunk_index"] for key in keys}
        highest = max((int(index) for index in indexes.values() if index is not None), default=-1)
        bare = sorted((key for key in keys if indexes[key] is None), key=loaded.order.__getitem__)
        for number, key in enumerate(bare, 1):
            found["document_chunks"][key]["chunk_index"] = str(highest + number)
    return found


def _as_json(
    case: Case, json: Mapping[str, Any], before: oracle.Row, after: oracle.Row
) -> tuple[dict[str, Any], set[str]]:
    """The row once repaired, what a repair changed in its column's JSON; and these columns."""
    row = dict(json)
    changed = {column.name for column in case.table.columns if after[column.name] != before[column.name]}
    for column in case.table.columns:
        if column.name in changed:
            text = after[column.name]
            row[column.name] = text if text is None or column.type in {"text", "uuid"} else parsed(text)
    return row, changed


def _across(loaded: _Loaded, repaired: oracle.Rows, table: Table) -> Iterator[tuple[tuple[str, str], set[str]]]:
    """(field, rule) → the rows that break it."""
    name, before = table.name, loaded.texts
    for column, parent in oracle._PARENTS.get(name, {}).items():
        yield (
            (column, "foreign_key"),
            {k for k, row in before[name].items() if row[column] not in {None, *before[parent]}},
        )
    if name in oracle._UNIQUE:
        yield (", ".join(oracle._UNIQUE[name]), "unique"), oracle._doubled(name, before[name], repaired[name])
    if name == "users":
        alike: dict[str, set[str]] = defaultdict(set)
        for row in before[name].values():
            if row["email"] is not None:
                alike[row["email"].lower()].add(row["email"])
        yield (
            ("email", "case_alone"),
            {k for k, row in before[name].items() if len(alike.get(str(row["email"]).lower(), ())) > 1},
        )
    if name == "document_chunks":
        yield from _of_chunks(before)


def _first_of(chunks: Mapping[str, oracle.Row], file: str | None, index: str | None) -> str:
    """Of a file's chunks with the same index, any is as good as another to have the hole before it: the first stands for all."""
    return min(key for key, row in chunks.items() if (row["file_id"], row["chunk_index"]) == (file, index))


def _of_chunks(before: oracle.Rows) -> Iterator[tuple[tuple[str, str], set[str]]]:
    chunks, files = before["document_chunks"], before["file_metadata"]
    owners = {key: files[str(row["file_id"])]["user_id"] for key, row in chunks.items() if row["file_id"] in files}
    yield (
        ("user_id", "owner"),
        {
            k
            for k, owner in owners.items()
            if None not in {owner, chunks[k]["user_id"]} and owner != chunks[k]["user_id"]
        },
    )
    yield ("embedding", "dimension"), {k for k, row in chunks.items() if row["embedding"] is not None}
    places: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
    for key, row in chunks.items():
        if None not in {row["file_id"], row["chunk_index"]} and int(str(row["chunk_index"])) >= 0:
            places[row["file_id"]].append((int(str(row["chunk_index"])), key))
    broken = set()
    for file, listed in places.items():
        indexes = sorted(index for index, _ in listed)
        for last, index in zip([-1, *indexes], indexes, strict=False):
            if index - last > 1:
                broken.add(_first_of(chunks, file, str(index)))
    yield ("chunk_index", "hole"), broken
