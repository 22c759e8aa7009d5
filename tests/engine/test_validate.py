import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from marshmallow import Schema, fields, validate
from psycopg import sql

from briefly_admin.domain.config import RunConfig
from briefly_admin.domain.errors import BlockingFindings, Refused, RunFailed, Stopped, Unavailable
from briefly_admin.domain.findings import Finding, FindingClass
from briefly_admin.domain.progress import Progress
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sampledata import BLOCKING_FAULTS, NOTICE_FAULTS, create
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import blocked_rows, examine, examine_tables, run
from briefly_admin.plans.base import Column, ForeignKey, Plan, Relation, Repair, Table, Unique
from briefly_admin.plans.unified import UNIFIED
from briefly_admin.vault.keys import MasterKeys
from briefly_admin.vault.stores.directory import DirectoryStore
from briefly_admin.vault.vault import Vault
from tests.engine.journal_memory import RunRecord

Session = psycopg.Connection[Any]
HOSTILE = '100% "true" {x}; --'


Thing = Schema.from_dict({
    "id": fields.Integer(required=True, strict=True),
    "mail": fields.Email(allow_none=True),
    "secret": fields.String(allow_none=True, validate=validate.Length(max=5)),
    "tier": fields.String(required=True, validate=validate.OneOf(["free", "it's 100%"])),
    "parent": fields.Integer(allow_none=True, strict=True),
    HOSTILE: fields.Integer(strict=True, validate=validate.Range(min=0)),
})  # fmt: skip
THINGS = Table(
    "things % {a}", Thing,
    (Column("id", "integer"), Column("mail", "text"), Column("secret", "text", secret=True), Column("tier", "text"),
     Column("parent", "integer"), Column(HOSTILE, "integer", required=False)),
    repairs=(Repair("tier", "coalesce({tier}, 'free')", "an empty tier becomes 'free'"),),
    foreign_keys=(ForeignKey("parent", "things % {a}"),),
    uniques=(Unique(("mail",)),),
    relations=(Relation("own", "parent", "notice", "things that are their own parent", {"things": "things % {a}"},
                        "SELECT t.id AS key FROM {things} AS t WHERE t.parent = t.id"),),
)  # fmt: skip
PLAN = Plan("things", "Things", "", (THINGS,))


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    with Target(target_database).session(bulk=True) as session:
        yield session


@pytest.fixture
def things(connection: Session) -> Session:
    name, column = sql.Identifier("public", THINGS.name), sql.Identifier(HOSTILE)
    connection.execute(
        sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, mail text, secret text, tier text, parent int, {} int)").format(
            name, column
        )
    )
    return connection


def _add(connection: Session, *rows: Sequence[Any]) -> None:
    for row in rows:
        values = sql.SQL(", ").join(map(sql.Literal, row))
        connection.execute(sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier("public", THINGS.name), values))


def _briefly(findings: Sequence[Finding]) -> list[tuple[str, str, str, int]]:
    return sorted((f.field, f.rule, f.finding_class.value, f.count) for f in findings)


def test_nothing_in_an_empty_table(things: Session) -> None:
    assert examine(things, PLAN) == []
    assert list(blocked_rows(things, PLAN)) == []


def test_every_kind_of_rule_and_hostile_names(things: Session) -> None:
    _add(
        things,
        (1, "a@b.co", "short", "free", None, 0),
        (2, "ü@b.co", "longer than five", None, 1, -1),
        (3, "nobody", None, "it's 100%", 9, None),
        (4, "a@b.co", None, "gold", 4, 1),
    )
    findings = examine(things, PLAN)
    assert _briefly(findings) == [
        (HOSTILE, "null", "blocking", 1), (HOSTILE, "range", "blocking", 1), ("mail", "email", "blocking", 1),
        ("mail", "unique", "blocking", 1), ("parent", "foreign_key", "blocking", 1), ("parent", "own", "notice", 1),
        ("secret", "length", "blocking", 1), ("tier", "null", "repairable", 1), ("tier", "one_of", "blocking", 1),
    ]  # fmt: skip
    assert "longer than five" not in repr(findings)
    samples = {(f.field, f.rule): f.samples for f in findings}
    assert samples["secret", "length"] == [{"key": "2"}]
    assert samples["mail", "email"] == [{"key": "3", "value": "nobody"}]
    blocked = {row.key[0]: row.cause for row in blocked_rows(things, PLAN)}
    assert blocked == {"2": "length", "3": "email", "4": "one_of"}
    assert [row.key for row in blocked_rows(things, PLAN, limit=2)] == [("2",), ("3",)]
    assert examine(things, PLAN, exclude={THINGS.name: [("2",), ("3",), ("4",)]}) == []


def test_counts_are_exact_and_samples_at_most_100(things: Session) -> None:
    things.execute(sql.SQL("INSERT INTO {} SELECT n, NULL, NULL, NULL, NULL, -n FROM generate_series(1, 1234) AS n").format(
        sql.Identifier("public", THINGS.name)))  # fmt: skip
    things.execute(sql.SQL("INSERT INTO {} SELECT n, 'no mail' || n, NULL, 'free', NULL, 1 FROM generate_series(2000, 2999) AS n").format(
        sql.Identifier("public", THINGS.name)))  # fmt: skip
    findings = examine(things, PLAN)
    assert _briefly(findings) == [
        (HOSTILE, "range", "blocking", 1234),
        ("mail", "email", "blocking", 1000),
        ("tier", "null", "repairable", 1234),
    ]
    assert [len(f.samples) for f in findings] == [100, 100, 100]
    assert sum(1 for _ in blocked_rows(things, PLAN)) == 2234


def test_values_are_shortened(things: Session) -> None:
    _add(things, (1, "x" * 5000, None, "free", None, 0))
    (finding,) = examine(things, PLAN)
    assert finding.samples[0]["value"] == "x" * 120 + "…"


def test_missing_columns_are_null(things: Session) -> None:
    _add(things, (1, None, None, "free", None, 0))
    things.execute(
        sql.SQL("ALTER TABLE {} DROP COLUMN tier, DROP COLUMN {}").format(
            sql.Identifier("public", THINGS.name), sql.Identifier(HOSTILE)
        )
    )
    findings = examine(things, PLAN)
    assert _briefly(findings) == [(HOSTILE, "required", "blocking", 1), ("tier", "required", "repairable", 1)]


def test_equal_values_after_repair(connection: Session) -> None:
    record = type(
        "Token",
        (Schema,),
        {"id": fields.Integer(strict=True), "user": fields.Integer(strict=True), "name": fields.String()},
    )
    repair = Repair("name", "CASE {name} WHEN 'alias' THEN 'real' ELSE {name} END", "an alias becomes real")
    table = Table(
        "tokens",
        record,
        (Column("id", "int"), Column("user", "int"), Column("name", "text")),
        repairs=(repair,),
        uniques=(Unique(("user", "name")),),
    )
    connection.execute('CREATE TABLE public.tokens (id int PRIMARY KEY, "user" int, name text, UNIQUE ("user", name))')
    connection.execute(
        "INSERT INTO public.tokens VALUES (1, 1, 'alias'), (2, 1, 'real'), (3, 2, 'alias'), (4, 2, 'other'), (5, 3, 'real')"
    )
    plan = Plan("p", "P", "", (table,))
    findings = examine(connection, plan)
    assert _briefly(findings) == [("name", "repair", "repairable", 2), ("user, name", "unique", "blocking", 1)]
    assert [row.key for row in blocked_rows(connection, plan)] == [("1",)]  # the one that a repair changes


def test_all_planted_faults_are_found_once(target_database: str, connection: Session) -> None:
    create(Target(target_database), UNIFIED, scale=5, dirty=10)
    examination = examine_tables(connection, UNIFIED)
    blocking = [f for f in examination.findings if f.finding_class is FindingClass.BLOCKING]
    notices = [f for f in examination.findings if f.finding_class is FindingClass.NOTICE]
    assert sum(f.count for f in blocking) == sum(len(plant.findings) for plant in BLOCKING_FAULTS.values())
    assert len(notices) == len(NOTICE_FAULTS)
    rows = list(blocked_rows(connection, UNIFIED))
    assert len({(row.table, row.key) for row in rows}) == len(rows) == len(BLOCKING_FAULTS)
    aside: dict[str, list[tuple[str, ...]]] = {}
    for row in rows:
        aside.setdefault(row.table, []).append(row.key)
    left = examine(connection, UNIFIED, exclude=aside)
    assert not [f for f in left if f.finding_class is FindingClass.BLOCKING]
    assert examination.rows["users"] == connection.execute("SELECT count(*) FROM public.users").fetchall()[0][0]
    secrets = {f.field for f in examination.findings for s in f.samples if "value" in s}
    assert not secrets & {"content", "chunk_text", "access_token", "refresh_token"}


def test_a_missing_table_is_named(connection: Session) -> None:
    with pytest.raises(Refused, match=r"public\.users"):
        examine(connection, UNIFIED)


def test_a_repair_that_does_not_fit_is_named(things: Session) -> None:
    things.execute(
        sql.SQL("ALTER TABLE {} ALTER COLUMN tier TYPE int USING 1").format(sql.Identifier("public", THINGS.name))
    )
    with pytest.raises(Refused, match="things"):
        examine(things, PLAN)


def test_a_database_error_says_nothing_of_the_data(things: Session) -> None:
    _add(things, (1, None, "hidden-word", "free", None, 0))
    relation = Relation(
        "bad",
        "secret",
        "notice",
        "",
        {"things": THINGS.name},
        "SELECT t.id AS key FROM {things} AS t WHERE t.secret::int = 1",
    )
    plan = replace(PLAN, tables=(replace(THINGS, relations=(relation,)),))
    with pytest.raises(RunFailed, match="InvalidTextRepresentation") as failed:
        examine(things, plan)
    assert "hidden-word" not in str(failed.value)
    assert examine(things, PLAN)  # the connection serves on


def test_a_lost_connection_can_be_tried_again(things: Session, target_database: str) -> None:
    pid = things.info.backend_pid

    def kill(_table: str, done: int, _total: int) -> None:
        if not done:
            with psycopg.connect(target_database) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (pid,))

    with pytest.raises(Unavailable):
        examine(things, PLAN, report=kill)


def test_a_long_statement_ends_soon_after_a_stop(things: Session) -> None:
    _add(things, (1, None, None, "free", None, 0))
    slow = Relation(
        "slow",
        "id",
        "notice",
        "",
        {"things": THINGS.name},
        "SELECT t.id AS key FROM {things} AS t WHERE pg_sleep(60) IS NOT NULL",
    )
    plan = replace(PLAN, tables=(replace(THINGS, relations=(slow,)),))
    asked = threading.Event()
    timer = threading.Timer(0.5, asked.set)
    timer.start()
    began = time.monotonic()
    with pytest.raises(Stopped) as stopped:
        examine(things, plan, should_stop=lambda: "pause" if asked.is_set() else None)
    timer.join()
    assert stopped.value.reason == "pause"
    assert time.monotonic() - began < 10
    assert things.execute("SELECT 1").fetchall() == [(1,)]


def test_it_reads_only(things: Session) -> None:
    write = Relation(
        "write", "id", "notice", "", {"things": THINGS.name}, "SELECT nextval('public.n') AS key FROM {things}"
    )
    things.execute("CREATE SEQUENCE public.n")
    _add(things, (1, None, None, "free", None, 0))
    with pytest.raises(RunFailed, match="ReadOnlySqlTransaction"):
        examine(things, replace(PLAN, tables=(replace(THINGS, relations=(write,)),)))


def _context(
    dsn: str, store: Path, kind: RunKind, config: RunConfig, record: RunRecord, seen: list[Progress]
) -> RunContext:
    vault = Vault(DirectoryStore(store), MasterKeys({"key-1": bytes(range(32))}))
    return RunContext(
        run_id=uuid4(), attempt=1, kind=kind, plan=PLAN, target=Target(dsn), vault=vault, journal=record.next_attempt(),
        report=seen.append, read_config=lambda: config,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "on_invalid", "stops"),
    [(RunKind.MIGRATION, "stop", True), (RunKind.MIGRATION, "skip", False), (RunKind.VALIDATION, "stop", False)],
)
def test_the_phase(
    things: Session, target_database: str, tmp_path: Path, kind: RunKind, on_invalid: str, *, stops: bool
) -> None:
    _add(things, (1, "nobody", None, None, None, 0), (2, None, None, "free", 2, 0))
    record, seen = RunRecord(), list[Progress]()
    context = _context(target_database, tmp_path, kind, RunConfig(on_invalid=on_invalid), record, seen)
    if stops:
        with pytest.raises(BlockingFindings, match="mail must be an e-mail address"):
            run(context)
    else:
        result = run(context)
        assert result.pop("seconds") >= 0
        assert result == {
            "valid": False, "findings": 3, "blocking": 1, "repairable": 1, "notice": 1, "rows": {THINGS.name: 2},
        }  # fmt: skip
    assert len(record.findings[Phase.VALIDATE]) == 3
    assert seen[-1].tables[0].done == 2


def test_a_clean_table_passes(things: Session, target_database: str, tmp_path: Path) -> None:
    _add(things, (1, "a@b.co", None, "free", None, 0))
    result = run(_context(target_database, tmp_path, RunKind.MIGRATION, RunConfig(), RunRecord(), []))
    assert result["valid"] is True
