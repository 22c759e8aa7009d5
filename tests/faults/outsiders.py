"""Tables outside the plan that refer to its rows, with every action; and what deletions must make of them, in Python."""

from collections.abc import Collection
from dataclasses import dataclass
from random import Random

import psycopg
from psycopg import sql

from tests.faults import three_ways

SETUP = """
CREATE TABLE public.out_cascade (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  ref uuid CONSTRAINT out_cascade_ref REFERENCES public.users ON DELETE CASCADE);
CREATE TABLE public.out_deep (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  ref uuid CONSTRAINT out_deep_ref REFERENCES public.out_cascade ON DELETE CASCADE);
CREATE TABLE public.out_null (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  ref uuid CONSTRAINT out_null_ref REFERENCES public.users ON DELETE SET NULL);
CREATE TABLE public.out_default (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  ref uuid CONSTRAINT out_default_ref REFERENCES public.users ON DELETE SET DEFAULT);
CREATE TABLE public.out_restrict (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  ref uuid CONSTRAINT out_restrict_ref REFERENCES public.users ON DELETE RESTRICT);
CREATE TABLE public.out_stay (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  ref uuid CONSTRAINT out_stay_ref REFERENCES public.users ON DELETE NO ACTION);
DO $$ BEGIN
  EXECUTE format('ALTER TABLE public.out_default ALTER ref SET DEFAULT %L', (SELECT min(id::text) FROM public.users));
END $$;
"""
TABLES = ("out_cascade", "out_deep", "out_null", "out_default", "out_restrict", "out_stay")
ACTIONS = {
    "out_cascade": "CASCADE", "out_deep": "CASCADE", "out_null": "SET NULL", "out_default": "SET DEFAULT",
    "out_restrict": "RESTRICT", "out_stay": "NO ACTION",
}  # fmt: skip
Refs = dict[str, dict[bytes, bytes | None]]
"""Table → id → the id that it refers to."""
_WAYS: tuple[tuple[str, ...], ...] = (
    ("out_cascade",), ("out_cascade", "out_deep"), ("out_null",), ("out_default",), ("out_null", "out_default"),
    ("out_restrict",), ("out_stay",),
)  # fmt: skip


def refer(connection: psycopg.Connection[tuple[object, ...]], user: object, dice: Random) -> None:
    """Rows of a few tables that refer to the user."""
    for table in dice.choice(_WAYS):
        if table == "out_deep":
            connection.execute(
                "INSERT INTO public.out_deep (ref) SELECT id FROM public.out_cascade WHERE ref = %s", [user]
            )
            continue
        name = sql.Identifier("public", table)
        for _ in range(dice.choice((1, 1, 3))):
            connection.execute(sql.SQL("INSERT INTO {} (ref) VALUES (%s)").format(name), [user])


@dataclass(frozen=True)
class Fate:
    """What becomes of the rows outside."""

    refs: Refs
    touched: dict[str, int]
    """"schema.table" → rows that go or change."""
    blocked: tuple[str, ...]
    """Tables whose rows stand against it, whatever is allowed."""


@dataclass(frozen=True)
class Outsiders:
    """The rows outside as they are, which of their foreign keys stand, and whom SET DEFAULT makes them refer to."""

    refs: Refs
    links: frozenset[str]
    default: bytes

    @classmethod
    def read(cls, connection: psycopg.Connection[tuple[object, ...]], default: bytes) -> "Outsiders":
        """What is there now."""
        refs: Refs = {}
        for table in TABLES:
            query = sql.SQL("SELECT id, ref FROM {}").format(sql.Identifier("public", table))
            refs[table] = {row[0] or b"": row[1] for row in three_ways.copied(connection, query)}
        found = connection.execute(
            "SELECT conname::text FROM pg_constraint WHERE conname LIKE 'out\\_%' AND contype = 'f'"
        )
        return cls(refs, frozenset(str(name) for (name,) in found), default)

    def fate(self, going: Collection[bytes], staying: Collection[bytes]) -> Fate:
        """When users go, and others stay."""
        refs: Refs = {table: dict(rows) for table, rows in self.refs.items()}
        hit = {
            table: [key for key, ref in self.refs[table].items() if ref in going]
            for table in TABLES
            if table != "out_deep" and f"{table}_ref" in self.links
        }
        gone = set(hit.get("out_cascade", ()))
        if "out_deep_ref" in self.links:
            hit["out_deep"] = [key for key, ref in self.refs["out_deep"].items() if ref in gone]
        for table in ("out_cascade", "out_deep"):
            for key in hit.get(table, ()):
                del refs[table][key]
        for table, value in (("out_null", None), ("out_default", self.default)):
            refs[table] |= dict.fromkeys(hit.get(table, ()), value)
        blocked = [table for table in ("out_restrict", "out_stay") if hit.get(table)]
        if hit.get("out_default") and self.default not in staying:
            blocked.append("out_default")
        touched = {f"public.{table}": len(keys) for table, keys in hit.items() if keys}
        return Fate(refs, touched, tuple(blocked))
