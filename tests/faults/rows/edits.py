"""Random edits after a migration: what a preview counts, and what both rollbacks leave, against brute force."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import fence, rollback, sampledata
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.target import Target
from briefly_admin.plans import plan
from briefly_admin.services import restoring
from briefly_admin.store.journal import DatabaseJournal
from tests.engine.journal_memory import RunRecord
from tests.faults import three_ways
from tests.faults.databases import copy_database, drop_database
from tests.faults.editing import Editor
from tests.faults.ground import Ground, name_of
from tests.faults.harness import ANA, Field
from tests.faults.oracle import TABLES
from tests.faults.rows.row import Facts, Row, total
from tests.faults.three_ways import Choice, Rows, Settled, ThreeWays

EACH = 50
"""Rounds of one trial."""
GENERATED = {"users": frozenset({"shout"})}
UNCOUNTED = {"users": frozenset({"shout", "updated_at"}), "conversations": frozenset({"updated_at"})}
"""Generated columns, and those that triggers write."""
_SAMPLES = {"edited": 100}
_FEW = 20
_WAYS = (("keep",), ("keep",), ("exact",), ("keep", "exact"))
"""What follows a round's preview."""
_PHASES = (Phase.STAGE, Phase.PREVIEW, Phase.RESTORE, Phase.VERIFY)
_BEFORE = """
ALTER TABLE public.users ADD COLUMN balance numeric DEFAULT 1.0;
ALTER TABLE public.users ADD COLUMN shout text GENERATED ALWAYS AS (upper(coalesce(subscription_status, 'none'))) STORED;
UPDATE public.usage_logs SET metadata = '{"cost": 1.0}' WHERE hashtext(id::text) & 3 = 0 AND metadata IS NOT NULL;
CREATE FUNCTION public.stamped() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END';
CREATE TRIGGER stamp BEFORE UPDATE ON public.users FOR EACH ROW EXECUTE FUNCTION public.stamped();
CREATE TRIGGER stamp BEFORE UPDATE ON public.conversations FOR EACH ROW EXECUTE FUNCTION public.stamped();
"""
"""What customers' databases have beside the plan's columns."""
_EDITS: Mapping[str, Sequence[tuple[str, str, str | None]]] = {
    "users": (("usage_api_calls", "int4", "7"), ("balance", "numeric", "1.00"), ("stripe_customer_id", "text", None)),
    "file_metadata": (("chunk_count", "int4", "99"), ("metadata", "jsonb", '{"a": 1.00}')),
    "document_chunks": (("embedding_id", "text", "it's % \\ {1}"), ("chunk_index", "int4", "12")),
    "conversations": (("title", "text", ""), ("message_count", "int4", "0")),
    "chat_messages": (("sources", "jsonb", '["é"]'), ("role", "text", "user")),
    "oauth_tokens": (("provider", "text", "google"), ("expires_at", "timestamptz", "2030-01-01 00:00:00.5+00")),
    "usage_logs": (("metadata", "jsonb", '{"cost": 1.00}'), ("resource_id", "text", None)),
    "user_settings": (("value", "jsonb", "[1.0]"), ("updated_at", "timestamptz", "2030-01-01 00:00:00+00")),
}
"""Table → what a conflict is edited to: column, its type, the value as text."""


@dataclass(frozen=True)
class Migrated:
    """A database that was backed up and migrated, to be copied; nobody is connected to `template`."""

    url: str
    template: str
    target: Target
    vault: Any
    backup_id: UUID
    record: RunRecord
    options: Mapping[str, Any]
    before: Rows
    after: Rows


@contextmanager
def migrated(ground: Ground, seed: int) -> Iterator[Migrated]:
    """A small database, half of its rows dirty, as a real migration leaves it."""
    servers, small, template = ground.servers, None, None
    try:
        small = copy_database(servers, "template1")
        sampledata.create(Target(small), plan("unified"), scale=1, dirty=50, seed=seed, embeddings=0)
        with psycopg.connect(small) as connection:
            connection.execute(sql.SQL(_BEFORE))
            _copy_into(connection, "was")
        with replace(ground, dirty=name_of(small)).field(lease=30) as field:
            url = field.environ["TARGET_DATABASE_URL"]
            before = three_ways.read(url)
            run = field.migrate(pause=0, batchSize=100)
            field.services.leading.lead(run.id, report=lambda _: None, interrupted=lambda: False, leader="test:1")
            field.ends(run)
            after = three_ways.read(url)
            with psycopg.connect(url) as connection:
                _copy_into(connection, "became")
            template = copy_database(servers, name_of(url))
            record, options, backup_id = _told(field, UUID(run.id))
            vault = field.services.servers.vault
            yield Migrated(url, template, Target(url), vault, backup_id, record, options, before, after)
    finally:
        for each in (small, template):
            if each:
                drop_database(servers, each)


def _copy_into(connection: psycopg.Connection[Any], schema: str) -> None:
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    for table in TABLES:
        copy = sql.SQL("CREATE TABLE {} AS TABLE {}")
        connection.execute(copy.format(sql.Identifier(schema, table), sql.Identifier("public", table)))


def _told(field: Field, run_id: UUID) -> tuple[RunRecord, dict[str, Any], UUID]:
    """What the app database says of the migration, for journals in memory; and the options of its rollback."""
    servers, backup = field.services.servers, field.services.backups.list(ANA)[0]
    journal = DatabaseJournal(
        servers.database, run_id, 1, retention=timedelta(days=1), record=lambda *_: None, worker="test:1",
        lease=timedelta(seconds=30),
    )  # fmt: skip
    record = RunRecord(run_id=run_id)
    record.changes = {change.position: change for change in journal.changes(run_id)}
    record.quarantine = {(row.table, row.key): row for row in journal.quarantined(None, run_id)}
    record.results = {phase: dict(result) for phase, result in journal.finished_phases().items()}
    record.phases = dict.fromkeys(record.results, "done")
    shred_key, sha256 = journal.backup_keys(UUID(backup.id))
    record.backups[UUID(backup.id)] = {"shred_key": shred_key, "manifest_sha256": sha256, "state": "proven"}
    wish = restoring.Wish(backup=backup.id, mode="keep", tables=None, reason="", preview_id=None)
    with servers.database.begin() as connection:
        options, _ = restoring.options_of(connection, wish, plan("unified"), datetime.now(UTC))
    return record, options, UUID(backup.id)


class Round:
    """One copy of the migrated database, the edits made to it, and the runs that look at it."""

    def __init__(self, place: Migrated, servers: EmbeddedServers, dice: Random) -> None:
        self._place, self._dice = place, dice
        drop_database(servers, place.url)
        copied = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
            *map(sql.Identifier, (name_of(place.url), name_of(place.template), urlsplit(place.url).username or ""))
        )
        with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
            connection.execute(copied)
        # A rollback marks the changes that it takes back; nothing else of the record is written.
        self._others = {place.record.run_id: replace(place.record, changes=dict(place.record.changes))}
        with psycopg.connect(place.url, autocommit=True) as connection:
            editor = Editor(connection, dice)
            editor.edit(dice.choice((0, 1, 5, 20, 40)))
        self.edits = editor.done
        self.now = three_ways.read(place.url)
        self.ways = ThreeWays(place.before, place.after, self.now, UNCOUNTED)

    def _context(self, kind: RunKind, record: RunRecord, **options: Any) -> RunContext:
        journal = record.next_attempt(self._others)
        context = RunContext(
            record.run_id, journal.attempt, kind, plan("unified"), self._place.target, self._place.vault, journal,
            lambda _: None, lambda: RunConfig(max_retries=0, retry_delay=1), {**self._place.options, **options},
            sleep=lambda _: None, random=Random(1),
        )  # fmt: skip
        if kind is RunKind.ROLLBACK:
            fence.take_over(context.target, record.run_id, journal.attempt).release()
        return context

    def preview(self) -> tuple[str, dict[str, Any]]:
        """Its id and its result."""
        record = RunRecord()
        context = self._context(RunKind.PREVIEW, record, mode="exact")
        return str(record.run_id), [rollback.run_phase(context, phase) for phase in _PHASES[:2]][1]

    def roll_back(self, mode: str, **options: Any) -> dict[str, Any]:
        """The restore's result; a later one takes this one's schema changes back, too."""
        record, reverts = RunRecord(), [str(run_id) for run_id in self._others]
        context = self._context(RunKind.ROLLBACK, record, mode=mode, reverts=reverts, **options)
        for phase in _PHASES:
            result = rollback.run_phase(context, phase)
            context.journal.phase_finished(phase, result)
        self._others[record.run_id] = record
        return dict(record.results[Phase.RESTORE])

    def choose(self) -> tuple[Choice, dict[str, Any]]:
        """Random rules and settlements, for the oracle and as the run's options."""
        dice = self._dice
        edited, created = dice.choice(("keep", "restore")), dice.choice(("keep", "delete"))
        deleted = dice.choice(("leave", "bring_back"))
        settled: dict[tuple[str, bytes], Settled] = {}
        asked: dict[str, list[dict[str, Any]]] = {}
        for table, classes in self.ways.classes.items():
            conflicts = sorted(key for key, what in classes.items() if what == "edited")
            for key in dice.sample(conflicts, min(len(conflicts), dice.choice((0, 1, 3)))):
                how, told = dice.choice(("keep", "restore", "edit")), {}
                if how == "edit":
                    column, type_, value = dice.choice(_EDITS[table])
                    told = {column: value}
                    settled[table, key] = Settled(how, {column: _field(self._place.url, type_, value)})
                else:
                    settled[table, key] = Settled(how)
                asked.setdefault(table, []).append({"key": [text_of(key)], "how": how, "values": told})
        rules = {"edited": edited, "created": created, "deleted": deleted}
        return Choice(edited, created, deleted, settled), {"rules": rules, "settled": asked}


def text_of(key: bytes) -> str:
    """The key as PostgreSQL writes it."""
    return str(UUID(bytes=key))


def _field(url: str, type_: str, value: str | None) -> bytes | None:
    with psycopg.connect(url) as connection:
        query = sql.SQL("SELECT {}::{}").format(sql.Literal(value), sql.Identifier("pg_catalog", type_))
        return three_ways.copied(connection, query)[0][0]


def trial(ground: Ground, seed: int, count: int = EACH) -> Facts:
    """So many rounds over one migrated database: a preview, and then keep, exact, or one after the other."""
    found: Counter[str] = Counter(count=count)
    with migrated(ground, seed) as place:
        for number in range(count):
            chance = Random(f"{seed}/{number}")
            try:
                found += _round(place, ground.servers, chance)
            except Exception as error:
                error.add_note(f"round {number} of seed {seed}")
                raise
    return dict(found)


def _round(place: Migrated, servers: EmbeddedServers, dice: Random) -> Counter[str]:
    at = Round(place, servers, dice)
    preview_id, preview = at.preview()
    require_true(preview, at.ways)
    way = dice.choice(_WAYS)
    bound = {"preview_id": preview_id, "expected": preview["tables"], "expected_classes": preview["classes"]}
    if "keep" in way:
        choice, options = at.choose()
        done = at.roll_back("keep", **bound, **options)
        require_rows(at.ways.kept(choice), three_ways.read(place.url), GENERATED, "keep")
        require_written(at.ways.written(choice, GENERATED), done, choice)
        bound = {}
    if "exact" in way:
        done = at.roll_back("exact", **bound)
        require_rows(place.before, three_ways.read(place.url), {}, "exact")
        if bound:
            _require_equal(at.ways.exact(), done["tables"], "written by exact")
    classes = Counter({name: sum(each[name] for each in at.ways.counts().values()) for name in three_ways.CLASSES})
    return classes + Counter({"edits": at.edits.total(), **dict.fromkeys(way, 1)})


def require_true(preview: Mapping[str, Any], ways: ThreeWays) -> None:
    """Raises AssertionError where the preview says something else than what brute force finds."""
    _require_equal(ways.exact(), preview["tables"], "tables")
    _require_equal(ways.counts(), preview["classes"], "classes")
    updates = {table: {"update": counts["update"]} for table, counts in ways.written(Choice(), GENERATED).items()}
    _require_equal(updates, preview["keep"], "keep")
    for table, classes in ways.classes.items():
        named = [(sample["class"], UUID(sample["key"][0]).bytes) for sample in preview["samples"].get(table, ())]
        wrong = [f"{key.hex()} is not {what}" for what, key in named if classes.get(key) != what]
        assert not wrong, f"samples of {table}: {'; '.join(wrong[:3])}"
        assert len(set(named)) == len(named), f"samples of {table}: a row twice"
        for what in set(three_ways.CLASSES) - {"untouched"}:
            count, right = Counter(name for name, _ in named)[what], list(classes.values()).count(what)
            most = min(right, _SAMPLES.get(what, _FEW))
            assert count == most, f"samples of {table}: {count} {what} rows instead of {most}"


def _require_equal(right: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    wrong = [f"{name}: {found.get(name)} instead of {right[name]}" for name in right if right[name] != found.get(name)]
    assert not wrong, f"{what}: {'; '.join(wrong)}"


def require_written(right: Mapping[str, Mapping[str, int]], done: Mapping[str, Any], choice: Choice) -> None:
    """Raises AssertionError where `keep` says that it wrote other rows than it had to.

    A derived column that is counted anew is told for itself; an edit is told that changes nothing.
    """
    wrong = []
    for table, counts in right.items():
        told, recomputed = done["tables"][table], done["recomputed"].get(table, 0)
        edits = sum(each.how == "edit" for (name, _), each in choice.settled.items() if name == table)
        fits = counts["update"] - recomputed <= told["update"] <= counts["update"] + edits
        if not fits or any(told[what] != counts[what] for what in ("insert", "delete")):
            wrong.append(f"{table}: {told} and {recomputed} counted anew instead of {counts}")
    assert not wrong, f"written by keep: {'; '.join(wrong)}"


def require_rows(right: Rows, found: Rows, but: Mapping[str, frozenset[str]], what: str) -> None:
    wrong = three_ways.differences(right, found, but)
    assert not wrong, f"{what} leaves {len(wrong)} rows otherwise: {'; '.join(wrong[:5])}"


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    classes = ", ".join(f"{total(trials, name):,} {name}" for name in three_ways.CLASSES)
    return (
        f"{total(trials):,} rounds with {total(trials, 'edits'):,} edits: every count as by brute force over {classes} "
        f"rows; {total(trials, 'keep'):,} times `keep` as the oracle, {total(trials, 'exact'):,} times `exact` equal byte "
        "for byte"
    )


ROW = Row("edits", 1_000, "rounds", 20, trial, _says)
