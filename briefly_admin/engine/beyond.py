"""The target's tables beyond the plan's: which there are, and which of them a backup can take along whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from briefly_admin.domain.errors import InvalidRequest, Refused, Unavailable
from briefly_admin.domain.manifest import label
from briefly_admin.engine.target import Connection, safe_message
from briefly_admin.plans.base import Plan

ALL: Final = "*"
"""Every table beyond the plan that can be backed up."""

_RELATIONS: Final = """
SELECT n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname), c.relkind::text,
  greatest(c.reltuples, 0)::bigint, CASE WHEN c.relkind = 'r' THEN pg_total_relation_size(c.oid) ELSE 0 END,
  has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid),
  ARRAY(SELECT format('%I.%I', sn.nspname, s.relname) FROM pg_depend d
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace
    WHERE d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass
      AND d.deptype IN ('a', 'i')
      AND NOT (has_schema_privilege(sn.oid, 'USAGE') AND has_sequence_privilege(s.oid, 'SELECT')) ORDER BY 1)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'briefly_migration', 'briefly_admin')
  AND n.nspname !~ '^(pg_toast|pg_temp_|pg_toast_temp_|briefly_scratch_)'
ORDER BY 1, 2
"""
_LEAVES: Final = """
SELECT n.nspname::text, c.relname::text FROM unnest(%s::text[]) AS root, pg_partition_tree(to_regclass(root)) AS t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.isleaf
"""
_NOT_ORDINARY: Final = {
    "p": "it is a partitioned table, whose rows are in its partitions: choose those",
    "v": "it is a view", "m": "it is a materialised view", "f": "it is a foreign table",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beyond:
    """An ordinary table of the target that is none of the plan's; `rows` estimated, `bytes` with TOAST and indexes.

    `rows` is 0 where the table was never analysed.
    """

    schema: str
    name: str
    rows: int
    bytes: int
    why_not: str = ""
    """Why it cannot be backed up whole, or ''."""

    @property
    def label(self) -> str:
        """A text that `checked` takes, for no other table; see `domain.manifest.label`."""
        return label(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class _Relation:
    table: Beyond
    quoted: str
    kind: str
    planned: bool

    @property
    def ordinary(self) -> bool:
        """Whether it is a table with rows of its own."""
        return self.kind == "r"

    @property
    def place(self) -> tuple[str, str]:
        """(schema, name)."""
        return self.table.schema, self.table.name

    @property
    def plain(self) -> str:
        """As a preview names it; others may be called the same where names have dots in them."""
        return ".".join(self.place)

    @property
    def texts(self) -> set[str]:
        """What people may call it."""
        return {self.plain, self.quoted, self.table.label}


def tables_beyond(connection: Connection, plan: Plan) -> tuple[Beyond, ...]:
    """Ordinary tables (partitions and inheritance children too) outside the plan, our own schemas and the system's.

    By schema and name. Raises Unavailable.
    """
    return tuple(each.table for each in _relations(connection, plan) if each.ordinary and not each.planned)


def checked(connection: Connection, plan: Plan, names: Sequence[str]) -> list[tuple[str, str]]:
    """(schema, name) of what the texts name, each once: "schema.name", quoted as in SQL where it takes that, or "*".

    Raises InvalidRequest that names what is not there; Refused for what is there and cannot be backed up whole: no
    ordinary table, not readable by the role, filtered by row-level security. "*" leaves out what cannot. Unavailable.
    """
    relations = _relations(connection, plan)
    chosen: dict[tuple[str, str], _Relation] = {}
    unknown: list[str] = []
    for text in names:
        found = _named(relations, text)
        if not found and text != ALL:
            unknown.append(text)
        chosen |= {each.place: each for each in found}
    if unknown:
        raise InvalidRequest(
            f"The database has no table {', '.join(unknown)}.",
            details={"beyond": [f"{text}: there is no such table" for text in unknown]},
            remedy='Write schema.table as the database spells it, or "schema"."table".',
        )
    _require_whole(chosen.values())
    return list(chosen)


def touchable(connection: Connection, plan: Plan, names: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """What a rollback may touch outside: the names as "schema.table" each, and (schema, name) of what holds those rows
    beyond the plan: of a partitioned table its partitions. A backup can take all of that along.

    The names are as for `checked`, but no "*", and may be of the plan's tables. Where "schema.table" can be more than
    one table, all of them are meant. Raises InvalidRequest that names what is not there; Refused for what cannot be
    backed up whole; Unavailable.
    """
    relations = _relations(connection, plan)
    as_previewed = {each.plain: each.plain for each in relations}
    plain = {
        text: as_previewed.get(text) or next((each.plain for each in relations if text in each.texts), None)
        for text in names
    }
    if unknown := [text for text, found in plain.items() if found is None]:
        raise InvalidRequest(
            f"The database has no table {', '.join(unknown)}, whose rows could be touched.",
            details={"allow": [f"{text}: there is no such table" for text in unknown]},
            remedy="Write schema.table, as the preview names it.",
        )
    allowed = list(dict.fromkeys(each for each in plain.values() if each is not None))
    chosen = [each for each in relations if each.plain in allowed]
    roots = [each.quoted for each in chosen if each.kind == "p"]
    leaves = set(_listed(connection, _LEAVES, (roots,)) if roots else ())
    chosen = [each for each in relations if (each in chosen and each.kind != "p") or each.place in leaves]
    outside = [each for each in chosen if not each.planned]
    if faults := _faults(outside):
        raise Refused(
            f"These tables cannot be backed up whole before their rows are touched: {'; '.join(faults)}.",
            remedy="Leave them out of what is allowed, or use the role that owns them. Nothing was rolled back.",
        )
    return allowed, [each.place for each in outside]


def _named(relations: Iterable[_Relation], text: str) -> list[_Relation]:
    if text == ALL:
        return [each for each in relations if each.ordinary and not each.planned and not each.table.why_not]
    found = [each for each in relations if text in each.texts]
    if len(found) > 1:
        texts = " or ".join(each.quoted for each in found)
        raise InvalidRequest(
            f"{text} can be more than one table: {texts}.",
            details={"beyond": [f"{text}: write {texts}"]},
            remedy="Write the one that you mean, with its quotes.",
        )
    if found and found[0].planned:
        raise InvalidRequest(
            f"{text} is a table of the plan: every backup has it.",
            details={"beyond": [f"{text}: it is a table of the plan"]},
        )
    return found


def _faults(chosen: Iterable[_Relation]) -> list[str]:
    return [f"{each.quoted}: {each.table.why_not}" for each in chosen if each.table.why_not]


def _require_whole(chosen: Iterable[_Relation]) -> None:
    if faults := _faults(chosen):
        raise Refused(
            f"These tables cannot be backed up whole: {'; '.join(faults)}.",
            remedy="Leave them out, or use the role that owns them.",
        )


def _relations(connection: Connection, plan: Plan) -> list[_Relation]:
    planned = {(table.schema, table.name) for table in plan.tables}
    return [
        _Relation(
            Beyond(schema, name, count, size, _why_not(kind, sequences, readable=readable, filtered=filtered)),
            quoted, kind, (schema, name) in planned,
        )
        for schema, name, quoted, kind, count, size, readable, filtered, sequences in _listed(connection, _RELATIONS)
    ]  # fmt: skip


def _listed(connection: Connection, query: LiteralString, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(query, values or None).fetchall()
    except psycopg.Error as error:
        raise Unavailable(
            f"The tables of the database cannot be listed now ({safe_message(error)}).", remedy="Try again."
        ) from None


def _why_not(kind: str, sequences: Sequence[str], *, readable: bool, filtered: bool) -> str:
    if kind in _NOT_ORDINARY:
        return _NOT_ORDINARY[kind]
    if not readable:
        return "the role may not read it"
    if filtered:
        return "row-level security would hide rows of it from the role"
    return f"the role may not read its sequence {', '.join(sequences)}" if sequences else ""
